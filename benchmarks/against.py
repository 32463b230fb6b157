"""The gateway of this checkout beside another revision's: what has become slower.

One is measured right after the other, again and again, in short rounds that begin with the one and
the other in turn. So what else the machine does meets both, and the ratio within a pair says more
than the figures do. What counts is the median of these ratios, and an interval for it that takes
nothing for granted about how they are spread.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from math import comb
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.peer_configuration import SOURCE
from benchmarks.peers import gateway
from benchmarks.results import Samples
from benchmarks.rounds import Plan, Runner
from benchmarks.sites import Legs
from benchmarks.workloads import Metric, Workload

OLD, NEW = "old", "new"

#: The ratio from which on it is a loss, and how sure it has to be that there is any.
LOSS = 1.1
CONFIDENCE = 0.99

#: Rounds of which such an interval can be had.
FEWEST_ROUNDS = 8


class NoSuchRevision(Exception):
    """There is no source of it; the text is git's."""


@dataclass(frozen=True)
class Comparison:
    """One metric of a workload.

    :ivar old: the other revision's median.
    :ivar new: this checkout's.
    :ivar ratio: the median of how many times as much it costs now; above 1 is worse, for metrics
        of which more is better too.
    :ivar low: where the interval of that begins.
    :ivar high: where it ends.
    :ivar lost: whether it is a loss.
    """

    workload: Workload
    legs: Legs
    metric: Metric
    old: float
    new: float
    ratio: float
    low: float
    high: float
    lost: bool

    def as_json(self) -> dict[str, Any]:
        """All of it."""
        return {
            "workload": self.workload.name,
            "legs": self.legs.value,
            "metric": self.metric.name,
            "unit": self.metric.title,
            "old": self.old,
            "new": self.new,
            "ratio": self.ratio,
            "interval": [self.low, self.high],
            "lost": self.lost,
        }


@dataclass
class Against:
    """Compares. What seems lost is measured once more: it is lost if both times say so.

    :ivar plan: what is to be done; which peers it says does not matter.
    :ivar found: what came out.
    :ivar failures: what did not work, a line each.
    """

    plan: Plan
    progress: Callable[[str], None]
    found: list[Comparison] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def run(self, revision: str) -> None:
        """:raises NoSuchRevision: it cannot be checked out."""
        with _checkout(revision) as source:
            peers = [gateway(OLD, source=source), gateway(NEW)]
            first = self._compared(replace(self.plan, peers=peers))
            lost = {each.workload.name for each in first if each.lost}
            if not lost:
                self.found = first
                return
            again = [workload for workload in self.plan.workloads if workload.name in lost]
            self.progress(f"once more: {', '.join(lost)}")
            second = self._compared(replace(self.plan, peers=peers, workloads=again))
        self.found = agreed(first, second)

    def _compared(self, plan: Plan) -> list[Comparison]:
        runner = Runner(plan, self.progress)
        runner.run()
        self.failures += runner.failures
        return list(comparisons(plan.workloads, runner.samples))


def comparisons(workloads: Sequence[Workload], samples: Samples) -> Iterator[Comparison]:
    """What was measured as often of the one as of the other, and often enough."""
    for legs in Legs:
        for workload in workloads:
            for metric in workload.metrics:
                old, new = (
                    samples.found.get((workload.name, legs, name, metric.name), [])
                    for name in (OLD, NEW)
                )
                before, now = (old, new) if metric.lower_is_better else (new, old)
                if len(old) != len(new) or len(old) < FEWEST_ROUNDS or 0 in before:
                    continue
                ratios = [b / a for a, b in zip(before, now, strict=True)]
                ratio, (low, high) = median(ratios), interval(ratios)
                lost = ratio >= LOSS and low > 1
                yield Comparison(
                    workload, legs, metric, median(old), median(new), ratio, low, high, lost
                )


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Where the median is, with a probability of :data:`CONFIDENCE` at least.

    Of any distribution each value is above its median or below it, as a coin falls: so the ends are
    two of the values, by the binomial distribution.

    :param values: at least :data:`FEWEST_ROUNDS`.
    """
    ordered, number = sorted(values), len(values)
    outside, left_out = 0.0, -1
    while outside <= 1 - CONFIDENCE:
        left_out += 1
        outside += 2 * comb(number, left_out) / 2**number
    return ordered[left_out - 1], ordered[number - left_out]


def agreed(first: Iterable[Comparison], second: Iterable[Comparison]) -> list[Comparison]:
    """The second where there is one; lost is what both call so."""
    again = {(each.workload.name, each.legs, each.metric.name): each for each in second}
    agreed = []
    for each in first:
        other = again.get((each.workload.name, each.legs, each.metric.name), each)
        agreed.append(replace(other, lost=each.lost and other.lost))
    return agreed


@contextmanager
def _checkout(revision: str) -> Iterator[Path]:
    with TemporaryDirectory(prefix="pgtls-against-") as directory:
        source = Path(directory) / "source"
        _git("worktree", "add", "--quiet", "--detach", str(source), revision)
        try:
            yield source
        finally:
            _git("worktree", "remove", "--force", str(source))


def _git(*arguments: str) -> None:
    try:
        done = subprocess.run(
            ["git", "-C", str(SOURCE), *arguments], capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        raise NoSuchRevision("git is missing") from None
    if done.returncode:
        raise NoSuchRevision(done.stderr.strip())
