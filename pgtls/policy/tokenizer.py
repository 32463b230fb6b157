"""PostgreSQL's authentication files, taken apart: comments, quotes, commas, includes.

Source: tokenize_auth_file() and what it calls in ``src/backend/libpq/hba.c``, GetConfFilesInDir()
in ``src/backend/utils/misc/conffiles.c``, of PostgreSQL 17 and 18. As there, a file is bytes, in
whatever encoding: tokens are compared byte by byte, and a byte order mark is part of the first one.

Stricter than PostgreSQL: a line with a NUL byte is a mistake, where PostgreSQL would ignore the
rest of the line; so is what is no regular file, of which reading could wait for ever, and more
than MAX_FILES files or MAX_SIZE bytes in one. Reading ends at MAX_MISTAKES: a file that includes
itself line by line has more than anybody could wait for.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

from pgtls.errors import ConfigurationError
from pgtls.reading import is_directory, names_in, read_file

#: How deep files may include each other: PostgreSQL's CONF_FILE_MAX_DEPTH.
MAX_DEPTH = 10

#: How many files may be read for one, each counted as often as it is included.
MAX_FILES = 1000

#: Bytes of one file.
MAX_SIZE = 16 * 1024 * 1024

#: How many lines that cannot be taken apart are reported.
MAX_MISTAKES = 1000

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

    :ivar file_name: the file that it stands in, which another one may include.
    :ivar line_number: of its first line, from 1.
    :ivar raw_line: the record as it stands there, continuation lines joined.
    :ivar fields: the tokens of each field; more than one where commas join them.
    :ivar error: why it cannot be taken apart, as PostgreSQL says it; empty where it can.
    """

    file_name: str
    line_number: int
    raw_line: bytes
    fields: list[list[AuthToken]]
    error: str = ""

    @property
    def place(self) -> str:
        """Where it stands, as PostgreSQL says it."""
        return f'line {self.line_number} of configuration file "{self.file_name}"'


class AuthFileError(Exception):
    """A file cannot be read; ``str()`` is what PostgreSQL says of it."""


def unusable(setting: str, error: AuthFileError) -> ConfigurationError:
    """The mistake that a file named by a setting cannot be read.

    :param setting: its name.
    :param error: why it cannot be.
    :returns: what to raise: with the setting, and with what to do where the file is missing.
    """
    missing = isinstance(error.__cause__, FileNotFoundError)
    step = "; write it, or name the one that is meant" if missing else ""
    return ConfigurationError(f"{setting}: {error}{step}")


class TooManyMistakes(AuthFileError):
    """MAX_MISTAKES are found: the files are read no further."""


def tokenize_auth_file(path: str, mistakes: list[str]) -> list[TokenizedAuthLine]:
    """Read the records of a file and of those that it includes.

    :param path: the file.
    :param mistakes: gets one sentence for each line that cannot be taken apart.
    :returns: the others.
    :raises AuthFileError: the file itself cannot be read.
    """
    records = _Files().records(path, 0)
    mistakes += [f"{record.place}: {record.error}" for record in records if record.error]
    return [record for record in records if not record.error]


class _Files:
    """The files that are read for one."""

    def __init__(self) -> None:
        self._left = MAX_FILES
        self._mistakes = 0

    def records(self, path: str, depth: int) -> list[TokenizedAuthLine]:
        """The records of a file and of those that it includes, mistakes too.

        :raises AuthFileError: the file itself cannot be read.
        """
        records: list[TokenizedAuthLine] = []
        for number, line in _logical_lines(self._read(path, depth)):
            fields: list[list[AuthToken]] = []
            error = ""
            try:
                fields += self._fields(line, path, depth)
                if _is_include(fields):
                    records += self._included(fields, path, depth, number, line)
                    continue
            except TooManyMistakes:
                raise
            except AuthFileError as found:
                error = self._mistake(found, path, number)
            if fields or error:
                records.append(TokenizedAuthLine(path, number, line, fields, error))
        return records

    def _mistake(self, error: AuthFileError, path: str, line: int) -> str:
        """:raises TooManyMistakes: it is one too many."""
        self._mistakes += 1
        if self._mistakes <= MAX_MISTAKES:
            return str(error)
        raise TooManyMistakes(
            f"more than {MAX_MISTAKES} lines cannot be read, the last one line {line} of "
            f'configuration file "{path}": {error}'
        )

    def _read(self, path: str, depth: int) -> bytes:
        if depth > MAX_DEPTH:
            raise AuthFileError(f'could not open file "{path}": maximum nesting depth exceeded')
        self._left -= 1
        if self._left < 0:
            raise AuthFileError(f'could not open file "{path}": more than {MAX_FILES} files')
        try:
            contents = read_file(path, MAX_SIZE + 1)
        except OSError as error:
            raise AuthFileError(f'could not open file "{path}": {error.strerror}') from error
        if len(contents) > MAX_SIZE:
            raise AuthFileError(f'could not read file "{path}": more than {MAX_SIZE} bytes')
        return contents

    def _fields(self, line: bytes, path: str, depth: int) -> Iterator[list[AuthToken]]:
        """The fields of a line: tokens that commas join, files named with ``@`` expanded."""
        if b"\0" in line:
            raise AuthFileError("line contains a null byte")
        field: list[AuthToken] = []
        for token, comma in _tokens(line):
            if not token.quoted and len(token.string) > 1 and token.string.startswith(b"@"):
                field += self._expanded(_absolute(token.string[1:], path), depth + 1)
            else:
                field.append(token)
            if not comma and field:
                yield field
                field = []
        if field:
            yield field

    def _expanded(self, path: str, depth: int) -> Iterator[AuthToken]:
        """All the tokens of a file.

        :raises AuthFileError: for the first line that cannot be taken apart.
        """
        for record in self.records(path, depth):
            if record.error:
                raise AuthFileError(record.error)
            for field in record.fields:
                yield from field

    def _included(
        self, fields: list[list[AuthToken]], path: str, depth: int, number: int, line: bytes
    ) -> list[TokenizedAuthLine]:
        """The records that an include directive stands for.

        :raises AuthFileError: the file or directory cannot be read.
        """
        directive, name = (field[0].string for field in fields)
        if directive == b"include_dir":
            records = []
            for file in _conf_files(name, path):
                try:
                    records += self.records(file, depth + 1)
                except TooManyMistakes:
                    raise
                except AuthFileError as error:
                    mistake = self._mistake(error, path, number)
                    records.append(TokenizedAuthLine(path, number, line, [], mistake))
            return records
        try:
            return self.records(_absolute(name, path), depth + 1)
        except AuthFileError as error:
            if directive == b"include_if_exists" and isinstance(error.__cause__, FileNotFoundError):
                return []
            raise


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
        names = sorted(names_in(directory), key=os.fsencode)
    except OSError as error:
        raise AuthFileError(
            f'could not open configuration directory "{directory}": {error.strerror}'
        ) from error
    paths = [
        os.path.join(directory, name)
        for name in names
        if name.endswith(".conf") and not name.startswith(".")
    ]
    return [path for path in paths if not is_directory(path)]
