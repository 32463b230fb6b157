"""One session's way from its client to its server: route, connect, and how it ends.

What comes before, negotiation and policy, is :mod:`pgtls.protocols.server`'s; the relay is in
:mod:`pgtls.gateway.client_side` and :mod:`pgtls.gateway.server_side`.
"""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from pgtls.conninfo.hosts import Host
from pgtls.errors import (
    ConnectFailed,
    NegotiationRefused,
    PgTLSError,
    ProtocolViolation,
)
from pgtls.gateway.authentication_watch import AuthenticationWatch
from pgtls.gateway.cancel import Backend, CancelForwarder, CancelRoutes
from pgtls.gateway.channel_binding_check import ChannelBinding
from pgtls.gateway.response_for_client import response_for_client
from pgtls.gateway.scram_login import OUT_OF_DATE, ScramLogin
from pgtls.gateway.server_side import ServerSide, ServerSides
from pgtls.gateway.session_authentication import SessionAuthentication
from pgtls.gateway.tls_parameters import tls_parameters
from pgtls.gateway.upstream_header import upstream_header
from pgtls.protocols.connect_attempt import ConnectOutcome
from pgtls.protocols.connection_info import address_text
from pgtls.protocols.connection_log import role_and_database
from pgtls.protocols.deciding import AUTHENTICATION_TIMEOUT
from pgtls.protocols.endpoint import PgTLSClientEndpoint
from pgtls.protocols.interfaces import IRouter, ISession
from pgtls.protocols.observers import Observers
from pgtls.protocols.session_search import Attempt, session_attributes_not_met
from pgtls.protocols.stages import Client, Refuse, Refused, Stage, Upstream
from pgtls.transport.deadlines import Deadline, Deadlines, deadlines
from pgtls.transport.traffic import Traffic
from pgtls.wire.messages import ErrorResponse, StartupMessage
from pgtls.wire.scram import StaleSecret
from pgtls.wire.session_attributes import ANY
from pgtls.wire.startup_parameters import with_database, with_tls_parameters

if TYPE_CHECKING:
    from pgtls.gateway.client_side import ClientSide

_log = Logger(namespace="pgtls.gateway")


@attrs.frozen
class SessionContext:
    """What all sessions of a gateway share.

    :ivar reactor: Twisted's reactor.
    :ivar router: chooses a session's server.
    :ivar cancel_routes: knows where cancel requests go.
    :ivar channel_binding: what is to be done about SCRAM's channel binding.
    :ivar authentication_timeout: seconds until the server has let the client in.
    :ivar tls_parameters: whether the server is told of the client's TLS.
    :ivar cancels: passes CancelRequests on, and knows the open sessions by their keys.
    :ivar observers: are told what happens.
    :ivar sends_headers: whether servers get PROXY headers.
    :ivar server_sides: makes the connections to the server.
    :ivar deadlines: the time limits of sessions.
    """

    reactor: IReactorTime
    router: IRouter
    cancel_routes: CancelRoutes
    channel_binding: ChannelBinding
    authentication_timeout: float
    tls_parameters: bool
    cancels: CancelForwarder
    observers: Observers
    sends_headers: bool = False
    server_sides: ServerSides = attrs.field(init=False)
    deadlines: Deadlines = attrs.field(init=False)

    @server_sides.default
    def _make_server_sides(self) -> ServerSides:
        return ServerSides(self)

    @deadlines.default
    def _the_reactors_deadlines(self) -> Deadlines:
        return deadlines(self.reactor)


