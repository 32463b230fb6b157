"""What a server's sessions are like: read-only, on a hot standby.

Found by a login of its own at each host, which ends at once. Source: CONNECTION_CHECK_TARGET in
``src/interfaces/libpq/fe-connect.c``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from pgtls.conninfo.hosts import Host
from pgtls.errors import ConfigurationError, ConnectFailed, PgTLSError
from pgtls.protocols.server_login import Login, ServerDialogue, parse_row
from pgtls.transport.dial import TIMEOUT_EXPIRED, OneProtocol
from pgtls.wire.messages import ServerRejected
from pgtls.wire.session_attributes import SessionAttributes, TargetSessionAttrs, query_failed

if TYPE_CHECKING:
    from pgtls.protocols.connect_attempt import ConnectOutcome
    from pgtls.protocols.endpoint import PgTLSClientEndpoint

#: Seconds for which what was found out about a host is used again.
ATTRIBUTES_LIFETIME = 1.0


class Inspected(NamedTuple):
    """What was found out about a host.

    :ivar place: the host with the address that was reached; None where none was.
    :ivar attributes: what its sessions are like.
    :ivar errors: what failed, in turn; the last one is why ``place`` is None.
    :ivar final: whether no other host may be tried after that.
    """

    place: Host | None
    attributes: SessionAttributes = SessionAttributes()
    errors: tuple[PgTLSError, ...] = ()
    final: bool = False


class _Inspection(ServerDialogue):
    """Logs in, and asks where the server does not report it."""

    def __init__(self, login: Login, target: TargetSessionAttrs) -> None:
        super().__init__(login)
        self._target = target
        self._asked: str | None = None
        self._answered = False
        self.attributes = SessionAttributes()
        self.query_failed = False

    def message(self, kind: bytes, body: bytes) -> None:
        if kind == b"S":
            self.attributes = self.attributes.with_parameter(body)
        elif kind == b"D" and self._asked is not None:
            row = parse_row(body)
            if len(row) == 1 and row[0] is not None:
                self._answered = True
                self.attributes = self.attributes.with_answer(self._asked, row[0])

    def error(self, error: ServerRejected) -> None:
        """:raises PgTLSError: there is no login, or the query failed."""
        raise error if self._asked is None else self._failed(self._asked, f"{error.reason}; ")

    def ready(self) -> None:
        if self._asked is None:
            self._asked = self._target.query(self.attributes)
            if self._asked is not None:
                self.query(self._asked)
                return
        elif not self._answered:
            raise self._failed(self._asked)
        self.end()

    def _failed(self, query: str, why: str = "") -> ConnectFailed:
        self.query_failed = True  # another host may do better
        return ConnectFailed(f"{why}{query_failed(query)}")


async def inspect(
    clock: IReactorTime,
    endpoint: PgTLSClientEndpoint,
    login: Login,
    target: TargetSessionAttrs,
) -> Inspected:
    """Log in to a host, and look.

    :param clock: the reactor.
    :param endpoint: connects to that one host.
    :param login: who logs in.
    :param target: what is wanted of it.
    :returns: what was found out; also where there was no connection, or no login.
    """
    inspection = _Inspection(login, target)
    connected: Deferred[ConnectOutcome] = Deferred(lambda _: attempt.cancel())
    attempt = endpoint.attempt(
        OneProtocol.forProtocol(lambda: inspection), login.startup, connected.callback
    )
    attempt.begin()
    outcome = await connected
    errors = tuple(attempt.errors)
    if isinstance(outcome, PgTLSError):
        return Inspected(None, errors=errors, final=not attempt.exhausted)
    place = inspection.host = attempt.reached
    if (timeout := endpoint.conninfo.connect_timeout) is not None:
        inspection.ended.addTimeout(timeout, clock)
    error: PgTLSError
    try:
        await inspection.ended
    except DeferredTimeout:
        error, final = ConnectFailed(TIMEOUT_EXPIRED), False
    except PgTLSError as failure:
        error, final = failure, not inspection.query_failed
    else:
        return Inspected(place, inspection.attributes, errors)
    error.where = place.where if place is not None else ""
    return Inspected(None, errors=(*errors, error), final=final)


def own_login_failed(found: Inspected) -> Inspected:
    """Have the client of a session learn no more of a login of the gateway's own than that it
    failed.

    :param found: what was found out.
    :returns: the same, with another error behind the last one where that is about the login.
    """
    if not found.final or not isinstance(found.errors[-1], ServerRejected | ConfigurationError):
        return found
    error = ConnectFailed("the gateway's own login failed")
    error.where = found.errors[-1].where
    return found._replace(errors=(*found.errors, error))


class KnownAttributes:
    """What was found out about hosts, kept for ATTRIBUTES_LIFETIME. However many sessions begin at
    a time, each host is asked once.

    :param clock: the reactor.
    :param look: inspects a host.
    """

    def __init__(
        self,
        clock: IReactorTime,
        look: Callable[[Host], Deferred[Inspected]],
    ) -> None:
        self._clock = clock
        self._look = look
        self._known: dict[Host, tuple[float, Inspected]] = {}
        self._looking: dict[Host, tuple[Deferred[Inspected], list[Deferred[Inspected]]]] = {}

    def of(self, host: Host) -> Deferred[Inspected]:
        """What a host is like.

        :param host: the host.
        :returns: fires when that is known; cancelling it hinders nobody else.
        """
        waiter: Deferred[Inspected] = Deferred(lambda _: self._leave(host, waiter))
        known = self._known.get(host)
        if known is not None and self._clock.seconds() - known[0] < ATTRIBUTES_LIFETIME:
            waiter.callback(known[1])
        elif host in self._looking:
            self._looking[host][1].append(waiter)
        else:
            looking = self._look(host)
            self._looking[host] = looking, [waiter]
            looking.addBoth(self._found, host)
        return waiter

    def forget(self, host: Host) -> None:
        """A session has found a host to be something else.

        :param host: the host, with the address that it has.
        """
        for each, (_, inspected) in list(self._known.items()):
            if inspected.place == host:
                del self._known[each]

    def _found(self, result: Inspected | Failure, host: Host) -> None:
        _, waiting = self._looking.pop(host)
        if isinstance(result, Inspected):
            self._known[host] = self._clock.seconds(), result
        elif not waiting and result.check(CancelledError):
            return
        for waiter in waiting:
            waiter.callback(result)  # as errback, where it is a failure

    def _leave(self, host: Host, waiter: Deferred[Inspected]) -> None:
        looking, waiting = self._looking[host]
        waiting.remove(waiter)
        if not waiting:
            looking.cancel()
