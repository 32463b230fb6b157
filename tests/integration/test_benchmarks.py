"""The benchmarks run, and what they say about their figures is right."""

from __future__ import annotations

import io
import json
import os
import signal
import sys
import tempfile
from dataclasses import replace
from itertools import cycle, product
from pathlib import Path
from subprocess import Popen
from xml.etree import ElementTree

from rich.console import Console
from twisted.trial.unittest import SynchronousTestCase, TestCase

from benchmarks.against import Comparison, agreed, comparisons, interval
from benchmarks.bars import verdicts
from benchmarks.busy import neighbours
from benchmarks.plot import svg
from benchmarks.results import Samples
from benchmarks.sites import Legs
from benchmarks.table import show, show_comparison
from benchmarks.workloads import WORKLOADS
from tests.support.gateway_daemon import wait_until
from tests.support.processes import run

SVG = "{http://www.w3.org/2000/svg}"


class RunTests(TestCase):
    """``python -m benchmarks``."""

    async def test_a_tiny_round_of_everything(self) -> None:
        svg_file = Path(tempfile.mkdtemp()) / "plot.svg"
        arguments = ["--rounds", "1", "--scale", "0.002", "--peers", "pgtls,pgtls-full,postgresql"]
        workloads = "conn,direct,q1,named,down,up,idle,growth"
        legs = ["--legs", "tls-plain", "--only", workloads]
        done = await run(
            [sys.executable, "-m", "benchmarks", *arguments, *legs, "--svg", str(svg_file)],
            timeout=300,
        )
        self.assertEqual(done.code, 0, done.err)
        everything = json.loads(done.out)
        found = {
            (row["workload"], row["metric"], peer)
            for row in everything["results"]
            for peer, figures in row["peers"].items()
            if len(figures["samples"]) == 1
        }
        wanted = set(product(workloads.split(","), ("pgtls", "pgtls-full", "postgresql")))
        bare = {("idle", "postgresql"), ("growth", "postgresql")}
        self.assertEqual({(workload, peer) for workload, _, peer in found}, wanted - bare)
        self.assertIn(("conn", "cpu", "pgtls"), found)
        self.assertNotIn(("conn", "cpu", "postgresql"), found)
        self.assertEqual(ElementTree.parse(svg_file).getroot().tag, f"{SVG}svg")

    async def test_an_unknown_name_is_refused(self) -> None:
        done = await run([sys.executable, "-m", "benchmarks", "--peers", "pgtls,nginx"])
        self.assertEqual(done.code, 2)
        self.assertIn("nginx: not one of pgtls, pgtls-2", done.err)

    async def test_a_revision_that_is_unknown(self) -> None:
        done = await run([sys.executable, "-m", "benchmarks", "--against", "no-such-revision"])
        self.assertEqual(done.code, 1)
        self.assertIn("no-such-revision cannot be checked out: ", done.err)

    async def test_too_few_rounds_to_be_sure(self) -> None:
        arguments = ["--against", "HEAD", "--rounds", "7"]
        done = await run([sys.executable, "-m", "benchmarks", *arguments])
        self.assertEqual(done.code, 2)
        self.assertIn("--against takes at least --rounds 8", done.err)


class BusyTests(SynchronousTestCase):
    """``--busy``."""

    def test_a_neighbour_on_each_processor_as_long_as_it_is_wanted(self) -> None:
        ours = os.sched_getaffinity(0)
        with neighbours() as started:
            pinned = {frozenset({each}) for each in ours}
            wait_until(lambda: {*map(processors, started)} == pinned, lambda: "not pinned")
            self.assertEqual([each.poll() for each in started], [None] * len(ours))
        self.assertEqual([each.poll() for each in started], [-signal.SIGKILL] * len(ours))


def processors(process: Popen[bytes]) -> frozenset[int]:
    """Those that it may use."""
    return frozenset(os.sched_getaffinity(process.pid))


def compared(old: list[float], new: list[float], workload: str, metric: str) -> Comparison:
    """What is said of these samples."""
    samples = Samples()
    for name, figures in (("old", old), ("new", new)):
        for figure in figures:
            samples.add(workload, Legs.TLS_PLAIN, name, {metric: figure})
    [comparison] = comparisons([WORKLOADS[workload]], samples)
    return comparison


