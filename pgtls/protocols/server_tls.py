"""A server's TLS context, where Twisted asks for connections."""

from __future__ import annotations

from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from twisted.logger import Logger
from zope.interface import implementer

from pgtls.tls.record_size import Connection
from pgtls.tls.server_context import ServerTLSSettings, server_context

_log = Logger(namespace="pgtls.server")


@implementer(IOpenSSLServerConnectionCreator)
class ServerTLS:
    """Makes the TLS connections of a listener.

    :param settings: certificate, key, and the others of TLS.
    :param quiet: do not log what ought to be warned of: another process does.
    :ivar certificates: those that it shows, one for each kind of key.
    :raises ConfigurationError: a setting or a file cannot be used.
    """

    def __init__(self, settings: ServerTLSSettings, *, quiet: bool = False) -> None:
        made = server_context(settings)
        self.context = made.context
        self.certificates = made.certificates
        for warning in () if quiet else made.warnings:
            # Not "warning": an event with that field is one of Python's warnings to trial.
            _log.warn("{text}", text=warning)

    def serverConnectionForTLS(self, tlsProtocol: object) -> Connection:
        """A connection that waits for a ClientHello."""
        return Connection(self.context, None)
