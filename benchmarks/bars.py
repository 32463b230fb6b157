"""What the gateway is held against: a floor and a goal for each, in the same run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks.peers import PEERS
from benchmarks.results import OURS, Row, Samples
from benchmarks.sites import Legs

#: In place of a peer: whichever is best.
BEST = "the best peer"

#: In place of a peer: nobody, the figure itself counts.
ITSELF = ""


@dataclass(frozen=True)
class Bar:
    """The gateway's figure is to be no worse than ``factor`` times a peer's.

    :ivar subject: the peer whose figure it is: the gateway as it comes, or a variant.
    """

    workload: str
    metric: str
    kind: str
    factor: float
    peer: str
    subject: str = OURS


@dataclass(frozen=True)
class Verdict:
    """How the gateway stands.

    :ivar value: its figure over the peer's.
    """

    bar: Bar
    title: str
    wanted: str
    value: float
    met: bool

    @property
    def word(self) -> str:
        """For people."""
        return "met" if self.met else "not met"


BARS = (
    Bar("conn", "cpu", "floor", 0.55, "stunnel"),
    Bar("conn", "cpu", "goal", 1.1, "pgbouncer"),
    Bar("q1", "tps", "floor", 0.9, "stunnel"),
    Bar("q1", "tps", "goal", 1.0, BEST),
    Bar("q16", "tps", "floor", 1.2, "stunnel"),
    Bar("q16", "tps", "goal", 1.0, BEST),
    Bar("down", "cpu", "floor", 0.95, "stunnel"),
    Bar("down", "cpu", "floor", 0.55, "pgbouncer"),
    Bar("down", "cpu", "goal", 1.0, "envoy"),
    Bar("up", "cpu", "floor", 0.9, "stunnel"),
    Bar("up", "cpu", "goal", 1.0, "envoy"),
    Bar("idle", "memory", "floor", 0.3, "stunnel"),
    Bar("idle", "memory", "goal", 1.0, "pgbouncer"),
    Bar("growth", "growth", "floor", 1.3, ITSELF),
    Bar("growth", "growth", "goal", 1.0, ITSELF),
    *(
        Bar(workload, "cpu", kind, factor, OURS, subject="pgtls-full")
        for workload in ("conn", "q1")
        for kind, factor in (("floor", 1.05), ("goal", 1.0))
    ),
)


def verdicts(samples: Samples) -> Iterator[Verdict]:
    """Of all the bars whose figures are there."""
    for bar in BARS:
        row = samples.row(bar.workload, Legs.TLS_PLAIN, bar.metric)
        against = _against(bar, row) if row else None
        if row and against and bar.subject in row.medians:
            value = row.medians[bar.subject] / against
            lower = row.metric.lower_is_better
            met = value <= bar.factor if lower else value >= bar.factor
            wanted = f"{'<=' if lower else '>='} {bar.factor:g} x {bar.peer}".removesuffix(" x ")
            variant = "" if bar.subject == OURS else f"{bar.subject}: "
            title = f"{variant}{row.workload.title}, {row.metric.title}"
            yield Verdict(bar, title, wanted, value, met)


def _against(bar: Bar, row: Row) -> float | None:
    """The figure that the gateway's is compared with."""
    if bar.peer == ITSELF:
        return 1.0
    if bar.peer != BEST:
        return row.medians.get(bar.peer)
    # Programs of others: the server itself is the limit and no peer.
    others = [value for peer, value in row.medians.items() if PEERS[peer].program]
    best = min if row.metric.lower_is_better else max
    return best(others, default=None)
