"""The server Protocol: answers the SSL probe, starts TLS, hands over the StartupMessage.

The rules are :mod:`pgtls.wire.server_negotiation`'s; here they meet a Twisted transport.
"""

from __future__ import annotations

from functools import cache
from socket import socket
from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import (
    IAddress,
    IDelayedCall,
    IHalfCloseableProtocol,
    IHandshakeListener,
    IProtocol,
    ITCPTransport,
    ITLSTransport,
    IUNIXTransport,
)
from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger
from twisted.protocols.policies import ProtocolWrapper
from twisted.python.failure import Failure
from zope.interface import alsoProvides, implementer

from pgtls.policy.client_identity import ClientNotVerified
from pgtls.protocols.connection_info import CLOSE_TIMEOUT, address_text, negotiated_tls
from pgtls.protocols.connection_log import fields, log_line, tls_text
from pgtls.protocols.handshake_errors import is_tls_error, tls_reason
from pgtls.protocols.interfaces import IPostgreSQLApplication
from pgtls.protocols.places import Place
from pgtls.protocols.proxied_client import ProxiedClient, proxied_client
from pgtls.tls.tls_info import NegotiatedTLS
from pgtls.tls.verify_failures import failure_of
from pgtls.transport.keepalive import set_tcp_options
from pgtls.transport.relay_transport import unread
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

_INCOMPLETE_HEADER = "PROXY header refused: it is not complete"


@implementer(IHandshakeListener)
class PgTLSServerProtocol(Protocol):
    """One client's connection.

    Until the StartupMessage is there it negotiates; from then on it passes everything to the
    application's protocol, whose transport is this connection's own, with TLS on it or not.
    """

    factory: PgTLSServerFactory
    transport: Any  # ITCPTransport, ITLSTransport where it can be; or a wrapper of one

    def __init__(self) -> None:
        self._application: IProtocol | None = None
        self._handshaking = False
        self._tls: NegotiatedTLS | None = None  # from the handshake to the StartupMessage
        self._timer: IDelayedCall | None = None
        self._proxied: ProxiedClient | None = None

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
        if ITCPTransport.providedBy(self.transport):
            self.transport.setTcpNoDelay(True)
            self.transport.setTcpKeepAlive(True)
            if factory.tcp_options:
                self._set_tcp_options()
        self._negotiation = ServerNegotiation(
            _policy(
                factory.settings.ssl,
                factory.settings.cancel,
                ITLSTransport.providedBy(self.transport)
                and not IUNIXTransport.providedBy(self.transport),
            ),
            self._session_refusal,
            self._handshake_refusal,
        )
        self._proxied = proxied_client(self.transport, self._close)
        timeout = factory.settings.authentication_timeout
        if place is Place.REFUSED:
            timeout = min(timeout, REFUSAL_TIMEOUT)
        self._timer = factory.reactor.callLater(timeout, self._timed_out)

    def _set_tcp_options(self) -> None:
        connection = self.transport.getHandle()
        if isinstance(connection, socket):  # not where an endpoint has put TLS below
            set_tcp_options(connection, self.factory.tcp_options)

    def _session_refusal(self) -> ErrorResponse | None:
        return self.factory.places.session_refusal(self)

    def _handshake_refusal(self) -> ErrorResponse | None:
        return self.factory.places.handshake_refusal(self)

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
        if self._handshaking:
            self._note_failed_handshake(reason)
        elif is_tls_error(reason):
            self._note(tls_reason(reason), {})
        if self._application is not None:
            self._application.connectionLost(reason)
        elif self._handshaking:
            pass  # that is all there is to say
        elif self._proxied is not None and self._proxied.interrupted:
            self._close(_INCOMPLETE_HEADER)
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
                self._cancel(action.request)
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
        if client_hello:
            unread(self.transport, client_hello)

    def _cancel(self, request: CancelRequest) -> None:
        if self.factory.places.cancel(self):
            self._deliver(request, b"")
        elif self.factory.dropped_cancels.allows():
            self._close("cancel request dropped: too many are being carried out at this moment")
        else:
            self._close(None)

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
        if isinstance(packet, StartupMessage) or self.factory.logged_cancels.allows():
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
        if self._proxied is not None and self._proxied.header is None:
            self._close(_INCOMPLETE_HEADER)
        else:
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


@cache
def _policy(ssl: SSL, cancel: CancelPolicy, tls_available: bool) -> ServerPolicy:
    """Shared: connections are many, policies few."""
    return ServerPolicy(ssl, cancel, tls_available)
