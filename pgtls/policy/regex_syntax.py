r"""What PostgreSQL's advanced regular expressions (ARE) consist of.

Source: PostgreSQL documentation, "POSIX Regular Expressions".
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from typing import TypeAlias

TOO_COMPLEX = "regular expression is too complex"

ANY = frozenset(range(256))


class Preference(Enum):
    """Which match a quantifier prefers: ``*`` the longest, ``*?`` the shortest."""

    LONGEST = auto()
    SHORTEST = auto()


class Place(Enum):
    """A condition on where in the text one is."""

    BEGINNING = auto()
    END = auto()
    WORD_BEGINNING = auto()
    WORD_END = auto()
    WORD_BOUNDARY = auto()
    NO_WORD_BOUNDARY = auto()


@dataclass(frozen=True, slots=True)
class Characters:
    """One byte out of several; an empty set matches nothing."""

    members: frozenset[int]


@dataclass(frozen=True, slots=True)
class Lookaround:
    """``(?=...)``, ``(?!...)``, ``(?<=...)``, ``(?<!...)``.

    :ivar ahead: it is about what follows, not what precedes.
    :ivar wanted: it must match, not must not.
    """

    ahead: bool
    wanted: bool
    inner: Node


@dataclass(frozen=True, slots=True)
class Sequence:
    """One after the other. Empty for the empty expression."""

    parts: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Alternatives:
    """One of several."""

    branches: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Repeat:
    """``inner`` ``least`` to ``most`` times; ``most`` None for without end.

    :ivar preference: None for ``{m}``, which has none of its own.
    """

    inner: Node
    least: int
    most: int | None
    preference: Preference | None


@dataclass(frozen=True, slots=True)
class Group:
    """Parentheses that capture, counted from 1."""

    number: int
    inner: Node


@dataclass(frozen=True, slots=True)
class BackReference:
    r"""``\1``: what the group captured, once more.

    :ivar inner: the contents of that group.
    """

    number: int
    inner: Node


Node: TypeAlias = (
    Characters | Place | Lookaround | Sequence | Alternatives | Repeat | Group | BackReference
)


@dataclass(frozen=True, slots=True)
class Syntax:
    """An expression.

    :ivar groups: how many groups capture.
    """

    root: Node
    groups: int
    ignore_case: bool
