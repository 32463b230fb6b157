"""Regular expressions of ident maps, held against a real PostgreSQL's."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable

from twisted.trial.unittest import SynchronousTestCase

from pgtls.policy.regular_expression import RegularExpression, TooMuchWork, WorkAllowance
from tests.support import servers

#: What PostgreSQL makes of an expression and a text: the groups, null for no match, or the error.
FUNCTION = """
CREATE FUNCTION matched(pattern text, subject text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    RETURN to_json(regexp_match(subject COLLATE "C", pattern COLLATE "C"));
EXCEPTION WHEN invalid_regular_expression THEN
    RETURN to_json(SQLERRM);
END $$;
"""

PREFIX = "invalid regular expression: "
TOO_COMPLEX = f"{PREFIX}regular expression is too complex"

#: Written by hand: each is a rule of PostgreSQL's that others have otherwise, or a mistake.
CASES = [
    # Which match, and what the groups get.
    ("^(a|ab)(b*)$", "ab"),
    ("(a|ab)(c|bcd)(d*)", "abcd"),
    ("(a*?)(a*)", "aaa"),
    ("(?:a*?)(a*)", "aaa"),
    ("X(a{1,3}?)", "Xaaa"),
    ("SELECT (.*?)(.*)", "SELECT abc"),
    ("X*(Y{1,3})", "XY1234"),
    ("X*?(Y{1,3}?)", "XYYY"),
    ("(?:(a)|b)*", "ab"),
    ("(?:(a)|b)+", "ab"),
    ("((a)|(b))*c", "abc"),
    ("(a+|b+)*?(c)?", "aabbc"),
    ("(((a)))", "a"),
    ("(a?){3}", "aa"),
    ("(a*){2,3}", "aaa"),
    ("(|a)(|b)", "ab"),
    ("((a*?)b??)*(b*)", "aabb"),
    # Back references.
    (r"^(a+)\1$", "aaaa"),
    (r"^(a*)(b)\1\2*$", "aabaabb"),
    (r"(a|b)*\1", "abb"),
    (r"(?:(a)|b)*\1", "aba"),
    (r"(?i)(a)\1", "aA"),
    (r"(a){0}\1", "a"),
    (r"(a)(?=\1)", "aa"),
    (r"\1(a)", "aa"),
    (r"(\ma)\1", "aa"),
    (r"(a)\12", "a\n"),
    # Places.
    (r"\mab\M", "x ab y"),
    (r"a\yb", "ab"),
    (r"\Y", ""),
    (r"\y", ""),
    ("[[:<:]]a", "ba a"),
    ("a$b", "a\nb"),
    ("^b", "a\nb"),
    ("a.b", "a\nb"),
    (r"\Aa\Z", "a"),
    ("^*", "a"),
    ("(?:^)*a", "ba"),
    # Lookaround.
    ("(?<=a)(b)", "ab"),
    ("(?<!a)(b)", "abcb"),
    ("(?=(a))a", "a"),
    ("a(?!b)(.)", "abac"),
    ("(?<=^|_)(x)", "a_x"),
    # Escapes and brackets.
    (r"\x61\u0062\143\t", "abc\t"),
    (r"\x6161", "a"),
    (r"\0141", "a1"),
    (r"\8", "8"),
    (r"\cA", "\x01"),
    (r"\e\a\B", "\x1b\x07\\"),
    (r"[\d\-x]+", "x-12"),
    (r"[\D]", "1"),
    (r"[^\W]+", "é_a"),
    (r"[]a]+", "]a"),
    (r"[^]a]+", "]ab"),
    ("[a-]+", "-a"),
    ("[--a]+", "-Aa"),
    ("[a--]", "a"),
    ("[[.a.]-[.c.]]+", "abc"),
    ("[[=a=]b]+", "ab"),
    ("[[=a=]-c]+", "abc"),
    ("[[:alpha:]-z]", "a"),
    ("(?i)[[:upper:]]+", "aB"),
    ("(?i)[a-c]+Z", "aBCz"),
    ("[[:word:]]+", "a_1-"),
    ("[[:ascii:]]+", "aé"),
    ("[[:nothing:]]", "a"),
    ("[[..]]", "a"),
    ("[b-a]", "a"),
    (r"[\ma]", "a"),
    (r"[\1]", "1"),
    ("[a", "a"),
    ("[a-", "a"),
    ("[[:alpha:", "a"),
    ("[", "a"),
    ("a\\", "a"),
    (r"\q", "q"),
    (r"\x", "x"),
    (r"\u12", "x"),
    (r"\_\.\-", "_.-"),
    # Quantifiers.
    ("a{2}", "aaa"),
    ("a{2", "aa"),
    ("a{2,1}", "aa"),
    ("a{256}", "aa"),
    ("a{0255}", "a"),
    ("a{,2}", "a{,2}"),
    ("a{x}", "a{x}"),
    ("{", "{"),
    ("a{1,2,3}", "a"),
    ("{1}", "a"),
    ("a**", "a"),
    ("a+?+", "a"),
    ("*a", "a"),
    ("(*a)", "a"),
    ("a|*", "a"),
    ("(a){0}(b)", "ab"),
    ("a{1}?", "a"),
    ("a||b", ""),
    ("()", "a"),
    # Parentheses, comments, options.
    ("(a", "a"),
    ("a)", "a"),
    ("(?a", "a"),
    ("(?", "a"),
    ("(?<a)", "a"),
    ("a(?i)b", "ab"),
    ("(?#comment)a(?#another)*", "aa"),
    ("a(?#", "a"),
    ("(?i)AB", "ab"),
    ("(?ic)AB", "ab"),
    ("(?ci)AB", "ab"),
    ("(?z)a", "a"),
    ("(?i", "a"),
]


class Expressions:
    """Makes small ones at random, of which each has a fair chance to match a small text.

    :param seed: for the same ones again.
    """

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._groups = 0

    def pattern(self) -> str:
        self._groups = 0
        start, end = self._random.choice([("", ""), ("^", ""), ("", "$"), ("^", "$")])
        option = self._random.choice(["", "", "", "", "(?i)"])
        return f"{option}{start}{self._alternatives(3)}{end}"

    def text(self) -> str:
        return "".join(self._random.choices("aaabbcA_ ", k=self._random.randrange(8)))

    def _alternatives(self, depth: int) -> str:
        count = self._random.choice([1, 1, 1, 2, 2, 3])
        return "|".join(self._sequence(depth) for _ in range(count))

    def _sequence(self, depth: int) -> str:
        count = self._random.choice([0, 1, 1, 2, 2, 3, 4])
        return "".join(self._quantified(depth) for _ in range(count))

    def _quantified(self, depth: int) -> str:
        chance = self._random.random()
        if chance < 0.05:
            return self._random.choice([r"\m", r"\M", r"\y", r"\Y", "^", "$"])
        if chance < 0.08 and depth:
            look = self._random.choice(["?=", "?!", "?<=", "?<!"])
            groups = self._groups
            inner = self._alternatives(depth - 1)
            self._groups = groups  # they do not capture here
            return f"({look}{inner})"
        quantifiers = ["", "", "*", "+", "?", "{2}", "{0,2}", "{1,2}", "{2,}", "{0}", "{1,1}"]
        quantifier = self._random.choice(quantifiers)
        lazy = self._random.choice(["", "", "?"]) if quantifier else ""
        return self._atom(depth) + quantifier + lazy

    def _atom(self, depth: int) -> str:
        chance = self._random.random()
        if chance < 0.25 and depth:
            inner = self._alternatives(depth - 1)
            self._groups += 1
            return f"({inner})"
        if chance < 0.35 and depth:
            return f"(?:{self._alternatives(depth - 1)})"
        if chance < 0.42 and self._groups:
            return f"\\{self._random.randint(1, self._groups)}"
        return self._random.choice([*"aaaabbbc", ".", "[ab]", "[^a]", r"\w", r"\s"])


def ours(pattern: str, text: str) -> object:
    """What we make of an expression, in the form of FUNCTION."""
    try:
        expression = RegularExpression(pattern.encode(), WorkAllowance())
    except ValueError as error:
        return PREFIX + str(error)
    try:
        match = expression.match(text.encode())
    except TooMuchWork:
        return TOO_COMPLEX
    if expression.matches(text.encode()) != (match is not None):
        raise AssertionError(f"matches() and match() differ: {pattern!r} {text!r}")
    if match is None:
        return None
    return [group if group is None else group.decode() for group in match.groups]


class PostgreSQLTests(SynchronousTestCase):
    """The same matches, the same groups, the same words for mistakes."""

    def setUp(self) -> None:
        server = servers.postgres(17)
        server.psql("DROP DATABASE IF EXISTS expressions")
        server.psql(
            "CREATE DATABASE expressions TEMPLATE template0 ENCODING 'SQL_ASCII' LOCALE 'C'"
        )
        server.psql(FUNCTION, dbname="expressions")
        self.server = server

    def theirs(self, cases: Iterable[tuple[str, str]]) -> list[object]:
        queries = ["SET client_encoding = 'SQL_ASCII';", "\\set QUIET on", "\\pset null null"]
        for pair in cases:
            arguments = ", ".join("$x$" + each + "$x$" for each in pair)
            queries.append(f"SELECT matched({arguments});")
        answers = self.server.psql("\n".join(queries) + "\n", dbname="expressions").split("\n")
        return [json.loads(answer) for answer in answers]

    def check(self, cases: list[tuple[str, str]]) -> None:
        differences = []
        for (pattern, text), theirs in zip(cases, self.theirs(cases), strict=True):
            mine = ours(pattern, text)
            if isinstance(mine, list) and not mine and isinstance(theirs, list):
                continue  # no group: PostgreSQL gives the whole match
            if TOO_COMPLEX in (mine, theirs):
                continue  # where that begins is each one's own
            if mine != theirs:
                differences.append(f"{pattern!r} {text!r}: {mine!r}, PostgreSQL: {theirs!r}")
        self.assertEqual(differences, [])

    def test_cases(self) -> None:
        self.check(CASES)

    def test_expressions_at_random(self) -> None:
        seed = random.randrange(1_000_000)
        expressions = Expressions(seed)
        cases = [(expressions.pattern(), expressions.text()) for _ in range(3000)]
        try:
            self.check(cases)
        except AssertionError as error:
            raise AssertionError(f"seed {seed}: {error}") from None
