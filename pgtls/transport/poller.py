"""An epoll of our own for :mod:`fast_transport`.

The reactor dispatches each event in a logging context and looks after its timers between them.
For sockets that do little else than pass bytes on, that is most of the work; these get their events
from here. In somebody's application our epoll is one descriptor among the reactor's others. In a
process that is a gateway and nothing else it is the other way round: the reactor waits in ours,
where its own is one descriptor among the others.
"""

from __future__ import annotations

import gc
import select
from collections.abc import Callable
from functools import cache, partial
from time import monotonic
from typing import TYPE_CHECKING, Any, Protocol

from twisted.internet.interfaces import IReactorFDSet, IReadDescriptor
from twisted.internet.main import CONNECTION_LOST
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from pgtls.transport.splice import pipe

if TYPE_CHECKING:
    from twisted.internet.epollreactor import EPollReactor

_log = Logger(namespace="pgtls.transport")

#: Events taken at a time.
_EVENTS = 256

#: Seconds after which the reactor gets to know if an event has stopped it.
_STAY = 0.02


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


class _Others:
    """The reactor's own epoll.

    :ivar came: it has had events.
    """

    def __init__(self, reactor: EPollReactor) -> None:
        self.fileno: Callable[[], int] = reactor._poller.fileno
        self._take = reactor.doPoll
        self.came = False

    def ready(self, events: int) -> None:
        """There are events for it."""
        self.came = True
        self._take(0)  # type: ignore[no-untyped-call]


@implementer(IReadDescriptor)
class Poller:
    """An epoll of our own. The reactor knows it while there is something to watch.

    :ivar pipe: for what goes from one of them to another, if there can be one.
    """

    def __init__(self, reactor: IReactorFDSet) -> None:
        self._reactor = reactor
        self._epoll = select.epoll()
        self._transports: dict[int, Watched] = {}
        self.pipe = pipe()
        self._dispatching = False
        self._closing: list[Closing] = []

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
        """Pass on the events that are there."""
        self._dispatch(self._epoll.poll(0, _EVENTS))

    def lead(self, reactor: EPollReactor) -> None:
        """From now on the reactor waits here, for its own descriptors too."""
        if self._transports:
            reactor.removeReader(self)
        others = _Others(reactor)
        self._transports[others.fileno()] = others
        self._epoll.register(others.fileno(), select.EPOLLIN)
        reactor.doIteration = partial(self._wait, reactor, others)  # type: ignore[method-assign]
        # What the reactor does to its readers in the end.
        reactor.addSystemEventTrigger(
            "during", "shutdown", self.connectionLost, Failure(CONNECTION_LOST)
        )

    def _wait(self, reactor: EPollReactor, others: _Others, timeout: float | None) -> None:
        """Pass on the events that come until the reactor has something else to do."""
        events = self._epoll.poll(timeout, _EVENTS)
        end = _turn_of(reactor)
        others.came = False
        while events:
            self._dispatch(events)
            if reactor._newTimedCalls:  # one of them may be the next; no public call tells of them
                end = min(end, _turn_of(reactor))
            stay = end - monotonic()
            if others.came or stay <= 0:
                break
            events = self._epoll.poll(stay, _EVENTS)

    def _dispatch(self, events: list[tuple[int, int]]) -> None:
        self._dispatching = True
        for fd, event in events:
            # One that came before in this list may have closed this one.
            transport = self._transports.get(fd)
            try:
                if transport is not None:
                    transport.ready(event)
            except Exception:
                # The reactor would take it for the end of all of them.
                _log.failure("unhandled error at the beginning or the end of a connection")
        if self._closing:
            self._close()
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


def _turn_of(reactor: EPollReactor) -> float:
    """When the reactor has something else to do: its next timer, or not later than _STAY."""
    timeout = reactor.timeout()
    return monotonic() + (_STAY if timeout is None else min(timeout, _STAY))


@cache
def poller(reactor: Any) -> Poller:
    """A reactor's own."""
    return Poller(reactor)


@cache  # once, however many services a process has
def dedicate(reactor: Any) -> None:
    """Have the reactor wait for these sockets, and for its own descriptors among them. For a
    process that is a gateway and nothing else; what is there when it begins stays there, so the
    garbage collector need not go through it again."""
    reactor.callWhenRunning(gc.freeze)
    try:
        from twisted.internet.epollreactor import EPollReactor  # noqa: PLC0415 - not everywhere
    except ImportError:
        return
    if isinstance(reactor, EPollReactor):
        poller(reactor).lead(reactor)
