"""Where a CancelRequest goes: to the backend that owns the session.

libpq's PQcancel, PostgreSQL's documentation "Canceling Requests in Progress". One whose key no
session here has may be for a session of another process, or of another gateway of a fleet.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from twisted.internet.defer import Deferred, gatherResults, succeed
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from pgtls.conninfo.connection_string import Host
from pgtls.gateway.cancel_connection import CANCEL_TIMEOUT, send_cancel
from pgtls.gateway.cancel_peers import Peers
from pgtls.gateway.key_holders import KeyHolder, KeyHolders
from pgtls.protocols.endpoint import PgTLSClientEndpoint
from pgtls.protocols.log_limit import PERIOD, LogLimit
from pgtls.protocols.places import CANCEL_CLIENTS_AT_ONCE, CANCELS_AT_ONCE
from pgtls.transport.dial import TIMEOUT_EXPIRED
from pgtls.wire.messages import PEER_HAS_NOT, PEER_HAS_SESSION, CancelRequest

_log = Logger(namespace="pgtls.gateway")

#: Connections at a time that carry requests with unknown keys. Any client can send those, without
#: logging in: they leave room for requests with the keys of open sessions.
UNKNOWN_AT_ONCE = CANCELS_AT_ONCE // 2

#: Requests at a time whose session is looked for in the daemon's other processes.
SEARCHES_AT_ONCE = CANCEL_CLIENTS_AT_ONCE

#: Log lines in a period about requests that could not be passed on.
_FAILURES_LOGGED = 10


class Backend(NamedTuple):
    """Where a session's backend is.

    :ivar endpoint: what the session was connected with.
    :ivar host: the host that was reached.
    """

    endpoint: PgTLSClientEndpoint
    host: Host


class CancelKeys:
    """Which server each open session's cancel key belongs to."""

    def __init__(self) -> None:
        self._backends: dict[bytes, tuple[Backend, ...]] = {}

    def add(self, key: bytes, backend: Backend) -> None:
        """A session began.

        :param key: as BackendKeyData has it; empty where the server knows no cancelling.
        :param backend: where the session's backend is.
        """
        if key:  # servers that know nothing of each other may give out the same key
            self._backends[key] = (*self._backends.get(key, ()), backend)

    def remove(self, key: bytes, backend: Backend) -> None:
        """A session is over.

        :param key: as it was added; one that was not is ignored.
        :param backend: as it was added.
        """
        left = list(self._backends.pop(key, ()))
        if backend in left:
            left.remove(backend)
        if left:
            self._backends[key] = tuple(left)

    def backends(self, key: bytes) -> tuple[Backend, ...]:
        """Find the servers that have given out a key.

        :param key: a CancelRequest's.
        :returns: each of them once; none where no session of this gateway has the key here.
        """
        return tuple(dict.fromkeys(self._backends.get(key, ())))


class CancelRoutes(Protocol):
    """Where CancelRequests go, as a gateway's router knows it."""

    def renewed(self, endpoint: PgTLSClientEndpoint) -> PgTLSClientEndpoint:
        """What to connect with to a session's server now: certificates may have been renewed.

        :param endpoint: what the session was connected with.
        :returns: the same, or what has taken its place.
        """

    def by_name(self, sni: str) -> PgTLSClientEndpoint | None:
        """Where every session with a host name goes.

        :param sni: the host name that the client asks for in TLS.
        :returns: connects to the server of the one route that may be; None where there is none.
        """

    def for_unknown_key(self, sni: str | None, *, sure: bool) -> PgTLSClientEndpoint | None:
        """Where a request goes that has no better place.

        :param sni: the host name that the client asks for; None for none, or no TLS.
        :param sure: whether its session is surely none of this daemon.
        :returns: connects to the gateway's own server; None for nowhere.
        """


