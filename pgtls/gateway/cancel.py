"""Where a CancelRequest goes: to the backend that owns the session.

libpq's PQcancel, PostgreSQL's documentation "Canceling Requests in Progress".
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

from twisted.internet import protocol
from twisted.internet.defer import Deferred, gatherResults, succeed
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.interfaces import IReactorTime, ITCPTransport
from twisted.internet.protocol import Factory, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure

from pgtls.conninfo.connection_string import Host
from pgtls.protocols.endpoint import PgTLSClientEndpoint
from pgtls.protocols.log_limit import PERIOD, LogLimit
from pgtls.protocols.places import CANCELS_AT_ONCE
from pgtls.transport.dial import TIMEOUT_EXPIRED
from pgtls.wire.messages import CancelRequest

_log = Logger(namespace="pgtls.gateway")

#: Seconds for the whole of a forwarded CancelRequest.
CANCEL_TIMEOUT = 10.0

#: Connections at a time that carry requests with unknown keys. Any client can send those, without
#: logging in: they leave room for requests with the keys of open sessions.
UNKNOWN_AT_ONCE = CANCELS_AT_ONCE // 2

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
        :returns: each of them once; none where no session of this process has the key.
        """
        return tuple(dict.fromkeys(self._backends.get(key, ())))


class CancelRoutes(Protocol):
    """Where CancelRequests go, as a gateway's router knows it."""

    def renewed(self, endpoint: PgTLSClientEndpoint) -> PgTLSClientEndpoint:
        """What to connect with to a session's server now: certificates may have been renewed.

        :param endpoint: what the session was connected with.
        :returns: the same, or what has taken its place.
        """

    def for_unknown_key(self, sni: str | None, *, tls: bool) -> PgTLSClientEndpoint | None:
        """Where a request goes whose key no session of this process has.

        :param sni: the host name that the client asks for.
        :param tls: whether the request came in TLS.
        :returns: connects to the server; None for nowhere.
        """


class _CancelClients(Factory):
    noisy = False


class _CancelClient(protocol.Protocol):
    """Sends the request and waits until the server has closed: only then is it carried out."""

    transport: ITCPTransport

    def __init__(self, request: CancelRequest) -> None:
        self._request = request
        self.done: Deferred[None] = Deferred(lambda _: self.transport.abortConnection())

    def connectionMade(self) -> None:
        self.transport.write(self._request.raw)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if not self.done.called:
            self.done.callback(None)


async def _send(endpoint: PgTLSClientEndpoint, request: CancelRequest) -> None:
    client = _CancelClient(request)
    await endpoint.connect(_CancelClients.forProtocol(lambda: client))
    await client.done


class CancelForwarder:
    """Passes CancelRequests on; those of a flood are dropped and counted.

    :param clock: the reactor.
    :ivar keys: the open sessions.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self.keys = CancelKeys()
        self._clock = clock
        self._known = 0  # connections that carry requests with known keys
        self._unknown = 0  # and with unknown ones
        self._drops = LogLimit(clock, 1, _log_drops)
        self._failures = LogLimit(clock, _FAILURES_LOGGED, _log_failures)

    def forward(
        self, request: CancelRequest, routes: CancelRoutes, sni: str | None, *, tls: bool
    ) -> Deferred[None] | None:
        """Pass a CancelRequest on, over a connection as well protected as the session's own.

        A key that is not known here may belong to another process's session: then any of the hosts
        that it may be for may have it.

        :param request: the client's.
        :param routes: where requests go.
        :param sni: the host name that the client asks for.
        :param tls: whether the request came in TLS.
        :returns: fires when the server has taken it, or could not; never fails. None where too many
            are on their way already: it is dropped.
        """
        known = self.keys.backends(request.key)
        targets = [Backend(routes.renewed(each.endpoint), each.host) for each in known]
        if not known:
            upstream = routes.for_unknown_key(sni, tls=tls)
            if upstream is None:
                if self._failures.allows():
                    _log.warn("cancel request not passed on: no session here has its key")
                return succeed(None)
            targets = [Backend(upstream, host) for host in upstream.conninfo.hosts]
        count, is_known = len(targets), bool(known)
        if not self._has_room(count, known=is_known):
            if self._drops.allows():
                _log.warn("cancel request dropped: too many are being passed on at this moment")
            return None
        self._count(count, known=is_known)
        sent = gatherResults([self._sent(each.endpoint, each.host, request) for each in targets])
        return sent.addCallback(lambda _: self._count(-count, known=is_known))

    def stop(self) -> None:
        """Log at once what has been counted."""
        self._drops.stop()
        self._failures.stop()

    def _has_room(self, connections: int, *, known: bool) -> bool:
        if known:
            return self._known + self._unknown < CANCELS_AT_ONCE
        # One request may need more connections than there are at a time.
        return not self._unknown or self._unknown + connections <= UNKNOWN_AT_ONCE

    def _count(self, connections: int, *, known: bool) -> None:
        if known:
            self._known += connections
        else:
            self._unknown += connections

    def _sent(
        self, upstream: PgTLSClientEndpoint, host: Host, request: CancelRequest
    ) -> Deferred[None]:
        sending = Deferred.fromCoroutine(_send(upstream.for_session(host=host), request))
        return sending.addTimeout(CANCEL_TIMEOUT, self._clock).addErrback(self._failed)

    def _failed(self, failure: Failure) -> None:
        if self._failures.allows():
            error = TIMEOUT_EXPIRED if failure.check(DeferredTimeout) else failure.value
            _log.warn("cancel request not passed on: {error}", error=error)


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
