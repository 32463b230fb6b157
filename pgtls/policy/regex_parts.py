"""A regular expression, cut into the parts that tell what its groups capture.

Where a text matches in several ways, PostgreSQL's rules decide (documentation, "Regular Expression
Matching Rules"): the match that begins first; then the longest or the shortest, which the first
quantifier that has a preference says for all of it; then parts that begin earlier before those that
begin later. An expression is therefore cut into a tree only where captures, back references or
opposite preferences ask for it, and a match is taken apart along the tree.

Source: ``parse()``, ``parsebranch()`` and ``parseqatom()`` in ``src/backend/regex/regcomp.c`` of
PostgreSQL 17.
"""

from __future__ import annotations

from collections.abc import Sequence as Sequence_
from dataclasses import dataclass, field
from enum import Enum, Flag, auto

from pgtls.policy.regex_automaton import Automaton, States
from pgtls.policy.regex_syntax import (
    TOO_COMPLEX,
    Alternatives,
    BackReference,
    Characters,
    Group,
    Lookaround,
    Node,
    Place,
    Preference,
    Repeat,
    Sequence,
)

#: How deep a tree may be.
_MAX_DEPTH = 100


class Trait(Flag):
    """What must be known of a part to take a match of the whole apart.

    LONGER and SHORTER are the part's preference, of which it has at most one; MIXED that there are
    both inside it.
    """

    NONE = 0
    LONGER = auto()
    SHORTER = auto()
    MIXED = auto()
    CAPTURES = auto()
    REFERS = auto()


_PREFERENCES = Trait.LONGER | Trait.SHORTER
_STRUCTURED = Trait.MIXED | Trait.CAPTURES | Trait.REFERS
_TRAIT_OF = {
    None: Trait.NONE,
    Preference.LONGEST: Trait.LONGER,
    Preference.SHORTEST: Trait.SHORTER,
}


class Kind(Enum):
    """How a match of a part is taken apart."""

    WHOLE = auto()
    SEQUENCE = auto()
    ALTERNATIVES = auto()
    REPEAT = auto()
    REFERENCE = auto()


@dataclass(slots=True)
class Part:
    """A part of the expression.

    :ivar node: what it matches.
    :ivar capture: the number of the group that it is, or 0; for a reference, see ``refers_to``.
    :ivar least, most: of a repeat or a reference.
    """

    kind: Kind
    node: Node
    traits: Trait
    children: Sequence_[Part] = ()
    capture: int = 0
    refers_to: int = 0
    least: int = 1
    most: int | None = 1
    automaton: Automaton = field(init=False)

    def make_automata(self, states: States, depth: int = 0) -> None:
        """Make the automata of this part and of those in it.

        :param states: what counts their states.
        :param depth: how many parts this one is inside of.
        :raises ValueError: it is too complex.
        """
        if depth > _MAX_DEPTH:
            raise ValueError(TOO_COMPLEX)
        self.automaton = Automaton(self.node, states)
        for child in self.children:
            child.make_automata(states, depth + 1)


def part_of(node: Node) -> Part:
    """The tree of an expression, without automata.

    :param node: the expression.
    :returns: the part that is all of it.
    """
    if not isinstance(node, Alternatives):
        return _branch(node.parts if isinstance(node, Sequence) else (node,))
    branches = [part_of(branch) for branch in node.branches]
    traits = Trait.LONGER
    for branch in branches:
        traits |= _upwards(traits | branch.traits)
    if not traits & _STRUCTURED:
        return Part(Kind.WHOLE, node, traits)
    return Part(Kind.ALTERNATIVES, node, traits, branches)


def _branch(parts: tuple[Node, ...]) -> Part:
    """A sequence: as much as has no structure is one part."""
    traits = Trait.NONE
    for index, part in enumerate(parts):
        if isinstance(part, Place | Lookaround):
            continue
        repeat = part if isinstance(part, Repeat) else Repeat(part, 1, 1, None)
        if repeat.most == 0:
            continue
        atom = _atom(repeat.inner)
        together = traits | _TRAIT_OF[repeat.preference] | atom.traits
        is_simple = not isinstance(repeat.inner, Group | BackReference)
        if is_simple and not _upwards(together) & _STRUCTURED:
            traits = together
            continue
        before = Part(Kind.WHOLE, Sequence(parts[:index]), traits) if index else None
        return _structured(before, _repeated(atom, repeat), atom.traits, repeat, parts, index)
    return Part(Kind.WHOLE, Sequence(parts), traits)


def _structured(
    before: Part | None,
    item: Part,
    atom_traits: Trait,
    repeat: Repeat,
    parts: tuple[Node, ...],
    index: int,
) -> Part:
    """A sequence in which the part at ``index`` has structure."""
    traits = before.traits if before else Trait.NONE
    if index + 1 == len(parts):
        if before is None:
            return item
        traits |= _combined(traits, item.traits)
        return Part(Kind.SEQUENCE, Sequence(parts), traits, (before, item))
    after = _branch(parts[index + 1 :])
    rest_traits = _combined(_TRAIT_OF[repeat.preference], atom_traits)
    rest_traits |= _combined(rest_traits, after.traits)
    traits |= _combined(traits, rest_traits)
    rest = Part(Kind.SEQUENCE, Sequence(parts[index:]), rest_traits, (item, after))
    if before is None:
        rest.traits = traits
        return rest
    return Part(Kind.SEQUENCE, Sequence(parts), traits, (before, rest))


def _atom(node: Node) -> Part:
    if isinstance(node, Characters):
        return Part(Kind.WHOLE, node, Trait.NONE)
    if isinstance(node, BackReference):
        return Part(Kind.REFERENCE, node, Trait.REFERS, refers_to=node.number)
    if not isinstance(node, Group):
        return part_of(node)
    inner = part_of(node.inner)
    if inner.capture:  # ((x)): two groups need two parts
        inner = Part(Kind.SEQUENCE, node, inner.traits, (inner,))
    inner.traits |= Trait.CAPTURES
    inner.capture = node.number
    return inner


def _repeated(atom: Part, repeat: Repeat) -> Part:
    """The part for an atom with its quantifier."""
    preference = _TRAIT_OF[repeat.preference]
    least, most = repeat.least, repeat.most
    traits = _combined(preference, atom.traits)
    if isinstance(repeat.inner, BackReference):
        atom.least, atom.most, atom.node = least, most, repeat
        atom.traits |= traits
        return atom
    inner = atom.traits & (_PREFERENCES | Trait.MIXED)
    if least == most == 1 and (not preference or not inner or inner == preference):
        return atom
    if not atom.traits & (Trait.CAPTURES | Trait.REFERS):
        return Part(Kind.WHOLE, repeat, traits)
    if least > 0 and not atom.traits & Trait.REFERS:
        # Only what the last one captures counts.
        fewer = Repeat(repeat.inner, least - 1, None if most is None else most - 1, None)
        before = Part(Kind.WHOLE, fewer, traits & _PREFERENCES)
        return Part(Kind.SEQUENCE, repeat, traits, (before, atom))
    return Part(Kind.REPEAT, repeat, traits, (atom,), least=least, most=most)


def _upwards(traits: Trait) -> Trait:
    """The traits of a part as they count for what it is a part of."""
    mixed = Trait.MIXED if traits & _PREFERENCES == _PREFERENCES else Trait.NONE
    return traits & ~_PREFERENCES | mixed


def _combined(first: Trait, second: Trait) -> Trait:
    """The traits of two together: the first preference counts."""
    return _upwards(first | second) | (first & _PREFERENCES or second & _PREFERENCES)
