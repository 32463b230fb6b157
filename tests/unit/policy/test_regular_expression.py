"""Regular expressions without backtracking. Against PostgreSQL: tests/integration."""

from __future__ import annotations

import contextlib
import time

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from pgtls.policy.regular_expression import (
    Match,
    RegularExpression,
    TooMuchWork,
    WorkAllowance,
)

#: A back reference to what can be cut in many ways: steps without end for a text of a's.
SLOW = rb"^(a*)(a*)(a*)(a*)(a*)(a*)\1\2\3\4\5\6b$"


def matched(pattern: bytes, text: bytes) -> tuple[bytes | None, ...] | None:
    match = RegularExpression(pattern, WorkAllowance()).match(text)
    return match and match.groups


class MatchTests(SynchronousTestCase):
    """The documentation's examples, and what the groups capture."""

    def test_the_earliest_then_the_longest(self) -> None:
        self.assertEqual(matched(rb"(a|ab)(c|bcd)(d*)", b"xabcd"), (b"ab", b"c", b"d"))

    def test_a_part_that_prefers_the_shortest(self) -> None:
        self.assertEqual(matched(rb"(Y{1,3}?).*", b"XYYY"), (b"Y",))

    def test_the_first_preference_counts_for_the_whole(self) -> None:
        self.assertEqual(matched(rb"(?:x*?)(y*)", b"yyy"), (b"",))

    def test_a_group_that_took_no_part(self) -> None:
        self.assertEqual(matched(rb"^(x)?alice$", b"alice"), (None,))

    def test_a_back_reference(self) -> None:
        self.assertEqual(matched(rb"^(.+)-\1$", b"ab-ab"), (b"ab",))
        self.assertIsNone(matched(rb"^(.+)-\1$", b"ab-ba"))

    def test_bytes(self) -> None:
        self.assertEqual(matched(rb"^(.)(.)$", "ü".encode()), (b"\xc3", b"\xbc"))
        self.assertIsNone(matched(rb"^[[:alpha:]]+$", b"m\xfcller"))

    def test_the_same_text_again(self) -> None:
        expression = RegularExpression(rb"^(.*)@example\.com$")
        first = expression.match(b"bob@example.com")
        self.assertEqual(first, Match((b"bob",)))
        self.assertIs(expression.match(b"bob@example.com"), first)

    @given(st.binary(max_size=12), st.binary(max_size=12))
    @settings(deadline=None)
    def test_any_bytes_give_an_answer_or_a_reason(self, pattern: bytes, text: bytes) -> None:
        try:
            expression = RegularExpression(pattern, WorkAllowance())
        except ValueError as error:
            self.assertTrue(str(error))
        else:
            self.assertEqual(expression.matches(text), expression.match(text) is not None)


class TimeTests(SynchronousTestCase):
    """What is made to take long does not."""

    def seconds(self, pattern: bytes, text: bytes) -> float:
        expression = RegularExpression(pattern, WorkAllowance())
        start = time.process_time()
        with contextlib.suppress(TooMuchWork):
            expression.match(text)
        return time.process_time() - start

    def test_expressions_known_to_be_bad_for_backtracking(self) -> None:
        for pattern in (
            rb"^(([a-z]+)[0-9]*)+$",
            rb"(x+x+)+y",
            rb"^(a|aa)+$",
            rb"^(a|a)*$",
            rb"(.*){1,30}[bc]",
            rb"^(a?){60}a{60}$",
            rb"((a{1,12}){1,12}){1,12}b",
            rb"^.*.*.*.*.*=.*$",
            SLOW,
        ):
            for text in (b"a" * 63, b"a" * 62 + b"!", b"x" * 8191, b"a" * 8190 + b"b"):
                self.assertLess(self.seconds(pattern, text), 1.0, (pattern, len(text)))

    def test_deep_expressions_are_refused(self) -> None:
        for pattern in (b"(" * 10_000 + b")" * 10_000, b"()" * 10_000, b"(?=" * 5000):
            error = self.assertRaises(ValueError, RegularExpression, pattern)
            self.assertEqual(str(error), "regular expression is too complex")


class AllowanceTests(SynchronousTestCase):
    """A flood of names that were made to take long."""

    def setUp(self) -> None:
        self.now = 0.0
        self.allowance = WorkAllowance(1000, 5000, 100, lambda: self.now)

    def test_what_was_taken_is_gone(self) -> None:
        self.allowance.spent(4000)
        self.assertEqual(self.allowance.work().left, 1000)

    def test_a_little_is_left_in_any_case(self) -> None:
        self.allowance.spent(9000)
        self.assertEqual(self.allowance.work().left, 100)

    def test_it_comes_back_with_time(self) -> None:
        self.allowance.spent(5000)
        self.now = 2.0
        self.assertEqual(self.allowance.work().left, 2000)
        self.now = 100.0
        self.assertEqual(self.allowance.work().left, 5000)

    def test_in_a_flood_ordinary_names_match_as_ever(self) -> None:
        allowance = WorkAllowance(clock=lambda: self.now)
        slow = RegularExpression(SLOW, allowance)
        ordinary = RegularExpression(rb"^([a-z]+)@example\.com$", allowance)
        start = time.process_time()
        for number in range(30):
            self.assertRaises(TooMuchWork, slow.match, b"a" * (41 + 2 * (number % 10)) + b"b")
        self.assertLess(time.process_time() - start, 1.5)
        self.assertEqual(ordinary.match(b"bob@example.com"), Match((b"bob",)))
