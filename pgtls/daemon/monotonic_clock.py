"""A reactor whose timers do not follow the wall clock.

Twisted's reactors take the time from ``time.time()``: set back by an hour, it makes every timeout
an hour longer (https://github.com/twisted/twisted/issues/2424).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol, cast

from twisted.internet.base import DelayedCall
from twisted.internet.interfaces import IReactorTime


class _Timers(Protocol):
    """A reactor as Twisted's are: it takes the time from an attribute that can be set."""

    seconds: Callable[[], float]

    def getDelayedCalls(self) -> list[DelayedCall]:
        """The timers that run."""


def use_monotonic_clock(reactor: IReactorTime) -> Callable[[], None]:
    """Have a reactor's timers follow the monotonic clock, those that run already included.

    :param reactor: Twisted's reactor, in a process that is a daemon and nothing else.
    :returns: what gives the reactor its former clock back.
    """
    timers = cast(_Timers, reactor)
    before = timers.seconds
    _change_clock(timers, time.monotonic)
    return lambda: _change_clock(timers, before)


def _change_clock(reactor: _Timers, clock: Callable[[], float]) -> None:
    ahead = clock() - reactor.seconds()
    for call in reactor.getDelayedCalls():
        call.time += ahead
        call.seconds = clock
    reactor.seconds = clock
