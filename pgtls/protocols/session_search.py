"""A connect with ``target_session_attrs``: the first host whose sessions are as wanted.

Each host is asked in a login of its own (:mod:`pgtls.protocols.session_inspection`), and the
connection is made to one that will do: an application logs in by itself, so that there is no other
way to know beforehand.

Source: PostgreSQL's documentation, "Specifying Multiple Hosts"; ``PQconnectPoll`` in
``src/interfaces/libpq/fe-connect.c``.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TYPE_CHECKING

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IProtocolFactory, IReactorTime
from twisted.python.failure import Failure

from pgtls.conninfo.hosts import Host
from pgtls.errors import PgTLSError, SessionAttributesNotMet
from pgtls.protocols.connect_attempt import ConnectAttempt, ConnectOutcome, with_notes
from pgtls.protocols.session_inspection import Inspected
from pgtls.wire.client_negotiation import Event
from pgtls.wire.messages import StartupMessage
from pgtls.wire.required_authentication import AuthenticationCheck
from pgtls.wire.session_attributes import TargetSessionAttrs

if TYPE_CHECKING:
    from pgtls.protocols.endpoint import PgTLSClientEndpoint

#: Inspects a host, and tells the other argument what happens.
Inspect = Callable[[Host, Callable[[Event], None]], Deferred[Inspected]]


class SessionSearch:
    """One connect, as :class:`~pgtls.protocols.connect_attempt.ConnectAttempt` is one.

    :param clock: the reactor.
    :param endpoint: with the hosts, and with what is wanted.
    :param startup: the StartupMessage to send; None where the application begins when TLS is up.
    :param inspect: finds out about a host.
    :param observe: is told what happens, as it happens.
    :param factory: the application's.
    :param ended: is called once, with the outcome.
    :ivar reached: the host that it ended at, with the address that it has; None before.
    :ivar errors: what failed so far, in turn.
    :ivar authentication: see ConnectAttempt.
    :ivar exhausted: whether it ended because all hosts had been tried.
    """

    def __init__(
        self,
        clock: IReactorTime,
        endpoint: PgTLSClientEndpoint,
        startup: StartupMessage | None,
        inspect: Inspect,
        observe: Callable[[Event], None],
        factory: IProtocolFactory,
        ended: Callable[[ConnectOutcome], None],
    ) -> None:
        self._clock = clock
        self._endpoint = endpoint
        self._startup = startup
        self._inspect = inspect
        self._observe = observe
        self._factory = factory
        self._ended: Callable[[ConnectOutcome], None] | None = ended
        self._searching: Deferred[None] | None = None
        self._host = endpoint.conninfo.hosts[0]
        self._began = 0.0
        self.reached: Host | None = None
        self.errors: list[PgTLSError] = []
        self.authentication: AuthenticationCheck | None = None
        self.exhausted = False

    def begin(self) -> None:
        """Begin with the first host."""
        searching = Deferred.fromCoroutine(self._search())
        self._searching = searching
        searching.addErrback(self._failed)

    def cancel(self) -> None:
        """Close the connection, and report no outcome."""
        self._ended = None
        if self._searching is not None:
            self._searching.cancel()

    def unfinished(self) -> str:
        """Describe the attempt that goes on, for the log where it is given up.

        :returns: which host, and for how many seconds.
        """
        seconds = self._clock.seconds() - self._began
        return f"{self._host.where} was tried for {seconds:.1f} s"

    async def _search(self) -> None:
        conninfo = self._endpoint.conninfo
        hosts = list(conninfo.hosts)
        if conninfo.load_balance_hosts == "random":
            random.shuffle(hosts)
        for wanted in conninfo.target_session_attrs.passes:
            for host in hosts:
                self._host, self._began = host, self._clock.seconds()
                if await self._tried(host, wanted):
                    return
        self.exhausted = True
        self._end(with_notes(self.errors))

    async def _tried(self, host: Host, wanted: TargetSessionAttrs) -> bool:
        """Whether it has ended here, well or not."""
        place = host
        if wanted is not TargetSessionAttrs.ANY:
            events: list[Event] = []
            found = await self._inspect(host, events.append)
            self.errors.extend(found.errors)
            mismatch = wanted.mismatch(found.attributes) if found.place is not None else None
            if found.place is None or mismatch is not None:
                for event in events:  # else the connection itself will have the same
                    self._observe(event)
                if mismatch is not None and found.place is not None:
                    self.errors.append(session_attributes_not_met(mismatch, found.place))
                if found.final:
                    self._end(with_notes(self.errors))
                return found.final
            place = found.place
        return await self._connected(place)

    async def _connected(self, place: Host) -> bool:
        connected: Deferred[ConnectOutcome] = Deferred(lambda _: attempt.cancel())
        attempt = self._endpoint.for_session(place).attempt(
            self._factory, self._startup, connected.callback
        )
        attempt.begin()
        outcome = await connected
        self.errors.extend(attempt.errors)
        if isinstance(outcome, PgTLSError):
            if not attempt.exhausted:
                self._end(with_notes(self.errors))
            return not attempt.exhausted
        self.reached, self.authentication = attempt.reached, attempt.authentication
        self._end(outcome)
        return True

    def _failed(self, failure: Failure) -> None:
        if self._ended is not None:
            error = failure.value
            self._end(error if isinstance(error, PgTLSError) else failure)
        elif not failure.check(CancelledError):
            failure.raiseException()

    def _end(self, outcome: ConnectOutcome) -> None:
        ended, self._ended = self._ended, None
        if ended is not None:
            ended(outcome)


def session_attributes_not_met(mismatch: str, place: Host) -> SessionAttributesNotMet:
    """The error where a server is not as ``target_session_attrs`` wants it.

    :param mismatch: why, in libpq's words.
    :param place: the server.
    :returns: the error.
    """
    error = SessionAttributesNotMet(mismatch)
    error.where = place.where
    return error


Attempt = ConnectAttempt | SessionSearch
