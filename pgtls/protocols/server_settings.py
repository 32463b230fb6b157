"""What a listener can be told, in ``postgresql.conf``'s and ``pg_hba.conf``'s names."""

from __future__ import annotations

import attrs

from pgtls import settings
from pgtls.policy.client_identity import ClientCert, ClientName
from pgtls.tls.server_context import ServerTLSSettings
from pgtls.wire.server_negotiation import SSL, CancelPolicy


@attrs.frozen
class ListenerSettings:
    """One listener: whether and how it does TLS, and whom it lets in."""

    ssl: SSL = settings.choice(
        SSL.REQUIRE, "no TLS, TLS and plaintext, or TLS only (a Unix socket never has TLS)"
    )
    tls: ServerTLSSettings = settings.group(ServerTLSSettings)
    clientcert: ClientCert = settings.choice(
        ClientCert.NO, "whether a client certificate is needed, and must name the role"
    )
    clientname: ClientName = settings.choice(
        ClientName.CN, "what of the certificate must name the role under verify-full"
    )
    map: str = settings.text("", "the map in ident_file from certificate names to roles")
    ident_file: str = settings.text("", "a file of maps in pg_ident.conf's format")
    cancel: CancelPolicy = settings.choice(
        CancelPolicy.ANY, "cancel requests in plaintext too (libpq before 17), or inside TLS only"
    )
    authentication_timeout: float = settings.number(
        60.0,
        "seconds until the startup packet must be complete, and until the upstream must answer",
        minimum=0.1,
        maximum=86400,
        whole=False,
    )
    max_connections: int = settings.number(
        1000, "clients at a time", minimum=1, maximum=1_000_000, whole=True
    )
