"""The last minutes: what was open, and how much came in each interval. For plots."""

from __future__ import annotations

from collections import deque
from typing import TypedDict

#: Seconds between two samples, and how many are kept: ten minutes.
INTERVAL = 5.0
SAMPLES = 120

#: Totals of which the rate is shown.
RATES = ("connected", "refused", "bytes_from_client", "bytes_to_client")


class History(TypedDict):
    """Samples, the oldest first; rates are per second.

    :ivar interval: seconds between two.
    """

    interval: float
    open: list[int]
    connected: list[float]
    refused: list[float]
    bytes_from_client: list[float]
    bytes_to_client: list[float]


class Samples:
    """Keeps them."""

    def __init__(self) -> None:
        self._open: deque[int] = deque(maxlen=SAMPLES)
        self._rates: dict[str, deque[float]] = {name: deque(maxlen=SAMPLES) for name in RATES}
        self._before: tuple[float, dict[str, int]] | None = None

    def add(self, now: float, open_sessions: int, totals: dict[str, int]) -> None:
        """Add one.

        :param now: the time, in seconds of a clock that only goes forward.
        :param open_sessions: how many are open.
        :param totals: see :meth:`pgtls.status.counted.Counted.totals`.
        """
        before, self._before = self._before, (now, totals)
        if before is None or now <= before[0]:
            return
        self._open.append(open_sessions)
        for name, rates in self._rates.items():
            rates.append(max(0, totals[name] - before[1][name]) / (now - before[0]))

    def history(self) -> History:
        """All of them.

        :returns: what JSON can have.
        """
        rates = {
            name: [round(value, 1 if value < 1000 else None) for value in values]
            for name, values in self._rates.items()
        }
        return History(
            interval=INTERVAL,
            open=list(self._open),
            connected=rates["connected"],
            refused=rates["refused"],
            bytes_from_client=rates["bytes_from_client"],
            bytes_to_client=rates["bytes_to_client"],
        )
