"""One session: the client's connection, the upstream's, and the relay between them."""

from __future__ import annotations

from functools import partial
from time import monotonic
from typing import Any

import attrs
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IAddress, IDelayedCall, IHalfCloseableProtocol
from twisted.internet.protocol import Factory, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from pgtls.conninfo.connection_string import Host
from pgtls.errors import ConnectFailed, PgTLSError, ProtocolViolation
from pgtls.gateway.authentication_watch import AuthenticationWatch
from pgtls.gateway.cancel import CancelForwarder
from pgtls.gateway.channel_binding_check import ChannelBinding
from pgtls.gateway.leg import Leg
from pgtls.gateway.tls_parameters import tls_parameters
from pgtls.protocols.connect_attempt import ConnectAttempt, ConnectOutcome
from pgtls.protocols.connection_info import address_text
from pgtls.protocols.connection_log import log_line, who
from pgtls.protocols.endpoint import PgTLSClientEndpoint
from pgtls.protocols.handshake_errors import is_tls_error, tls_reason
from pgtls.protocols.interfaces import IPostgreSQLApplication
from pgtls.tls.tls_info import NegotiatedTLS
from pgtls.transport.relay_transport import can_half_close
from pgtls.transport.tls_layer import TruncatedTLS
from pgtls.wire.messages import CancelRequest, ErrorResponse, ServerRejected, StartupMessage
from pgtls.wire.session_start import SessionStart
from pgtls.wire.startup_parameters import with_tls_parameters

_log = Logger(namespace="pgtls.gateway")

#: What a client may send before its upstream is there; one that sends more is not read from.
EARLY_LIMIT = 65536


@attrs.frozen
class Surroundings:
    """What all sessions of a gateway share.

    :ivar upstream: connects to the server.
    :ivar binding: what is to be done about SCRAM's channel binding.
    :ivar authentication_timeout: seconds that the server has for its first answer.
    :ivar tls_parameters: whether the server is told of the client's TLS.
    :ivar log_disconnections: whether the end of a session is logged.
    :ivar cancels: passes CancelRequests on, and knows the open sessions by their keys.
    :ivar upstream_legs: makes their connections to the server.
    """

    reactor: Any
    upstream: PgTLSClientEndpoint
    binding: ChannelBinding
    authentication_timeout: float
    tls_parameters: bool
    log_disconnections: bool
    cancels: CancelForwarder
    upstream_legs: Factory = attrs.field(init=False)

    @upstream_legs.default
    def _make_upstream_legs(self) -> Factory:
        return _UpstreamLegs(self)


