r"""User name maps: which system user may be which role, in pg_ident.conf's format.

Source: parse_ident_line(), check_ident_usermap(), check_usermap() and check_role() in
``src/backend/libpq/hba.c`` of PostgreSQL 17 and 18; documentation, "User Name Maps".

A record is ``MAPNAME SYSTEM-USERNAME DATABASE-USERNAME``; further fields are ignored. A system or
database user name that begins with ``/``, in quotes or not, is a regular expression (see
:mod:`pgtls.policy.regular_expression` for what differs from PostgreSQL's). ``\1`` in a database
user name that is none stands for what the first group of the system user's expression captured.
``all`` without quotes is any role. Everything is compared byte by byte, letter case included.

Differences from PostgreSQL: ``+group`` is refused when the file is read, because membership is
known only to the server; no name longer than MAX_NAME_LENGTH matches any map; and a record whose
regular expression takes too long over a name does not match it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from pgtls.errors import ConfigurationError
from pgtls.policy.regular_expression import RegularExpression, TooMuchWork
from pgtls.policy.tokenizer import (
    AuthFileError,
    AuthToken,
    TokenizedAuthLine,
    tokenize_auth_file,
    unusable,
)
from pgtls.text import log_name

#: The longest name, in bytes, that a map is asked about.
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

    :ivar place: where it stands, as PostgreSQL says it.
    :ivar system_regex, pg_regex: the two names compiled, where they are regular expressions.
    """

    place: str
    usermap: bytes
    system_user: AuthToken
    pg_user: AuthToken
    system_regex: RegularExpression | None
    pg_regex: RegularExpression | None

    @classmethod
    def parse(cls, line: TokenizedAuthLine) -> IdentLine:
        """Make a record of a line.

        :param line: taken apart.
        :returns: the record.
        :raises _InvalidLine: too few fields, several values in one, a bad expression.
        """
        if any(len(field) > 1 for field in line.fields[:3]):
            raise _InvalidLine("multiple values in ident field")
        if len(line.fields) < 3:
            raise _InvalidLine("missing entry at end of line")
        usermap, system_user, pg_user = (field[0] for field in line.fields[:3])
        if not pg_user.quoted and pg_user.string.startswith(b"+"):
            raise _InvalidLine(
                f'membership in role "{log_name(pg_user.string[1:])}" cannot be checked here: '
                "name the database users, give a regular expression, or all"
            )
        return cls(
            line.place,
            usermap.string,
            system_user,
            pg_user,
            _compiled(system_user, captures=_FIRST_GROUP in pg_user.string),
            _compiled(pg_user, captures=False),
        )

    def admits(self, system_user: bytes, role: bytes) -> bool:
        """Whether this record lets the system user be the role.

        :param system_user: the name that was authenticated.
        :param role: the role that is asked for.
        :returns: whether it does.
        :raises _NoSubexpression: it cannot be told.
        :raises TooMuchWork: it takes too long.
        """
        if self.system_regex is None:
            return self.system_user.string == system_user and self._names(role)
        if self.pg_regex is not None or _FIRST_GROUP not in self.pg_user.string:
            return self.system_regex.matches(system_user) and self._names(role)
        match = self.system_regex.match(system_user)
        if match is None:
            return False
        first = match.groups[0] if match.groups else None
        if first is None:
            pattern, asked = log_name(self.system_user.string[1:]), log_name(self.pg_user.string)
            raise _NoSubexpression(
                f'regular expression "{pattern}" has no subexpressions as requested by '
                f'backreference in "{asked}"'
            )
        # What comes out is a name and nothing else, even where it reads "all" or "/".
        return self.pg_user.string.replace(_FIRST_GROUP, first, 1) == role

    def _names(self, role: bytes) -> bool:
        """Whether the database user name, taken as it stands, is or covers the role."""
        if self.pg_user.string == b"all" and not self.pg_user.quoted:
            return True
        if self.pg_regex is not None:
            return self.pg_regex.matches(role)
        return self.pg_user.string == role


@dataclass(frozen=True, slots=True)
class IdentMap:
    """The records of a pg_ident.conf, in their order. Without any, only None is a usable map."""

    lines: tuple[IdentLine, ...] = ()

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> IdentMap:
        """Read a file and those that it includes.

        :param path: the file.
        :returns: the map.
        :raises ConfigurationError: with every mistake, its file and line.
        """
        mistakes: list[str] = []
        lines = []
        try:
            records = tokenize_auth_file(os.path.abspath(path), mistakes)
        except AuthFileError as error:
            raise unusable("ident_file", error) from error
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
        :param system_user: the name that was authenticated.
        :param role: the role that is asked for.
        :returns: whether it may.
        """
        return self.refusal(map_name, system_user, role) is None

    def refusal(self, map_name: str | None, system_user: str, role: str) -> str | None:
        """Why ``system_user`` may not be ``role`` under this map.

        Bytes that are not UTF-8 are surrogate-escaped in all three.

        :param map_name: None or empty for no map: the two names must be equal.
        :param system_user: the name that was authenticated.
        :param role: the role that is asked for.
        :returns: the reason as PostgreSQL's log has it; None where it may.
        """
        wanted, name = _octets(role), _octets(system_user)
        if not map_name:
            if wanted == name:
                return None
            return (
                f"provided user name ({log_name(role)}) and authenticated user name "
                f"({log_name(system_user)}) do not match"
            )
        slow: list[str] = []
        if max(len(wanted), len(name)) <= MAX_NAME_LENGTH:
            try:
                # The first record that decides, or cannot be read, ends the search.
                if any(_admits(line, name, wanted, slow) for line in self._lines_of(map_name)):
                    return None
            except _NoSubexpression as error:
                return str(error)
        no_match = (
            f'no match in usermap "{log_name(map_name)}" for user "{log_name(role)}" '
            f'authenticated as "{log_name(system_user)}"'
        )
        return "; ".join([no_match, *slow])

    def _lines_of(self, map_name: str) -> list[IdentLine]:
        usermap = _octets(map_name)
        return [line for line in self.lines if line.usermap == usermap]


def _admits(line: IdentLine, system_user: bytes, role: bytes, slow: list[str]) -> bool:
    """Whether a record admits; one that takes too long does not, and ``slow`` is told."""
    try:
        return line.admits(system_user, role)
    except TooMuchWork:
        slow.append(f"the regular expression in {line.place} takes too long over it")
        return False


def _compiled(token: AuthToken, *, captures: bool) -> RegularExpression | None:
    if not token.string.startswith(b"/"):
        return None
    pattern = token.string[1:]
    try:
        return RegularExpression(pattern, captures=captures)
    except ValueError as error:
        raise _InvalidLine(f'invalid regular expression "{log_name(pattern)}": {error}') from error


def _octets(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