class AgainstTests(SynchronousTestCase):
    """Two revisions, with figures that are known beforehand."""

    #: A machine that becomes slower and faster.
    OLD = [1.0, 1.1, 2.0, 2.1, 3.0, 2.2, 1.2, 1.0, 0.9, 1.5]

    def test_a_loss(self) -> None:
        new = [cost * factor for cost, factor in zip(self.OLD, cycle([1.1, 1.15, 1.2]))]
        found = compared(self.OLD, new, "conn", "cpu")
        self.assertAlmostEqual(found.ratio, 1.15)
        self.assertAlmostEqual(found.low, 1.1)
        self.assertAlmostEqual(found.high, 1.2)
        self.assertTrue(found.lost)

    def test_noise_is_no_loss(self) -> None:
        new = [cost * factor for cost, factor in zip(self.OLD, cycle([0.7, 1.5, 1.2]))]
        found = compared(self.OLD, new, "conn", "cpu")
        self.assertAlmostEqual(found.ratio, 1.2)
        self.assertFalse(found.lost)

    def test_a_small_loss_is_let_pass(self) -> None:
        found = compared(self.OLD, [cost * 1.05 for cost in self.OLD], "conn", "cpu")
        self.assertAlmostEqual(found.ratio, 1.05)
        self.assertGreater(found.low, 1)
        self.assertFalse(found.lost)

    def test_less_is_a_loss_where_more_is_better(self) -> None:
        found = compared([120.0] * 8, [100.0] * 8, "q1", "tps")
        self.assertAlmostEqual(found.ratio, 1.2)
        self.assertTrue(found.lost)

    def test_a_workload_that_failed_now_and_then_is_left_out(self) -> None:
        samples = Samples()
        samples.add("conn", Legs.TLS_PLAIN, "old", {"cpu": 1.0})
        self.assertEqual(list(comparisons([WORKLOADS["conn"]], samples)), [])
        samples.add("conn", Legs.TLS_PLAIN, "new", {"cpu": 1.0})  # too few of both to say anything
        self.assertEqual(list(comparisons([WORKLOADS["conn"]], samples)), [])

    def test_a_loss_is_what_both_measurements_say(self) -> None:
        loss = compared([1.0] * 8, [1.2] * 8, "conn", "cpu")
        none = compared([1.0] * 8, [1.0] * 8, "conn", "cpu")
        for first, second, wanted in (
            ([loss], [loss], [loss]),
            ([loss], [none], [none]),
            ([none], [loss], [replace(loss, lost=False)]),
            ([none], [], [none]),
        ):
            self.assertEqual(agreed(first, second), wanted)

    def test_the_interval_is_that_of_the_binomial_distribution(self) -> None:
        """Coverage is 99 % or more, and one value less on each side would be too few."""
        self.assertEqual(interval([float(number) for number in range(8)]), (0.0, 7.0))
        # Tables of the sign test: ranks 12 and 29 of 40.
        self.assertEqual(interval([float(number) for number in range(1, 41)]), (12.0, 29.0))

    def test_the_table(self) -> None:
        console = Console(file=io.StringIO(), width=120)
        loss = compared([1.0] * 8, [1.2] * 8, "conn", "cpu")
        show_comparison(console, [loss], {"against": "v1"})
        assert isinstance(console.file, io.StringIO)
        shown = console.file.getvalue()
        self.assertRegex(
            shown, r"connections, proxy CPU-s per 1,000 .* 1\.20 +1\.20 to 1\.20 +lost"
        )
        self.assertIn("against: v1", shown)


class FigureTests(SynchronousTestCase):
    """Figures that are known beforehand."""

    def setUp(self) -> None:
        self.samples = Samples()
        for cpu in (0.4, 9.0, 0.5):
            self.samples.add("conn", Legs.TLS_PLAIN, "pgtls", {"cpu": cpu})
        self.samples.add("conn", Legs.TLS_PLAIN, "stunnel", {"cpu": 1.0})
        self.samples.add("conn", Legs.TLS_PLAIN, "pgbouncer", {"cpu": 0.25})

    def test_medians_and_ratios_to_the_gateway(self) -> None:
        row = self.samples.row("conn", Legs.TLS_PLAIN, "cpu")
        assert row is not None
        self.assertEqual(row.medians, {"pgtls": 0.5, "stunnel": 1.0, "pgbouncer": 0.25})
        self.assertEqual(row.ratio("stunnel"), 2.0)

    def test_bars_met_and_not_met(self) -> None:
        self.assertEqual(
            [(each.wanted, each.value, each.word) for each in verdicts(self.samples)],
            [("<= 0.55 x stunnel", 0.5, "met"), ("<= 1.1 x pgbouncer", 2.0, "not met")],
        )

    def test_the_gateway_with_everything_on_is_held_against_the_one_as_it_comes(self) -> None:
        self.samples.add("conn", Legs.TLS_PLAIN, "pgtls-full", {"cpu": 0.52})
        full = [each for each in verdicts(self.samples) if each.title.startswith("pgtls-full: ")]
        self.assertEqual(
            [(each.wanted, each.value, each.word) for each in full],
            [("<= 1.05 x pgtls", 1.04, "met"), ("<= 1 x pgtls", 1.04, "not met")],
        )

    def test_the_server_itself_is_no_peer(self) -> None:
        for peer, tps in {"pgtls": 9.0, "pgtls-2": 9.5, "envoy": 8.0, "postgresql": 99.0}.items():
            self.samples.add("q1", Legs.TLS_PLAIN, peer, {"tps": tps})
        best = [each for each in verdicts(self.samples) if "best" in each.wanted]
        self.assertEqual([each.word for each in best], ["met"])

    def test_the_table(self) -> None:
        console = Console(file=io.StringIO(), width=100)
        show(console, self.samples, verdicts(self.samples), {"date": "2030-01-01"})
        assert isinstance(console.file, io.StringIO)
        shown = console.file.getvalue()
        self.assertRegex(shown, r"proxy CPU-s per 1,000 +0\.50 +1\.00 \(2\.00x\) +0\.25 \(0\.50x\)")
        self.assertIn("date: 2030-01-01", shown)

    def test_the_plot_has_a_bar_for_each_peer(self) -> None:
        plot = ElementTree.fromstring(svg(self.samples, {}))
        bars = {
            float(each.attrib["width"]) for each in plot.iter(f"{SVG}rect") if "x" in each.attrib
        }
        self.assertEqual(bars, {65.0, 130.0, 260.0})

    def test_the_plot_of_figures_too_small_to_be_seen(self) -> None:
        """As the memory of a few sessions may be."""
        samples = Samples()
        samples.add("idle", Legs.TLS_PLAIN, "pgtls", {"memory": 0.0})
        self.assertIn("pgtls", svg(samples, {}))
