"""TLS for anything that speaks PostgreSQL: the public names, nothing else.

They are loaded when first used: ``import pgtls.wire`` brings in neither Twisted nor OpenSSL.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pgtls.conninfo.connection_string import ConnInfo as ConnInfo
    from pgtls.conninfo.connection_string import Host as Host
    from pgtls.conninfo.startup_packet import startup_message as startup_message
    from pgtls.errors import AuthenticationNotAllowed as AuthenticationNotAllowed
    from pgtls.errors import CertificateNotVerified as CertificateNotVerified
    from pgtls.errors import ConfigurationError as ConfigurationError
    from pgtls.errors import ConnectFailed as ConnectFailed
    from pgtls.errors import NegotiationRefused as NegotiationRefused
    from pgtls.errors import PgTLSError as PgTLSError
    from pgtls.errors import ProtocolViolation as ProtocolViolation
    from pgtls.policy.client_identity import ClientCert as ClientCert
    from pgtls.policy.client_identity import ClientName as ClientName
    from pgtls.protocols.client import PgTLSClientProtocol as PgTLSClientProtocol
    from pgtls.protocols.connection_info import negotiated_tls as negotiated_tls
    from pgtls.protocols.endpoint import PgTLSClientEndpoint as PgTLSClientEndpoint
    from pgtls.protocols.interfaces import IAccessPolicy as IAccessPolicy
    from pgtls.protocols.interfaces import IPostgreSQLApplication as IPostgreSQLApplication
    from pgtls.protocols.interfaces import IPostgreSQLSession as IPostgreSQLSession
    from pgtls.protocols.interfaces import IRouter as IRouter
    from pgtls.protocols.interfaces import ISession as ISession
    from pgtls.protocols.interfaces import ISessionObserver as ISessionObserver
    from pgtls.protocols.observers import SessionObserver as SessionObserver
    from pgtls.protocols.server import PgTLSServerProtocol as PgTLSServerProtocol
    from pgtls.protocols.server_factory import PgTLSServerFactory as PgTLSServerFactory
    from pgtls.protocols.server_settings import ListenerSettings as ListenerSettings
    from pgtls.protocols.server_tls import ServerTLS as ServerTLS
    from pgtls.protocols.stages import ADMIT as ADMIT
    from pgtls.protocols.stages import Admit as Admit
    from pgtls.protocols.stages import Client as Client
    from pgtls.protocols.stages import Refuse as Refuse
    from pgtls.protocols.stages import Refused as Refused
    from pgtls.protocols.stages import Upstream as Upstream
    from pgtls.protocols.strings import PgTLSServerEndpoint as PgTLSServerEndpoint
    from pgtls.tls.certificate import Certificate as Certificate
    from pgtls.tls.server_context import ServerTLSSettings as ServerTLSSettings
    from pgtls.tls.tls_info import NegotiatedTLS as NegotiatedTLS
    from pgtls.transport.reactor import IReactor as IReactor
    from pgtls.wire.attempts import SSLMode as SSLMode
    from pgtls.wire.attempts import SSLNegotiation as SSLNegotiation
    from pgtls.wire.client_negotiation import Event as Event
    from pgtls.wire.messages import CancelRequest as CancelRequest
    from pgtls.wire.messages import ErrorResponse as ErrorResponse
    from pgtls.wire.messages import ServerRejected as ServerRejected
    from pgtls.wire.messages import StartupMessage as StartupMessage
    from pgtls.wire.server_negotiation import SSL as SSL
    from pgtls.wire.server_negotiation import CancelPolicy as CancelPolicy

_HOMES = {
    "PgTLSClientProtocol": "pgtls.protocols.client",
    "PgTLSClientEndpoint": "pgtls.protocols.endpoint",
    "IPostgreSQLApplication": "pgtls.protocols.interfaces",
    "ADMIT": "pgtls.protocols.stages",
    "Admit": "pgtls.protocols.stages",
    "Client": "pgtls.protocols.stages",
    "Refuse": "pgtls.protocols.stages",
    "Refused": "pgtls.protocols.stages",
    "Upstream": "pgtls.protocols.stages",
    "IAccessPolicy": "pgtls.protocols.interfaces",
    "IRouter": "pgtls.protocols.interfaces",
    "IPostgreSQLSession": "pgtls.protocols.interfaces",
    "ISession": "pgtls.protocols.interfaces",
    "ISessionObserver": "pgtls.protocols.interfaces",
    "SessionObserver": "pgtls.protocols.observers",
    "negotiated_tls": "pgtls.protocols.connection_info",
    "PgTLSServerFactory": "pgtls.protocols.server_factory",
    "PgTLSServerProtocol": "pgtls.protocols.server",
    "ListenerSettings": "pgtls.protocols.server_settings",
    "ServerTLS": "pgtls.protocols.server_tls",
    "PgTLSServerEndpoint": "pgtls.protocols.strings",
    "ClientCert": "pgtls.policy.client_identity",
    "ClientName": "pgtls.policy.client_identity",
    "Certificate": "pgtls.tls.certificate",
    "NegotiatedTLS": "pgtls.tls.tls_info",
    "IReactor": "pgtls.transport.reactor",
    "ServerTLSSettings": "pgtls.tls.server_context",
    "SSLMode": "pgtls.wire.attempts",
    "SSLNegotiation": "pgtls.wire.attempts",
    "Event": "pgtls.wire.client_negotiation",
    "ConnInfo": "pgtls.conninfo.connection_string",
    "Host": "pgtls.conninfo.connection_string",
    "startup_message": "pgtls.conninfo.startup_packet",
    "AuthenticationNotAllowed": "pgtls.errors",
    "CertificateNotVerified": "pgtls.errors",
    "ConfigurationError": "pgtls.errors",
    "ConnectFailed": "pgtls.errors",
    "NegotiationRefused": "pgtls.errors",
    "PgTLSError": "pgtls.errors",
    "ProtocolViolation": "pgtls.errors",
    "ServerRejected": "pgtls.wire.messages",
    "CancelRequest": "pgtls.wire.messages",
    "ErrorResponse": "pgtls.wire.messages",
    "StartupMessage": "pgtls.wire.messages",
    "SSL": "pgtls.wire.server_negotiation",
    "CancelPolicy": "pgtls.wire.server_negotiation",
}

__all__ = sorted(_HOMES)  # noqa: PLE0605 - the table is the one place to add a name


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
