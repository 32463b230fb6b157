"""The daemon's log in text is what Twisted would have written."""

from __future__ import annotations

import io
from typing import Any

from twisted.logger import (
    FileLogObserver,
    LogEvent,
    Logger,
    LogLevel,
    eventAsJSON,
    eventFromJSON,
    globalLogPublisher,
    jsonFileLogObserver,
    textFileLogObserver,
)
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from pgtls.daemon.text_log import TextLines, speed_up_text_logs
from pgtls.protocols.connection_log import log_line

MOMENT = 1_790_000_000.25


def an_event(line: str = "a line", moment: float = MOMENT, **more: Any) -> LogEvent:
    return {
        "line": line,
        "log_format": "{line}",
        "log_level": LogLevel.info,
        "log_namespace": "pgtls.server",
        "log_time": moment,
        **more,
    }


class Text(SynchronousTestCase):
    """:class:`TextLines` beside Twisted's own."""

    def setUp(self) -> None:
        self.twisteds = textFileLogObserver(io.StringIO()).formatEvent
        self.ours = TextLines(self.twisteds)

    def check(self, *events: LogEvent) -> None:
        for event in events:
            self.assertEqual(self.ours(event), self.twisteds(event))

    def test_lines_of_one_second_and_of_the_next_ones(self) -> None:
        moments = (MOMENT, MOMENT + 0.5, MOMENT + 0.75, MOMENT + 1, MOMENT, MOMENT + 86_400 * 180)
        self.check(*(an_event(f"at {moment}", moment) for moment in moments))

    def test_namespaces_and_levels(self) -> None:
        self.check(
            an_event(),
            an_event(log_namespace="pgtls.gateway"),
            an_event(log_level=LogLevel.warn),
            an_event(log_level=LogLevel.warn, log_namespace="pgtls.gateway"),
            an_event(log_system="another"),
        )

    def test_those_of_a_worker(self) -> None:
        for line in ("one", "and another"):
            self.check(eventFromJSON(eventAsJSON(an_event(line))))

    def test_what_clients_write_into_them(self) -> None:
        self.check(*(an_event(line) for line in ("", "{}", "{line}", "two\nlines", "-\n", "é")))

    def test_other_events(self) -> None:
        failure = Failure(ZeroDivisionError("no"))
        self.check(
            an_event(log_format="{line}, and {more}", more=1),
            an_event(log_format=None),
            an_event(log_format="{line}", log_failure=failure),
            {"log_format": "no line", "log_time": MOMENT},
            {"log_format": "{line}"},
            an_event(line=5),  # type: ignore[arg-type]
            an_event(moment=None),  # type: ignore[arg-type]
            {"log_format": "{line}", "line": "of nobody", "log_time": MOMENT},
            {"message": ("legacy",), "log_time": None},
        )


class Quickened(SynchronousTestCase):
    """Which observers write so."""

    def observed(self, observer: FileLogObserver) -> Any:
        """What makes the text of an observer when the daemon has begun."""
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        speed_up_text_logs()
        return observer.formatEvent

    def test_twistds(self) -> None:
        formatting = self.observed(textFileLogObserver(io.StringIO()))
        self.assertIsInstance(formatting, TextLines)

    def test_one_that_is_so_already(self) -> None:
        observer = textFileLogObserver(io.StringIO())
        self.assertIs(self.observed(observer), self.observed(observer))

    def test_not_one_with_parts_of_seconds(self) -> None:
        formatting = self.observed(textFileLogObserver(io.StringIO(), "%H:%M:%S.%f"))
        self.assertNotIsInstance(formatting, TextLines)

    def test_not_one_that_writes_json(self) -> None:
        file = io.StringIO()
        self.observed(jsonFileLogObserver(file))
        log_line(Logger("pgtls.server"), "a line", {"field": 1})
        self.assertIn('"log_format": "{line}"', file.getvalue())
        self.assertIn('"field": 1', file.getvalue())


class Event(SynchronousTestCase):
    """What is logged as a line."""

    def test_it_is_what_a_logger_makes(self) -> None:
        events: list[LogEvent] = []
        log = Logger("pgtls.server", observer=events.append)
        log_line(log, "a line", {"field": 1})
        log.info("{line}", line="a line", field=1)
        ours, twisteds = events
        self.assertLessEqual(ours.pop("log_time"), twisteds.pop("log_time"))
        self.assertEqual(ours, twisteds)
