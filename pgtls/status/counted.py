"""What has been counted so far, by all processes, those that are gone included."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric as Family

from pgtls.gateway.metric_table import (
    BYTES,
    CANCEL_REQUESTS,
    SERVER_REFUSALS,
    SESSIONS,
    TLS_ERRORS,
    Metric,
)

Labels = dict[str, str]


class Counted:
    """The counters at one moment.

    :param registry: where they are.
    :ivar families: all of them, histograms too, as prometheus_client has them.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self.families = _collected(registry)
        self._samples: dict[str, list[tuple[Labels, float]]] = {}
        for family in self.families:
            # When each series began, which nobody asks for, and which processes cannot share.
            family.samples = [s for s in family.samples if not s.name.endswith("_created")]
            for sample in family.samples:
                self._samples.setdefault(sample.name, []).append((sample.labels, sample.value))

    def each(self, metric: Metric) -> Iterator[tuple[Labels, int]]:
        """A counter's values.

        :param metric: the counter.
        :returns: labels and value of each.
        """
        for labels, value in self._samples.get(metric.shown, ()):
            yield labels, int(value)

    def total(self, metric: Metric, **labels: str) -> int:
        """The sum of a counter's values.

        :param metric: the counter.
        :param labels: what must be in their labels.
        :returns: the sum.
        """
        return sum(value for given, value in self.each(metric) if labels.items() <= given.items())

    def totals(self) -> dict[str, int]:
        """The sums of everything.

        :returns: by name.
        """
        return {
            "connected": self.total(SESSIONS, outcome="connected"),
            "refused": self.total(SESSIONS, outcome="refused"),
            "refused_by_server": self.total(SERVER_REFUSALS),
            # Over Unix sockets nobody expects TLS.
            "plaintext": sum(
                value
                for labels, value in self.each(SESSIONS)
                if labels["outcome"] == "connected"
                and labels["tls_version"] == "plaintext"
                and not labels["gateway"].startswith("unix:")
            ),
            "tls_errors": self.total(TLS_ERRORS),
            "cancel_requests": self.total(CANCEL_REQUESTS, outcome="accepted"),
            "cancel_requests_dropped": self.total(CANCEL_REQUESTS, outcome="dropped"),
            "bytes_from_client": self.total(BYTES, direction="from_client"),
            "bytes_to_client": self.total(BYTES, direction="to_client"),
        }


def _collected(registry: CollectorRegistry) -> list[Family]:
    with suppress(RuntimeError):  # a worker was about to make its file longer
        return list(registry.collect())
    return list(registry.collect())
