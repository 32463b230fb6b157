"""When files that have changed are read again, and what is said of it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import cast

import attrs
from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.task import Clock
from twisted.logger import LogEvent, formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from pgtls.daemon import file_watch
from pgtls.daemon.file_watch import LONGEST_PAUSE, FileWatch, Outcome
from pgtls.gateway.gateway import Gateway
from pgtls.gateway.gateway_configuration import (
    GatewayConfiguration,
    GatewaySettings,
    OwnCertificate,
)
from pgtls.reading import FilesRead, state_of
from pgtls.tls.validity import Validity

INTERVAL = 10.0


@attrs.frozen(eq=False)
class Loaded:
    """What a gateway serves with, as far as the watch looks at it."""

    files: FilesRead
    configuration: GatewayConfiguration = GatewayConfiguration(GatewaySettings())
    validities: tuple[Validity, ...] = ()


class FakeGateway:
    """A gateway whose files say whether they are good."""

    def __init__(self, *paths: Path) -> None:
        self.paths = paths
        self.passphrase = "secret"
        self.reads = 0
        self.renew()

    def states(self) -> FilesRead:
        return {str(path): state_of(path) for path in self.paths}

    def renew(self) -> None:
        self.loaded = Loaded(self.states())

    def read(self) -> Outcome:
        self.reads += 1
        mistakes = [
            f"{path.name} is {path.read_text() if path.exists() else 'missing'}"
            for path in self.paths
            if not path.exists() or path.read_text().startswith("bad")
        ]
        if not self.passphrase:
            mistakes.append("no passphrase")
        if not mistakes:
            self.renew()
        return Outcome(self.states(), mistakes)


class WatchCase(SynchronousTestCase):
    """A watch, a clock, and files."""

    def setUp(self) -> None:
        for name, value in (("SETTLED", 0.75), ("GONE", 4), ("PATIENCE", 2)):
            self.patch(file_watch, name, value)
        self.directory = Path(self.mktemp()).absolute()
        self.directory.mkdir()
        self.crt, self.key = self.write("crt", "1"), self.write("key", "1")
        self.gateway = FakeGateway(self.crt, self.key)
        self.gateways = [self.gateway]
        self.clock = Clock()
        self.wall = 0.0
        self.looks = 0
        self.reloads: list[Sequence[str]] = []
        self.events: list[LogEvent] = []
        globalLogPublisher.addObserver(self.events.append)
        self.addCleanup(globalLogPublisher.removeObserver, self.events.append)
        self.watch = FileWatch(
            self.clock,
            INTERVAL,
            lambda: cast(Sequence[Gateway], self.gateways),
            self.read_again,
            self.in_background,
            self.reloads.append,
            lambda: self.clock.seconds() + self.wall,
        )
        self.watch.start()

    def read_again(self, gateways: Sequence[Gateway]) -> Deferred[list[Outcome | None]]:
        return succeed([cast(FakeGateway, each).read() for each in gateways])

    def in_background(self, do):  # type: ignore[no-untyped-def]
        self.looks += 1
        return maybeDeferred(do)

    def write(self, name: str, text: str) -> Path:
        path = self.directory / name
        path.write_text(text)
        # The clock of files may stand still between two tests' lines.
        self.time = getattr(self, "time", 10**18) + 10**9
        os.utime(path, ns=(self.time, self.time))
        return path

    def said(self) -> list[str]:
        texts = [formatEvent(each) for each in self.events if "reload" in formatEvent(each)]
        self.events.clear()
        return texts

    def pass_seconds(self, seconds: float) -> None:
        for _ in range(round(8 * seconds)):
            self.clock.advance(0.125)


class SettleTests(WatchCase):
    """A change that comes to rest."""

    def test_nothing_changes(self) -> None:
        self.pass_seconds(65)
        self.assertEqual((self.looks, self.gateway.reads, self.said()), (6, 0, []))

    def test_one_file(self) -> None:
        self.write("crt", "2")
        self.pass_seconds(10.5)
        self.assertEqual(self.gateway.reads, 0)
        self.pass_seconds(1)
        self.assertEqual(self.gateway.reads, 1)
        self.assertEqual(
            self.said(),
            [f'reloaded: "{self.crt}" has changed: new connections get what is in the files now'],
        )
        self.pass_seconds(30)
        self.assertEqual((self.gateway.reads, self.said()), (1, []))

    def test_a_certificate_and_its_key_a_little_later(self) -> None:
        self.write("crt", "bad: its key is another one")
        self.pass_seconds(10.6)
        self.write("crt", "2")
        self.write("key", "2")
        self.pass_seconds(0.75)
        self.assertEqual(self.gateway.reads, 0)
        self.pass_seconds(0.75)
        self.assertEqual(self.gateway.reads, 1)
        (line,) = self.said()
        self.assertIn(f'"{self.crt}" and "{self.key}" have changed', line)

    def test_a_file_that_changes_all_the_time(self) -> None:
        for number in range(25):
            self.write("crt", f"{number:3}")
            self.pass_seconds(0.5)
        self.assertEqual(self.gateway.reads, 1)

    def test_the_time_that_has_passed_before_the_look_counts(self) -> None:
        self.write("crt", "2")
        self.pass_seconds(4)
        self.wall = self.crt.stat().st_ctime - self.clock.seconds()
        self.pass_seconds(6)
        self.assertEqual(self.gateway.reads, 1)

    def test_what_is_as_it_was_needs_no_reading(self) -> None:
        before = self.gateway.loaded
        self.pass_seconds(9)
        self.crt.rename(self.directory / "elsewhere")
        self.pass_seconds(1.5)
        self.assertEqual(self.gateway.reads, 0)
        (self.directory / "elsewhere").rename(self.crt)
        before.files[str(self.crt)] = state_of(self.crt)  # a rename changes the time of change
        self.pass_seconds(30)
        self.assertEqual((self.gateway.reads, self.said()), (0, []))

    def test_a_file_that_is_gone_is_waited_for(self) -> None:
        self.crt.unlink()
        self.pass_seconds(12.5)
        self.assertEqual(self.gateway.reads, 0)
        self.write("crt", "2")
        self.pass_seconds(2.1)
        self.assertEqual(self.gateway.reads, 1)
        self.assertEqual(len(self.said()), 1)

    def test_a_file_that_stays_away(self) -> None:
        self.crt.unlink()
        self.pass_seconds(14)
        self.assertEqual(self.said(), ["not reloaded: crt is missing"])

    def test_a_symbolic_link_to_a_directory(self) -> None:
        """As Kubernetes does it."""
        for number in ("1", "2"):
            (self.directory / f"..{number}").mkdir()
            for name in ("tls.crt", "tls.key"):
                self.write(f"..{number}/{name}", number)
        data = self.directory / "..data"
        data.symlink_to("..1")
        for name in ("tls.crt", "tls.key"):
            (self.directory / name).symlink_to(f"..data/{name}")
        gateway = FakeGateway(self.directory / "tls.crt", self.directory / "tls.key")
        self.gateways = [gateway]
        self.pass_seconds(20.5)
        self.assertEqual(gateway.reads, 0)
        new = self.directory / "..data_tmp"
        new.symlink_to("..2")
        new.rename(data)
        self.pass_seconds(11.5)
        self.assertEqual(gateway.reads, 1)
        self.assertEqual(len(self.said()), 1)


class MistakeTests(WatchCase):
    """A change for the worse."""

    def test_one_that_rights_itself_at_once(self) -> None:
        self.write("crt", "bad: its key is another one")
        self.pass_seconds(11)
        self.assertEqual(self.gateway.reads, 1)
        self.write("key", "2")
        self.write("crt", "2")
        self.pass_seconds(2)
        self.assertEqual(self.gateway.reads, 2)
        (line,) = self.said()
        self.assertIn("have changed", line)

    def test_it_is_said_once(self) -> None:
        self.write("crt", "bad")
        self.pass_seconds(100)
        self.assertEqual(self.said(), ["not reloaded: crt is bad"])
        self.assertEqual(self.watch.mistakes, ["crt is bad"])
        self.write("crt", "2")
        self.pass_seconds(12)
        self.assertEqual(len(self.said()), 1)
        self.assertEqual(self.watch.mistakes, [])
        self.assertEqual(self.reloads, [["crt is bad"], ()])

    def test_all_of_a_change_are_one_line(self) -> None:
        gateway = FakeGateway(*(self.write(f"file{number}", "1") for number in range(5)))
        self.gateways[:] = [gateway]
        for number in range(5):
            self.write(f"file{number}", "bad")
        self.pass_seconds(12)
        self.assertEqual(
            self.said(),
            ["not reloaded: file0 is bad; file1 is bad; file2 is bad; and 2 more"],
        )

    def test_once_for_each_change(self) -> None:
        for _ in range(3):
            self.write("crt", "bad")
            self.pass_seconds(12)
            self.assertEqual(self.said(), ["not reloaded: crt is bad"])

    def test_it_is_tried_again_with_growing_pauses(self) -> None:
        self.write("crt", "bad")
        self.pass_seconds(12)
        reads = []
        for _ in range(4):
            self.pass_seconds(LONGEST_PAUSE)
            reads.append(self.gateway.reads)
        first, *later = reads
        self.assertEqual(first, 6)  # the first one, and after 10, 20, 40, 80, 160 s
        self.assertEqual([reads - first for reads in later], [1, 2, 3])
        self.assertEqual(len(self.said()), 1)

    def test_what_is_right_without_a_change_of_files(self) -> None:
        """The passphrase can be had again, say."""
        self.gateway.passphrase = ""
        self.write("crt", "2")
        self.pass_seconds(12)
        self.assertEqual(self.said(), ["not reloaded: no passphrase"])
        self.gateway.passphrase = "secret"
        self.pass_seconds(21)
        (line,) = self.said()
        self.assertIn(f'reloaded: "{self.crt}" has changed: new connections', line)

    def test_of_two_gateways_one_goes_on(self) -> None:
        other = FakeGateway(self.write("other", "1"))
        self.gateways.append(other)
        self.write("crt", "bad")
        self.write("other", "2")
        self.pass_seconds(12)
        success, mistake = self.said()
        self.assertEqual(mistake, "not reloaded: crt is bad")
        self.assertRegex(success, '^reloaded: ".*other" has changed: ')

    def test_what_two_gateways_share_is_said_once(self) -> None:
        self.gateways.append(FakeGateway(self.crt))
        self.write("crt", "bad")
        self.pass_seconds(12)
        self.assertEqual(self.said(), ["not reloaded: crt is bad"])
        self.write("crt", "2")
        self.pass_seconds(12)
        self.assertEqual(len(self.said()), 1)


class GatewayTests(WatchCase):
    """Gateways that come, go and change."""

    def test_what_has_been_reloaded_otherwise(self) -> None:
        self.write("crt", "2")
        self.pass_seconds(10.5)
        self.gateway.renew()
        self.pass_seconds(30)
        self.assertEqual((self.gateway.reads, self.said()), (0, []))

    def test_what_has_been_given_other_settings_meanwhile(self) -> None:
        def read_again(gateways: Sequence[Gateway]) -> Deferred[list[Outcome | None]]:
            self.gateway.renew()
            return succeed([None])

        watch = FileWatch(
            self.clock,
            INTERVAL,
            lambda: cast(Sequence[Gateway], self.gateways),
            read_again,
            self.in_background,
        )
        self.watch.stop()
        watch.start()
        self.write("crt", "2")
        self.pass_seconds(30)
        self.assertEqual(self.said(), [])
        watch.stop()

    def test_they_come_and_go(self) -> None:
        other = FakeGateway(self.write("other", "1"))
        self.gateways[:] = [other]
        self.write("crt", "2")
        self.pass_seconds(10)
        self.write("other", "2")
        self.pass_seconds(12)
        self.assertEqual((self.gateway.reads, other.reads), (0, 1))


class OwnCertificateTests(WatchCase):
    """The certificate that the daemon makes itself: it is renewed where it is read."""

    def loaded(self, days: float) -> Loaded:
        own = OwnCertificate(b"", "server.crt", "server.key")
        end = datetime.fromtimestamp(self.clock.seconds(), UTC) + timedelta(days=days)
        return Loaded(
            self.gateway.states(),
            GatewayConfiguration(GatewaySettings(), own_certificate=own),
            (Validity("it", "server.crt", None, end, "x"),),
        )

    def test_thirty_days_before_its_end(self) -> None:
        self.gateway.loaded = self.loaded(days=33)
        for day in range(6):
            self.assertEqual(self.gateway.reads, 0 if day < 3 else 1)
            self.clock.pump([1000.0] * 86 + [400.0])
        (line,) = self.said()
        self.assertIn("reloaded: the gateway's own certificate", line)

    def test_once_a_day_where_that_is_over(self) -> None:
        self.gateway.loaded = self.loaded(days=1)
        self.clock.pump([1000.0] * 86)
        self.assertEqual(self.gateway.reads, 0)
        self.clock.pump([1000.0] * 2)
        self.assertEqual(self.gateway.reads, 1)


class TimerTests(WatchCase):
    """How often there is a look."""

    def test_never(self) -> None:
        self.watch.interval = 0.0
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.watch.interval = 1.0
        self.pass_seconds(3.05)
        self.assertEqual(self.looks, 3)

    def test_not_beside_one_that_takes_long(self) -> None:
        waiting: list[Deferred[object]] = []

        def in_background(do):  # type: ignore[no-untyped-def]
            waiting.append(Deferred())
            return waiting[-1].addCallback(lambda _: do())

        self.watch.stop()
        watch = FileWatch(
            self.clock,
            INTERVAL,
            lambda: cast(Sequence[Gateway], self.gateways),
            self.read_again,
            in_background,
        )
        watch.start()
        self.write("crt", "2")
        self.pass_seconds(50)
        self.assertEqual(len(waiting), 1)
        watch.interval = 2.0
        waiting[0].callback(None)
        self.pass_seconds(1.1)
        waiting[1].callback(None)
        self.assertEqual(self.gateway.reads, 1)
        watch.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_failure_is_not_the_end(self) -> None:
        self.gateways.append(cast(FakeGateway, None))
        self.pass_seconds(10.5)
        self.assertEqual(len(self.flushLoggedErrors(AttributeError)), 1)
        self.gateways.pop()
        self.write("crt", "2")
        self.pass_seconds(12)
        self.assertEqual(self.gateway.reads, 1)

    def test_a_short_interval(self) -> None:
        self.watch.interval = 0.2
        self.write("crt", "2")
        self.pass_seconds(0.5)
        self.assertEqual(self.gateway.reads, 1)
