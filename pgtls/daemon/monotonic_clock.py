"""A reactor whose timers do not follow the wall clock.

Twisted's reactors take the time from ``time.time()``: set back by an hour, it makes every timeout
an hour longer (https://github.com/twisted/twisted/issues/2424).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

from twisted.internet.base import DelayedCall


class ReactorClock(Protocol):
    """As much of a reactor as matters here."""

    seconds: Callable[[], float]

    def getDelayedCalls(self) -> list[DelayedCall]:
        """The timers that run."""


def use_monotonic_clock(reactor: ReactorClock) -> Callable[[], None]:
    """Have a reactor's timers follow the monotonic clock, those that run already included.

    :param reactor: Twisted's reactor, in a process that is a daemon and nothing else.
    :returns: what gives the reactor its former clock back.
    """
    before = reactor.seconds
    _change_clock(reactor, time.monotonic)
    return lambda: _change_clock(reactor, before)


def _change_clock(reactor: ReactorClock, clock: Callable[[], float]) -> None:
    ahead = clock() - reactor.seconds()
    for call in reactor.getDelayedCalls():
        call.time += ahead
        call.seconds = clock
    reactor.seconds = clock
