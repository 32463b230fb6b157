r"""PostgreSQL's advanced regular expressions (ARE), parsed.

Source: PostgreSQL documentation, "POSIX Regular Expressions"; ``src/backend/regex/regc_lex.c`` and
``regcomp.c`` of PostgreSQL 17.

Not supported, and refused: the directors ``***:`` and ``***=``, embedded options other than
``(?i)``, ``(?c)``, ``(?s)`` and ``(?t)``, and collating elements by name (``[.hyphen.]``).
"""

from __future__ import annotations

from pgtls.policy.regex_characters import PLACE_ESCAPES, CharacterReader
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
    Preference,
    Repeat,
    Sequence,
    Syntax,
)

#: The largest number in ``{m,n}``: PostgreSQL's DUPMAX.
MAX_REPEATS = 255

#: How deep parentheses may nest.
MAX_DEPTH = 50

UNBALANCED_PARENTHESES = "parentheses () not balanced"
UNBALANCED_BRACES = "braces {} not balanced"
BAD_REPEAT_COUNT = "invalid repetition count(s)"
BAD_QUANTIFIER = "quantifier operand invalid"
BAD_REFERENCE = "invalid backreference number"
BAD_OPTION = "invalid embedded option"


def parse(pattern: bytes) -> Syntax:
    """Parse an ARE.

    :param pattern: without the ``/`` before it.
    :returns: the expression.
    :raises ValueError: it is not valid, in PostgreSQL's words, or not supported.
    """
    if pattern.startswith(b"***"):
        raise ValueError("directors (***) are not supported")
    options, pattern = _embedded_options(pattern)
    parser = _Parser(pattern, ignore_case="i" in options)
    return Syntax(parser.alternatives(0, in_lookaround=False), parser.groups, parser.ignore_case)


def _embedded_options(pattern: bytes) -> tuple[str, bytes]:
    """The options at the beginning of an expression, those that count, and what follows."""
    if not (pattern.startswith(b"(?") and pattern[2:3].isalpha()):
        return "", pattern
    letters, closed, rest = pattern[2:].partition(b")")
    if not closed or set(letters) - set(b"bceimnpqstwx"):
        raise ValueError(BAD_OPTION)
    if set(letters) - set(b"icst"):
        raise ValueError("embedded options other than i, c, s and t are not supported")
    # Of (?i) and (?c) the last counts.
    ignore_case = letters.rfind(b"i") > letters.rfind(b"c")
    return "i" if ignore_case else "", rest


