r"""Which bytes a character, an escape or a bracket expression of an ARE stands for.

Source: ``src/backend/regex/regc_lex.c``, ``regc_locale.c`` and ``brackpart()`` in ``regcomp.c`` of
PostgreSQL 17. As there while it authenticates, one byte is one character, whatever the encoding,
and character classes and ``(?i)`` know ASCII only.
"""

from __future__ import annotations

from pgtls.policy.regex_syntax import ANY, Place

UNBALANCED_BRACKETS = "brackets [] not balanced"
BAD_RANGE = "invalid character range"
BAD_ESCAPE = "invalid escape \\ sequence"
BAD_CLASS = "invalid character class"
BAD_COLLATING_ELEMENT = "invalid collating element"

_DIGITS = frozenset(b"0123456789")
_LOWER = frozenset(range(ord("a"), ord("z") + 1))
_UPPER = frozenset(range(ord("A"), ord("Z") + 1))
_GRAPH = frozenset(range(0x21, 0x7F))
_SPACE = frozenset(b" \t\n\v\f\r")
#: Letters, digits and the underscore, which ``\m``, ``\y`` and ``\w`` are about.
WORD = _LOWER | _UPPER | _DIGITS | {ord("_")}

_CLASSES = {
    b"alnum": _LOWER | _UPPER | _DIGITS,
    b"alpha": _LOWER | _UPPER,
    b"ascii": frozenset(range(128)),
    b"blank": frozenset(b" \t"),
    b"cntrl": frozenset([*range(0x20), 0x7F]),
    b"digit": _DIGITS,
    b"graph": _GRAPH,
    b"lower": _LOWER,
    b"print": _GRAPH | {0x20},
    b"punct": _GRAPH - _LOWER - _UPPER - _DIGITS,
    b"space": _SPACE,
    b"upper": _UPPER,
    b"word": WORD,
    b"xdigit": frozenset(b"0123456789abcdefABCDEF"),
}

CLASS_ESCAPES = {
    b"d": _DIGITS,
    b"D": ANY - _DIGITS,
    b"s": _SPACE,
    b"S": ANY - _SPACE,
    b"w": WORD,
    b"W": ANY - WORD,
}

_CHARACTER_ESCAPES = {
    b"a": 0x07,
    b"b": 0x08,
    b"B": ord("\\"),
    b"e": 0x1B,
    b"f": 0x0C,
    b"n": 0x0A,
    b"r": 0x0D,
    b"t": 0x09,
    b"v": 0x0B,
}

PLACE_ESCAPES = {
    b"A": Place.BEGINNING,
    b"Z": Place.END,
    b"m": Place.WORD_BEGINNING,
    b"M": Place.WORD_END,
    b"y": Place.WORD_BOUNDARY,
    b"Y": Place.NO_WORD_BOUNDARY,
}


