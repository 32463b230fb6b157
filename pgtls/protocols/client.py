"""The client Protocol: one connection's negotiation on a Twisted transport.

The rules are :mod:`pgtls.wire.client_negotiation`'s. An application connects through
:class:`pgtls.protocols.endpoint.PgTLSClientEndpoint`, which makes one of these for each attempt.
"""

from __future__ import annotations

from collections.abc import Callable
from socket import socket
from typing import cast

from OpenSSL.SSL import Connection
from OpenSSL.SSL import Error as SSLError
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import (
    IAddress,
    IDelayedCall,
    IHandshakeListener,
    IOpenSSLClientConnectionCreator,
    IProtocol,
    IProtocolFactory,
)
from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from pgtls.conninfo.connection_string import ConnInfo, Host
from pgtls.conninfo.keywords import SSLCertMode
from pgtls.errors import (
    AuthenticationNotAllowed,
    ConnectFailed,
    NegotiationRefused,
    PgTLSError,
    ProtocolViolation,
)
from pgtls.protocols.connection_info import CLOSE_TIMEOUT
from pgtls.protocols.handshake_errors import tls_reason
from pgtls.tls.client_context import ClientTLS
from pgtls.transport.client_socket import check_peer, set_tcp_options
from pgtls.transport.name_resolution import check_address
from pgtls.transport.reactor import IReactor
from pgtls.transport.relay_transport import INegotiableTransport
from pgtls.wire.client_negotiation import (
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
from pgtls.wire.negotiation import Send
from pgtls.wire.required_authentication import AuthenticationCheck

_log = Logger(namespace="pgtls.client")

#: How a negotiation ends: with the application's protocol, or with what is to follow.
NegotiationOutcome = IProtocol | Reconnect | NextHost | Fail


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

    :param negotiation: decides what to do.
    :param host: the host, with its address.
    :param conninfo: the connection string.
    :param make_tls: makes the TLS of the connection string when it is needed.
    :param application_factory: the application's factory.
    :param observe: is told of each event.
    :param negotiation: the rules for this connection.
    :param host: the server, with the address that is connected to.
    :param conninfo: how to connect.
    :param make_tls: makes what the connection string asks of TLS, when it is needed.
    :param application_factory: makes the application's protocol.
    :param observe: is told what happens, as it happens.
    :param ended: is called once, with the outcome.
    :param reactor: Twisted's reactor.
    :param preface: goes in front of everything.
    :ivar authentication: what watches the application's connection until AuthenticationOk, where
        the connection string requires something of the server; None else. An application whose
        server asks for what is not allowed loses its connection for
        :class:`~pgtls.errors.AuthenticationNotAllowed`, without having been asked.
    """

    transport: INegotiableTransport

    def __init__(
        self,
        negotiation: ClientNegotiation,
        host: Host,
        conninfo: ConnInfo,
        make_tls: Callable[[], ClientTLS],
        application_factory: IProtocolFactory,
        observe: Callable[[Event], None],
        ended: Callable[[NegotiationOutcome], None],
        reactor: IReactor,
        preface: bytes = b"",
    ) -> None:
        self._negotiation = negotiation
        self._host = host
        self._conninfo = conninfo
        self._make_tls = make_tls
        self._application_factory = application_factory
        self._observe = observe
        self._reactor = reactor
        self._preface = preface
        self._tls: ClientTLS | None = None
        self._handshaking = False
        self._lookup: Deferred[None] | None = None  # while it goes on
        self._application: IProtocol | None = None
        self._linger: IDelayedCall | None = None
        self._ended: Callable[[NegotiationOutcome], None] | None = ended
        self.authentication: AuthenticationCheck | None = None
        self._refusal: PgTLSError | None = None  # of the server's authentication

    def connectionMade(self) -> None:
        """The connection is up: begin."""
        connection = cast(socket, self.transport.getHandle())
        requirepeer = self._conninfo.requirepeer
        try:
            if self._host.unix_path is None:
                set_tcp_options(connection, self._conninfo)
            elif requirepeer is not None:
                check_peer(connection, requirepeer)
        except ConnectFailed as error:
            self._end(NextHost(error))
        except NegotiationRefused as error:
            self._perform(self._negotiation.connected(error))
        else:
            if self._preface:
                self.transport.write(self._preface)
            self._perform(self._negotiation.connected())

    def dataReceived(self, data: bytes) -> None:
        """Bytes from the server, decrypted where TLS is up, until the application gets them."""
        if self._lookup is not None:
            self._lookup.cancel()
            self._verified(ProtocolViolation("received data before the startup packet was sent"))
        else:
            self._perform(self._negotiation.receive(data))

    def handshakeCompleted(self) -> None:
        """TLS is up: verify the server."""
        if self._tls is None or not self._handshaking:
            return
        self._handshaking = False
        try:
            self._tls.verify(self._tls_connection(), self._host)
        except PgTLSError as error:
            self._verified(error)
            return
        if self._conninfo.check_address:
            self._check_address()
        else:
            self._verified()

    def _tls_connection(self) -> Connection:
        return cast(Connection, self.transport.getHandle())

    def _check_address(self) -> None:
        address = self.transport.getPeer().host
        self._lookup = Deferred.fromCoroutine(
            check_address(self._reactor, self._host.host, address)
        )
        self._lookup.addCallback(self._verified).addErrback(self._not_verified)

    def _not_verified(self, failure: Failure) -> None:
        if isinstance(failure.value, PgTLSError):
            self._verified(failure.value)
        elif not failure.check(CancelledError):
            # Not ours: what the application raised, as Twisted does with it elsewhere.
            _log.failure("the connection is closed for an error", failure)
            self._abort()

    def _verified(self, error: PgTLSError | None = None) -> None:
        """The server is verified, or ``error`` says why not."""
        self._lookup = None
        alpn = self._tls_connection().get_alpn_proto_negotiated().decode("ascii", "replace")
        self._perform(self._negotiation.handshake_completed(alpn or None, error))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The server is gone, or we closed."""
        self.connected = 0  # Twisted leaves it at 1, and there is nothing left to close
        if self._linger is not None:
            self._linger.cancel()
            self._linger = None
        if self._application is not None:
            refusal = self._refusal
            self._application.connectionLost(reason if refusal is None else Failure(refusal))
            self._application_factory.doStop()
            if self._ended is not None:
                self._fire(Fail(ConnectFailed("the application failed when it was to begin")))
        elif self._tls is not None and self._handshaking:
            error = self._tls.handshake_error(self._tls_connection(), tls_reason(reason))
            self._perform(self._negotiation.handshake_failed(error))
        elif isinstance(reason.value, SSLError):
            # With TLS 1.3 the server's verdict on our certificate comes when we think TLS is up.
            self._perform(self._negotiation.lost(NegotiationRefused(tls_reason(reason))))
        else:
            self._perform(self._negotiation.lost())
        if self._lookup is not None:
            self._lookup.cancel()
        self._let_go()

    def _let_go(self) -> None:
        """Break the cycles, or buffers and TLS stay until the garbage collector comes by; Twisted
        has one of transport and connector."""
        if connector := getattr(self.transport, "connector", None):
            connector.transport = None
        self._application = None
        self.transport = None  # type: ignore[assignment]
        self.__dict__.pop("dataReceived", None)

    def _perform(self, actions: list[Action]) -> None:
        for action in actions:
            if self._ended is None:
                return  # the attempt was cancelled by what the action before led to
            if isinstance(action, Send):
                self.transport.write(action.data)
            elif isinstance(action, Report):
                self._observe(action.event)
            elif isinstance(action, StartTLS):
                self._start_tls()
            elif isinstance(action, Ready):
                self._begin(action.rest)
            else:
                self._end(action)

    def _start_tls(self) -> None:
        try:
            self._tls = self._make_tls()
        except PgTLSError as error:
            self._perform(self._negotiation.handshake_failed(error))
            return
        self._handshaking = True
        self.transport.startTLS(_ConnectionCreator(self._tls, self._host))

    def _begin(self, rest: bytes) -> None:
        if (error := self._certificate_error()) is not None:
            self._end(Fail(error))
            return
        address: IAddress = self.transport.getPeer()
        application = self._application_factory.buildProtocol(address)
        if application is None:
            self._end(Fail(ConnectFailed("the application takes no connection")))
            return
        self._application_factory.doStart()
        self._application = application
        check = self.authentication = self._negotiation.authentication
        watched = check is not None and not check.completed
        self.dataReceived = (  # type: ignore[method-assign]
            self._authenticating if watched else application.dataReceived
        )
        del self._negotiation  # it is over, and idle sessions are many
        application.makeConnection(self.transport)
        self._fire(application)
        if rest and self.connected:
            application.dataReceived(rest)

    def _authenticating(self, data: bytes) -> None:
        """Bytes for the application before AuthenticationOk, where something is required of the
        server."""
        application, check = self._application, self.authentication
        if application is None or check is None or self._refusal is not None:
            return
        try:
            data = check.from_server(data)
        except (AuthenticationNotAllowed, ProtocolViolation) as error:
            error.where = self._host.where
            self._refusal = error
            self.transport.abortConnection()
            return
        if check.completed:
            self.dataReceived = application.dataReceived  # type: ignore[method-assign]
        if data:
            application.dataReceived(data)

    def _certificate_error(self) -> NegotiationRefused | None:
        """What is wrong under ``sslcertmode=require``. libpq looks when the server lets it in; an
        application that authenticates by itself has begun long before."""
        if self._conninfo.sslcertmode is not SSLCertMode.REQUIRE:
            return None
        if self._tls is None or not self._tls.asked_for_certificate(self._tls_connection()):
            return NegotiationRefused("server did not request an SSL certificate")
        if not self._tls.has_certificate:
            return NegotiationRefused("server accepted connection without a valid SSL certificate")
        return None

    def _end(self, outcome: Reconnect | NextHost | Fail) -> None:
        if self.connected:
            self._linger = self._reactor.callLater(CLOSE_TIMEOUT, self._abort)
            self.transport.loseConnection()
        self._fire(outcome)

    def _fire(self, outcome: NegotiationOutcome) -> None:
        ended, self._ended = self._ended, None
        if ended is not None:
            ended(outcome)

    def give_up(self) -> None:
        """Close, and report no outcome."""
        self._ended = None
        self._abort()

    def _abort(self) -> None:
        self._linger = None
        if self.connected:
            self.transport.abortConnection()
