"""PostgreSQL's authentication files, taken apart: comments, quotes, commas, includes.

Source: tokenize_auth_file() and what it calls in ``src/backend/libpq/hba.c``, GetConfFilesInDir()
in ``src/backend/utils/misc/conffiles.c``, of PostgreSQL 17 and 18. As there, a file is bytes, in
whatever encoding: tokens are compared byte by byte.

One thing is stricter: a line with a NUL byte is a mistake, where PostgreSQL would ignore the rest
of the line.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

#: How deep files may include each other: PostgreSQL's CONF_FILE_MAX_DEPTH.
MAX_DEPTH = 10

_BLANK = b" \t\r"


@dataclass(frozen=True, slots=True)
class AuthToken:
    """One word of a file.

    :ivar quoted: it began with a quote, so that keywords, ``+`` and ``@`` mean nothing special.
    """

    string: bytes
    quoted: bool


@dataclass(frozen=True, slots=True)
class TokenizedAuthLine:
    """One record.

    :ivar place: where it stands, as PostgreSQL says it.
    :ivar fields: the tokens of each field; more than one where commas join them.
    """

    place: str
    fields: list[list[AuthToken]]


class AuthFileError(Exception):
    """A file cannot be read; ``str()`` is what PostgreSQL says of it."""


def tokenize_auth_file(path: str, mistakes: list[str], depth: int = 0) -> list[TokenizedAuthLine]:
    """Read the records of a file and of those that it includes.

    :param path: the file.
    :param mistakes: gets one sentence for each line that cannot be used.
    :param depth: how many files include this one.
    :returns: the records.
    :raises AuthFileError: the file itself cannot be read.
    """
    lines: list[TokenizedAuthLine] = []
    for number, text in _logical_lines(_read(path, depth)):
        place = f'line {number} of configuration file "{path}"'
        try:
            fields = list(_fields(text, path, mistakes, depth))
            if _is_include(fields):
                lines += _include(fields, path, mistakes, depth, place)
            elif fields:
                lines.append(TokenizedAuthLine(place, fields))
        except AuthFileError as error:
            mistakes.append(f"{place}: {error}")
    return lines


def _read(path: str, depth: int) -> bytes:
    if depth > MAX_DEPTH:
        raise AuthFileError(f'could not open file "{path}": maximum nesting depth exceeded')
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise AuthFileError(f'could not open file "{path}": {error.strerror}') from error


def _logical_lines(contents: bytes) -> Iterator[tuple[int, bytes]]:
    """Lines with their numbers, those joined that end in a backslash."""
    buffer, continued_at, first = b"", 0, 1
    for number, line in enumerate(contents.removesuffix(b"\n").split(b"\n"), 1):
        buffer = (buffer + line).rstrip(b"\r\n")
        # The backslash must be a new one, else two of them and two newlines would surprise.
        if len(buffer) > continued_at and buffer.endswith(b"\\"):
            buffer = buffer[:-1]
            continued_at = len(buffer)
            continue
        yield first, buffer
        buffer, continued_at, first = b"", 0, number + 1
    yield first, buffer


def _fields(line: bytes, path: str, mistakes: list[str], depth: int) -> Iterator[list[AuthToken]]:
    """The fields of a line: tokens that commas join, files named with ``@`` expanded."""
    if b"\0" in line:
        raise AuthFileError("line contains a null byte")
    field: list[AuthToken] = []
    for token, comma in _tokens(line):
        if not token.quoted and len(token.string) > 1 and token.string.startswith(b"@"):
            included = _absolute(token.string[1:], path)
            for inner in tokenize_auth_file(included, mistakes, depth + 1):
                field += [token for tokens in inner.fields for token in tokens]
        else:
            field.append(token)
        if not comma and field:
            yield field
            field = []
    if field:
        yield field


def _tokens(line: bytes) -> Iterator[tuple[AuthToken, bool]]:
    """The tokens of a line, and whether a comma follows each at once."""
    position = 0
    while True:
        while position < len(line) and line[position] in _BLANK + b",":
            position += 1
        token, position = _next_token(line, position)
        if token is None:
            return
        yield token, line[position : position + 1] == b","


def _next_token(line: bytes, position: int) -> tuple[AuthToken | None, int]:
    """The token that begins at ``position``, None at the end or a comment; and where it ends.

    Quotes may begin and end inside a token; two of them inside quotes are one. A quote that is
    not closed lasts to the end of the line, as in PostgreSQL.
    """
    string = bytearray()
    in_quote = was_quote = saw_quote = initial_quote = False
    while position < len(line):
        byte = line[position]
        if not in_quote and byte == ord("#"):
            position = len(line)
            break
        if not in_quote and byte in _BLANK + b",":
            break
        is_quote = byte == ord('"')
        if not is_quote or was_quote:
            string.append(byte)
        was_quote = in_quote and is_quote and not was_quote
        if is_quote:
            in_quote = not in_quote
            saw_quote = True
            initial_quote = initial_quote or not string
        position += 1
    if not saw_quote and not string:
        return None, position
    return AuthToken(bytes(string), initial_quote), position


def _is_include(fields: list[list[AuthToken]]) -> bool:
    """Whether a line is an include directive: two fields, in quotes or not."""
    return len(fields) == 2 and fields[0][0].string in (
        b"include",
        b"include_if_exists",
        b"include_dir",
    )


def _include(
    fields: list[list[AuthToken]], path: str, mistakes: list[str], depth: int, place: str
) -> list[TokenizedAuthLine]:
    """The records that an include directive stands for."""
    directive, name = (field[0].string for field in fields)
    if directive == b"include_dir":
        lines = []
        for file in _conf_files(name, path):
            try:
                lines += tokenize_auth_file(file, mistakes, depth + 1)
            except AuthFileError as error:
                mistakes.append(f"{place}: {error}")
        return lines
    included = _absolute(name, path)
    try:
        return tokenize_auth_file(included, mistakes, depth + 1)
    except AuthFileError as error:
        if directive == b"include_if_exists" and isinstance(error.__cause__, FileNotFoundError):
            return []
        raise


def _absolute(location: bytes, calling_file: str) -> str:
    """A path as the file that names it means it: relative to that file's directory."""
    directory = os.path.dirname(os.path.abspath(calling_file))
    return os.path.normpath(os.path.join(directory, os.fsdecode(location)))


def _conf_files(location: bytes, calling_file: str) -> list[str]:
    """The files of a directory that end in ``.conf``, hidden ones left out, in order of bytes."""
    if not location.strip(b" \t\r\n"):
        raise AuthFileError("empty configuration directory name")
    directory = _absolute(location, calling_file)
    try:
        names = sorted(os.listdir(directory), key=os.fsencode)
    except OSError as error:
        raise AuthFileError(
            f'could not open configuration directory "{directory}": {error.strerror}'
        ) from error
    paths = [
        os.path.join(directory, name)
        for name in names
        if name.endswith(".conf") and not name.startswith(".")
    ]
    return [path for path in paths if not os.path.isdir(path)]
