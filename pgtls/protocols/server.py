"""The server Protocol: answers the SSL probe, starts TLS, hands over the StartupMessage.

The rules are :mod:`pgtls.wire.server_negotiation`'s; here they meet a Twisted transport.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, cast

import attrs
from OpenSSL.SSL import Connection
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IAddress,
    IHalfCloseableProtocol,
    IHandshakeListener,
    IOpenSSLServerConnectionCreator,
    IProtocol,
)
from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger
from twisted.protocols.policies import ProtocolWrapper
from twisted.python.failure import Failure
from zope.interface import alsoProvides, implementer

from pgtls.protocols.accepted_transport import prepare
from pgtls.protocols.connection_info import CLOSE_TIMEOUT, negotiated_tls, server_name
from pgtls.protocols.deciding import PendingDecision, ask
from pgtls.protocols.handshake_errors import accept_failure, is_tls_error, tls_reason
from pgtls.protocols.interfaces import IPostgreSQLApplication, IPostgreSQLSession
from pgtls.protocols.places import REFUSED
from pgtls.protocols.proxied_client import INCOMPLETE_HEADER, ProxiedClient, proxied_client
from pgtls.protocols.scram_authentication import PendingAuthentication
from pgtls.protocols.stages import Authenticate, Client, Decision, Refuse, Refused, Stage
from pgtls.tls.tls_info import NegotiatedTLS
from pgtls.tls.verify_failures import failure_of
from pgtls.transport.deadlines import Deadline
from pgtls.transport.half_close import half_closeable
from pgtls.transport.relay_transport import INegotiableTransport, unread
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

if TYPE_CHECKING:
    from pgtls.protocols.server_factory import PgTLSServerFactory

_log = Logger(namespace="pgtls.server")

#: Seconds that a client has to say what it wants where no session can begin.
REFUSAL_TIMEOUT = 5.0


@implementer(IHandshakeListener)
class PgTLSServerProtocol(Protocol):
    """One client's connection.

    Until the StartupMessage is there it negotiates; from then on it passes everything to the
    application's protocol, whose transport is this connection's own, with TLS on it or not.
    """

    factory: PgTLSServerFactory
    transport: INegotiableTransport
    _closing = False  # by us: why has been said

    def __init__(self) -> None:
        self._application: IProtocol | None = None
        self._handshaking = False
        self._tls: NegotiatedTLS | None = None  # from the handshake to the StartupMessage
        self._timer: Deadline | None = None
        self._proxied: ProxiedClient | None = None
        self._pending: PendingDecision | PendingAuthentication | None = None  # before the decision
        self._accepted = 0.0

    @property
    def negotiating(self) -> bool:
        """Whether the application has not got this connection yet."""
        return self._application is None

    @property
    def _address(self) -> IAddress:
        """The client's. Behind a proxy it is known when the proxy's header has come."""
        address: IAddress = self.transport.getPeer()
        return address

    def connectionMade(self) -> None:
        """Begin to wait for the first byte; ``authentication_timeout`` runs from here."""
        factory = self.factory
        place = factory.places.enter(self)
        self._accepted = factory.reactor.seconds()
        factory.observers.accepted(self.transport.getPeer())
        self._negotiation = ServerNegotiation(
            _policy(
                factory.settings.ssl,
                factory.settings.cancel,
                prepare(self.transport, factory.tcp_options),
                factory.has_peers,
            ),
            self._session_refusal,
            self._handshake_refusal,
        )
        self._proxied = proxied = proxied_client(self.transport, factory.proxies, self._close)
        if proxied is not None and not proxied.wrapped:
            self.dataReceived = self._header_received  # type: ignore[method-assign]
        timeout = factory.settings.authentication_timeout
        if place is REFUSED:
            timeout = min(timeout, REFUSAL_TIMEOUT)
        self._timer = factory.deadlines.call_later(timeout, self._timed_out)

    def _session_refusal(self) -> ErrorResponse | None:
        return self.factory.places.session_refusal(self)

    def _handshake_refusal(self) -> ErrorResponse | None:
        return self.factory.places.handshake_refusal(self)

    def dataReceived(self, data: bytes) -> None:
        """Bytes from the client, decrypted where TLS is up, until the application gets them."""
        if self._pending is None:
            self._perform(self._negotiation.receive(data))
        else:
            self._pending.receive(data)

    def _header_received(self, data: bytes) -> None:
        """Bytes from a proxy, until its header is there."""
        rest = self._proxied.receive(data) if self._proxied is not None else data
        if rest is not None:
            del self.dataReceived  # from here on the class's own
            self.dataReceived(rest)

    def __conform__(self, interface: object) -> object:
        """Half-closes are the application's, if it knows what to do about them."""
        if interface is IHalfCloseableProtocol and self._application is not None:
            return half_closeable(self._application)
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
        if not self._handshaking and is_tls_error(reason):
            self.factory.observers.tls_failed(self._address, tls_reason(reason))
        if self._application is not None:
            self._application.connectionLost(reason)
        elif self._handshaking:
            if not self._closing:
                self._handshake_failed(reason)
        elif self._pending is not None:
            self._pending.stop()
        elif self._proxied is not None and self._proxied.interrupted:
            self._close(INCOMPLETE_HEADER)
        else:
            self._perform(self._negotiation.eof())
        self.__dict__.pop("_negotiation", None)  # a cycle
        if self._proxied is not None:
            self._proxied = None
            self.__dict__.pop("dataReceived", None)  # another one
        self.factory.connection_lost(self)

    def _perform(self, actions: list[Action]) -> None:
        for action in actions:
            if isinstance(action, Send):
                self.transport.write(action.data)
            elif isinstance(action, StartTLS):
                self._start_tls(action.data)
            elif isinstance(action, Startup):
                self._startup(action.message, action.rest)
            elif isinstance(action, Cancel):
                self._cancel(action.request)
            elif isinstance(action, Close):
                self._close(action.reason, action.response)

    def _start_tls(self, client_hello: bytes) -> None:
        self._handshaking = True
        if isinstance(self.transport, ProtocolWrapper):
            # Twisted reports the handshake to the protocol at the bottom, which here is the
            # wrapper (haproxy's): let it pass the news on.
            self.transport.handshakeCompleted = self.handshakeCompleted  # type: ignore[attr-defined]
            alsoProvides(self.transport, IHandshakeListener)
        self.transport.startTLS(cast(IOpenSSLServerConnectionCreator, self.factory.tls))
        if client_hello:
            unread(self.transport, client_hello)

    def _handshake_failed(self, reason: Failure) -> None:
        connection = cast(Connection, self.transport.getHandle())
        self.factory.observers.refused(
            Refused(
                Stage.NEGOTIATION,
                self._address,
                accept_failure(reason, connection),
                verify_failure=failure_of(connection),
            )
        )

    def _negotiated_tls(self) -> NegotiatedTLS | None:
        # A listener may have had TLS below before this protocol came to negotiate.
        tls, self._tls = self._tls or negotiated_tls(self.transport), None
        return tls

    def _cancel(self, request: CancelRequest) -> None:
        tls = self._negotiated_tls()
        taken = self.factory.places.cancel(self)
        self.factory.observers.cancel_requested(self._address, tls, taken)
        application = self._begin_application() if taken else None
        if application is None:
            self._close(None)
        elif IPostgreSQLSession.providedBy(application) or IPostgreSQLApplication.providedBy(
            application
        ):
            application.cancel_requested(request, tls)
        else:
            application.dataReceived(request.raw)

    def _startup(self, startup: StartupMessage, rest: bytes) -> None:
        """The StartupMessage is there: may the client connect?"""
        tls, factory = self._negotiated_tls(), self.factory
        header = self._proxied.header if self._proxied is not None else None
        client = Client(
            startup,
            self._address,
            tls,
            server_name(self.transport) if tls is not None else None,
            self._accepted,
            header,
            self._proxied.proxy if self._proxied is not None and header is not None else None,
        )
        factory.observers.negotiated(client)
        decision = ask(factory.policy, client)
        if isinstance(decision, Deferred):
            self._pending = PendingDecision(
                client, rest, decision, self.transport, self._decided_later
            )
            self._pending.begin()
        else:
            self._decided(client, rest, decision)

    def _decided_later(self, client: Client, rest: bytes, decision: Decision) -> None:
        self._pending = None
        if refusal := self._session_refusal():  # since then a shutdown has begun
            decision = Refuse(refusal)
        self._decided(client, rest, decision)

    def _decided(self, client: Client, rest: bytes, decision: Decision) -> None:
        if isinstance(decision, Refuse):
            self._refuse(client, decision)
            return
        if isinstance(decision, Authenticate):
            self._pending = PendingAuthentication(
                client, rest, decision, self.transport, self._decided_later
            )
            self._pending.begin()
            return
        if decision.auth_method != client.auth_method:
            client = attrs.evolve(client, auth_method=decision.auth_method)
        self.factory.observers.admitted(client, decision)
        application = self._begin_application()
        if application is None:
            self._close("the application takes no connection")
        elif IPostgreSQLSession.providedBy(application):
            application.session_requested(client)
            if rest:
                application.dataReceived(rest)
        elif IPostgreSQLApplication.providedBy(application):
            application.startup_received(client.startup, client.tls)
            if rest:
                application.dataReceived(rest)
        else:
            application.dataReceived(client.startup.raw + rest)

    def _refuse(self, client: Client, refuse: Refuse) -> None:
        self.factory.observers.refused(
            Refused(Stage.POLICY, client.address, refuse.reason, refuse.response, client)
        )
        self.transport.write(refuse.response.encode())
        self._close(None)

    def _begin_application(self) -> IProtocol | None:
        """From now on the application's protocol gets everything.

        :returns: None where its factory makes none.
        """
        self._stop_timer()
        application = self.factory.wrapped.buildProtocol(self._address)
        if application is not None:
            self._application = application
            self.dataReceived = application.dataReceived  # type: ignore[method-assign]
            del self._negotiation  # it is over, and idle sessions are many
            application.makeConnection(self.transport)
        return application

    def _timed_out(self) -> None:
        self._timer = None
        if self._pending is not None:
            self._pending.time_out()
        elif self._proxied is not None and self._proxied.waiting:
            self._close(INCOMPLETE_HEADER)
        else:
            self._perform(self._negotiation.timed_out())

    def _close(self, reason: str | None, response: ErrorResponse | None = None) -> None:
        if reason is not None:
            self.factory.observers.refused(
                Refused(Stage.NEGOTIATION, self._address, reason, response)
            )
        self._stop_timer()
        self._closing = True
        if self.connected:
            self._timer = self.factory.deadlines.call_later(CLOSE_TIMEOUT, self._abort)
            self.transport.loseConnection()

    def _abort(self) -> None:
        self._timer = None
        self.abort()

    def abort(self) -> None:
        """End the connection at once. A handshake that it interrupts has not failed."""
        self._closing = True
        self.transport.abortConnection()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


@cache
def _policy(ssl: SSL, cancel: CancelPolicy, tls_available: bool, has_peers: bool) -> ServerPolicy:
    """Shared: connections are many, policies few."""
    return ServerPolicy(ssl, cancel, tls_available, has_peers)