class CharacterReader:
    """Reads an expression from its beginning to its end.

    :param pattern: the expression.
    :ivar position: how far it is read.
    :ivar ignore_case: whether a letter stands for both cases.
    :ivar groups: how many groups have begun, which decides what is a back reference.
    """

    def __init__(self, pattern: bytes) -> None:
        self.pattern = pattern
        self.position = 0
        self.ignore_case = False
        self.groups = 0

    def back_reference(self) -> int | None:
        """The number after a backslash, unless it is an octal one.

        One digit is always a reference; several are, where there are so many groups.
        """
        if not self.peek().isdigit() or self.peek() == b"0":
            return None
        end = self.position
        while self.pattern[end : end + 1].isdigit():
            end += 1
        digits = self.pattern[self.position : end]
        if len(digits) > 1 and (len(digits) > 4 or int(digits) > self.groups):
            return None
        self.position = end
        return int(digits)

    def escape(self) -> frozenset[int]:
        """What a backslash and what follows stand for."""
        letter = self.next()
        if not letter:
            raise ValueError(BAD_ESCAPE)
        if letter in CLASS_ESCAPES:
            return CLASS_ESCAPES[letter]
        if letter in _CHARACTER_ESCAPES:
            return self.one(_CHARACTER_ESCAPES[letter])
        if letter in b"uUx":
            exact = {b"u": 4, b"U": 8}.get(letter)
            return self.one(self._number(16, exact or 1, exact or 255))
        if letter == b"c":
            return self.one((self.next() or _fail(BAD_ESCAPE))[0] & 0x1F)
        if letter.isdigit():
            self.position -= 1
            return self.one(self._octal())
        if letter.isalnum():
            raise ValueError(BAD_ESCAPE)
        return self.one(letter[0])

    def _octal(self) -> int:
        code = self._number(8, 1, 3)
        if code > 0xFF:  # one digit too many
            self.position -= 1
            code >>= 3
        return code

    def _number(self, base: int, least: int, most: int) -> int:
        digits = b"0123456789abcdef"[:base]
        start = self.position
        while self.position - start < most and self.peek() and self.peek().lower() in digits:
            self.position += 1
        found = self.pattern[start : self.position]
        if len(found) < least:
            raise ValueError(BAD_ESCAPE)
        code = int(found, base) & 0xFFFFFFFF
        if code > 0x7FFFFFFE:
            raise ValueError(BAD_ESCAPE)
        return code

    def one(self, code: int) -> frozenset[int]:
        """A character, in both cases where case does not count.

        :param code: its number.
        :returns: the bytes; none where it is no byte.
        """
        if self.ignore_case and code < 128:
            letter = bytes([code])
            return frozenset(letter.lower() + letter.upper())
        return frozenset([code]) & ANY

    def bracket(self) -> frozenset[int]:
        """What follows ``[``, its end included."""
        negated = self.take(b"^")
        members: frozenset[int] = frozenset()
        first = True
        while first or not self.take(b"]"):
            members |= self._bracket_part(first)
            first = False
        return ANY - members if negated else members

    def _bracket_part(self, first: bool) -> frozenset[int]:
        start = self._bracket_element(first)
        if not isinstance(start, int):
            return start
        if self.peek() != b"-" or self.peek(1) == b"]":
            return self.one(start)
        self.position += 1
        is_hyphen = self.peek() == b"-"
        self.position += is_hyphen
        end = ord("-") if is_hyphen else self._bracket_element(False, in_range=True)
        if not isinstance(end, int) or start > end:
            raise ValueError(BAD_RANGE)
        members: set[int] = set()
        for code in range(start, min(end, 0xFF) + 1):
            members |= self.one(code)
        return frozenset(members)

    def _bracket_element(self, first: bool, *, in_range: bool = False) -> int | frozenset[int]:
        """A character, or several that can be no end of a range."""
        character = self.next()
        if not character:
            raise ValueError(UNBALANCED_BRACKETS)
        if character == b"[" and self.peek() in (b".", b"=", b":"):
            return self._bracketed_name(self.next())
        if character == b"[" and not self.peek():
            raise ValueError(UNBALANCED_BRACKETS)
        if character == b"\\":
            return self._escape_in_bracket()
        if character == b"-" and not first and self.peek() != b"]":
            raise ValueError(BAD_RANGE)
        if character == b"]" and in_range:
            raise ValueError(BAD_RANGE)
        return character[0]

    def _escape_in_bracket(self) -> int | frozenset[int]:
        if self.peek() in PLACE_ESCAPES or self.back_reference() is not None:
            raise ValueError(BAD_ESCAPE)
        if self.peek() in CLASS_ESCAPES:
            return self.escape()
        ignore_case, self.ignore_case = self.ignore_case, False
        try:
            # A code that is no byte stays what it is, as the end of a range.
            members = self.escape()
        finally:
            self.ignore_case = ignore_case
        return next(iter(members), 0x100)

    def _bracketed_name(self, kind: bytes) -> int | frozenset[int]:
        """What follows ``[:``, ``[=`` or ``[.``, its end included."""
        end = self.pattern.find(kind + b"]", self.position)
        if end < 0:
            raise ValueError(UNBALANCED_BRACKETS)
        name = self.pattern[self.position : end]
        self.position = end + 2
        if kind == b":":
            if name not in _CLASSES:
                raise ValueError(BAD_CLASS)
            if self.ignore_case and name in (b"lower", b"upper"):
                return _CLASSES[b"alpha"]
            return _CLASSES[name]
        if len(name) != 1:
            raise ValueError(BAD_COLLATING_ELEMENT)
        return name[0] if kind == b"." else self.one(name[0])

    def peek(self, ahead: int = 0) -> bytes:
        """Look at what comes.

        :param ahead: how many bytes later.
        :returns: one byte; empty at the end.
        """
        at = self.position + ahead
        return self.pattern[at : at + 1]

    def next(self) -> bytes:
        """Read one byte; empty at the end."""
        character = self.peek()
        self.position += len(character)
        return character

    def take(self, text: bytes) -> bool:
        """Read a text if it comes.

        :param text: which.
        :returns: whether it came.
        """
        if not self.pattern.startswith(text, self.position):
            return False
        self.position += len(text)
        return True


def _fail(reason: str) -> bytes:
    raise ValueError(reason)