@implementer(ISession)
class Session:
    """A session, from its StartupMessage to its end.

    :param context: what all sessions of the gateway share.
    :param side: the connection from the client.
    :param client: all that is known of the client.
    :ivar host: the server's host; None before it is connected.
    :ivar route: the name of its route; empty where there is only one.
    """

    __slots__ = (
        "__provides__",
        "_attempt",
        "_began",
        "_context",
        "_endpoint",
        "_limit",
        "_routing",
        "_server",
        "_side",
        "client",
        "host",
        "route",
    )

    def __init__(self, context: SessionContext, side: ClientSide, client: Client) -> None:
        self.client = client
        self.host: Host | None = None
        self.route = ""
        self._context = context
        self._side = side
        self._endpoint: PgTLSClientEndpoint | None = None
        self._server: ServerSide | None = None
        self._began = monotonic()
        self._limit: Deadline | None = None
        self._routing: Deferred[Upstream | Refuse] | None = None  # while the router takes its time
        self._attempt: Attempt | None = None  # while the server is being connected to

    @property
    def opening(self) -> bool:
        """Whether its server is still looked for, or being connected to."""
        return self._attempt is not None or self._routing is not None

    @property
    def seconds(self) -> float:
        """How long it has lasted."""
        return monotonic() - self._began

    @property
    def bytes_from_client(self) -> int | None:
        """Bytes that have come from the client; None where they are not counted."""
        return self._side.received if self._context.observers.counts_bytes else None

    @property
    def bytes_from_server(self) -> int | None:
        """The same from the server."""
        if not self._context.observers.counts_bytes:
            return None
        return self._server.received if self._server is not None else 0

    @property
    def server_error(self) -> ErrorResponse | None:
        """What the server has refused it with, before it was ready for the first query."""
        return self._server.refusal if self._server is not None else None

    def traffic(self) -> Traffic | None:
        """Count the bytes each way.

        :returns: as :meth:`~pgtls.protocols.interfaces.ISession.traffic`.
        """
        if not self._context.observers.counts_traffic:
            return None
        if (counted := self._side.traffic()) is not None:
            return counted
        if self._server is not None and (counted := self._server.traffic()) is not None:
            return Traffic(counted.sent, counted.received)
        if self._context.observers.counts_bytes:
            return Traffic(self.bytes_from_client or 0, self.bytes_from_server or 0)
        return None

    def begin(self) -> None:
        """Find the server: within ``authentication_timeout`` seconds it has let the client in."""
        context = self._context
        self._limit = context.deadlines.call_later(context.authentication_timeout, self._too_late)
        try:
            chosen = context.router.upstream(self.client)
        except Exception:
            self._failed(Failure())
            return
        if isinstance(chosen, Deferred):
            self._routing = chosen
            chosen.addCallbacks(self._routed_later, self._routing_failed)
        else:
            self._routed(chosen)

    def client_gone(self) -> None:
        """The connection from the client is closed."""
        self._give_up()
        self._context.observers.ended(self)

    def _routed_later(self, chosen: Upstream | Refuse) -> None:
        if self._routing is not None:  # else it was cancelled
            self._routing = None
            self._routed(chosen)

    def _routing_failed(self, failure: Failure) -> None:
        if self._routing is not None:
            self._routing = None
            self._failed(failure)

    def _routed(self, chosen: Upstream | Refuse) -> None:
        if isinstance(chosen, Refuse):
            self._refuse(Stage.ROUTE, chosen.response, chosen.reason)
            return
        self.route = chosen.route
        try:
            startup = self._startup_for(chosen)
        except ProtocolViolation as error:
            response = ErrorResponse.fatal("08P01", error.reason)
            self._refuse(Stage.ROUTE, response, error.reason)
            return
        self._endpoint = chosen.endpoint
        self._attempt = self._with_header(chosen.endpoint).attempt(
            self._context.server_sides, startup, self._found, keys=self.client.scram
        )
        self._attempt.begin()

    def _with_header(self, endpoint: PgTLSClientEndpoint) -> PgTLSClientEndpoint:
        """With a PROXY header that names the client, where the server gets one."""
        if not self._context.sends_headers:
            return endpoint
        client = self.client
        header = upstream_header(self._side.transport, client.tls, client.sni, client.proxy)
        return endpoint.for_session(preface=header)

    def _startup_for(self, chosen: Upstream) -> StartupMessage:
        """:raises ProtocolViolation: the client's message has no room for what is to be in it."""
        client, startup = self.client, self.client.startup
        if chosen.database is not None:
            startup = with_database(startup, chosen.database)
        if self._context.tls_parameters:
            startup = with_tls_parameters(startup, tls_parameters(client))
        return startup

    def _found(self, found: ConnectOutcome) -> None:
        attempt, self._attempt = self._attempt, None
        if isinstance(found, ServerSide) and attempt is not None:
            self._connected(found, attempt)
        elif isinstance(found, PgTLSError):
            self._refused(found)
        elif isinstance(found, Failure):
            self._failed(found)

    def _connected(self, server: ServerSide, attempt: Attempt) -> None:
        check = attempt.authentication
        if check is not None and check.completed:
            check = None
        watch: SessionAuthentication | None = None
        if self.client.scram is not None:
            watch = ScramLogin(self.client.scram, check, self._side, server, self._refused)
        elif check is not None:
            watch = AuthenticationWatch(check, self._side, server, self._refused)
        self.host = host = attempt.reached
        self._server = server
        backend, target = None, ANY
        if self._endpoint is not None and host is not None:
            backend = Backend(self._endpoint, host)
            target = self._endpoint.conninfo.target_session_attrs
        server.begin(self._side, self, backend, watch, target)
        # The client's connection tells both ways, unless it is one over a Unix socket.
        if self._context.observers.counts_traffic and not self._side.keep_traffic():
            server.keep_traffic()
        self._context.observers.connected(self)
        self._side.server_connected()

    def authenticated(self) -> None:
        """The server has let the client in."""
        self._stop_limit()

    def server_gone(self) -> None:
        """The server is gone before the session began."""
        self._stop_limit()

    def wrong_server(self, mismatch: str) -> None:
        """The server is not any more what ``target_session_attrs`` wants.

        :param mismatch: why, in libpq's words.
        """
        assert self._endpoint is not None  # noqa: S101 - it is connected
        assert self.host is not None  # noqa: S101 - the same
        self._endpoint.forget_attributes(self.host)
        self._refused(session_attributes_not_met(mismatch, self.host))

    def _too_late(self) -> None:
        self._limit = None
        if self._server is not None:
            # As PostgreSQL's own limit, which other servers may lack.
            timeout = AUTHENTICATION_TIMEOUT
            self._refuse(Stage.UPSTREAM, timeout, timeout.message)
            self._server.transport.abortConnection()
            return
        tried = f": {self._attempt.unfinished()}" if self._attempt is not None else ""
        self._give_up()
        error = ConnectFailed("authentication_timeout is over")
        self._refuse(Stage.UPSTREAM, response_for_client(error), f"{error}{tried}")

    def _give_up(self) -> None:
        self._stop_limit()
        attempt, self._attempt = self._attempt, None
        if attempt is not None:
            attempt.cancel()
        routing, self._routing = self._routing, None
        if routing is not None:
            routing.cancel()

    def _stop_limit(self) -> None:
        if self._limit is not None:
            self._limit.cancel()
            self._limit = None

    def _refused(self, error: PgTLSError) -> None:
        if isinstance(error, StaleSecret):
            error = NegotiationRefused(OUT_OF_DATE)
        earlier = "".join(f"; before that: {note}" for note in getattr(error, "__notes__", ()))
        self._refuse(Stage.UPSTREAM, response_for_client(error), f"{error}{earlier}")

    def _failed(self, failure: Failure) -> None:
        _log.failure(
            "{client}: {who}",
            failure,
            client=address_text(self.client.address),
            who=role_and_database(self.client.startup),
        )
        self._end(response_for_client(ConnectFailed("internal error; the gateway's log has it")))

    def _refuse(self, stage: Stage, response: ErrorResponse, reason: str) -> None:
        client = self.client
        self._context.observers.refused(Refused(stage, client.address, reason, response, client))
        self._end(response)

    def _end(self, response: ErrorResponse) -> None:
        self._stop_limit()
        self._side.transport.write(response.raw or response.encode())
        self._side.close_when_read()
