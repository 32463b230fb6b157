"""One connect: hosts, their addresses, and the attempts that the sslmode allows at each.

Source: ``PQconnectPoll`` in ``src/interfaces/libpq/fe-connect.c``.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from operator import length_hint

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IProtocol, IProtocolFactory
from twisted.logger import Logger
from twisted.python.failure import Failure

from pgtls.conninfo.connection_string import ConnInfo, Host
from pgtls.errors import ConnectFailed, PgTLSError
from pgtls.protocols.client import NegotiationOutcome, PgTLSClientProtocol
from pgtls.tls.client_context import ClientTLS
from pgtls.transport.deadlines import Deadline, deadlines
from pgtls.transport.dial import TIMEOUT_EXPIRED
from pgtls.transport.dialer import Dialer
from pgtls.transport.name_resolution import known_place
from pgtls.transport.reactor import IReactor
from pgtls.wire.attempts import Attempts
from pgtls.wire.client_negotiation import ClientNegotiation, Event, Fail, NextHost, Reconnect
from pgtls.wire.messages import ServerRejected, StartupMessage
from pgtls.wire.required_authentication import AuthenticationCheck

_log = Logger(namespace="pgtls.client")

#: How a connect ends: with the application's protocol, with the reason why there is none, or with
#: an exception that the application raised.
ConnectOutcome = IProtocol | PgTLSError | Failure

#: How a connection ends without a protocol for the application.
_NOT_CONNECTED = (Reconnect, NextHost, Fail)

#: Seconds for TCP alone where no connect_timeout is set; the kernel's own limit is about as long.
TCP_TIMEOUT = 120.0

_CONNECT = Event.CONNECT  # in Python 3.11 each look at an enumeration's member is a call


class ConnectAttempt:
    """One connect: the hosts in turn, the addresses of each in turn, at each address the attempts
    that the sslmode allows, in turn.

    In callbacks: a coroutine's part was 2 % of what a gateway's session costs, a Deferred's 1 %.

    :param reactor: Twisted's reactor.
    :param conninfo: where to connect to, and how.
    :param dialer: resolves the hosts, and connects to their addresses.
    :param startup: the StartupMessage to send; None where the application begins when TLS is up.
    :param tls: makes what the connection string asks of TLS.
    :param observe: is told what happens, as it happens.
    :param factory: the application's.
    :param ended: is called once, with the outcome.
    :param preface: goes in front of everything on each connection.
    :ivar reached: the host that it ended at, with the address that it has; None before.
    :ivar errors: what failed so far, in turn.
    :ivar authentication: what watches that connection until AuthenticationOk, where the connection
        string requires something; None else.
    :ivar exhausted: whether it ended because all hosts had been tried. Otherwise it ended with an
        error after which libpq tries no other host.
    """

    exhausted = False
    _address: Host
    _attempts: Attempts

    def __init__(
        self,
        reactor: IReactor,
        conninfo: ConnInfo,
        dialer: Dialer,
        startup: StartupMessage | None,
        tls: Callable[[], ClientTLS],
        observe: Callable[[Event], None],
        factory: IProtocolFactory,
        ended: Callable[[ConnectOutcome], None],
        preface: bytes = b"",
    ) -> None:
        self._reactor = reactor
        self._conninfo = conninfo
        self._dialer = dialer
        self._startup = startup.raw if startup is not None else None
        self._tls = tls
        self._observe = observe
        self._required = conninfo.required_authentication
        self.reached: Host | None = None
        self.authentication: AuthenticationCheck | None = None
        self._factory = factory
        self._preface = preface
        self._hosts = iter(self._shuffled(conninfo.hosts))
        self._addresses: Iterator[Host] = iter(())
        self.errors: list[PgTLSError] = []
        self._waiting: Deferred[list[Host]] | Deferred[None] | None = None
        self._protocol: PgTLSClientProtocol | None = None
        self._limit: Deadline | None = None
        self._turns = 0
        self._began = 0.0  # with this host, by the reactor's clock
        self._ended: Callable[[ConnectOutcome], None] | None = ended

    def begin(self) -> None:
        """Begin with the first host."""
        self._go_on()

    def cancel(self) -> None:
        """Close the connection, and report no outcome."""
        self._ended = None
        self._give_up()

    def unfinished(self) -> str:
        """Describe the attempt that goes on, for the log where it is given up.

        :returns: which host, for how many seconds, and which other hosts have not been tried.
        """
        seconds = self._reactor.seconds() - self._began
        text = f"{self._address.where} was tried for {seconds:.1f} s"
        if waiting := length_hint(self._hosts):
            text += f"; {waiting} more not tried: set connect_timeout to have the next one tried"
        return text

    def _shuffled(self, hosts: Sequence[Host]) -> Sequence[Host]:
        if self._conninfo.load_balance_hosts == "random":
            return random.sample(hosts, len(hosts))
        return hosts

    def _go_on(self) -> None:
        """Try the next address; in a loop, where one after the other fails at once."""
        self._turns += 1
        if self._turns > 1:
            return  # in the loop below, which has just got one turn more
        while self._turns:
            try:
                self._next()
            except Exception:
                self._failed(Failure())
            self._turns -= 1

    def _next(self) -> None:
        for address in self._addresses:
            self._begin(address)
            return
        for host in self._hosts:
            known = known_place(host)
            if known is not None:
                self._begin(known)
                return
            self._address, self._began = host, self._reactor.seconds()
            timeout = self._conninfo.connect_timeout or TCP_TIMEOUT
            resolving = self._waiting = self._dialer.addresses(host, timeout)
            resolving.addCallbacks(self._resolved, self._not_resolved).addErrback(self._failed)
            return
        self.exhausted = True
        self._end(with_notes(self.errors))

    def _resolved(self, addresses: Sequence[Host]) -> None:
        self._waiting = None
        self._addresses = iter(self._shuffled(addresses))
        self._go_on()

    def _not_resolved(self, failure: Failure) -> Failure | None:
        error = failure.value
        if self._waiting is None:
            return None  # it was cancelled
        if not isinstance(error, ConnectFailed):
            return failure
        self._waiting = None
        self.errors.append(error)
        self._go_on()
        return None

    def _begin(self, address: Host) -> None:
        """At an address."""
        self._address, self._began = address, self._reactor.seconds()
        conninfo = self._conninfo
        if conninfo.connect_timeout is not None:
            limits = deadlines(self._reactor)
            self._limit = limits.call_later(conninfo.connect_timeout, self._timed_out)
        attempts = Attempts.plan(
            conninfo.sslmode,
            conninfo.sslnegotiation,
            unix_socket=address.unix_path is not None,
        )
        self._attempt(attempts, _CONNECT)

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
            self._address,
            conninfo,
            self._tls,
            self._factory,
            self._observe,
            self._connection_ended,
            self._reactor,
            self._preface,
        )
        timeout = conninfo.connect_timeout or TCP_TIMEOUT
        connecting = self._dialer.dial(self._address, protocol, timeout)
        if connecting is not None:
            self._waiting = connecting
            connecting.addErrback(self._not_connected).addErrback(self._failed)

    def _not_connected(self, failure: Failure) -> Failure | None:
        error = failure.value
        if self._waiting is None:
            return None  # it was cancelled
        if not isinstance(error, ConnectFailed):
            return failure
        self._connection_ended(NextHost(error))
        return None

    def _connection_ended(self, outcome: NegotiationOutcome) -> None:
        protocol, self._protocol = self._protocol, None
        self._waiting = None
        if protocol is not None:
            self.authentication = protocol.authentication
        try:
            self._follow(outcome)
        except Exception:
            self._failed(Failure())

    def _follow(self, outcome: NegotiationOutcome) -> None:
        if not isinstance(outcome, _NOT_CONNECTED):
            self.reached = self._address
            self._end(outcome)
            return
        outcome.error.where = self._address.where
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
            # libpq's rule: another address is tried only where there was no connection
            self._end(with_notes(self.errors))
        else:
            self._next_address(outcome.error)

    def _timed_out(self) -> None:
        """``connect_timeout`` is over."""
        self._limit = None
        self._give_up()
        error = ConnectFailed(TIMEOUT_EXPIRED)
        error.where = self._address.where
        self.errors.append(error)
        self._next_address(error)

    def _next_address(self, error: PgTLSError) -> None:
        """Try the next address, where there was no connection to this one."""
        self._stop_limit()
        if isinstance(error, ServerRejected):
            self._addresses = iter(())  # 57P03: its other addresses would say the same
        self._go_on()

    def _failed(self, failure: Failure) -> None:
        """The application raised an exception when it was told something. Where the outcome has
        been reported already, or is not wanted, it goes to where it would have gone."""
        if self._ended is None:
            failure.raiseException()
        self._give_up()
        self._end(failure)

    def _end(self, outcome: ConnectOutcome) -> None:
        self._stop_limit()
        ended, self._ended = self._ended, None
        if ended is not None:
            ended(outcome)

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


def with_notes(errors: list[PgTLSError]) -> PgTLSError:
    """The last error, with a note for each of those before it.

    :param errors: what failed, in turn.
    :returns: the last of them.
    """
    if len(errors) > 1:
        errors[-1].__notes__ = [str(earlier) for earlier in errors[:-1]]
    return errors[-1]
