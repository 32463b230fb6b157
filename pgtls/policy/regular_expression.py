r"""PostgreSQL's advanced regular expressions (ARE), as far as pg_ident.conf needs them, on ``re``.

Source: PostgreSQL documentation, "POSIX Regular Expressions"; ``src/backend/regex``.

Like PostgreSQL while it authenticates, this works on bytes: the encoding of the database is not
known yet, ``.`` is one byte, and classes and ``(?i)`` know ASCII only.

What ``re`` reads otherwise is translated: ``$`` (never before a last newline), ``.`` (newline
too), ``[[:alpha:]]`` and the other classes, ``\m \M \y \Y \b \B \e``, a ``{`` without a number.
What has no translation is refused: ``***`` directors, embedded options other than a leading
``(?i)``, ``[.x.]``, ``[=x=]``, numeric and control escapes (``\x``, ``\u``, ``\c``, ``\0``).

Two differences remain. First, where a text matches in more than one way, an ARE takes the longest
match and ``re`` the first that it finds, so that a group can capture something else:
``^(a|ab)(b*)$`` on ``ab`` gives ``ab`` there and ``a`` here. Whether a text matches is the same.
Second, ``re`` backtracks: an expression such as ``(x+)+$`` can take time that doubles with each
byte of a name. The expressions are the administrator's, the names come from certificates that a
trusted authority signed and from the user name, both of bounded length; write no nested repeats.
"""

from __future__ import annotations

import re

_CLASSES = {
    b"alpha": rb"a-zA-Z",
    b"digit": rb"0-9",
    b"alnum": rb"a-zA-Z0-9",
    b"upper": rb"A-Z",
    b"lower": rb"a-z",
    b"xdigit": rb"0-9a-fA-F",
    b"space": rb"\s",
    b"blank": rb" \t",
    b"word": rb"\w",
    b"cntrl": rb"\x00-\x1f\x7f",
    b"graph": rb"\x21-\x7e",
    b"print": rb"\x20-\x7e",
    b"punct": rb"\x21-\x2f\x3a-\x40\x5b-\x60\x7b-\x7e",
}

#: Escapes that stand for characters, allowed in brackets too.
_CHARACTER_ESCAPES = {
    **{bytes([letter]): b"\\" + bytes([letter]) for letter in b"afnrtvdDsSwW"},
    b"b": rb"\x08",
    b"B": rb"\\",
    b"e": rb"\x1b",
}

#: Escapes that stand for places, and references to groups.
_OTHER_ESCAPES = {
    **{bytes([letter]): b"\\" + bytes([letter]) for letter in b"AZ123456789"},
    b"m": rb"\b(?=\w)",
    b"M": rb"\b(?<=\w)",
    b"y": rb"\b",
    b"Y": rb"(?!\b)",  # not \B, which older versions of re never match in an empty string
}

_PIECE = re.compile(
    rb"""
      \[(?P<negation>\^?)(?P<bracket>\]?(?:\\.|\[:[a-z]+:\]|\[(?![:.=])|[^]\[\\])*)\]
    | \\(?P<escape>.)
    | (?P<option>\(\?(?![:=!]|<[=!]))
    | (?P<possessive>(?:[*+?]|\{\d+(?:,\d*)?\})\+)
    | (?P<end>\$)
    | (?P<brace>\{(?!\d))
    | (?P<plain>[^[\\])
    """,
    re.VERBOSE | re.DOTALL,
)

_IN_BRACKET = re.compile(
    rb"\\(?P<escape>.)|\[:(?P<posix>[a-z]+):\]|(?P<special>[\[&~|])|.", re.DOTALL
)


def compile_auth_regex(pattern: bytes) -> re.Pattern[bytes]:
    """Compile an ARE.

    :raises ValueError: it is not valid, or has what cannot be translated; says what.
    """
    flags = re.DOTALL
    if pattern.startswith(b"(?i)"):
        flags |= re.IGNORECASE
        pattern = pattern[4:]
    try:
        return re.compile(_translate(pattern), flags)
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(str(error)) from error


def _translate(pattern: bytes) -> bytes:
    """Rewrite an ARE for ``re``, piece by piece."""
    if pattern.startswith(b"***"):
        raise ValueError("directors (***) are not supported")
    pieces = []
    position = 0
    while position < len(pattern):
        piece = _PIECE.match(pattern, position)
        if piece is None:
            unfinished = pattern[position : position + 1] == b"["
            raise ValueError(
                "brackets [] not balanced, or a collating element in them"
                if unfinished
                else "invalid escape \\ sequence"
            )
        pieces.append(_translate_piece(piece))
        position = piece.end()
    return b"".join(pieces)


def _translate_piece(piece: re.Match[bytes]) -> bytes:
    kind = piece.lastgroup
    if kind == "bracket":
        contents = _IN_BRACKET.sub(_translate_in_bracket, piece["bracket"])
        return b"[" + piece["negation"] + contents + b"]"
    if kind == "escape":
        return _translate_escape(piece["escape"], _CHARACTER_ESCAPES | _OTHER_ESCAPES)
    if kind == "option":
        raise ValueError("embedded options other than a leading (?i) are not supported")
    if kind == "possessive":
        raise ValueError("quantifier operand invalid")
    return {"end": rb"\Z", "brace": rb"\{"}.get(str(kind), piece[0])


def _translate_in_bracket(part: re.Match[bytes]) -> bytes:
    if part["escape"]:
        return _translate_escape(part["escape"], _CHARACTER_ESCAPES)
    if part["posix"]:
        if part["posix"] not in _CLASSES:
            raise ValueError("invalid character class")
        return _CLASSES[part["posix"]]
    # Plain characters in both, but re reserves them for set operations to come.
    return b"\\" + part[0] if part["special"] else part[0]


def _translate_escape(letter: bytes, known: dict[bytes, bytes]) -> bytes:
    if letter in known:
        return known[letter]
    if letter.isalnum():
        raise ValueError(f"invalid or unsupported escape \\{letter.decode('ascii')}")
    return re.escape(letter)
