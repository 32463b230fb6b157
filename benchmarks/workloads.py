"""What is measured: each workload does something through a peer and says what it cost."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from benchmarks.clients import ClientFailed, ClientProcess, Connection, Target
from benchmarks.peers import DIRECT, Peer
from benchmarks.process import Proxy
from benchmarks.sites import Legs
from tests.support.servers import pgbench, psql

VERSION = 17
GB = 1e9
LINE = 1000

CONNECTIONS = 800
QUERIES = 80_000
COPIED_LINES = 400_000
IDLE = 1000
OPEN = (10, 100, 1000, 5000)
PROBES = 200

Figures = Mapping[str, float]


@dataclass(frozen=True)
class Metric:
    """One kind of figure of a workload.

    :ivar title: with its unit.
    """

    name: str
    title: str
    lower_is_better: bool = True


@dataclass(frozen=True)
class Subject:
    """What a workload goes through.

    :ivar proxy: None where it is the server itself: then there is no CPU time to count.
    :ivar directory: for files.
    :ivar scale: how much is to be done, as a part of the usual.
    """

    target: Target
    proxy: Proxy | None
    directory: Path
    scale: float

    def times(self, number: float, at_least: int = 1) -> int:
        """That number, scaled."""
        return max(at_least, round(number * self.scale))


@dataclass(frozen=True)
class Workload:
    """Something to do through a peer.

    :ivar bare: it needs thousands of connections or a fresh process: a peer of its own, in front
        of :mod:`benchmarks.upstream`.
    :ivar direct: its clients begin with the handshake (``sslnegotiation=direct``).
    :ivar usual: it is measured where nothing else is asked for.
    """

    name: str
    title: str
    metrics: tuple[Metric, ...]
    run: Callable[[Subject], Figures]
    bare: bool = False
    direct: bool = False
    usual: bool = True

    def suits(self, legs: Legs, peer: Peer) -> bool:
        """Whether it can be done through that peer."""
        return not self.direct or (legs.client_tls and DIRECT in peer.sslnegotiation)


def _cost(subject: Subject, amount: float, action: Callable[[], object]) -> Figures:
    """Time on the clock and CPU time of the proxy for each ``amount``."""
    used = subject.proxy.cpu() if subject.proxy else 0.0
    began = time.monotonic()
    action()
    figures = {"wall": (time.monotonic() - began) / amount}
    if subject.proxy:
        figures["cpu"] = (subject.proxy.cpu() - used) / amount
    return figures


SIMPLE = "select 1;\n"
PARAMETER = "\\set number random(1, 1000000)\nselect :number::int;\n"


def _pgbench(subject: Subject, sql: str, *options: str) -> str:
    script = subject.directory / "script.sql"
    script.write_text(sql)
    command = [pgbench(VERSION), "-n", "-f", str(script), *options]
    return ClientProcess(subject.target, command).output()


def _connections(clients: int, subject: Subject) -> Figures:
    """Sessions one after the other, that many at a time, each with one query."""
    each = subject.times(CONNECTIONS / clients)
    storm = partial(_pgbench, subject, SIMPLE, "-C", "-c", str(clients), "-t", str(each))
    return _cost(subject, each * clients / 1000, storm)


def _direct_connections(clients: int, subject: Subject) -> Figures:
    """The same, without an SSLRequest."""
    target = replace(subject.target, sslnegotiation=DIRECT)
    return _connections(clients, replace(subject, target=target))


def _queries(clients: int, sql: str, mode: str, subject: Subject) -> Figures:
    """Small queries, one after the other in each session.

    :param mode: pgbench's ``--protocol``.
    """
    each = subject.times(QUERIES / clients)
    used = subject.proxy.cpu() if subject.proxy else 0.0
    out = _pgbench(subject, sql, "-M", mode, "-c", str(clients), "-t", str(each))
    figures = {"tps": _number(r"tps = ([\d.]+)", out)}
    if subject.proxy:
        figures["cpu"] = (subject.proxy.cpu() - used) / (each * clients) * 1000
    return figures


def _number(pattern: str, text: str) -> float:
    match = re.search(pattern, text)
    if match is None:
        raise ClientFailed(f"nothing like {pattern!r} in {text!r}")
    return float(match[1])


def _psql(*options: str) -> list[str]:
    return [psql(VERSION), "-XqAt", "-v", "ON_ERROR_STOP=1", "-o", "/dev/null", *options]


def _download(subject: Subject, lines: int) -> ClientProcess:
    rows = f"select repeat('x', {LINE - 1}) from generate_series(1, {lines})"
    return ClientProcess(subject.target, _psql("-c", f"copy ({rows}) to stdout"))


def _downloads(parallel: int, subject: Subject) -> Figures:
    """That many COPY TO at once."""
    each = subject.times(COPIED_LINES / parallel)

    def copy() -> None:
        for client in [_download(subject, each) for _ in range(parallel)]:
            client.output()

    figures = dict(_cost(subject, each * parallel * LINE / GB, copy))
    figures["rate"] = 1000 / figures["wall"]
    return figures


def _upload(subject: Subject) -> Figures:
    """COPY FROM, of which the server writes nothing."""
    lines = subject.times(COPIED_LINES)
    file = subject.directory / f"lines-{lines}"
    if not file.exists():
        file.write_bytes((b"x" * (LINE - 1) + b"\n") * lines)
    command = _psql(
        *("-c", "create temp table line (content text)"),
        *("-c", "copy line from stdin where false"),
    )
    copy = ClientProcess
    return _cost(
        subject, lines * LINE / GB, lambda: copy(subject.target, command, str(file)).output()
    )


def _idle(subject: Subject) -> Figures:
    """Memory for sessions that do nothing any more."""
    proxy = _proxy(subject)
    for each in [Connection(subject.target) for _ in range(4)]:
        each.close()  # what the first connections make a program load is not theirs alone
    proxy.cpu_at_rest()
    base = proxy.memory()
    count = subject.times(IDLE)
    sessions = [Connection(subject.target) for _ in range(count)]
    proxy.cpu_at_rest()
    used = proxy.memory() - base
    for each in sessions:
        each.close()
    return {"memory": used / 1024 / count}


def _growth(subject: Subject) -> Figures:
    """CPU time of one session more while many are open."""
    proxy = _proxy(subject)
    probes = subject.times(PROBES)
    sessions: list[Connection] = []
    figures = {}
    for number in OPEN:
        sessions += [
            Connection(subject.target) for _ in range(subject.times(number) - len(sessions))
        ]
        used = proxy.cpu_at_rest()
        for _ in range(probes):
            Connection(subject.target).close()
        figures[f"at{number}"] = (proxy.cpu_at_rest() - used) / probes * 1000
    for each in sessions:
        each.close()
    first, last = figures[f"at{OPEN[0]}"], figures[f"at{OPEN[-1]}"]
    return figures | ({"growth": last / first} if first else {})  # none: too few to be seen


def _proxy(subject: Subject) -> Proxy:
    if subject.proxy is None:
        raise ValueError("only of a proxy")
    return subject.proxy


_CPU_GB = Metric("cpu", "proxy CPU-s per GB")
_WALL_GB = Metric("wall", "s per GB")
_RATE = Metric("rate", "MB per s", lower_is_better=False)

_CONNECTION = (Metric("cpu", "proxy CPU-s per 1,000"), Metric("wall", "s per 1,000"))
_QUERY = (
    Metric("tps", "queries per s", lower_is_better=False),
    Metric("cpu", "proxy CPU-s per 1,000"),
)

WORKLOADS = {
    workload.name: workload
    for workload in (
        Workload("conn", "connections", _CONNECTION, partial(_connections, 4)),
        Workload(
            "direct",
            "connections, sslnegotiation=direct",
            _CONNECTION,
            partial(_direct_connections, 4),
            direct=True,
        ),
        *(
            Workload(
                f"conn{clients}",
                f"connections, {clients} at a time",
                _CONNECTION,
                partial(_connections, clients),
                usual=False,
            )
            for clients in (8, 64)
        ),
        *(
            Workload(
                f"q{clients}",
                f"small queries, {clients} client{'s' if clients > 1 else ''}",
                _QUERY,
                partial(_queries, clients, SIMPLE, "simple"),
                usual=usual,
            )
            for clients, usual in ((1, True), (8, False), (16, True), (64, True))
        ),
        *(
            Workload(
                name,
                f"{name} prepared statements, 16 clients",
                _QUERY,
                partial(_queries, 16, PARAMETER, mode),
                usual=usual,
            )
            for name, mode, usual in (("named", "prepared", True), ("unnamed", "extended", False))
        ),
        Workload("down", "COPY TO", (_CPU_GB, _WALL_GB, _RATE), partial(_downloads, 1)),
        Workload("up", "COPY FROM", (_CPU_GB, _WALL_GB), _upload),
        *(
            Workload(
                f"copy{parallel}",
                f"COPY TO, {parallel} at once",
                (_CPU_GB, _RATE),
                partial(_downloads, parallel),
            )
            for parallel in (4, 16)
        ),
        Workload(
            "idle",
            f"idle sessions, {IDLE:,}",
            (Metric("memory", "KB each"),),
            _idle,
            bare=True,
        ),
        Workload(
            "growth",
            "one session more",
            (
                *(Metric(f"at{number}", f"CPU-ms at {number:,} open") for number in OPEN),
                Metric("growth", f"{OPEN[-1]:,} open over {OPEN[0]:,}"),
            ),
            _growth,
            bare=True,
        ),
    )
}
