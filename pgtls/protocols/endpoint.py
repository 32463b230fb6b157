"""The client endpoint: a libpq connection string in, a connection that is as it should be out."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.interfaces import (
    IDelayedCall,
    IProtocol,
    IProtocolFactory,
    IStreamClientEndpoint,
)
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from pgtls.protocols.addresses import known_place, places
from pgtls.protocols.client import Outcome, PgTLSClientProtocol
from pgtls.protocols.dial import TIMEOUT_EXPIRED, dial
from pgtls.tls.client_context import ClientTLS, Roots
from pgtls.tls.sources import CertificateSource, KeySource
from pgtls.wire.attempts import Attempts, SSLMode
from pgtls.wire.client import ClientNegotiation, Event, Fail, NextHost, Reconnect
from pgtls.wire.conninfo import ConnInfo, Host
from pgtls.wire.errors import ConnectFailed, PgTLSError, ServerRejected
from pgtls.wire.messages import StartupMessage

_log = Logger(namespace="pgtls.client")

T = TypeVar("T")

#: How an attempt ends without a protocol for the application.
_NOT_CONNECTED = (Reconnect, NextHost, Fail)

#: Seconds for TCP alone where no connect_timeout is set; the kernel's own limit is about as long.
TCP_TIMEOUT = 120.0

#: Seconds for which a name's addresses are used again. A gateway may connect a thousand times in
#: one, and a look at a name costs as much as the rest.
NAME_LIFETIME = 1.0


@implementer(IStreamClientEndpoint)
class PgTLSClientEndpoint:
    """Connects as a libpq client would under a connection string.

    :param reactor: Twisted's reactor.
    :param conninfo: a libpq connection string (PG* environment variables and ``~/.postgresql``
        count), or one already parsed.
    :param roots: whom to trust, from memory: PEM, DER, cryptography's objects, or a list of them,
        in place of ``sslrootcert`` and of root.crt and root.crl in ``~/.postgresql``.
    :param certificate: the client's certificate, from memory too, in place of ``sslcert``.
    :param key: its private key, in place of ``sslkey``.
    :param startup: where given, it is sent as soon as the connection is as it should be, and the
        server's first answer decides as in libpq: an error leads allow and prefer to their other
        method, "cannot connect now" to the next host. The application then reads the answer, and
        does not send the message again.
    :param observe: is told what happens, as it happens.
    :param tls: what to use as TLS, in place of what the connection string asks for.
    :ivar reached: the host that the last :meth:`connect` ended at, with the address that it has;
        None before.
    :raises ConfigurationError: the connection string cannot be used.
    """

    def __init__(
        self,
        reactor: Any,
        conninfo: str | ConnInfo,
        *,
        roots: Roots | None = None,
        certificate: CertificateSource | None = None,
        key: KeySource | None = None,
        startup: StartupMessage | None = None,
        observe: Callable[[Event], None] = lambda event: None,
        tls: Callable[[], ClientTLS] | None = None,
    ) -> None:
        self._reactor = reactor
        if isinstance(conninfo, str):
            conninfo = ConnInfo.parse(conninfo, os.environ)
        self.conninfo = conninfo
        self._startup = startup
        self._observe = observe
        self._make_tls = tls or partial(
            ClientTLS, conninfo, roots=roots, certificate=certificate, key=key
        )
        self._tls: ClientTLS | None = None
        self.reached: Host | None = None
        self._found: dict[Host, tuple[float, list[Host]]] = {}

    def for_session(
        self, startup: StartupMessage | None = None, host: Host | None = None
    ) -> PgTLSClientEndpoint:
        """The same endpoint for one session: its StartupMessage, or just one of the hosts. What
        has been made for TLS is shared, and what has just been found of names."""
        session = PgTLSClientEndpoint.__new__(PgTLSClientEndpoint)
        session.__dict__.update(self.__dict__)
        session._make_tls = self.tls
        session._startup = startup
        session.reached = None
        if host is not None:
            session.conninfo = replace(self.conninfo, hosts=(host,))
        return session

    def tls(self) -> ClientTLS:
        """What the connection string asks of TLS; made once.

        :raises ConfigurationError: a file it names cannot be used.
        """
        if self._tls is None:
            self._tls = self._make_tls()
        return self._tls

    def check(self) -> None:
        """See now whether TLS can be had as the connection string has it, where any of its hosts
        may come to it.

        :raises ConfigurationError: it cannot.
        """
        if self.conninfo.sslmode is not SSLMode.DISABLE and any(
            host.unix_path is None for host in self.conninfo.hosts
        ):
            self.tls()

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """Connect.

        :returns: fires with the application's protocol when TLS is up and the server verified
            (with ``startup``: when it has answered), fails with a :class:`PgTLSError`. Cancelling
            it closes the attempt.
        """
        return _Search(self, protocolFactory).begin()

    async def _looked_up(self, host: Host) -> list[Host]:
        """:raises ConnectFailed: it has no address."""
        now: float = self._reactor.seconds()
        when, found = self._found.get(host, (now - NAME_LIFETIME, []))
        if now - when >= NAME_LIFETIME:
            looking = places(self._reactor, host)
            found = await self._in_time(looking, self.conninfo.connect_timeout or TCP_TIMEOUT)
            self._found[host] = now, found
        return found

    def _shuffled(self, hosts: Sequence[Host]) -> Sequence[Host]:
        if self.conninfo.load_balance_hosts == "random":
            return random.sample(hosts, len(hosts))
        return hosts

    async def _in_time(self, work: Coroutine[Deferred[Any], Any, T], timeout: float) -> T:
        """:raises ConnectFailed: it took longer than ``timeout`` seconds."""
        try:
            return await Deferred.fromCoroutine(work).addTimeout(timeout, self._reactor)
        except DeferredTimeout:
            raise ConnectFailed(TIMEOUT_EXPIRED) from None


class _Search:
    """One :meth:`PgTLSClientEndpoint.connect`: the hosts in turn, the addresses of each in turn, at
    each address the attempts that the sslmode allows, in turn.

    In callbacks: a coroutine's part was 2 % of what a gateway's session costs.

    :ivar result: what :meth:`~PgTLSClientEndpoint.connect` returns.
    """

    _place: Host
    _attempts: Attempts

    def __init__(self, endpoint: PgTLSClientEndpoint, factory: IProtocolFactory) -> None:
        self._endpoint = endpoint
        self._factory = factory
        self._hosts = iter(endpoint._shuffled(endpoint.conninfo.hosts))
        self._places: Iterator[Host] = iter(())
        self._errors: list[PgTLSError] = []
        self._waiting: Deferred[Any] | None = None
        self._protocol: PgTLSClientProtocol | None = None
        self._limit: IDelayedCall | None = None
        self._turns = 0
        self.result: Deferred[IProtocol] = Deferred(lambda _: self._cancel())

    def begin(self) -> Deferred[IProtocol]:
        """Begin with the first host."""
        self._go_on()
        return self.result

    def _go_on(self) -> None:
        """To the next address; again and again, where one after the other fails at once."""
        self._turns += 1
        if self._turns > 1:
            return  # in the loop below, which has just got one turn more
        while self._turns:
            try:
                self._next()
            except Exception:
                self._end(Failure())
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
            self._waiting = Deferred.fromCoroutine(self._endpoint._looked_up(host))
            self._waiting.addCallbacks(self._found, self._not_found).addErrback(self._end)
            return
        self._end(_with_notes(self._errors))

    def _found(self, places: Sequence[Host]) -> None:
        self._waiting = None
        self._places = iter(self._endpoint._shuffled(places))
        self._go_on()

    def _not_found(self, failure: Failure) -> Failure | None:
        error = failure.value
        if self._waiting is None:
            return None  # it was cancelled
        if not isinstance(error, ConnectFailed):
            return failure
        self._waiting = None
        self._errors.append(error)
        self._go_on()
        return None

    def _begin(self, place: Host) -> None:
        """At an address."""
        self._place = place
        conninfo = self._endpoint.conninfo
        if conninfo.connect_timeout is not None:
            self._limit = self._endpoint._reactor.callLater(conninfo.connect_timeout, self._late)
        attempts = Attempts.plan(
            conninfo.sslmode,
            conninfo.sslnegotiation,
            unix_socket=place.unix_path is not None,
        )
        self._attempt(attempts, Event.CONNECT)

    def _attempt(self, attempts: Attempts, opening: Event) -> None:
        """One connection."""
        self._attempts = attempts
        endpoint = self._endpoint
        conninfo = endpoint.conninfo
        startup = endpoint._startup.raw if endpoint._startup is not None else None
        protocol = self._protocol = PgTLSClientProtocol(
            ClientNegotiation(attempts, startup, opening, conninfo.min_protocol_version),
            self._place,
            conninfo,
            endpoint.tls,
            self._factory,
            endpoint._observe,
            endpoint._reactor,
        )
        timeout = conninfo.connect_timeout or TCP_TIMEOUT
        waiting: Deferred[Any] = dial(endpoint._reactor, self._place, protocol, timeout)
        if not self.result.called:  # by who was told of the connection, and cancelled
            self._waiting = waiting
        waiting.addCallback(lambda _: protocol.outcome)
        waiting.addCallbacks(self._came, self._not_dialled).addErrback(self._end)

    def _not_dialled(self, failure: Failure) -> Failure | None:
        error = failure.value
        if self._waiting is None:
            return None  # it was cancelled
        if not isinstance(error, ConnectFailed):
            return failure
        self._came(NextHost(error))
        return None

    def _came(self, outcome: Outcome) -> None:
        if self._waiting is None:
            return  # it was cancelled
        self._waiting = self._protocol = None
        if not isinstance(outcome, _NOT_CONNECTED):
            self._endpoint.reached = self._place
            self._end(outcome)
            return
        outcome.error.where = where(self._place)
        self._errors.append(outcome.error)
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
            self._end(_with_notes(self._errors))
        else:
            self._leave(outcome.error)

    def _late(self) -> None:
        """``connect_timeout`` is over."""
        self._limit = None
        self._cancel()
        error = ConnectFailed(TIMEOUT_EXPIRED)
        error.where = where(self._place)
        self._errors.append(error)
        self._leave(error)

    def _leave(self, error: PgTLSError) -> None:
        """An address where nobody is."""
        self._stop_limit()
        if isinstance(error, ServerRejected):
            self._places = iter(())  # 57P03: its other addresses would say the same
        self._go_on()

    def _end(self, result: IProtocol | PgTLSError | Failure) -> None:
        self._stop_limit()
        if isinstance(result, PgTLSError | Failure):
            self.result.errback(result)
        else:
            self.result.callback(result)

    def _cancel(self) -> None:
        self._stop_limit()
        waiting, self._waiting = self._waiting, None
        protocol, self._protocol = self._protocol, None
        if protocol is not None and protocol.connected:
            protocol.outcome.cancel()
        elif waiting is not None:
            waiting.cancel()

    def _stop_limit(self) -> None:
        if self._limit is not None:
            self._limit.cancel()
            self._limit = None


def where(host: Host) -> str:
    """A host as libpq names it in errors."""
    if host.unix_path is not None:
        return f'connection to server on socket "{host.unix_path}"'
    address = f" ({host.hostaddr})" if host.host not in ("", host.hostaddr) else ""
    return f'connection to server at "{host.name}"{address}, port {host.port}'


def _with_notes(errors: list[PgTLSError]) -> PgTLSError:
    """The last error, which tells of the ones before it."""
    for earlier in errors[:-1]:
        errors[-1].add_note(str(earlier))
    return errors[-1]
