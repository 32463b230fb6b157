"""The rounds: every workload through every peer in turn, again and again.

Interleaved, because a machine is not equally fast at all times: what is compared was measured
within the same minute. Each round begins with another peer, so that none is always the first.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

from benchmarks.busy import neighbours
from benchmarks.clients import ClientFailed, Target
from benchmarks.peers import Peer
from benchmarks.process import Proxy, ProxyFailed
from benchmarks.results import Samples
from benchmarks.sites import Legs, Site, site
from benchmarks.workloads import VERSION, Subject, Workload
from tests.support import certificates
from tests.support.servers import Server, free_port


@dataclass(frozen=True)
class Plan:
    """What is to be done.

    :ivar busy: something else takes the processors' caches meanwhile.
    """

    rounds: int
    workloads: Sequence[Workload]
    peers: Sequence[Peer]
    legs: Sequence[Legs]
    scale: float
    busy: bool = False

    def pairs(self, bare: bool) -> Iterator[tuple[Legs, Peer]]:
        """Which peers are needed, and as what. The server itself stands in front of no other."""
        for legs in self.legs:
            for peer in self.peers:
                if legs in peer.legs and (peer.command is not None or not bare):
                    yield legs, peer


@dataclass
class Runner:
    """Does it.

    :ivar samples: what came out.
    :ivar failures: what did not work, a line each.
    """

    plan: Plan
    progress: Callable[[str], None]
    samples: Samples = field(default_factory=Samples)
    failures: list[str] = field(default_factory=list)

    def run(self) -> None:
        """All rounds. What fails is noted, and the rest goes on."""
        with TemporaryDirectory(prefix="pgtls-benchmarks-") as name, ExitStack() as stack:
            self._directory = Path(name)
            self._directory.chmod(0o755)
            self._pair = self._certificate()
            self._bare_upstream = stack.enter_context(self._started_upstream())
            subjects = self._started(stack)
            if self.plan.busy:
                stack.enter_context(neighbours())
            for number in range(1, self.plan.rounds + 1):
                for workload in self.plan.workloads:
                    self.progress(f"round {number} of {self.plan.rounds}: {workload.title}")
                    if workload.bare:
                        self._measure_fresh(workload, number)
                        continue
                    for (legs, peer), subject in _rotated(subjects.items(), number):
                        if workload.suits(legs, peer):
                            self._measure(workload, legs, peer, subject)

    def _started(self, stack: ExitStack) -> dict[tuple[Legs, Peer], Subject]:
        """The peers that stay for all rounds, in front of a PostgreSQL."""
        if all(workload.bare for workload in self.plan.workloads):
            return {}
        postgresql = Server(VERSION, ssl=True, conf=CONF)
        stack.callback(postgresql.stop)
        subjects = {}
        for legs, peer in self.plan.pairs(bare=False):
            if peer.command is None:
                target = Target(postgresql.port, peer.sslnegotiation[0])
                subjects[legs, peer] = self._subject(target, None)
                continue
            place = self._site(peer, postgresql.port, legs)
            try:
                proxy = stack.enter_context(_stopped_later(peer, place))
            except ProxyFailed as error:
                self._failed(legs, peer, error)
            else:
                subjects[legs, peer] = self._subject(_target(peer, place), proxy)
        return subjects

    def _measure_fresh(self, workload: Workload, number: int) -> None:
        for legs, peer in _rotated(self.plan.pairs(bare=True), number):
            place = self._site(peer, self._bare_upstream, legs)
            try:
                with _stopped_later(peer, place) as proxy:
                    self._measure(workload, legs, peer, self._subject(_target(peer, place), proxy))
            except ProxyFailed as error:
                self._failed(legs, peer, error)

    def _measure(self, workload: Workload, legs: Legs, peer: Peer, subject: Subject) -> None:
        try:
            figures = workload.run(subject)
        except (ClientFailed, OSError) as error:
            self._failed(legs, peer, error, f"{workload.name}, ")
        else:
            self.samples.add(workload.name, legs, peer.name, figures)

    def _failed(self, legs: Legs, peer: Peer, error: Exception, where: str = "") -> None:
        self.failures.append(f"{where}{legs.words}, {peer.name}: {error}")
        self.progress(self.failures[-1])

    def _subject(self, target: Target, proxy: Proxy | None) -> Subject:
        return Subject(target, proxy, self._directory, self.plan.scale)

    def _site(self, peer: Peer, upstream: int, legs: Legs) -> Site:
        return site(self._directory, peer.name, upstream, self._pair, legs)

    def _certificate(self) -> tuple[Path, Path]:
        files = certificates.Files(self._directory)
        certificate, key = map(Path, files.pair("server", certificates.localhost()))
        return certificate, key

    @contextmanager
    def _started_upstream(self) -> Iterator[int]:
        """The port of a :mod:`benchmarks.upstream`."""
        port = free_port()
        pair = [str(path) for path in self._pair]
        upstream = Proxy([sys.executable, "-m", "benchmarks.upstream", str(port), *pair], port)
        try:
            yield port
        finally:
            upstream.stop()


CONF = {"max_connections": "400", "log_connections": "off", "log_disconnections": "off"}


_Each = TypeVar("_Each")


def _rotated(every: Iterable[_Each], number: int) -> list[_Each]:
    """The same, from another one on in each round."""
    listed = list(every)
    first = (number - 1) % max(1, len(listed))
    return listed[first:] + listed[:first]


def _target(peer: Peer, place: Site) -> Target:
    return Target(place.port, peer.sslnegotiation[0] if place.legs.client_tls else None)


@contextmanager
def _stopped_later(peer: Peer, place: Site) -> Iterator[Proxy]:
    proxy = peer.start(place)
    try:
        yield proxy
    finally:
        proxy.stop()