class CancelForwarder:
    """Passes CancelRequests on; those of a flood are dropped and counted.

    :param clock: the reactor.
    :param elsewhere: has the sessions of the daemon's other gateways and processes.
    :ivar keys: the open sessions.
    :ivar peers: the other gateways of a fleet.
    """

    def __init__(self, clock: IReactorTime, elsewhere: KeyHolder | None = None) -> None:
        self.keys = CancelKeys()
        self.peers: Peers | None = None
        self._clock = clock
        self._elsewhere = elsewhere or KeyHolders()
        self._known = 0  # connections that carry requests with known keys
        self._unknown = 0  # and with unknown ones
        self._searches = 0
        self._under_way = 0
        self._finished: Deferred[None] | None = None
        self._drops = LogLimit(clock, 1, _log_drops)
        self._failures = LogLimit(clock, _FAILURES_LOGGED, _log_failures)

    def forward(
        self,
        request: CancelRequest,
        routes: CancelRoutes,
        sni: str | None,
        header: bytes | None = None,
    ) -> Deferred[None]:
        """Pass a client's CancelRequest on, over a connection as well protected as the session's
        own. The session is looked for here, in the daemon's other processes, by the host name, at
        the peers, and at last the gateway's own server may have it.

        :param request: the client's.
        :param routes: where requests go.
        :param sni: the host name that the client asks for; None for none, or no TLS.
        :param header: a PROXY header with the client's address, in place of one that names no
            client; None where servers get none.
        :returns: fires when the server has taken it, or could not, or where too many are on their
            way already and it is dropped; never fails.
        """
        known = self.keys.backends(request.key)
        if known:
            return self._noted(self._send(request, _renewed(known, routes), header, known=True))
        if self._searches >= SEARCHES_AT_ONCE:
            return self._dropped()
        return self._noted(Deferred.fromCoroutine(self._look_for(request, routes, sni, header)))

    def forward_for_peer(
        self, request: CancelRequest, routes: CancelRoutes, answer: Callable[[bytes], None]
    ) -> Deferred[None]:
        """Pass on what comes from another gateway: to sessions of this daemon, and nowhere else.

        :param request: the peer's.
        :param routes: where requests go.
        :param answer: sends the peer whether there is such a session.
        :returns: as :meth:`forward`.
        """
        known = self.keys.backends(request.key)
        if known:
            answer(PEER_HAS_SESSION)
            return self._noted(self._send(request, _renewed(known, routes), None, known=True))
        if self._searches >= SEARCHES_AT_ONCE:
            return self._dropped()
        return self._noted(Deferred.fromCoroutine(self._look_for_peer(request, answer)))

    def forward_from_elsewhere(self, key: bytes, routes: CancelRoutes) -> Deferred[bool | None]:
        """Pass on what came to another gateway or process of this daemon, if its session is here.

        :param key: the request's.
        :param routes: where requests go.
        :returns: fires with whether it is, as :meth:`forward` does.
        """
        known = self.keys.backends(key)
        if not known:
            return succeed(False)
        request = CancelRequest.build(key)
        sent = self._noted(self._send(request, _renewed(known, routes), None, known=True))
        return sent.addCallback(lambda _: True)

    def finished(self) -> Deferred[None]:
        """Wait for the requests that are on their way.

        :returns: fires when none is; never fails.
        """
        if not self._under_way:
            return succeed(None)
        self._finished = Deferred()
        return self._finished

    def stop(self) -> None:
        """Log at once what has been counted."""
        self._drops.stop()
        self._failures.stop()
        if self.peers is not None:
            self.peers.stop()

    def _noted(self, forwarding: Deferred[None]) -> Deferred[None]:
        self._under_way += 1
        return forwarding.addErrback(_log_failure).addCallback(self._over)

    def _over(self, _: None) -> None:
        self._under_way -= 1
        if not self._under_way and self._finished is not None:
            finished, self._finished = self._finished, None
            finished.callback(None)

    async def _look_for(
        self,
        request: CancelRequest,
        routes: CancelRoutes,
        sni: str | None,
        header: bytes | None,
    ) -> None:
        found = await self._search(request.key)
        if found:
            await self._elsewhere.cancel(request.key)
            return
        upstream = routes.by_name(sni) if sni is not None else None
        if upstream is None:
            if self.peers is not None:
                if not self.peers.have_room():
                    await self._dropped()
                    return
                asked = await self.peers.pass_on(request)
                if asked:
                    return
                if asked is None:  # it may be the key of a session there, at another server
                    self._not_found()
                    return
            upstream = routes.for_unknown_key(sni, sure=found is not None)
        if upstream is None:
            self._not_found()
            return
        hosts = upstream.conninfo.hosts
        await self._send(request, [Backend(upstream, host) for host in hosts], header, known=False)

    async def _look_for_peer(self, request: CancelRequest, answer: Callable[[bytes], None]) -> None:
        found = await self._search(request.key)
        if found is not None:
            answer(PEER_HAS_SESSION if found else PEER_HAS_NOT)
        if found:
            await self._elsewhere.cancel(request.key)

    async def _search(self, key: bytes) -> bool | None:
        self._searches += 1
        try:
            return await self._elsewhere.has_key(key)
        finally:
            self._searches -= 1

    def _send(
        self,
        request: CancelRequest,
        targets: Sequence[Backend],
        header: bytes | None,
        *,
        known: bool,
    ) -> Deferred[None]:
        count = len(targets)
        if not self._has_room(count, known=known):
            return self._dropped()
        self._count(count, known=known)
        endpoints = [each.endpoint.for_session(each.host, preface=header) for each in targets]
        sent = gatherResults([self._sent(endpoint, request) for endpoint in endpoints])
        return sent.addCallback(lambda _: self._count(-count, known=known))

    def _dropped(self) -> Deferred[None]:
        if self._drops.allows():
            _log.warn("cancel request dropped: too many are being passed on at this moment")
        return succeed(None)

    def _has_room(self, connections: int, *, known: bool) -> bool:
        if known:
            asking = self.peers.open if self.peers is not None else 0
            return self._known + self._unknown + asking < CANCELS_AT_ONCE
        # One request may need more connections than there are at a time.
        return not self._unknown or self._unknown + connections <= UNKNOWN_AT_ONCE

    def _count(self, connections: int, *, known: bool) -> None:
        if known:
            self._known += connections
        else:
            self._unknown += connections

    def _not_found(self) -> None:
        if self._failures.allows():
            _log.warn("cancel request not passed on: no session here has its key")

    def _sent(self, upstream: PgTLSClientEndpoint, request: CancelRequest) -> Deferred[None]:
        sending = Deferred.fromCoroutine(send_cancel(upstream, request.raw))
        return sending.addTimeout(CANCEL_TIMEOUT, self._clock).addErrback(self._failed)

    def _failed(self, failure: Failure) -> None:
        if self._failures.allows():
            error = TIMEOUT_EXPIRED if failure.check(DeferredTimeout) else failure.value
            _log.warn("cancel request not passed on: {error}", error=error)


def _renewed(backends: Sequence[Backend], routes: CancelRoutes) -> list[Backend]:
    return [Backend(routes.renewed(each.endpoint), each.host) for each in backends]


def _log_failure(failure: Failure) -> None:
    _log.failure("cancel request", failure)


def _log_drops(count: int) -> None:
    _log.warn(
        "{count} more cancel requests dropped within {seconds:g} s", count=count, seconds=PERIOD
    )


def _log_failures(count: int) -> None:
    _log.warn(
        "{count} more cancel requests not passed on within {seconds:g} s",
        count=count,
        seconds=PERIOD,
    )
