"""Numbers and times for a person."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from pgtls.status.wording import bytes_text, count_text, days_left, duration_text, left_text


class WordingTests(SynchronousTestCase):
    """How they are written."""

    def test_bytes(self) -> None:
        for number, text in (
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.0 kB"),
            (99_400, "99.4 kB"),
            (123_456, "123 kB"),
            (999_499, "999 kB"),
            (999_500, "1.0 MB"),
            (5e9, "5.0 GB"),
            (7.2e15, "7,200 TB"),
        ):
            self.assertEqual(bytes_text(number), text)

    def test_counts(self) -> None:
        for number, text in ((0, "0"), (0.25, "0.2"), (3, "3"), (12.6, "13"), (12345, "12,345")):
            self.assertEqual(count_text(number), text)

    def test_durations(self) -> None:
        for seconds, text in (
            (-3, "0 s"),
            (59.9, "59 s"),
            (60, "1 min"),
            (3599, "59 min"),
            (12_000, "3 h 20 min"),
            (86_400 * 5, "5 d"),
        ):
            self.assertEqual(duration_text(seconds), text)

    def test_what_is_left(self) -> None:
        day = 86_400
        for left, text in (
            (-1, "expired"),
            (day - 1, "less than a day"),
            (day, "1 day"),
            (22.5 * day, "22 days"),
            (2000 * day, "2,000 days"),
        ):
            self.assertEqual(left_text(days_left(1e9 + left, 1e9)), text)
