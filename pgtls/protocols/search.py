"""The way of one connect through hosts, addresses and attempts."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from operator import length_hint
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.interfaces import IDelayedCall, IProtocol, IProtocolFactory
from twisted.logger import Logger
from twisted.python.failure import Failure

from pgtls.conninfo.connection_string import ConnInfo, Host
from pgtls.errors import ConnectFailed, PgTLSError
from pgtls.protocols.client import Outcome, PgTLSClientProtocol
from pgtls.tls.client_context import ClientTLS
from pgtls.transport.dial import TIMEOUT_EXPIRED, dial
from pgtls.transport.name_resolution import known_place, places
from pgtls.wire.attempts import Attempts
from pgtls.wire.client_negotiation import ClientNegotiation, Event, Fail, NextHost, Reconnect
from pgtls.wire.messages import ServerRejected, StartupMessage
from pgtls.wire.required_authentication import AuthenticationCheck

_log = Logger(namespace="pgtls.client")

#: How a search ends: with the application's protocol, why there is none, or an error of the
#: application's.
Found = IProtocol | PgTLSError | Failure

#: How an attempt ends without a protocol for the application.
_NOT_CONNECTED = (Reconnect, NextHost, Fail)

#: Seconds for TCP alone where no connect_timeout is set; the kernel's own limit is about as long.
TCP_TIMEOUT = 120.0

#: Seconds for which a name's addresses are used again. A gateway may connect a thousand times in
#: one, and a look at a name costs as much as the rest.
NAME_LIFETIME = 1.0


class Names:
    """The addresses of hosts, as they have just been found."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._found: dict[Host, tuple[float, list[Host]]] = {}

    def places(self, host: Host, timeout: float) -> Deferred[list[Host]]:
        """A host, once for each of its addresses.

        :param host: as the connection string has it.
        :param timeout: seconds that the lookup may take.
        :returns: fires with the host once for each address; fails with ConnectFailed where there is
            none.
        """
        return Deferred.fromCoroutine(self._places(host, timeout))

    async def _places(self, host: Host, timeout: float) -> list[Host]:
        now: float = self._reactor.seconds()
        when, found = self._found.get(host, (now - NAME_LIFETIME, []))
        if now - when >= NAME_LIFETIME:
            looking = Deferred.fromCoroutine(places(self._reactor, host))
            try:
                found = await looking.addTimeout(timeout, self._reactor)
            except DeferredTimeout:
                raise ConnectFailed(TIMEOUT_EXPIRED) from None
            self._found[host] = now, found
        return found


