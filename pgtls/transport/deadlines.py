"""Time limits that are hardly ever reached, such as a connection's to say what it wants.

A timer of the reactor's costs as much as a small query: it is put into a heap, taken out again, and
the reactor's next turn is computed anew. Here limits that end at about the same moment share one.

The reactor calls what is due before it reads. After a long turn, or where the process had to wait
for a processor, what a limit waits for may have come in time. So that is read first: a limit ends
one turn after its timer.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from math import ceil

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

_log = Logger(namespace="pgtls.transport")

#: Moments in a second; a limit ends at the first one after its time.
MOMENTS = 4


class Deadline:
    """A time limit, as :meth:`Deadlines.call_later` gives it.

    :param together: those that end with it.
    :param call: what is to be done then.
    :param emptied: is called when none of those is left.
    """

    __slots__ = ("_emptied", "_together", "call")

    def __init__(
        self,
        together: dict[Deadline, None],
        call: Callable[[], None],
        emptied: Callable[[], None],
    ) -> None:
        self._together = together
        self.call = call
        self._emptied = emptied
        together[self] = None

    def cancel(self) -> None:
        """Do nothing at its end."""
        self._together.pop(self, None)
        if not self._together:
            self._emptied()


class Deadlines:
    """The time limits of a reactor.

    :param reactor: for the time.
    """

    def __init__(self, reactor: IReactorTime) -> None:
        self._reactor = reactor
        self._by_moment: dict[int, dict[Deadline, None]] = {}
        self._timer: IDelayedCall | None = None
        self._next = 0  # the timer's moment
        self._users = 0

    def call_later(self, seconds: float, call: Callable[[], None]) -> Deadline:
        """Do something when some time is over.

        :param seconds: how long; it may become a quarter of a second more.
        :param call: what is done then.
        :returns: the limit, which can be cancelled.
        """
        moment = ceil((self._reactor.seconds() + seconds) * MOMENTS)
        together = self._by_moment.get(moment)
        if together is None:
            together = self._by_moment[moment] = {}
            if self._timer is None or moment < self._next:
                self._wait_for(moment)
        return Deadline(together, call, self._emptied)

    def keep_timer(self) -> None:
        """From now on there will be time limits again and again: keep the timer also while there
        are none."""
        self._users += 1

    def let_timer_go(self) -> None:
        """Take back :meth:`keep_timer`."""
        self._users -= 1
        self._emptied()

    def _emptied(self) -> None:
        if not self._users and not any(self._by_moment.values()):
            self._by_moment.clear()
            self._stop_timer()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _wait_for(self, moment: int) -> None:
        self._stop_timer()
        self._next = moment
        seconds = moment / MOMENTS - self._reactor.seconds()
        self._timer = self._reactor.callLater(max(seconds, 0), self._read_first)

    def _read_first(self) -> None:
        """A limit may be over: see what has come in the meantime."""
        self._timer = self._reactor.callLater(0, self._look)

    def _look(self) -> None:
        """The next limits are over, unless they have been cancelled."""
        self._timer = None
        over = [moment for moment in sorted(self._by_moment) if moment <= self._next]
        for moment in over:
            self._end(self._by_moment.pop(moment, {}))
        self._by_moment = {at: limits for at, limits in self._by_moment.items() if limits}
        if self._by_moment:
            self._wait_for(min(self._by_moment))

    def _end(self, together: dict[Deadline, None]) -> None:
        while together:
            deadline = next(iter(together))  # the call may cancel others
            del together[deadline]
            try:
                deadline.call()
            except Exception:
                _log.failure("unhandled error at the end of a time limit")


@cache
def deadlines(reactor: IReactorTime) -> Deadlines:
    """The time limits of a reactor.

    :param reactor: Twisted's.
    :returns: always the same.
    """
    return Deadlines(reactor)
