"""Where a CancelRequest goes: to the backend that owns the session.

libpq's PQcancel, PostgreSQL's documentation "Canceling Requests in Progress".
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure

from pgtls.conninfo.connection_string import Host
from pgtls.protocols.endpoint import PgTLSClientEndpoint
from pgtls.wire.messages import CancelRequest

_log = Logger(namespace="pgtls.gateway")

#: Seconds for the whole of a forwarded CancelRequest.
CANCEL_TIMEOUT = 10.0


class CancelKeys:
    """Which host each open session's cancel key belongs to."""

    def __init__(self) -> None:
        self._hosts: dict[bytes, Host] = {}

    def add(self, key: bytes, host: Host) -> None:
        """A session began. An empty key belongs to a server that knows no cancelling."""
        if key:
            self._hosts[key] = host

    def remove(self, key: bytes) -> None:
        """The session is over."""
        self._hosts.pop(key, None)

    def hosts(self, key: bytes, hosts: tuple[Host, ...]) -> tuple[Host, ...]:
        """Where a request with this key goes. A key that is not known here may belong to another
        process's session: then any of the hosts may have it."""
        host = self._hosts.get(key)
        return hosts if host is None else (host,)


class _CancelClients(Factory):
    noisy = False


class _CancelClient(Protocol):
    """Sends the request and waits until the server has closed: only then is it carried out."""

    transport: Any

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


def forward(
    request: CancelRequest, upstream: PgTLSClientEndpoint, keys: CancelKeys, clock: IReactorTime
) -> Deferred[list[None]]:
    """Pass a CancelRequest on, over a connection as well protected as the session's own.

    :returns: fires when the server has taken it, or could not; never fails.
    """
    hosts = keys.hosts(request.key, upstream.conninfo.hosts)
    sent = [Deferred.fromCoroutine(_send(upstream.for_session(host=h), request)) for h in hosts]
    for each in sent:
        each.addTimeout(CANCEL_TIMEOUT, clock)
        each.addErrback(
            lambda failure: _log.warn("cancel request not passed on: {error}", error=failure.value)
        )
    return gatherResults(sent)
