"""TLS for anything that speaks PostgreSQL: the public names, nothing else.

They are loaded when first used: ``import pgtls.wire`` brings in neither Twisted nor OpenSSL.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pgtls.protocols.client import PgTLSClientProtocol as PgTLSClientProtocol
    from pgtls.protocols.endpoint import PgTLSClientEndpoint as PgTLSClientEndpoint
    from pgtls.protocols.interfaces import IPostgreSQLApplication as IPostgreSQLApplication
    from pgtls.protocols.negotiated import negotiated_tls as negotiated_tls
    from pgtls.protocols.server import PgTLSServerFactory as PgTLSServerFactory
    from pgtls.protocols.server import PgTLSServerProtocol as PgTLSServerProtocol
    from pgtls.protocols.server_settings import ListenerSettings as ListenerSettings
    from pgtls.protocols.server_tls import ServerTLS as ServerTLS
    from pgtls.protocols.strings import PgTLSServerEndpoint as PgTLSServerEndpoint
    from pgtls.tls.client_identity import ClientCert as ClientCert
    from pgtls.tls.client_identity import ClientName as ClientName
    from pgtls.tls.facts import NegotiatedTLS as NegotiatedTLS
    from pgtls.tls.server_context import ServerTLSSettings as ServerTLSSettings
    from pgtls.wire.attempts import SSLMode as SSLMode
    from pgtls.wire.attempts import SSLNegotiation as SSLNegotiation
    from pgtls.wire.client import Event as Event
    from pgtls.wire.conninfo import ConnInfo as ConnInfo
    from pgtls.wire.conninfo import Host as Host
    from pgtls.wire.errors import CertificateNotVerified as CertificateNotVerified
    from pgtls.wire.errors import ConfigurationError as ConfigurationError
    from pgtls.wire.errors import ConnectFailed as ConnectFailed
    from pgtls.wire.errors import NegotiationRefused as NegotiationRefused
    from pgtls.wire.errors import PgTLSError as PgTLSError
    from pgtls.wire.errors import ProtocolViolation as ProtocolViolation
    from pgtls.wire.errors import ServerRejected as ServerRejected
    from pgtls.wire.messages import CancelRequest as CancelRequest
    from pgtls.wire.messages import ErrorResponse as ErrorResponse
    from pgtls.wire.messages import StartupMessage as StartupMessage
    from pgtls.wire.server import SSL as SSL
    from pgtls.wire.server import CancelPolicy as CancelPolicy

_HOMES = {
    "PgTLSClientProtocol": "pgtls.protocols.client",
    "PgTLSClientEndpoint": "pgtls.protocols.endpoint",
    "IPostgreSQLApplication": "pgtls.protocols.interfaces",
    "negotiated_tls": "pgtls.protocols.negotiated",
    "PgTLSServerFactory": "pgtls.protocols.server",
    "PgTLSServerProtocol": "pgtls.protocols.server",
    "ListenerSettings": "pgtls.protocols.server_settings",
    "ServerTLS": "pgtls.protocols.server_tls",
    "PgTLSServerEndpoint": "pgtls.protocols.strings",
    "ClientCert": "pgtls.tls.client_identity",
    "ClientName": "pgtls.tls.client_identity",
    "NegotiatedTLS": "pgtls.tls.facts",
    "ServerTLSSettings": "pgtls.tls.server_context",
    "SSLMode": "pgtls.wire.attempts",
    "SSLNegotiation": "pgtls.wire.attempts",
    "Event": "pgtls.wire.client",
    "ConnInfo": "pgtls.wire.conninfo",
    "Host": "pgtls.wire.conninfo",
    "CertificateNotVerified": "pgtls.wire.errors",
    "ConfigurationError": "pgtls.wire.errors",
    "ConnectFailed": "pgtls.wire.errors",
    "NegotiationRefused": "pgtls.wire.errors",
    "PgTLSError": "pgtls.wire.errors",
    "ProtocolViolation": "pgtls.wire.errors",
    "ServerRejected": "pgtls.wire.errors",
    "CancelRequest": "pgtls.wire.messages",
    "ErrorResponse": "pgtls.wire.messages",
    "StartupMessage": "pgtls.wire.messages",
    "SSL": "pgtls.wire.server",
    "CancelPolicy": "pgtls.wire.server",
}

__all__ = sorted(_HOMES)  # noqa: PLE0605 - the table is the one place to add a name


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
