"""The real libpq, psycopg's, to hold our client against."""

from __future__ import annotations

import psycopg
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread

VERSION = psycopg.pq.version() // 10000

#: What must come from the connection string and from nowhere else, GSSAPI aside, which we lack.
_ALONE = {
    "gssencmode": "disable",
    "sslrootcert": "/nonexistent/root.crt",
    "sslcrl": "/nonexistent/root.crl",
    "sslcert": "/nonexistent/postgresql.crt",
    "sslkey": "/nonexistent/postgresql.key",
    "connect_timeout": "60",
}


def connects(conninfo: str) -> Deferred[str]:
    """Connect as psycopg does, and close.

    :returns: libpq's complaint; empty where the connection came up.
    """
    return deferToThread(_connects, conninfo)


def _connects(conninfo: str) -> str:
    given = psycopg.conninfo.conninfo_to_dict(conninfo)
    try:
        psycopg.connect(**{**_ALONE, **given}).close()  # type: ignore[arg-type]
    except psycopg.OperationalError as error:
        return str(error)
    return ""