class _Parser(CharacterReader):
    """Recursive descent over one expression."""

    def __init__(self, pattern: bytes, *, ignore_case: bool) -> None:
        super().__init__(pattern)
        self.ignore_case = ignore_case
        self._contents: dict[int, Node] = {}

    def alternatives(self, depth: int, *, in_lookaround: bool) -> Node:
        """Branches up to the end, or to the parenthesis that closes a group."""
        if depth > MAX_DEPTH:
            raise ValueError(TOO_COMPLEX)
        branches = [self._branch(depth, in_lookaround)]
        while self.take(b"|"):
            branches.append(self._branch(depth, in_lookaround))
        if depth == 0 and self.peek() == b")":
            raise ValueError(UNBALANCED_PARENTHESES)
        return branches[0] if len(branches) == 1 else Alternatives(tuple(branches))

    def _branch(self, depth: int, in_lookaround: bool) -> Node:
        parts: list[Node] = []
        self._skip_comments()
        while self.peek() not in (b"", b"|", b")"):
            parts.append(self._quantified(depth, in_lookaround))
            self._skip_comments()
        return parts[0] if len(parts) == 1 else Sequence(tuple(parts))

    def _quantified(self, depth: int, in_lookaround: bool) -> Node:
        atom = self._condition(depth)
        if atom is not None:
            return atom
        atom = self._atom(depth, in_lookaround)
        self._skip_comments()
        quantifier = self._quantifier()
        if quantifier is None:
            return atom
        return Repeat(atom, *quantifier)

    def _quantifier(self) -> tuple[int, int | None, Preference | None] | None:
        """Least, most and the preference, which ``{m}`` does not have; None where there is none."""
        simple = {b"*": (0, None), b"+": (1, None), b"?": (0, 1)}.get(self.peek())
        if simple is not None:
            self.position += 1
            return *simple, self._preference()
        if self.peek() != b"{" or not self.peek(1).isdigit():
            return None
        least, most, prefers = self._bound()
        preference = self._preference()
        return least, most, preference if prefers else None

    def _preference(self) -> Preference:
        return Preference.SHORTEST if self.take(b"?") else Preference.LONGEST

    def _bound(self) -> tuple[int, int | None, bool]:
        self.position += 1
        least = self._repeats()
        most: int | None = least
        comma = self.take(b",")
        if comma:
            most = self._repeats() if self.peek().isdigit() else None
            if most is not None and least > most:
                raise ValueError(BAD_REPEAT_COUNT)
        if not self.take(b"}"):
            raise ValueError(BAD_REPEAT_COUNT if self.peek() else UNBALANCED_BRACES)
        return least, most, comma

    def _repeats(self) -> int:
        start = self.position
        while self.peek().isdigit():
            self.position += 1
        digits = self.pattern[start : self.position].lstrip(b"0")
        if len(digits) > 3 or int(digits or b"0") > MAX_REPEATS:
            raise ValueError(BAD_REPEAT_COUNT)
        return int(digits or b"0")

    def _condition(self, depth: int) -> Node | None:
        """What takes no character and no quantifier; None where there is something else."""
        for text, place in (
            (b"^", Place.BEGINNING),
            (b"$", Place.END),
            (b"[[:<:]]", Place.WORD_BEGINNING),
            (b"[[:>:]]", Place.WORD_END),
        ):
            if self.take(text):
                return place
        if self.peek() == b"\\" and self.peek(1) in PLACE_ESCAPES:
            self.position += 2
            return PLACE_ESCAPES[self.pattern[self.position - 1 : self.position]]
        for text, ahead, wanted in (
            (b"(?=", True, True),
            (b"(?!", True, False),
            (b"(?<=", False, True),
            (b"(?<!", False, False),
        ):
            if self.take(text):
                return Lookaround(ahead, wanted, self._inside(depth, in_lookaround=True))
        return None

    def _inside(self, depth: int, *, in_lookaround: bool) -> Node:
        inner = self.alternatives(depth + 1, in_lookaround=in_lookaround)
        if not self.take(b")"):
            raise ValueError(UNBALANCED_PARENTHESES)
        return inner

    def _atom(self, depth: int, in_lookaround: bool) -> Node:
        character = self.next()
        if character == b"(":
            return self._parentheses(depth, in_lookaround)
        if character == b"[":
            return Characters(self.bracket())
        if character == b"\\":
            return self._escaped_atom(in_lookaround)
        if character == b".":
            return Characters(ANY)
        if character in b"*+?" or (character == b"{" and self.peek().isdigit()):
            raise ValueError(BAD_QUANTIFIER)
        return Characters(self.one(character[0]))

    def _parentheses(self, depth: int, in_lookaround: bool) -> Node:
        if self.take(b"?:"):
            inner = self._inside(depth, in_lookaround=in_lookaround)
            # A quantifier after it is not the back reference's own.
            return Sequence((inner,)) if isinstance(inner, BackReference) else inner
        if self.peek() == b"?":
            raise ValueError(BAD_QUANTIFIER)
        if in_lookaround:
            return self._inside(depth, in_lookaround=True)
        self.groups += 1
        number = self.groups
        inner = self._inside(depth, in_lookaround=False)
        self._contents[number] = inner
        return Group(number, inner)

    def _escaped_atom(self, in_lookaround: bool) -> Node:
        number = self.back_reference()
        if number is None:
            return Characters(self.escape())
        if in_lookaround or number not in self._contents:
            raise ValueError(BAD_REFERENCE)
        return BackReference(number, self._contents[number])

    def _skip_comments(self) -> None:
        while self.take(b"(?#"):
            end = self.pattern.find(b")", self.position)
            self.position = len(self.pattern) if end < 0 else end + 1
