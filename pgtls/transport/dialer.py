"""Dialers: how a client gets to hosts, from this machine or through an SSH server
(:mod:`pgtls.transport.ssh_tunnel`)."""

from __future__ import annotations

from typing import Protocol

from twisted.internet.defer import Deferred, succeed
from twisted.internet.protocol import Protocol as TwistedProtocol
from twisted.python.failure import Failure

from pgtls.conninfo.hosts import Host
from pgtls.errors import ConnectFailed
from pgtls.transport.dial import TIMEOUT_EXPIRED, dial
from pgtls.transport.name_resolution import places
from pgtls.transport.reactor import IReactor

#: Seconds for which a name's addresses are used again. A gateway may connect a thousand times in
#: one, and a lookup costs as much as the rest.
NAME_LIFETIME = 1.0


class Dialer(Protocol):
    """Resolves hosts, and connects to their addresses."""

    def addresses(self, host: Host, timeout: float) -> Deferred[list[Host]]:
        """Look a host up.

        :param host: as the connection string has it.
        :param timeout: seconds that the lookup may take.
        :returns: fires with the host once for each of its addresses; fails with ConnectFailed where
            it has none.
        """

    def dial(self, host: Host, protocol: TwistedProtocol, timeout: float) -> Deferred[None] | None:
        """Connect ``protocol`` to one of them.

        :param host: one of them.
        :param protocol: is given its transport, and from then on what comes.
        :param timeout: seconds that the connection may take.
        :returns: None where there is a connection already; else fires when there is one, fails with
            ConnectFailed where there is none.
        """


class DirectDialer:
    """Connects from this machine.

    What the resolver answers is remembered for NAME_LIFETIME, and it is asked for a name once at a
    time, however many want to know: where DNS is silent, each question keeps one of the reactor's
    few threads, which other names need.

    :param reactor: Twisted's reactor.
    """

    def __init__(self, reactor: IReactor) -> None:
        self._reactor = reactor
        self._known: dict[Host, tuple[float, list[Host]]] = {}
        self._waiting: dict[Host, list[Deferred[list[Host]]]] = {}

    def dial(self, host: Host, protocol: TwistedProtocol, timeout: float) -> Deferred[None] | None:
        """See :class:`Dialer`.

        :param host: has a ``hostaddr``, or is a Unix socket.
        :param protocol: is given its transport.
        :param timeout: seconds that the connection may take.
        :returns: None where there is a connection already.
        """
        return dial(self._reactor, host, protocol, timeout)

    def addresses(self, host: Host, timeout: float) -> Deferred[list[Host]]:
        """See :class:`Dialer`.

        :param host: as the connection string has it.
        :param timeout: seconds that the lookup may take.
        :returns: fires with its addresses.
        """
        now: float = self._reactor.seconds()
        resolved, found = self._known.get(host, (now - NAME_LIFETIME, []))
        if now - resolved < NAME_LIFETIME:
            return succeed(found)
        pending = host in self._waiting
        waiters = self._waiting.setdefault(host, [])
        waiter: Deferred[list[Host]] = Deferred(waiters.remove)
        waiters.append(waiter)
        if not pending:
            lookup = Deferred.fromCoroutine(places(self._reactor, host))
            lookup.addBoth(self._looked_up, host, now)
        waiter.addTimeout(timeout, self._reactor, _timed_out)
        return waiter

    def _looked_up(self, found: list[Host] | Failure, host: Host, now: float) -> None:
        waiters = self._waiting.pop(host)
        if isinstance(found, Failure):
            for waiter in waiters:
                waiter.errback(found)
            return
        self._known[host] = now, found
        for waiter in waiters:
            waiter.callback(found)


def _timed_out(outcome: object, seconds: float) -> list[Host]:
    raise ConnectFailed(TIMEOUT_EXPIRED)
