"""What workers have counted that are gone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from prometheus_client import CollectorRegistry
from prometheus_client.multiprocess import MultiProcessCollector
from twisted.trial.unittest import SynchronousTestCase

from pgtls.status.dead_workers import merge_dead_workers
from tests.support.processes import environment

#: A process that counts, and ends.
PROGRAM = """
import os
from prometheus_client import Counter, Histogram
counter = Counter("pgtls_sessions", "Sessions.", ["gateway", "reason"])
counter.labels("127.0.0.1:1", 'a "reason"').inc(3)
histogram = Histogram("pgtls_connect_seconds", "Seconds.", ["gateway"], buckets=(0.1, 1))
for value in (0.05, 0.5, 7):
    histogram.labels("127.0.0.1:1").observe(value)
print(os.getpid())
"""


class DeadWorkerTests(SynchronousTestCase):
    """Files of prometheus_client's."""

    def setUp(self) -> None:
        self.directory = Path(self.mktemp()).absolute()
        self.directory.mkdir()

    def count(self) -> int:
        """Have a process count; returns its ID."""
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM],
            env=environment({"PROMETHEUS_MULTIPROC_DIR": str(self.directory)}),
            capture_output=True,
            check=True,
        )
        return int(done.stdout)

    def values(self) -> dict[tuple[str, ...], float]:
        registry = CollectorRegistry()
        MultiProcessCollector(registry, str(self.directory))  # type: ignore[no-untyped-call]
        return {
            (sample.name, *sample.labels.values()): sample.value
            for family in registry.collect()
            for sample in family.samples
        }

    def test_nothing_is_lost_and_few_files_are_left(self) -> None:
        pids = [self.count() for _ in range(3)]
        before = self.values()
        self.assertEqual(before["pgtls_sessions_total", "127.0.0.1:1", 'a "reason"'], 9)
        self.assertEqual(before["pgtls_connect_seconds_bucket", "127.0.0.1:1", "1.0"], 6)
        merge_dead_workers(str(self.directory), pids[2:])
        self.assertEqual(self.values(), before)
        left = sorted(path.name for path in self.directory.iterdir())
        living = [f"{kind}_{pids[2]}.db" for kind in ("counter", "histogram")]
        self.assertEqual(left, sorted([*living, "counter_0.db", "histogram_0.db"]))
        merge_dead_workers(str(self.directory), [])
        self.assertEqual(self.values(), before)
        self.assertEqual(len(list(self.directory.iterdir())), 2)
        merge_dead_workers(str(self.directory), [])
        self.assertEqual(self.values(), before)
