"""An epoll of our own, one descriptor among the reactor's others, for :mod:`fast_transport`.

The reactor dispatches each event in a logging context and looks after its timers between them.
For sockets that do little else than pass bytes on, that is most of the work; these get their events
from here.
"""

from __future__ import annotations

import select
from functools import cache
from time import monotonic
from typing import Any, Protocol

from twisted.internet.interfaces import IReactorFDSet, IReadDescriptor
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from pgtls.protocols.splice import pipe

_log = Logger(namespace="pgtls.transport")

#: Events taken at a time.
_EVENTS = 256

#: Seconds that a dedicated process stays with its sockets, and waits for each next event, before
#: the rest of the reactor has its turn.
_STAY = 0.003
_WAIT = 0.001

#: Seconds after a new connection in which it does not: setting up a session is the reactor's work.
_SETTLED = 0.02


class Watched(Protocol):
    """What is watched."""

    def fileno(self) -> int:
        """The socket."""

    def ready(self, events: int) -> None:
        """There are events, as epoll has them."""


class Closing(Protocol):
    """What is to be closed."""

    def close_now(self) -> None:
        """Close it."""


@implementer(IReadDescriptor)
class Poller:
    """An epoll of our own. The reactor knows it while there is something to watch.

    :ivar dedicated: these sockets are what the process is there for.
    :ivar pipe: for what goes from one of them to another, if there can be one.
    """

    def __init__(self, reactor: IReactorFDSet) -> None:
        self._reactor = reactor
        self._epoll = select.epoll()
        self._transports: dict[int, Watched] = {}
        self.dedicated = False
        self.pipe = pipe()
        self._last_arrival = 0.0
        self._dispatching = False
        self._closing: list[Closing] = []

    def arrival(self) -> None:
        """There is a new connection."""
        self._last_arrival = monotonic()

    def watch(self, transport: Watched, before: int, now: int) -> None:
        """Change what is waited for on a transport's socket."""
        fd = transport.fileno()
        if not before:
            if not self._transports:
                self._reactor.addReader(self)
            self._transports[fd] = transport
            self._epoll.register(fd, now)
        elif now:
            self._epoll.modify(fd, now)
        else:
            self._epoll.unregister(fd)
            self.forget(transport)

    def forget(self, transport: Watched) -> None:
        """A transport is watched no more; closing its socket ends its place in the epoll too."""
        del self._transports[transport.fileno()]
        if not self._transports:
            self._reactor.removeReader(self)

    def fileno(self) -> int:
        """Readable when there is an event."""
        return self._epoll.fileno()

    def doRead(self) -> None:
        """Pass on the events that are there; in a dedicated process those that follow, too."""
        begin = monotonic()
        stays = self.dedicated and begin > self._last_arrival + _SETTLED
        events = self._epoll.poll(0, _EVENTS)
        self._dispatching = True
        while events:
            for fd, event in events:
                # One that came before in this list may have closed this one.
                transport = self._transports.get(fd)
                try:
                    if transport is not None:
                        transport.ready(event)
                except Exception:
                    # The reactor would take it for the end of all of them.
                    _log.failure("unhandled error at the beginning or the end of a connection")
            self._close()
            if not stays or not self._transports or monotonic() > begin + _STAY:
                break
            events = self._epoll.poll(_WAIT, _EVENTS)
        self._dispatching = False

    def _close(self) -> None:
        while self._closing:
            try:
                self._closing.pop().close_now()
            except Exception:
                _log.failure("unhandled error at the end of a connection")

    def soon(self, transport: Closing) -> bool:
        """Close a transport when the events at hand have been dealt with; False where there are
        none, and somebody else has to."""
        if self._dispatching:
            self._closing.append(transport)
        return self._dispatching

    def connectionLost(self, reason: Failure) -> None:
        """The reactor has ended: so have the connections, as with Twisted's own."""
        for transport in list(self._transports.values()):
            if IReadDescriptor.providedBy(transport):
                transport.connectionLost(reason)

    def logPrefix(self) -> str:
        """For the reactor's log."""
        return "pgtls"


@cache
def poller(reactor: Any) -> Poller:
    """A reactor's own."""
    return Poller(reactor)


def dedicate(reactor: Any) -> None:
    """Prefer these sockets to whatever else the reactor does, which may then wait for
    milliseconds. For a process that is a gateway and nothing else."""
    if hasattr(select, "epoll"):
        poller(reactor).dedicated = True
