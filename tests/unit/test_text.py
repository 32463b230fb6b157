"""Text of a peer, made fit for a log line, an error or a terminal."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from pgtls.text import clean_ascii, log_name, log_text, printable, sasl_text

#: Clears a screen; CSI as one character; right-to-left override, isolate; line separator; tag.
HOSTILE = "a\x1b[2J\x9b2J\u202eb\u2066\u2028\U000e0041\x07\r\n"


class AsciiTests(SynchronousTestCase):
    """clean_ascii(), log_text(), log_name()"""

    @given(st.binary(max_size=400))
    @settings(deadline=None)
    def test_nothing_but_printable_ascii_comes_out(self, octets: bytes) -> None:
        for text in (clean_ascii(octets), log_text(octets), log_name(octets)):
            self.assertTrue((text.isascii() and text.isprintable()) or not text, text)

    def test_as_postgresql_cleans_an_application_name(self) -> None:
        self.assertEqual(clean_ascii("tr\nap\\ü".encode()), "tr\\x0aap\\\\xc3\\xbc")

    def test_the_beginning_of_a_long_text(self) -> None:
        self.assertEqual(log_text("abcdef", 3), "abc...")
        self.assertEqual(log_text(b"abc", 3), "abc")

    def test_the_end_of_a_long_name(self) -> None:
        self.assertEqual(log_name("/O=x/CN=alice", 10), "...N=alice")
        self.assertEqual(log_name("a" * 71), "a" * 71)

    def test_bytes_that_were_not_utf8(self) -> None:
        self.assertEqual(log_text(b"\xff".decode("utf-8", "surrogateescape")), "\\xff")


class PrintableTests(SynchronousTestCase):
    """printable()"""

    def test_what_can_be_seen_stays(self) -> None:
        self.assertEqual(printable("Müller, 東京 [red] \\x"), "Müller, 東京 [red] \\x")

    def test_what_steers_a_terminal_or_turns_the_writing_does_not(self) -> None:
        self.assertEqual(
            printable(HOSTILE),
            "a\\x1b[2J\\x9b2J\\u202eb\\u2066\\u2028\\U000e0041\\x07\\r\\n",
        )

    def test_the_beginning_of_a_long_one(self) -> None:
        self.assertEqual(printable("abcdef", 3), "abc...")
        self.assertEqual(printable("a" * 300, None), "a" * 300)

    @given(st.text(max_size=300))
    @settings(deadline=None)
    def test_any_text(self, text: str) -> None:
        self.assertTrue(printable(text).isprintable())


class SaslTests(SynchronousTestCase):
    """sasl_text()"""

    def test_as_postgresql_shows_it(self) -> None:
        self.assertEqual(sasl_text("p=x \x1b" + "y" * 40), "p=x??" + "y" * 25)
