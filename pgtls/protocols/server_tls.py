"""A server's TLS context, where Twisted asks for connections."""

from __future__ import annotations

from OpenSSL.SSL import Connection
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from zope.interface import implementer

from pgtls.tls.server_context import ServerTLSSettings, server_context


@implementer(IOpenSSLServerConnectionCreator)
class ServerTLS:
    """Makes the TLS connections of a listener.

    :raises ConfigurationError: a setting or a file cannot be used.
    """

    def __init__(self, settings: ServerTLSSettings) -> None:
        self.context = server_context(settings)

    def serverConnectionForTLS(self, tlsProtocol: object) -> Connection:
        """A connection that waits for a ClientHello."""
        return Connection(self.context, None)
