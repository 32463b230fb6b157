"""The reactor of a process that is a gateway and nothing else.

In an application our epoll is one descriptor among the reactor's others. Here it is the
other way round: the reactor waits in ours, where its own is one descriptor among the others, so
that an event of a connection costs one wait and not two.
"""

from __future__ import annotations

from functools import cache, partial
from time import monotonic
from typing import TYPE_CHECKING

from twisted.internet.main import CONNECTION_LOST
from twisted.python.failure import Failure

from pgtls.transport.lifecycle import READABLE
from pgtls.transport.poller import Poller, poller
from pgtls.transport.reactor import IReactor
from pgtls.transport.twisted_private import can_wait_elsewhere, epoll_descriptor, has_new_timers

if TYPE_CHECKING:
    from twisted.internet.epollreactor import EPollReactor

#: Seconds after which the reactor gets to know if an event has stopped it.
_STAY = 0.02


class _ReactorsOwn:
    """The reactor's own epoll.

    :ivar came: it has had events.
    """

    def __init__(self, reactor: EPollReactor) -> None:
        self._descriptor = epoll_descriptor(reactor)
        self._take = reactor.doPoll
        self.came = False

    def fileno(self) -> int:
        """The epoll."""
        return self._descriptor

    def ready(self, events: int) -> None:
        """There are events for it.

        :param events: that there are some.
        """
        self.came = True
        self._take(0)  # type: ignore[no-untyped-call]

    def connectionLost(self, reason: Failure) -> None:
        """The reactor has ended, and does with its own what it does.

        :param reason: says so.
        """


def _wait(reactor: EPollReactor, poller: Poller, own: _ReactorsOwn, timeout: float | None) -> None:
    """Pass on the events that come until the reactor has something else to do."""
    own.came = False
    came = poller.wait(timeout)
    end = _turn_of(reactor)
    while came:
        if has_new_timers(reactor):  # one of them may be the next
            end = min(end, _turn_of(reactor))
        stay = end - monotonic()
        if own.came or stay <= 0:
            break
        came = poller.wait(stay)


def _turn_of(reactor: EPollReactor) -> float:
    """When the reactor has something else to do: its next timer, or not later than _STAY."""
    timeout = reactor.timeout()
    return monotonic() + (_STAY if timeout is None else min(timeout, _STAY))


@cache  # once, however many services a process has
def dedicate(reactor: IReactor) -> None:
    """Have the reactor wait for our sockets, and for its own descriptors among them. For a
    process that is a gateway and nothing else.

    :param reactor: Twisted's. One without epoll stays as it is.
    """
    try:
        from twisted.internet.epollreactor import EPollReactor  # noqa: PLC0415 - not everywhere
    except ImportError:
        return
    if not isinstance(reactor, EPollReactor) or not can_wait_elsewhere(reactor):
        return
    ours, own = poller(reactor), _ReactorsOwn(reactor)
    ours.stand_alone()
    ours.watch(own, 0, READABLE)
    reactor.doIteration = partial(_wait, reactor, ours, own)
    # What the reactor does to its readers in the end.
    reactor.addSystemEventTrigger(
        "during", "shutdown", ours.connectionLost, Failure(CONNECTION_LOST)
    )
