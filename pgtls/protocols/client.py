"""The client Protocol: one connection's negotiation on a Twisted transport.

The rules are :mod:`pgtls.wire.client`'s. An application connects through
:class:`pgtls.protocols.endpoint.PgTLSClientEndpoint`, which makes one of these for each attempt.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from OpenSSL.SSL import Connection
from OpenSSL.SSL import Error as SSLError
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IAddress,
    IDelayedCall,
    IHandshakeListener,
    IOpenSSLClientConnectionCreator,
    IProtocol,
    IProtocolFactory,
    IReactorTime,
    ITCPTransport,
)
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from pgtls.protocols.negotiated import CLOSE_TIMEOUT
from pgtls.protocols.text import tls_reason
from pgtls.tls.client_context import ClientTLS
from pgtls.wire.client import (
    Action,
    ClientNegotiation,
    Event,
    Fail,
    NextHost,
    Ready,
    Reconnect,
    Report,
    StartTLS,
)
from pgtls.wire.conninfo import Host
from pgtls.wire.errors import ConnectFailed, NegotiationRefused, PgTLSError
from pgtls.wire.server import Send

#: How an attempt can end: with an application's protocol, or with what is to follow.
Outcome = IProtocol | Reconnect | NextHost | Fail


@implementer(IOpenSSLClientConnectionCreator)
class _ConnectionCreator:
    """Makes the TLS connection to one host."""

    def __init__(self, tls: ClientTLS, host: Host) -> None:
        self._tls = tls
        self._host = host

    def clientConnectionForTLS(self, tlsProtocol: object) -> Connection:
        return self._tls.connection(self._host)


@implementer(IHandshakeListener)
class PgTLSClientProtocol(Protocol):
    """One connection to a server.

    Until the application may begin it negotiates; from then on it passes everything to the
    application's protocol, whose transport is this connection's own, with TLS on it or not.

    :ivar outcome: fires when the attempt has ended, one way or the other. Cancelling it closes the
        connection.
    """

    transport: Any  # ITCPTransport, ITLSTransport; or a wrapper of one

    def __init__(
        self,
        negotiation: ClientNegotiation,
        host: Host,
        make_tls: Callable[[], ClientTLS],
        application_factory: IProtocolFactory,
        observe: Callable[[Event], None],
        reactor: IReactorTime,
    ) -> None:
        self._negotiation = negotiation
        self._host = host
        self._make_tls = make_tls
        self._application_factory = application_factory
        self._observe = observe
        self._reactor = reactor
        self._handshake: ClientTLS | None = None  # while it goes on
        self._application: IProtocol | None = None
        self._linger: IDelayedCall | None = None
        self.outcome: Deferred[Outcome] = Deferred(lambda _: self._abort())

    def connectionMade(self) -> None:
        """The connection is up: begin."""
        if ITCPTransport.providedBy(self.transport):
            self.transport.setTcpNoDelay(True)
            self.transport.setTcpKeepAlive(True)
        self._perform(self._negotiation.connected())

    def dataReceived(self, data: bytes) -> None:
        """Bytes from the server, decrypted where TLS is up."""
        if self._application is not None:
            self._application.dataReceived(data)
        else:
            self._perform(self._negotiation.receive(data))

    def handshakeCompleted(self) -> None:
        """TLS is up: now who is it?"""
        tls, self._handshake = self._handshake, None
        if tls is None:
            return
        connection = self.transport.getHandle()
        not_verified = None
        try:
            tls.verify(connection, self._host)
        except PgTLSError as error:
            not_verified = error
        alpn = connection.get_alpn_proto_negotiated().decode("ascii", "replace")
        self._perform(self._negotiation.handshake_completed(alpn or None, not_verified))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The server is gone, or we closed."""
        self.connected = 0  # Twisted leaves it at 1, and there is nothing left to close
        if self._linger is not None:
            self._linger.cancel()
            self._linger = None
        if self._application is not None:
            self._application.connectionLost(reason)
            self._application_factory.doStop()
        elif self._handshake is not None:
            tls, self._handshake = self._handshake, None
            failure = tls.failure(self.transport.getHandle())
            error = failure or NegotiationRefused(tls_reason(reason))
            self._perform(self._negotiation.handshake_failed(error))
        elif reason.check(SSLError):
            # With TLS 1.3 the server's verdict on our certificate comes when we think TLS is up.
            self._perform(self._negotiation.lost(NegotiationRefused(tls_reason(reason))))
        else:
            self._perform(self._negotiation.lost())

    def _perform(self, actions: list[Action]) -> None:
        for action in actions:
            match action:
                case Send(data):
                    self.transport.write(data)
                case Report(event):
                    if not self.outcome.called:  # whoever cancelled wants to hear no more
                        self._observe(event)
                case StartTLS():
                    self._start_tls()
                case Ready(rest):
                    self._begin(rest)
                case Reconnect() | NextHost() | Fail():
                    self._end(action)

    def _start_tls(self) -> None:
        try:
            self._handshake = tls = self._make_tls()
        except PgTLSError as error:
            self._perform(self._negotiation.handshake_failed(error))
            return
        self.transport.startTLS(_ConnectionCreator(tls, self._host))

    def _begin(self, rest: bytes) -> None:
        address: IAddress = self.transport.getPeer()
        application = self._application_factory.buildProtocol(address)
        if application is None:
            self._end(Fail(ConnectFailed("the application takes no connection")))
            return
        self._application_factory.doStart()
        self._application = application
        application.makeConnection(self.transport)
        self._fire(application)
        if rest and self.connected:
            application.dataReceived(rest)

    def _end(self, outcome: Reconnect | NextHost | Fail) -> None:
        if self.connected:
            self._linger = self._reactor.callLater(CLOSE_TIMEOUT, self._abort)
            self.transport.loseConnection()
        self._fire(outcome)

    def _fire(self, outcome: Outcome) -> None:
        if not self.outcome.called:
            self.outcome.callback(outcome)

    def _abort(self) -> None:
        self._linger = None
        if self.connected:
            self.transport.abortConnection()
