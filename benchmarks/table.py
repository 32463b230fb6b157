"""The results as tables for people."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks.against import CONFIDENCE, NEW, OLD, Comparison
from benchmarks.bars import Verdict
from benchmarks.results import OURS, Row, Samples


def show(
    console: Console, samples: Samples, verdicts: Iterable[Verdict], facts: Mapping[str, str]
) -> None:
    """Print everything: a table for each kind of legs, the bars, and where it was measured."""
    rows = list(samples.rows())
    for legs in dict.fromkeys(row.legs for row in rows):
        console.print(_figures(legs.words, [row for row in rows if row.legs is legs]))
    console.print(_bars(verdicts))
    _show_facts(console, facts)


def show_comparison(
    console: Console, comparisons: Iterable[Comparison], facts: Mapping[str, str]
) -> None:
    """Print what two revisions took, and where they were measured."""
    title = "how many times as much it costs"
    table = Table(title=title, title_justify="left", box=box.SIMPLE)
    for heading in ("", OLD, NEW, "ratio", f"{CONFIDENCE:.0%} interval", ""):
        table.add_column(heading, justify="left" if heading == "" else "right")
    for each in comparisons:
        name = f"{each.legs.words}, {each.workload.title}, {each.metric.title}"
        interval = f"{each.low:.2f} to {each.high:.2f}"
        word = "[red]lost[/red]" if each.lost else ""
        table.add_row(name, number(each.old), number(each.new), f"{each.ratio:.2f}", interval, word)
    console.print(table)
    _show_facts(console, facts)


def _show_facts(console: Console, facts: Mapping[str, str]) -> None:
    for name, value in facts.items():
        console.print(f"{name}: {value}", highlight=False)


def number(value: float) -> str:
    """Three digits that count."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}" if value >= 0.1 else f"{value:.3f}"


def _figures(title: str, rows: list[Row]) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE)
    peers = dict.fromkeys(peer for row in rows for peer in row.medians)
    table.add_column("")
    for peer in peers:
        table.add_column(peer, justify="right")
    workload = ""
    for row in rows:
        if row.workload.title != workload:
            workload = row.workload.title
            table.add_row(f"[bold]{workload}[/bold]")
        cells = [_cell(row, peer) for peer in peers]
        table.add_row(f"  {row.metric.title}", *cells)
    return table


def _cell(row: Row, peer: str) -> str:
    if peer not in row.medians:
        return ""
    value, ratio = number(row.medians[peer]), row.ratio(peer)
    return value if peer == OURS or ratio is None else f"{value} ({ratio:.2f}x)"


def _bars(verdicts: Iterable[Verdict]) -> Table:
    table = Table(title="bars, TLS to plain", title_justify="left", box=box.SIMPLE)
    for heading in ("", "", "wanted", "is", ""):
        table.add_column(heading)
    for each in verdicts:
        style = "green" if each.met else "red"
        word = f"[{style}]{each.word}[/{style}]"
        table.add_row(each.title, each.bar.kind, each.wanted, f"{each.value:.2f}", word)
    return table
