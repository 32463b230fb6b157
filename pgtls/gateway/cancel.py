"""Where a CancelRequest goes: to the backend that owns the session.

libpq's PQcancel, PostgreSQL's documentation "Canceling Requests in Progress".
"""

from __future__ import annotations

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.interfaces import IReactorTime, ITCPTransport
from twisted.internet.protocol import Factory, Protocol, connectionDone
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


class CancelKeys:
    """Which host each open session's cancel key belongs to."""

    def __init__(self) -> None:
        self._hosts: dict[bytes, Host] = {}

    def add(self, key: bytes, host: Host) -> None:
        """A session began.

        :param key: as BackendKeyData has it; empty where the server knows no cancelling.
        :param host: where the session's backend is.
        """
        if key:
            self._hosts[key] = host

    def remove(self, key: bytes) -> None:
        """A session is over.

        :param key: as it was added; one that was not is ignored.
        """
        self._hosts.pop(key, None)

    def host(self, key: bytes) -> Host | None:
        """Find a session's host.

        :param key: a CancelRequest's.
        :returns: None where no session of this process has the key.
        """
        return self._hosts.get(key)


class _CancelClients(Factory):
    noisy = False


class _CancelClient(Protocol):
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
        self, request: CancelRequest, upstream: PgTLSClientEndpoint
    ) -> Deferred[None] | None:
        """Pass a CancelRequest on, over a connection as well protected as the session's own.

        A key that is not known here may belong to another process's session: then any of the
        upstream's hosts may have it.

        :param request: the client's.
        :param upstream: connects to the server.
        :returns: fires when the server has taken it, or could not; never fails. None where too many
            are on their way already: it is dropped.
        """
        host = self.keys.host(request.key)
        hosts = upstream.conninfo.hosts if host is None else (host,)
        if not self._has_room(len(hosts), known=host is not None):
            if self._drops.allows():
                _log.warn("cancel request dropped: too many are being passed on at this moment")
            return None
        self._count(len(hosts), known=host is not None)
        sent = gatherResults([self._sent(upstream, each, request) for each in hosts])
        return sent.addCallback(lambda _: self._count(-len(hosts), known=host is not None))

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
