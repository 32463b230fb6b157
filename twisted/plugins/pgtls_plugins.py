"""Makes ``twistd pgtls`` and the ``pgtls:`` endpoint strings known to Twisted."""

from twisted.application.service import ServiceMaker

from pgtls.protocols.strings import ClientStringParser, ServerStringParser

gateway = ServiceMaker(
    "pgtls",
    "pgtls.daemon.options",
    "TLS for anything that speaks PostgreSQL.",
    "pgtls",
)
client_endpoint = ClientStringParser()
server_endpoint = ServerStringParser()