class UpstreamLeg(Leg):
    """The connection to the server."""

    def __init__(self, shared: Surroundings) -> None:
        super().__init__(shared.reactor)
        self._shared = shared
        self._start: SessionStart | None = None
        self._key = b""
        self._host: Host | None = None
        self._authentication: AuthenticationWatch | None = None

    def begin(
        self, client: ClientLeg, host: Host | None, authentication: AuthenticationWatch | None
    ) -> None:
        """Relay for ``client`` what comes from ``host``; nothing has been read yet.

        :param authentication: watches the client until AuthenticationOk, where it must be watched.
        """
        self._host = host
        self._authentication = authentication
        self.join(client)
        client.join(self)
        self.notice_end()
        client.notice_end()
        self._start = SessionStart(self._shared.binding.editor(client.transport, self.transport))
        if authentication is None:
            client.go_unread()
        else:
            authentication.begin()

    def dataReceived(self, data: bytes) -> None:
        """Bytes from the server; until ReadyForQuery they are watched."""
        if self._start is not None:
            data = self._watched(self._start, data)
        if self._other is not None:
            self._other.transport.write(data)

    def _watched(self, start: SessionStart, data: bytes) -> bytes:
        data = start.receive(data)
        if self._authentication is not None:
            self._authentication.server_sent()
        if start.done:
            self._key, self._start = start.key, None
            self.go_unread()
            if self._host is not None:
                self._shared.cancels.keys.add(self._key, self._host)
        return data

    def peer_ended(self, broken: bool) -> None:
        """A client that does not read what is left does not keep its place for that."""
        if self._other is not None:
            self._other.limit_draining()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The server is gone."""
        if is_tls_error(reason) and self._host is not None:
            _log.error("{host}: {reason}", host=self._host.where, reason=tls_reason(reason))
        self._shared.cancels.keys.remove(self._key)
        if self._authentication is not None and isinstance(reason.value, PgTLSError):
            self._authentication.server_refused(reason.value)
        super().connectionLost(reason)


class _UpstreamLegs(Factory):
    noisy = False

    def __init__(self, shared: Surroundings) -> None:
        self._shared = shared

    def buildProtocol(self, addr: IAddress | None) -> UpstreamLeg:
        return UpstreamLeg(self._shared)


@implementer(IPostgreSQLApplication, IHalfCloseableProtocol)
class ClientLeg(Leg):
    """The connection from the client, from its StartupMessage on."""

    authentication: AuthenticationWatch | None = None  # what is sent goes there, until the end
    _began = 0.0
    _who = ""
    _limit: IDelayedCall | None = None

    def __init__(self, shared: Surroundings, address: IAddress | None) -> None:
        super().__init__(shared.reactor)
        self._shared = shared
        self._peer = address
        self._early = b""
        self._search: ConnectAttempt | None = None  # while it goes on

    @property
    def _address(self) -> str:
        return address_text(self._peer)

    def startup_received(self, startup: StartupMessage, tls: NegotiatedTLS | None) -> None:
        """The client wants a session: connect to the server for it."""
        if self._shared.log_disconnections:
            self._began = monotonic()
            self._who = who(startup)
        if self._shared.tls_parameters:
            try:
                startup = with_tls_parameters(startup, tls_parameters(tls, self._peer))
            except ProtocolViolation as error:
                _log.error(
                    "{client}: {who} {error}",
                    client=self._address,
                    who=who(startup),
                    error=error,
                )
                self.transport.write(ErrorResponse.fatal("08P01", error.reason).encode())
                self.finish()
                return
        shared = self._shared
        self._limit = shared.reactor.callLater(
            shared.authentication_timeout, self._too_late, startup
        )
        self._search = shared.upstream.attempt(
            shared.upstream_legs, startup, partial(self._found, startup)
        )
        self._search.begin()

    def cancel_requested(self, request: CancelRequest, tls: NegotiatedTLS | None) -> None:
        """Pass the request on to where the session's backend is; then close, without an answer."""
        # Not given up when the client goes: who does not wait for the end still wants it done.
        passed_on = self._shared.cancels.forward(request, self._shared.upstream)
        if passed_on is None:
            self.finish()
        else:
            passed_on.addCallback(lambda _: self.finish())

    def dataReceived(self, data: bytes) -> None:
        """Bytes from the client; before the server is there they wait."""
        if self.authentication is not None:
            self.authentication.client_sent(data)
            return
        if self._other is not None:
            self._other.transport.write(data)
            return
        if self._search is None:
            return  # the end is near
        self._early += data
        if len(self._early) > EARLY_LIMIT:
            self.transport.pauseProducing()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The client is gone."""
        if self._search is not None:
            self._give_up()
        elif self._began:
            seconds = monotonic() - self._began
            text = f"{self._address}: disconnection: {self._who} session time: {seconds:.3f} s"
            log_line(_log, text, {"client": self._address, "who": self._who, "seconds": seconds})
        upstream = self._left_alone()
        if upstream is None:
            return
        if reason.check(ConnectionDone, TruncatedTLS):
            upstream.finish()
        else:
            # As in the kernel of a server that the client is connected to directly: what has not
            # been read is dropped, and the server sees that the connection is broken.
            upstream.transport.abortConnection()

    def peer_ended(self, broken: bool) -> None:
        """A client that has sent all that it will may still be waiting for answers."""
        if broken:
            self.transport.abortConnection()

    def readConnectionLost(self) -> None:
        """The client has said all that it has to say, and may still be waiting for answers: the
        server gets to know, and ends the session when it has given them."""
        self._read_everything = True
        other = self._other
        if other is None or not can_half_close(other.transport):
            self.transport.loseConnection()
            return
        other.transport.unregisterProducer()
        other.transport.loseWriteConnection()

    def writeConnectionLost(self) -> None:
        """Never: this end closes as a whole."""

    def _too_late(self, startup: StartupMessage) -> None:
        self._limit = None
        tried = self._search.unfinished() if self._search is not None else ""
        self._give_up()
        error = ConnectFailed("authentication_timeout is over")
        self._log_refusal(startup, f"{error}: {tried}")
        self._end(error)

    def _give_up(self) -> None:
        search = self._stop_waiting()
        if search is not None:
            search.cancel()

    def _stop_waiting(self) -> ConnectAttempt | None:
        """:returns: the search that was waited for."""
        search, self._search = self._search, None
        if self._limit is not None:
            self._limit.cancel()
            self._limit = None
        return search

    def _found(self, startup: StartupMessage, found: ConnectOutcome) -> None:
        search = self._stop_waiting()
        if isinstance(found, UpstreamLeg) and search is not None:
            self._connected(startup, found, search)
        elif isinstance(found, PgTLSError):
            self._refused(startup, found)
        elif isinstance(found, Failure):
            _log.failure("{client}: {who}", found, client=self._address, who=who(startup))
            self._end(ConnectFailed("internal error; the gateway's log has it"))

    def _connected(
        self, startup: StartupMessage, upstream: UpstreamLeg, search: ConnectAttempt
    ) -> None:
        check, watch = search.authentication, None
        if check is not None and not check.completed:
            watch = AuthenticationWatch(check, self, upstream, partial(self._refused, startup))
        upstream.begin(self, search.reached, watch)
        self.transport.resumeProducing()
        early, self._early = self._early, b""
        if early:
            self.dataReceived(early)

    def _refused(self, startup: StartupMessage, error: PgTLSError) -> None:
        self._log_refusal(startup, str(error))
        self._end(error)

    def _log_refusal(self, startup: StartupMessage, error: str) -> None:
        _log.error(
            "{client}: {who} upstream: {error}",
            client=self._address,
            who=who(startup),
            error=error,
        )

    def _end(self, error: PgTLSError) -> None:
        self.transport.write(error_for_client(error))
        self.finish()


def error_for_client(error: PgTLSError) -> bytes:
    """What a client gets to read when its upstream cannot be had.

    The server's own words as they came; otherwise FATAL 08006 where there is no connection and
    08001 where one was refused, without the place: that is for the log.
    """
    if isinstance(error, ServerRejected):
        return error.response.raw
    if isinstance(error, ConnectFailed):
        return ErrorResponse.fatal(
            "08006", f"could not connect to the upstream server: {error.reason}"
        ).encode()
    return ErrorResponse.fatal(
        "08001", f"could not make a secure connection to the upstream server: {error.reason}"
    ).encode()
