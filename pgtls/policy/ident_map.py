r"""User name maps: which system user may be which role, in pg_ident.conf's format.

Source: parse_ident_line(), check_ident_usermap(), check_usermap() and check_role() in
``src/backend/libpq/hba.c`` of PostgreSQL 17 and 18; documentation, "User Name Maps".

A record is ``MAPNAME SYSTEM-USERNAME DATABASE-USERNAME``; further fields are ignored. A system or
database user name that begins with ``/``, in quotes or not, is a regular expression (see
:mod:`pgtls.policy.regular_expression` for what differs from PostgreSQL's). ``\1`` in a database
user name that is none stands for what the first group of the system user's expression captured.
``all`` without quotes is any role. Everything is compared byte by byte, letter case included.

Differences from PostgreSQL: ``+group`` is refused when the file is read, because membership is
known only to the server; and no name longer than MAX_NAME_LENGTH matches any map.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

from pgtls.errors import ConfigurationError
from pgtls.policy.regular_expression import compile_auth_regex
from pgtls.policy.tokenizer import (
    AuthFileError,
    AuthToken,
    TokenizedAuthLine,
    tokenize_auth_file,
)
from pgtls.tls.distinguished_name import printable

#: Longest name, in bytes, that is shown to a regular expression, which may backtrack.
MAX_NAME_LENGTH = 8191

#: What stands in a database user name for the first group of the system user's expression.
_FIRST_GROUP = rb"\1"


class _InvalidLine(ValueError):
    """A record cannot be used; ``str()`` is what PostgreSQL says of it."""


class _NoSubexpression(Exception):
    r"""A record asks for ``\1``, and its regular expression has captured nothing."""


@dataclass(frozen=True, slots=True)
class IdentLine:
    """One record of the map.

    :ivar system_regex, pg_regex: the two names compiled, where they are regular expressions.
    """

    usermap: bytes
    system_user: AuthToken
    pg_user: AuthToken
    system_regex: re.Pattern[bytes] | None
    pg_regex: re.Pattern[bytes] | None

    @classmethod
    def parse(cls, line: TokenizedAuthLine) -> IdentLine:
        """:raises _InvalidLine: too few fields, several values in one, a bad expression."""
        if any(len(field) > 1 for field in line.fields[:3]):
            raise _InvalidLine("multiple values in ident field")
        if len(line.fields) < 3:
            raise _InvalidLine("missing entry at end of line")
        usermap, system_user, pg_user = (field[0] for field in line.fields[:3])
        if not pg_user.quoted and pg_user.string.startswith(b"+"):
            raise _InvalidLine(
                f'membership in role "{printable(pg_user.string[1:])}" cannot be checked here: '
                "name the database users, give a regular expression, or all"
            )
        return cls(usermap.string, system_user, pg_user, _compiled(system_user), _compiled(pg_user))

    def admits(self, system_user: bytes, role: bytes) -> bool:
        """Whether this record lets the system user be the role.

        :raises _NoSubexpression: it cannot be told.
        """
        if self.system_regex is None:
            return self.system_user.string == system_user and self._names(role)
        match = self.system_regex.search(system_user)
        if match is None:
            return False
        if self.pg_regex is not None or _FIRST_GROUP not in self.pg_user.string:
            return self._names(role)
        if not self.system_regex.groups or match[1] is None:
            pattern, asked = printable(self.system_user.string[1:]), printable(self.pg_user.string)
            raise _NoSubexpression(
                f'regular expression "{pattern}" has no subexpressions as requested by '
                f'backreference in "{asked}"'
            )
        # What comes out is a name and nothing else, even where it reads "all" or "/".
        return self.pg_user.string.replace(_FIRST_GROUP, match[1], 1) == role

    def _names(self, role: bytes) -> bool:
        """Whether the database user name, taken as it stands, is or covers the role."""
        if self.pg_user.string == b"all" and not self.pg_user.quoted:
            return True
        if self.pg_regex is not None:
            return self.pg_regex.search(role) is not None
        return self.pg_user.string == role


@dataclass(frozen=True, slots=True)
class IdentMap:
    """The records of a pg_ident.conf, in their order. Without any, only None is a usable map."""

    lines: tuple[IdentLine, ...] = ()

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> IdentMap:
        """Read a file and those that it includes.

        :raises ConfigurationError: with every mistake, its file and line.
        """
        mistakes: list[str] = []
        lines = []
        try:
            records = tokenize_auth_file(os.path.abspath(path), mistakes)
        except AuthFileError as error:
            raise ConfigurationError(str(error)) from error
        for record in records:
            try:
                lines.append(IdentLine.parse(record))
            except _InvalidLine as error:
                mistakes.append(f"{record.place}: {error}")
        if mistakes:
            raise ConfigurationError(*mistakes)
        return cls(tuple(lines))

    def allows(self, map_name: str | None, system_user: str, role: str) -> bool:
        """Whether ``system_user`` may be ``role`` under this map.

        Bytes that are not UTF-8 are surrogate-escaped in all three.

        :param map_name: None or empty for no map: the two names must be equal.
        """
        return self.refusal(map_name, system_user, role) is None

    def refusal(self, map_name: str | None, system_user: str, role: str) -> str | None:
        """None where ``system_user`` may be ``role``; else why not, as PostgreSQL's log says it."""
        wanted, name = _octets(role), _octets(system_user)
        if not map_name:
            if wanted == name:
                return None
            return (
                f"provided user name ({printable(role)}) and authenticated user name "
                f"({printable(system_user)}) do not match"
            )
        if max(len(wanted), len(name)) <= MAX_NAME_LENGTH:
            try:
                # The first record that decides, or cannot be read, ends the search.
                if any(line.admits(name, wanted) for line in self._lines_of(map_name)):
                    return None
            except _NoSubexpression as error:
                return str(error)
        return (
            f'no match in usermap "{printable(map_name)}" for user "{printable(role)}" '
            f'authenticated as "{printable(system_user)}"'
        )

    def _lines_of(self, map_name: str) -> list[IdentLine]:
        usermap = _octets(map_name)
        return [line for line in self.lines if line.usermap == usermap]


def _compiled(token: AuthToken) -> re.Pattern[bytes] | None:
    if not token.string.startswith(b"/"):
        return None
    pattern = token.string[1:]
    try:
        return compile_auth_regex(pattern)
    except ValueError as error:
        raise _InvalidLine(f'invalid regular expression "{printable(pattern)}": {error}') from error


def _octets(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
