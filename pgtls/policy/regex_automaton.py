"""What a regular expression matches, found without backtracking.

An expression becomes a nondeterministic automaton; the sets of its states that a text leads to are
the states of a deterministic one, which is made as it is needed and kept. So the time that a text
takes is its length times the size of the expression, at most, and there is no expression of which
a text can make more.

Source: the classical construction (Thompson 1968); PostgreSQL's ``src/backend/regex/README``, whose
DFA works in the same way, and ``rege_dfa.c`` for what longest and shortest match are.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum, auto

from pgtls.policy.regex_characters import WORD
from pgtls.policy.regex_syntax import (
    ANY,
    TOO_COMPLEX,
    Alternatives,
    BackReference,
    Characters,
    Group,
    Lookaround,
    Node,
    Place,
    Repeat,
    Sequence,
)

#: The symbol behind the last byte of a text.
END_OF_TEXT = 256

#: The most states of all the automata of an expression.
MAX_STATES = 50_000

#: The most deterministic states that are kept of an automaton; then it begins anew.
_MAX_KEPT = 200


class TooMuchWork(Exception):
    """A text takes more steps than it may."""


class Work:
    """Counts the steps of a match.

    :param limit: how many it may take.
    :ivar left: how many are left.
    """

    __slots__ = ("left",)

    def __init__(self, limit: int) -> None:
        self.left = limit

    def spend(self, steps: int) -> None:
        """Take off steps.

        :param steps: how many.
        :raises TooMuchWork: there were fewer left.
        """
        self.left -= steps
        if self.left < 0:
            raise TooMuchWork


class _Before(Enum):
    """What is before a position in the text."""

    NOTHING = auto()
    WORD = auto()
    OTHER = auto()


@dataclass(slots=True)
class _State:
    """A state of the nondeterministic automaton, with the way on.

    :ivar members: the bytes that it takes; None where it takes none.
    :ivar condition: what must hold for the way on.
    """

    targets: list[int]
    members: frozenset[int] | None = None
    condition: Place | _Look | None = None


@dataclass(frozen=True, slots=True)
class _Look:
    """A lookaround condition, compiled: for one behind, with anything before it."""

    ahead: bool
    wanted: bool
    automaton: Automaton

    def holds(self, text: list[int], position: int, work: Work) -> bool:
        if self.ahead:
            last = len(text) - 1
            end = self.automaton.shortest(text, position, position, last, work)
            return (end is not None) == self.wanted
        return (self.automaton.longest(text, 0, position, work) == position) == self.wanted


@dataclass(slots=True, eq=False)
class _Step:
    """A state of the deterministic automaton.

    :ivar moves: for each symbol that has come, whether the text before it matches, and where the
        symbol leads.
    """

    states: frozenset[int]
    before: _Before
    moves: dict[int, tuple[bool, _Step | None]] = field(default_factory=dict)


class States:
    """Counts the states of the automata of one expression.

    :raises ValueError: when they are too many.
    """

    def __init__(self) -> None:
        self._left = MAX_STATES

    def another(self) -> None:
        """There is one more."""
        self._left -= 1
        if self._left < 0:
            raise ValueError(TOO_COMPLEX)


class Automaton:
    """The texts that an expression matches.

    :param node: the expression.
    :param states: what counts its states.
    :raises ValueError: it is too complex.
    """

    def __init__(self, node: Node, states: States) -> None:
        self._count = states
        self._states: list[_State] = []
        self._unconditional = False
        self._looks_around = False
        self._accept = self._new([])
        self._start = self._add(node, self._accept)
        self._kept: dict[tuple[frozenset[int], _Before], _Step] = {}

    @classmethod
    def anywhere(cls, node: Node, states: States) -> Automaton:
        """The texts whose end the expression matches.

        :param node: the expression.
        :param states: what counts its states.
        :returns: the automaton.
        :raises ValueError: it is too complex.
        """
        return cls(Sequence((Repeat(Characters(ANY), 0, None, None), node)), states)

    def longest(self, text: list[int], begin: int, stop: int, work: Work) -> int | None:
        """The last position up to ``stop`` where a match that begins at ``begin`` can end.

        :param text: bytes, and END_OF_TEXT.
        :param begin: where it begins.
        :param stop: where it ends at the latest.
        :param work: counts the steps.
        :returns: the position; None where none matches.
        :raises TooMuchWork: it takes too many steps.
        """
        step: _Step | None = self._first_step(text, begin)
        found = None
        position = begin
        while step is not None:
            symbol = text[position]
            move = step.moves.get(symbol) or self._move(step, text, position, work)
            if move[0]:
                found = position
            if position == stop:
                break
            step = move[1]
            position += 1
        work.spend(position - begin + 1)
        return found

    def shortest(
        self, text: list[int], begin: int, earliest: int, stop: int, work: Work
    ) -> int | None:
        """The first position from ``earliest`` to ``stop`` where a match can end.

        :param text: bytes, and END_OF_TEXT.
        :param begin: where it begins.
        :param earliest: where it ends at the earliest.
        :param stop: where it ends at the latest.
        :param work: counts the steps.
        :returns: the position; None where none matches.
        :raises TooMuchWork: it takes too many steps.
        """
        step: _Step | None = self._first_step(text, begin)
        position = begin
        found = None
        while step is not None:
            symbol = text[position]
            move = step.moves.get(symbol) or self._move(step, text, position, work)
            if move[0] and position >= earliest:
                found = position
                break
            if position >= stop:
                break
            step = move[1]
            position += 1
        work.spend(position - begin + 1)
        return found

    def _first_step(self, text: list[int], begin: int) -> _Step:
        before = _kind_of(text[begin - 1]) if begin else _Before.NOTHING
        return self._step(frozenset([self._start]), before)

    def _step(self, states: frozenset[int], before: _Before) -> _Step:
        key = states, before
        step = self._kept.get(key)
        if step is None:
            if len(self._kept) >= _MAX_KEPT:
                self._kept.clear()
            step = self._kept[key] = _Step(states, before)
        return step

    def _move(
        self, step: _Step, text: list[int], position: int, work: Work
    ) -> tuple[bool, _Step | None]:
        """Work out where a symbol leads; kept unless it depends on more than the symbol."""
        symbol = text[position]
        reached = self._reached(step, text, position, work)
        targets = frozenset(
            self._states[index].targets[0]
            for index in reached
            if symbol in (self._states[index].members or ())
        )
        after = self._step(targets, _kind_of(symbol)) if targets else None
        move = self._accept in reached, after
        if not self._looks_around:
            step.moves[symbol] = move
        return move

    def _reached(self, step: _Step, text: list[int], position: int, work: Work) -> set[int]:
        """The states that take no further byte to get to."""
        reached: set[int] = set()
        waiting = list(step.states)
        while waiting:
            index = waiting.pop()
            if index in reached:
                continue
            reached.add(index)
            state = self._states[index]
            if state.members is not None:
                continue
            condition = state.condition
            if condition is None:
                waiting += state.targets
            elif isinstance(condition, _Look):
                if condition.holds(text, position, work):
                    waiting += state.targets
            elif _is_at(condition, step.before, text[position]):
                waiting += state.targets
        # A state costs about ten times what a step costs whose move is known.
        work.spend(10 * len(reached))
        return reached

    def _new(self, targets: Iterable[int]) -> int:
        self._count.another()
        self._states.append(_State(list(targets)))
        return len(self._states) - 1

    def _add(self, node: Node, after: int) -> int:
        """Add an expression before a state.

        :returns: the state where it begins.
        """
        if isinstance(node, Sequence):
            for part in reversed(node.parts):
                after = self._add(part, after)
            return after
        if isinstance(node, Alternatives):
            return self._new([self._add(branch, after) for branch in node.branches])
        if isinstance(node, Repeat):
            return self._add_repeat(node, after)
        if isinstance(node, Group):
            return self._add(node.inner, after)
        if isinstance(node, BackReference):
            return self._add_reference(node, after)
        if isinstance(node, Characters):
            start = self._new([after])
            self._states[start].members = node.members
            return start
        return self._add_condition(node, after)

    def _add_repeat(self, node: Repeat, after: int) -> int:
        start = after
        if node.most is None:
            start = self._new([])
            self._states[start].targets = [self._add(node.inner, start), after]
        else:
            for _ in range(node.most - node.least):
                start = self._new([self._add(node.inner, start), after])
        for _ in range(node.least):
            start = self._add(node.inner, start)
        return start

    def _add_reference(self, node: BackReference, after: int) -> int:
        """What the group could have captured; whether it has, regex_captures finds out."""
        unconditional, self._unconditional = self._unconditional, True
        start = self._add(node.inner, after)
        self._unconditional = unconditional
        return start

    def _add_condition(self, node: Place | Lookaround, after: int) -> int:
        if self._unconditional:
            return after
        start = self._new([after])
        if isinstance(node, Place):
            self._states[start].condition = node
            return start
        self._looks_around = True
        make = Automaton if node.ahead else Automaton.anywhere
        inner = make(node.inner, self._count)
        self._states[start].condition = _Look(node.ahead, node.wanted, inner)
        return start


def _kind_of(symbol: int) -> _Before:
    return _Before.WORD if symbol in WORD else _Before.OTHER


def _is_at(place: Place, before: _Before, symbol: int) -> bool:
    """Whether a condition holds between what is before and the symbol that follows."""
    if place is Place.BEGINNING:
        return before is _Before.NOTHING
    if place is Place.END:
        return symbol == END_OF_TEXT
    word_before, word_after = before is _Before.WORD, symbol in WORD
    if place is Place.WORD_BEGINNING:
        return word_after and not word_before
    if place is Place.WORD_END:
        return word_before and not word_after
    return (word_before != word_after) == (place is Place.WORD_BOUNDARY)