class Search:
    """One connect: the hosts in turn, the addresses of each in turn, at each address the attempts
    that the sslmode allows, in turn.

    In callbacks: a coroutine's part was 2 % of what a gateway's session costs, a Deferred's 1 %.

    What it is given is :class:`~pgtls.protocols.endpoint.PgTLSClientEndpoint`'s.

    :param ended: is told once how it has ended.
    :ivar reached: the host that it ended at, with the address that it has; None before.
    :ivar errors: what failed so far, in turn.
    :ivar authentication: what watches that connection until AuthenticationOk, where the connection
        string requires something; None else.
    """

    _place: Host
    _attempts: Attempts

    def __init__(
        self,
        reactor: Any,
        conninfo: ConnInfo,
        names: Names,
        startup: StartupMessage | None,
        tls: Callable[[], ClientTLS],
        observe: Callable[[Event], None],
        factory: IProtocolFactory,
        ended: Callable[[Found], None],
    ) -> None:
        self._reactor = reactor
        self._conninfo = conninfo
        self._names = names
        self._startup = startup.raw if startup is not None else None
        self._tls = tls
        self._observe = observe
        self._required = conninfo.required_authentication
        self.reached: Host | None = None
        self.authentication: AuthenticationCheck | None = None
        self._factory = factory
        self._hosts = iter(self._shuffled(conninfo.hosts))
        self._places: Iterator[Host] = iter(())
        self.errors: list[PgTLSError] = []
        self._waiting: Deferred[Any] | None = None
        self._protocol: PgTLSClientProtocol | None = None
        self._limit: IDelayedCall | None = None
        self._turns = 0
        self._began = 0.0  # with this host, by the reactor's clock
        self._ended: Callable[[Found], None] | None = ended

    def begin(self) -> None:
        """Begin with the first host."""
        self._go_on()

    def cancel(self) -> None:
        """Close the attempt, and tell nobody how it has ended."""
        self._ended = None
        self._give_up()

    def unfinished(self) -> str:
        """Describe the attempt that goes on, for the log of who gives it up.

        :returns: which host, for how many seconds, and which other hosts have not been tried.
        """
        seconds = self._reactor.seconds() - self._began
        text = f"{self._place.where} was tried for {seconds:.1f} s"
        if waiting := length_hint(self._hosts):
            text += f"; {waiting} more not tried: set connect_timeout to have the next one tried"
        return text

    def _shuffled(self, hosts: Sequence[Host]) -> Sequence[Host]:
        if self._conninfo.load_balance_hosts == "random":
            return random.sample(hosts, len(hosts))
        return hosts

    def _go_on(self) -> None:
        """To the next address; again and again, where one after the other fails at once."""
        self._turns += 1
        if self._turns > 1:
            return  # in the loop below, which has just got one turn more
        while self._turns:
            try:
                self._next()
            except Exception:
                self._broken(Failure())
            self._turns -= 1

    def _next(self) -> None:
        for place in self._places:
            self._begin(place)
            return
        for host in self._hosts:
            known = known_place(host)
            if known is not None:
                self._begin(known)
                return
            self._place, self._began = host, self._reactor.seconds()
            timeout = self._conninfo.connect_timeout or TCP_TIMEOUT
            self._waiting = self._names.places(host, timeout)
            self._waiting.addCallbacks(self._found, self._not_found).addErrback(self._broken)
            return
        self._end(_with_notes(self.errors))

    def _found(self, places: Sequence[Host]) -> None:
        self._waiting = None
        self._places = iter(self._shuffled(places))
        self._go_on()

    def _not_found(self, failure: Failure) -> Failure | None:
        error = failure.value
        if self._waiting is None:
            return None  # it was cancelled
        if not isinstance(error, ConnectFailed):
            return failure
        self._waiting = None
        self.errors.append(error)
        self._go_on()
        return None

    def _begin(self, place: Host) -> None:
        """At an address."""
        self._place, self._began = place, self._reactor.seconds()
        conninfo = self._conninfo
        if conninfo.connect_timeout is not None:
            self._limit = self._reactor.callLater(conninfo.connect_timeout, self._late)
        attempts = Attempts.plan(
            conninfo.sslmode,
            conninfo.sslnegotiation,
            unix_socket=place.unix_path is not None,
        )
        self._attempt(attempts, Event.CONNECT)

    def _attempt(self, attempts: Attempts, opening: Event) -> None:
        """One connection."""
        self._attempts = attempts
        conninfo = self._conninfo
        protocol = self._protocol = PgTLSClientProtocol(
            ClientNegotiation(
                attempts,
                self._startup,
                opening,
                conninfo.min_protocol_version,
                self._required,
            ),
            self._place,
            conninfo,
            self._tls,
            self._factory,
            self._observe,
            self._came,
            self._reactor,
        )
        timeout = conninfo.connect_timeout or TCP_TIMEOUT
        dialling = dial(self._reactor, self._place, protocol, timeout)
        if dialling is not None:
            self._waiting = dialling
            dialling.addErrback(self._not_dialled).addErrback(self._broken)

    def _not_dialled(self, failure: Failure) -> Failure | None:
        error = failure.value
        if self._waiting is None:
            return None  # it was cancelled
        if not isinstance(error, ConnectFailed):
            return failure
        self._came(NextHost(error))
        return None

    def _came(self, outcome: Outcome) -> None:
        protocol, self._protocol = self._protocol, None
        self._waiting = None
        if protocol is not None:
            self.authentication = protocol.authentication
        try:
            self._follow(outcome)
        except Exception:
            self._broken(Failure())

    def _follow(self, outcome: Outcome) -> None:
        if not isinstance(outcome, _NOT_CONNECTED):
            self.reached = self._place
            self._end(outcome)
            return
        outcome.error.where = self._place.where
        self.errors.append(outcome.error)
        if isinstance(outcome, Reconnect):
            _log.info(
                "{host}: {method} failed ({reason}); next: {next}",
                host=outcome.error.where,
                method=self._attempts.current.value,
                reason=outcome.error.reason,
                next=outcome.attempts.current.value,
            )
            self._attempt(outcome.attempts, Event.RECONNECT)
        elif isinstance(outcome, Fail):
            # libpq's rule: only where nobody can be reached comes another address
            self._end(_with_notes(self.errors))
        else:
            self._leave(outcome.error)

    def _late(self) -> None:
        """``connect_timeout`` is over."""
        self._limit = None
        self._give_up()
        error = ConnectFailed(TIMEOUT_EXPIRED)
        error.where = self._place.where
        self.errors.append(error)
        self._leave(error)

    def _leave(self, error: PgTLSError) -> None:
        """An address where nobody is."""
        self._stop_limit()
        if isinstance(error, ServerRejected):
            self._places = iter(())  # 57P03: its other addresses would say the same
        self._go_on()

    def _broken(self, failure: Failure) -> None:
        """An application's error, who is told of all this. Who has been told of the end already, or
        does not want to be, meets its error itself."""
        if self._ended is None:
            failure.raiseException()
        self._give_up()
        self._end(failure)

    def _end(self, found: Found) -> None:
        self._stop_limit()
        ended, self._ended = self._ended, None
        if ended is not None:
            ended(found)

    def _give_up(self) -> None:
        self._stop_limit()
        waiting, self._waiting = self._waiting, None
        protocol, self._protocol = self._protocol, None
        if protocol is not None and protocol.connected:
            protocol.give_up()
        elif waiting is not None:
            waiting.cancel()

    def _stop_limit(self) -> None:
        if self._limit is not None:
            self._limit.cancel()
            self._limit = None


def _with_notes(errors: list[PgTLSError]) -> PgTLSError:
    """The last error, which tells of the ones before it."""
    for earlier in errors[:-1]:
        errors[-1].add_note(str(earlier))
    return errors[-1]
