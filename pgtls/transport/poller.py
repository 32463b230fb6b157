"""An epoll of our own for connections and listening sockets.

The reactor dispatches each event in a logging context and looks after its timers between them.
For sockets that do little else than pass bytes on, that is most of the work; these get their events
from here. Our epoll is one descriptor among the reactor's others. (In a process that is a gateway
and nothing else the daemon has it the other way round: :mod:`pgtls.daemon.reactor_waiting`.)
"""

from __future__ import annotations

import select
from functools import cache
from typing import Protocol

from twisted.internet.interfaces import IReactorFDSet, IReadDescriptor
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from pgtls.transport.splice import pipe

_log = Logger(namespace="pgtls.transport")

#: Events taken at a time.
_EVENTS = 256


class Watched(Protocol):
    """What is watched."""

    def fileno(self) -> int:
        """The socket."""

    def ready(self, events: int) -> None:
        """There are events.

        :param events: as epoll has them.
        """

    def connectionLost(self, reason: Failure) -> None:
        """The reactor has ended.

        :param reason: says so.
        """


class Closing(Protocol):
    """What is to be closed."""

    def close_now(self) -> None:
        """Close it."""


@implementer(IReadDescriptor)
class Poller:
    """An epoll of our own. The reactor knows it while there is something to watch.

    :param reactor: Twisted's.
    :ivar turns: how often there have been events, or might have been.
    :ivar pipe: for what goes from one socket to another in the kernel; None where that cannot be.
    """

    def __init__(self, reactor: IReactorFDSet) -> None:
        self._reactor = reactor
        self._stands_alone = False
        self.turns = 0
        self._epoll = select.epoll()
        self._watched: dict[int, Watched] = {}
        self.pipe = pipe()
        self._dispatching = False
        self._closing: list[Closing] = []

    def watch(self, watched: Watched, before: int, now: int) -> None:
        """Change what is waited for.

        :param watched: its socket is open.
        :param before: the events until now, 0 for none.
        :param now: those from now on.
        """
        fd = watched.fileno()
        if not before:
            if not self._watched and not self._stands_alone:
                self._reactor.addReader(self)
            self._watched[fd] = watched
            self._epoll.register(fd, now)
        elif now:
            self._epoll.modify(fd, now)
        else:
            self._epoll.unregister(fd)
            self.forget(watched)

    def forget(self, watched: Watched) -> None:
        """Something is watched no more; closing its socket ends its place in the epoll too.

        :param watched: its socket is still open.
        """
        del self._watched[watched.fileno()]
        if not self._watched and not self._stands_alone:
            self._reactor.removeReader(self)

    def fileno(self) -> int:
        """Readable when there is an event."""
        return self._epoll.fileno()

    def doRead(self) -> None:
        """Pass on the events that are there."""
        self.wait(0)

    def stand_alone(self) -> None:
        """From now on the reactor leaves this epoll alone: the daemon calls :meth:`wait`."""
        if self._watched:
            self._reactor.removeReader(self)
        self._stands_alone = True

    def wait(self, timeout: float | None) -> bool:
        """Wait for events and pass them on.

        :param timeout: seconds; None for as long as it takes.
        :returns: whether there have been any.
        """
        events = self._epoll.poll(timeout, _EVENTS)
        self.turns += 1
        self._dispatching = True
        for fd, event in events:
            # One that came before in this list may have closed this one.
            watched = self._watched.get(fd)
            try:
                if watched is not None:
                    watched.ready(event)
            except Exception:
                # The reactor would take it for the end of all of them.
                _log.failure("unhandled error at the beginning or the end of a connection")
        if self._closing:
            self._close()
        self._dispatching = False
        return bool(events)

    def _close(self) -> None:
        while self._closing:
            try:
                self._closing.pop().close_now()
            except Exception:
                _log.failure("unhandled error at the end of a connection")

    def soon(self, closing: Closing) -> bool:
        """Close something when the events at hand have been dealt with.

        :param closing: what is to be closed.
        :returns: False where there are no events, and the caller has to see to it.
        """
        if self._dispatching:
            self._closing.append(closing)
        return self._dispatching

    def connectionLost(self, reason: Failure) -> None:
        """The reactor has ended: so have the connections, as with Twisted's own.

        :param reason: says so.
        """
        for watched in list(self._watched.values()):
            watched.connectionLost(reason)

    def logPrefix(self) -> str:
        """For the reactor's log.

        :returns: a name.
        """
        return "pgtls"


@cache
def poller(reactor: IReactorFDSet) -> Poller:
    """The one of a reactor.

    :param reactor: Twisted's.
    :returns: always the same.
    """
    return Poller(reactor)
