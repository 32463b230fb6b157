"""What a process counts of its sessions, as prometheus_client's metrics.

Where ``PROMETHEUS_MULTIPROC_DIR`` is in the environment before this is imported, the numbers are in
files of that directory, and outlive the process.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import TypeVar

from prometheus_client import CollectorRegistry, Counter, Histogram

from pgtls.gateway.metric_table import (
    BYTES,
    CANCEL_REQUESTS,
    CONNECT_SECONDS,
    HANDSHAKE_SECONDS,
    SERVER_REFUSALS,
    SESSION_SECONDS,
    SESSIONS,
    TLS_ERRORS,
    Metric,
)

#: The upper bounds of the histograms' buckets, in seconds.
WAIT_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 60)
SESSION_BUCKETS = (0.005, 0.025, 0.1, 0.5, 1, 5, 15, 60, 300, 900, 3600, 14400, 86400, 604800)

#: SQLSTATEs that are told apart. There are some 260, and a server can make up others.
MAX_SQLSTATES = 300

M = TypeVar("M", Counter, Histogram)


class ByLabels(dict[tuple[str, ...], M]):
    """A metric by the values of its labels; each is looked up once.

    :param metric: all of it.
    """

    def __init__(self, metric: M) -> None:
        super().__init__()
        self._metric: M = metric

    def __missing__(self, values: tuple[str, ...]) -> M:
        made: M = self._metric.labels(*values)
        self[values] = made
        return made


class Tally:
    """Counts for a histogram, at a fraction of what it costs to count in it each time: where it is
    in a file, that is several microseconds.

    :param histogram: gets what has been counted when :meth:`flush` is called.
    """

    def __init__(self, histogram: Histogram) -> None:
        # Not public, since nobody else adds several observations at once.
        self._bounds = histogram._upper_bounds
        self._buckets = histogram._buckets
        self._total = histogram._sum
        self._counts = [0] * len(self._bounds)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        """Count an observation.

        :param value: in seconds.
        """
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def flush(self) -> None:
        """Add what has been counted to the histogram."""
        for number, count in enumerate(self._counts):
            if count:
                self._buckets[number].inc(count)
                self._counts[number] = 0
        if self._sum:
            self._total.inc(self._sum)
            self._sum = 0.0


class SessionMetrics:
    """The metrics of a process.

    :param registry: where they are to be found.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        def counter(metric: Metric) -> ByLabels[Counter]:
            return ByLabels(Counter(metric.name, metric.help, metric.labels, registry=registry))

        def histogram(metric: Metric, buckets: tuple[float, ...]) -> ByLabels[Histogram]:
            return ByLabels(
                Histogram(
                    metric.name, metric.help, metric.labels, buckets=buckets, registry=registry
                )
            )

        self.sessions = counter(SESSIONS)
        self.server_refusals = counter(SERVER_REFUSALS)
        self.bytes = counter(BYTES)
        self.cancel_requests = counter(CANCEL_REQUESTS)
        self.tls_errors = counter(TLS_ERRORS)
        self.handshake_seconds = histogram(HANDSHAKE_SECONDS, WAIT_BUCKETS)
        self.connect_seconds = histogram(CONNECT_SECONDS, WAIT_BUCKETS)
        self.session_seconds = histogram(SESSION_SECONDS, SESSION_BUCKETS)
        self._sqlstates: set[str] = set()

    def sqlstate(self, given: str) -> str:
        """An SQLSTATE as the value of a label.

        :param given: as a server has it.
        :returns: the same; ``other`` for what is none, and where there are too many.
        """
        if given in self._sqlstates or not given:
            return given
        valid = len(given) == 5 and given.isascii() and given.isalnum()
        if not valid or len(self._sqlstates) >= MAX_SQLSTATES:
            return "other"
        self._sqlstates.add(given)
        return given
