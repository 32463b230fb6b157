"""Regular expressions of PostgreSQL's authentication files, matched as PostgreSQL matches them.

PostgreSQL's advanced regular expressions (ARE) have rules of their own for which match is found
and what its groups capture, which no regular expression library for Python has. And a library that
backtracks can be held up by a name that was made for it (ReDoS), where a gateway has others
to serve: see :mod:`pgtls.policy.regex_automaton`. What :mod:`pgtls.policy.regex_parser` lists is
not supported.

Back references, repeats of hundreds and long names can still take many steps. So there is a limit
for each match, and one for all of them in a second.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic
from typing import TypeVar

from pgtls.policy.regex_automaton import END_OF_TEXT, Automaton, States, TooMuchWork, Work
from pgtls.policy.regex_captures import Dissection
from pgtls.policy.regex_parser import parse
from pgtls.policy.regex_parts import Trait, part_of
from pgtls.policy.regex_syntax import TOO_COMPLEX

__all__ = ["Match", "RegularExpression", "TooMuchWork", "WorkAllowance"]

T = TypeVar("T")

#: How many matches are kept, and of how long texts: the same certificates come again.
_KEPT = 256
_KEPT_LENGTH = 256

#: The most steps of one match: about a tenth of a second.
MAX_STEPS = 400_000


class WorkAllowance:
    """How many steps matches may take together.

    A match that comes when they are used up gets few, which are enough for an ordinary expression:
    so names that were made to take long stop being taken at length, and others notice nothing.

    :param steps_a_second: how many are added each second.
    :param most: how many one match may take, and how many are saved up at most.
    :param least: how many a match gets in any case.
    :param clock: seconds, monotonic.
    """

    def __init__(
        self,
        steps_a_second: int = MAX_STEPS,
        most: int = MAX_STEPS,
        least: int = 10_000,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._steps_a_second = steps_a_second
        self._most = most
        self._least = least
        self._clock = clock
        self._saved: float = most
        self._then = clock()

    def work(self) -> Work:
        """What one match may take now; :meth:`spent` says what it took.

        :returns: a counter of its steps.
        """
        now = self._clock()
        saved = self._saved + (now - self._then) * self._steps_a_second
        self._saved = min(saved, self._most)
        self._then = now
        return Work(max(int(self._saved), self._least))

    def spent(self, steps: int) -> None:
        """Take off what a match has taken.

        :param steps: how many steps.
        """
        self._saved = max(self._saved - steps, 0)


#: For all expressions of the process.
ALLOWANCE = WorkAllowance()


@dataclass(frozen=True, slots=True)
class Match:
    """A match.

    :ivar groups: what each group has captured, None where it took no part.
    """

    groups: tuple[bytes | None, ...]


class RegularExpression:
    """An ARE.

    :param pattern: the expression, without the ``/`` before it.
    :param allowance: how many steps matches may take.
    :param captures: whether :meth:`match` will be asked.
    :raises ValueError: it is not valid, in PostgreSQL's words, or not supported, or too complex.

    :ivar groups: how many groups it has.
    """

    def __init__(
        self, pattern: bytes, allowance: WorkAllowance = ALLOWANCE, *, captures: bool = True
    ) -> None:
        self._allowance = allowance
        states = States()
        try:
            syntax = parse(pattern)
            self._search = Automaton.anywhere(syntax.root, states)
            self._tree = part_of(syntax.root)
            self._refers = bool(self._tree.traits & Trait.REFERS)
            if captures or self._refers:
                self._tree.make_automata(states)
        except RecursionError as error:
            raise ValueError(TOO_COMPLEX) from error
        self._ignore_case = syntax.ignore_case
        self.groups = syntax.groups
        self._kept: dict[bytes, Match | None] = {}

    def matches(self, text: bytes) -> bool:
        """Whether it matches a text anywhere.

        :param text: of any length.
        :returns: whether it does.
        :raises TooMuchWork: that takes too many steps.
        """
        if self._refers:
            return self.match(text) is not None
        return self._within_allowance(text, self._found)

    def match(self, text: bytes) -> Match | None:
        """Match a text anywhere, and tell what the groups have captured.

        :param text: of any length.
        :returns: the match; None where there is none.
        :raises TooMuchWork: that takes too many steps.
        """
        if text in self._kept:
            return self._kept[text]
        match = self._match(text)
        if len(text) <= _KEPT_LENGTH:
            if len(self._kept) >= _KEPT:
                self._kept.clear()
            self._kept[text] = match
        return match

    def _match(self, text: bytes) -> Match | None:
        captured = self._within_allowance(text, self._captured)
        if captured is None:
            return None
        spans = (captured.get(number) for number in range(1, self.groups + 1))
        return Match(tuple(None if span is None else text[slice(*span)] for span in spans))

    def _within_allowance(self, text: bytes, search: Callable[[list[int], Work], T]) -> T:
        work = self._allowance.work()
        before = work.left
        try:
            return search([*text, END_OF_TEXT], work)
        finally:
            self._allowance.spent(before - work.left)

    def _found(self, text: list[int], work: Work) -> bool:
        return self._search.shortest(text, 0, 0, len(text) - 1, work) is not None

    def _captured(self, text: list[int], work: Work) -> dict[int, tuple[int, int]] | None:
        """Where the search automaton finds an end, a match begins there or before."""
        start, last = 0, len(text) - 1
        while True:
            end = self._search.shortest(text, start, start, last, work)
            if end is None:
                return None
            for begin in range(start, end + 1):
                dissection = self._from(text, begin, work)
                if dissection is not None:
                    return dissection.captured
            # Only what a back reference refers to can be why there was none. That an empty match
            # at the end of the text is not tried then is PostgreSQL's own.
            start = end + 1
            if start >= last:
                return None

    def _from(self, text: list[int], begin: int, work: Work) -> Dissection | None:
        """The match that begins at a position: the longest, or the shortest, if that is better."""
        shorter = bool(self._tree.traits & Trait.SHORTER)
        earliest, latest = begin, len(text) - 1
        while earliest <= latest:
            end = self._end(begin, earliest, latest, text, work)
            if end is None:
                return None
            dissection = Dissection(text, self._ignore_case, work)
            if dissection.take_apart(self._tree, begin, end):
                return dissection
            if shorter:
                earliest = end + 1
            else:
                latest = end - 1
        return None

    def _end(
        self, begin: int, earliest: int, latest: int, text: list[int], work: Work
    ) -> int | None:
        whole = self._tree.automaton
        if self._tree.traits & Trait.SHORTER:
            return whole.shortest(text, begin, earliest, latest, work)
        return whole.longest(text, begin, latest, work)
