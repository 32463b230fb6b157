"""The benchmarks run, and what they say about their figures is right."""

from __future__ import annotations

import io
import json
import sys
import tempfile
from itertools import product
from pathlib import Path
from xml.etree import ElementTree

from rich.console import Console
from twisted.trial.unittest import SynchronousTestCase, TestCase

from benchmarks.bars import verdicts
from benchmarks.plot import svg
from benchmarks.results import Samples
from benchmarks.sites import Legs
from benchmarks.table import show
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
            [sys.executable, "-m", "benchmarks", *arguments, *legs, "--svg", str(svg_file)]
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
