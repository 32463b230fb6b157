"""``target_session_attrs``: which server a session may be on. Sans-I/O.

Source: PostgreSQL's documentation, "Database Connection Control Functions"; in
``src/interfaces/libpq/fe-connect.c`` the states CONNECTION_CHECK_TARGET, CONNECTION_CHECK_WRITABLE
and CONNECTION_CHECK_STANDBY; ``pqSaveParameterStatus`` in ``fe-exec.c``. The sentences are libpq's.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from enum import StrEnum

#: What to ask a server that does not report it: those before PostgreSQL 14.
SHOW_READ_ONLY = "SHOW transaction_read_only"
SELECT_RECOVERY = "SELECT pg_catalog.pg_is_in_recovery()"

#: The names of the queries in libpq's errors.
_SHORT = {SHOW_READ_ONLY: SHOW_READ_ONLY, SELECT_RECOVERY: "SELECT pg_is_in_recovery()"}

_MAJOR_VERSION = re.compile(rb"[0-9]{1,4}")

#: PostgreSQL's first version with hot standby servers.
_FIRST_WITH_STANDBYS = 9


@dataclass(frozen=True, slots=True)
class SessionAttributes:
    """What is known of a session, None where that is nothing.

    :ivar read_only: whether its transactions are read-only by default.
    :ivar hot_standby: whether its server is a hot standby.
    """

    read_only: bool | None = None
    hot_standby: bool | None = None

    def with_parameter(self, body: bytes) -> SessionAttributes:
        """Take what a ParameterStatus message says.

        :param body: what follows its length word.
        :returns: what is known now.
        """
        name, _, rest = body.partition(b"\0")
        value = rest.partition(b"\0")[0]
        if name == b"default_transaction_read_only":
            return replace(self, read_only=value == b"on")
        if name == b"in_hot_standby":
            return replace(self, hot_standby=value == b"on")
        if name == b"server_version" and self.hot_standby is None:
            major = _MAJOR_VERSION.match(value)
            if major is not None and int(major[0]) < _FIRST_WITH_STANDBYS:
                return replace(self, hot_standby=False)
        return self

    def with_answer(self, query: str, value: bytes) -> SessionAttributes:
        """Take the answer to a query.

        :param query: what was asked: see :meth:`TargetSessionAttrs.query`.
        :param value: the only value of the only row.
        :returns: what is known now.
        """
        if query == SHOW_READ_ONLY:
            return SessionAttributes(read_only=value == b"on", hot_standby=value == b"on")
        return replace(self, hot_standby=value == b"t")


class TargetSessionAttrs(StrEnum):
    """libpq's ``target_session_attrs``."""

    ANY = "any"
    READ_WRITE = "read-write"
    READ_ONLY = "read-only"
    PRIMARY = "primary"
    STANDBY = "standby"
    PREFER_STANDBY = "prefer-standby"

    @property
    def passes(self) -> tuple[TargetSessionAttrs, ...]:
        """What is looked for, one time after the other through all hosts."""
        if self is TargetSessionAttrs.PREFER_STANDBY:
            return (TargetSessionAttrs.STANDBY, TargetSessionAttrs.ANY)
        return (self,)

    def query(self, known: SessionAttributes) -> str | None:
        """What has to be asked before :meth:`mismatch` can tell.

        :param known: what the server has said.
        :returns: the query; None where enough is known.
        """
        if self in (TargetSessionAttrs.READ_WRITE, TargetSessionAttrs.READ_ONLY):
            unknown = known.read_only is None or known.hot_standby is None
            return SHOW_READ_ONLY if unknown else None
        if self is TargetSessionAttrs.ANY or known.hot_standby is not None:
            return None
        return SELECT_RECOVERY

    def mismatch(self, known: SessionAttributes) -> str | None:
        """Why a session is not what is wanted.

        :param known: what the server has said; what is unknown is no reason.
        :returns: the reason in libpq's words; None where there is none.
        """
        if self.query(known) is not None:
            return None
        read_only = known.read_only or known.hot_standby
        if self is TargetSessionAttrs.READ_WRITE and read_only:
            return "session is read-only"
        if self is TargetSessionAttrs.READ_ONLY and not read_only:
            return "session is not read-only"
        if self is TargetSessionAttrs.PRIMARY and known.hot_standby:
            return "server is in hot standby mode"
        if self is TargetSessionAttrs.STANDBY and not known.hot_standby:
            return "server is not in hot standby mode"
        return None


#: In Python 3.11 each look at an enumeration's member by its class is a call.
ANY = TargetSessionAttrs.ANY


def query_failed(query: str) -> str:
    """The reason to try another host where a query fails.

    :param query: the query.
    :returns: libpq's sentence.
    """
    return f'"{_SHORT[query]}" failed'
