"""Makes pgtls known to twistd, and its endpoint strings to Twisted."""

from twisted.application.service import ServiceMaker

pgtls = ServiceMaker(
    "pgtls",
    "pgtls.gateway.options",
    "TLS for anything that speaks PostgreSQL.",
    "pgtls",
)
