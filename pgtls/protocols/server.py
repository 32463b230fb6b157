"""The server Protocol: answers the SSL probe, starts TLS, hands over the StartupMessage.

The rules are :mod:`pgtls.wire.server_negotiation`'s; here they meet a Twisted transport.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import (
    IAddress,
    IDelayedCall,
    IHalfCloseableProtocol,
    IHandshakeListener,
    IOpenSSLServerConnectionCreator,
    IProtocol,
    IProtocolFactory,
    IReactorTime,
    ITCPTransport,
    ITLSTransport,
    IUNIXTransport,
)
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.logger import Logger
from twisted.protocols.policies import ProtocolWrapper
from twisted.python.failure import Failure
from zope.interface import alsoProvides, implementer

from pgtls.errors import ConfigurationError
from pgtls.policy.client_identity import ClientNotVerified
from pgtls.protocols.admission import Admission
from pgtls.protocols.connection_info import CLOSE_TIMEOUT, address_text, negotiated_tls
from pgtls.protocols.connection_log import fields, log_line, tls_text
from pgtls.protocols.handshake_errors import tls_reason
from pgtls.protocols.interfaces import IPostgreSQLApplication
from pgtls.protocols.server_settings import ListenerSettings
from pgtls.tls.tls_info import NegotiatedTLS
from pgtls.tls.verify_failures import failure_of
from pgtls.transport.speed_up import speed_up
from pgtls.wire.messages import CancelRequest, ErrorResponse, StartupMessage
from pgtls.wire.negotiation import Send
from pgtls.wire.server_negotiation import (
    SSL,
    Action,
    Cancel,
    CancelPolicy,
    Close,
    ServerNegotiation,
    ServerPolicy,
    StartTLS,
    Startup,
)

_log = Logger(namespace="pgtls.server")

#: Seconds that a client has to say what it wants where there is no room for it.
FULL_TIMEOUT = 5.0


@implementer(IHandshakeListener)
class PgTLSServerProtocol(Protocol):
    """One client's connection.

    Until the StartupMessage is there it negotiates; from then on it passes everything to the
    application's protocol, whose transport is this connection's own, with TLS on it or not.
    """

    factory: PgTLSServerFactory
    transport: Any  # ITCPTransport, ITLSTransport where it can be; or a wrapper of one

    def __init__(self, full: bool) -> None:
        self._full = full
        self._application: IProtocol | None = None
        self._handshaking = False
        self._tls: NegotiatedTLS | None = None  # from the handshake to the StartupMessage
        self._timer: IDelayedCall | None = None

    @property
    def _address(self) -> IAddress:
        """The client's. Behind a proxy it is known when the proxy's header has come."""
        address: IAddress = self.transport.getPeer()
        return address

    def connectionMade(self) -> None:
        """Begin to wait for the first byte; ``authentication_timeout`` runs from here."""
        factory = self.factory
        factory.connection_made(self, self._full)
        if ITCPTransport.providedBy(self.transport):
            self.transport.setTcpNoDelay(True)
            self.transport.setTcpKeepAlive(True)
        speed_up(self.transport)
        self._negotiation = ServerNegotiation(
            _policy(
                factory.settings.ssl,
                factory.settings.cancel,
                ITLSTransport.providedBy(self.transport)
                and not IUNIXTransport.providedBy(self.transport),
                self._full,
            )
        )
        timeout = FULL_TIMEOUT if self._full else factory.settings.authentication_timeout
        self._timer = factory.reactor.callLater(timeout, self._timed_out)

    def dataReceived(self, data: bytes) -> None:
        """Bytes from the client, decrypted where TLS is up, until the application gets them."""
        self._perform(self._negotiation.receive(data))

    def __conform__(self, interface: object) -> object:
        """Half-closes are the application's, if it knows what to do about them."""
        if interface is IHalfCloseableProtocol and self._application is not None:
            return IHalfCloseableProtocol(self._application, None)
        return None

    def handshakeCompleted(self) -> None:
        """TLS is up."""
        self._handshaking = False
        self._tls = negotiated_tls(self.transport)
        self._perform(self._negotiation.handshake_completed(self._tls.alpn if self._tls else None))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The client is gone."""
        self.connected = 0  # Twisted leaves it at 1, and there is nothing left to close
        self._stop_timer()
        if self._application is not None:
            self._application.connectionLost(reason)
        elif self._handshaking:
            self._note_failed_handshake(reason)
        else:
            self._perform(self._negotiation.eof())
        self.factory.connection_lost(self)

    def _perform(self, actions: list[Action]) -> None:
        for action in actions:
            if isinstance(action, Send):
                self.transport.write(action.data)
            elif isinstance(action, StartTLS):
                self._start_tls(action.data)
            elif isinstance(action, Startup):
                self._deliver(action.message, action.rest)
            elif isinstance(action, Cancel):
                self._deliver(action.request, b"")
            elif isinstance(action, Close):
                self._close(action.reason)

    def _start_tls(self, client_hello: bytes) -> None:
        self._handshaking = True
        if isinstance(self.transport, ProtocolWrapper):
            # Twisted reports the handshake to the protocol at the bottom, which here is the
            # wrapper (haproxy's): let it pass the news on.
            self.transport.handshakeCompleted = self.handshakeCompleted  # type: ignore[attr-defined]
            alsoProvides(self.transport, IHandshakeListener)
        self.transport.startTLS(self.factory.tls)
        if client_hello and not getattr(self.transport, "peeked", False):
            self.transport.protocol.dataReceived(client_hello)

    def _deliver(self, packet: StartupMessage | CancelRequest, rest: bytes) -> None:
        # A listener may have had TLS below before this protocol came to negotiate.
        tls = self._tls or negotiated_tls(self.transport)
        self._tls = None
        if isinstance(packet, StartupMessage):
            try:
                self.factory.admission.admit(packet, tls)
            except ClientNotVerified as error:
                self._note_connection(packet, tls, f"{error.log_detail}: ")
                self.transport.write(error.response.encode())
                self._close(None)
                return
        self._note_connection(packet, tls)
        self._stop_timer()
        application = self.factory.wrapped.buildProtocol(self._address)
        if application is None:
            self._close("the application takes no connection")
            return
        self._application = application
        self.dataReceived = application.dataReceived  # type: ignore[method-assign]
        del self._negotiation  # it is over, and idle sessions are many
        application.makeConnection(self.transport)
        if not IPostgreSQLApplication.providedBy(application):
            application.dataReceived(packet.raw + rest)
            return
        if isinstance(packet, CancelRequest):
            application.cancel_requested(packet, tls)
            return
        application.startup_received(packet, tls)
        if rest:
            application.dataReceived(rest)

    def _timed_out(self) -> None:
        self._timer = None
        self._perform(self._negotiation.timed_out())

    def _close(self, reason: str | None) -> None:
        if reason is not None:
            self._note(reason, {})
        self._stop_timer()
        if self.connected:
            self._timer = self.factory.reactor.callLater(CLOSE_TIMEOUT, self._abort)
            self.transport.loseConnection()

    def _abort(self) -> None:
        self._timer = None
        self.transport.abortConnection()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _note(self, reason: str, event: dict[str, object]) -> None:
        event["address"] = address = address_text(self._address)
        event["reason"] = reason
        log_line(_log, f"{address}: {reason}", event)

    def _note_connection(
        self, packet: StartupMessage | CancelRequest, tls: NegotiatedTLS | None, why_not: str = ""
    ) -> None:
        startup = packet if isinstance(packet, StartupMessage) else None
        known = fields(startup, tls)
        what = f"user={known['user']} database={known['database']}" if startup else "cancel request"
        self._note(f"{why_not}{what} {tls_text(tls)}", known)

    def _note_failed_handshake(self, reason: Failure) -> None:
        text = f"could not accept SSL connection: {tls_reason(reason)}"
        failure = failure_of(self.transport.getHandle())
        if failure is None:
            self._note(text, {})
            return
        self._note(
            f"{text}. {failure}",
            {
                "depth": failure.depth,
                "verify_error": failure.reason,
                "client_dn": failure.subject,
                "client_serial": failure.serial,
                "issuer_dn": failure.issuer,
            },
        )


class _Closed(Protocol):
    """A connection that is closed as soon as it is there."""

    transport: Any

    def connectionMade(self) -> None:
        self.transport.abortConnection()


TOO_MANY_CLIENTS = ErrorResponse.fatal("53300", "sorry, too many clients already")


@cache
def _policy(ssl: SSL, cancel: CancelPolicy, tls_available: bool, full: bool) -> ServerPolicy:
    """Shared: connections are many, policies few."""
    return ServerPolicy(ssl, cancel, tls_available, TOO_MANY_CLIENTS if full else None)


class PgTLSServerFactory(Factory):
    """Makes the server side of PostgreSQL's negotiation in front of an application's factory.

    :param wrapped: the application's factory. Its protocols get the StartupMessage byte for byte
        in ``dataReceived``, or as values if they provide
        :class:`~pgtls.protocols.interfaces.IPostgreSQLApplication`.
    :param tls: makes the TLS connections; may be None where ``ssl`` is off.
    :param settings: whether TLS is offered or required, limits of time and number.
    :ivar connections: those that are open, not more than ``max_connections``.
    :ivar turned_away: those beyond, until they have heard that there is no room.
    :ivar census: takes how many are open here, and gives how many count: the same, unless other
        processes share the listener.
    :raises ConfigurationError: TLS is wanted, but there is nothing to make it with.
    """

    noisy = False

    def __init__(
        self,
        wrapped: IProtocolFactory,
        tls: IOpenSSLServerConnectionCreator | None,
        settings: ListenerSettings | None = None,
        *,
        reactor: IReactorTime | None = None,
    ) -> None:
        settings = settings or ListenerSettings()
        if tls is None and settings.ssl is not SSL.OFF:
            raise ConfigurationError(f'ssl is "{settings.ssl}", but there is no certificate for it')
        self.wrapped = wrapped
        self.tls = tls
        self.settings = settings
        self.admission = Admission(settings)
        self.connections: set[PgTLSServerProtocol] = set()
        self.turned_away: set[PgTLSServerProtocol] = set()
        self.census: Callable[[int], int] = int
        self._drained: Deferred[None] | None = None
        if reactor is None:
            from twisted.internet import reactor  # noqa: PLC0415 - importing it installs it
        self.reactor: IReactorTime = reactor  # type: ignore[assignment]

    def buildProtocol(self, addr: IAddress | None) -> Protocol:
        """A connection came in. Past ``max_connections`` it only gets to hear so; where as many
        again are waiting to hear it, it is closed at once."""
        limit = self.settings.max_connections
        full = self.census(len(self.connections)) >= limit
        if full and len(self.turned_away) >= limit:
            return _Closed()  # not None, which wrappers such as haproxy's do not expect
        protocol = PgTLSServerProtocol(full)
        protocol.factory = self
        return protocol

    def drain(self, timeout: float) -> Deferred[None]:
        """Wait until every connection is closed; those that are not in ``timeout`` seconds are
        closed then.

        :returns: fires when none is left.
        """
        if not self.connections | self.turned_away:
            return succeed(None)
        self._drained = Deferred()
        abort = self.reactor.callLater(timeout, self._abort_all)
        return self._drained.addCallback(lambda _: abort.cancel() if abort.active() else None)

    def _abort_all(self) -> None:
        for connection in self.connections | self.turned_away:
            connection.transport.abortConnection()

    def connection_made(self, connection: PgTLSServerProtocol, full: bool) -> None:
        """A connection is open."""
        (self.turned_away if full else self.connections).add(connection)
        self.census(len(self.connections))

    def connection_lost(self, connection: PgTLSServerProtocol) -> None:
        """A connection is closed."""
        self.connections.discard(connection)
        self.turned_away.discard(connection)
        self.census(len(self.connections))
        if self._drained is not None and not self.connections | self.turned_away:
            drained, self._drained = self._drained, None
            drained.callback(None)

    def doStart(self) -> None:
        """Start the application's factory too."""
        super().doStart()  # type: ignore[no-untyped-call]
        self.wrapped.doStart()

    def doStop(self) -> None:
        """Stop the application's factory too."""
        self.wrapped.doStop()
        super().doStop()  # type: ignore[no-untyped-call]
