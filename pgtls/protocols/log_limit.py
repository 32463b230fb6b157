"""A bound on log lines about what unauthenticated peers can repeat at will."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall, IReactorTime

#: Seconds in which a number of lines is logged one by one.
PERIOD = 10.0


class LogLimit:
    """Lets some lines through in every :data:`PERIOD`, and counts the others.

    :param clock: the reactor.
    :param lines: how many are logged one by one in a period, 0 or more.
    :param log_rest: logs how many more there were, when the period is over.
    """

    def __init__(self, clock: IReactorTime, lines: int, log_rest: Callable[[int], None]) -> None:
        self._clock = clock
        self._lines = lines
        self._log_rest = log_rest
        self._begun = 0.0
        self._logged = 0
        self._rest = 0
        self._timer: IDelayedCall | None = None

    def allows(self) -> bool:
        """Count one more.

        :returns: whether it is to be logged by itself.
        """
        now = self._clock.seconds()
        if self._timer is None and now - self._begun >= PERIOD:
            self._begun, self._logged = now, 0
        if self._logged < self._lines:
            self._logged += 1
            return True
        self._rest += 1
        if self._timer is None:
            self._timer = self._clock.callLater(self._begun + PERIOD - now, self._over)
        return False

    def _over(self) -> None:
        self._timer = None
        rest, self._rest = self._rest, 0
        self._log_rest(rest)

    def stop(self) -> None:
        """Log at once what has been counted."""
        if self._timer is not None:
            self._timer.cancel()
            self._over()
