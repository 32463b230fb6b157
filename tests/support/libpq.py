"""The real libpq, psycopg's, to hold our client against."""

from __future__ import annotations

from select import select

import psycopg
from psycopg.pq import ConnStatus, PGconn, PollingStatus
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread

from tests.support.processes import TIMEOUT

#: What must come from the connection string and from nowhere else. GSSAPI is what we lack.
_ALONE = {
    "gssencmode": "disable",
    "sslrootcert": "/nonexistent/root.crt",
    "sslcrl": "/nonexistent/root.crl",
    "sslcert": "/nonexistent/postgresql.crt",
    "sslkey": "/nonexistent/postgresql.key",
}


def connects(conninfo: str) -> Deferred[str]:
    """Connect as libpq does, in a thread, and close. A connect_timeout does not count.

    :returns: libpq's complaint; empty where the connection came up.
    """
    return deferToThread(says, conninfo)


def says(conninfo: str) -> str:
    """:func:`connects`, at once: for a server of another process."""
    given = psycopg.conninfo.conninfo_to_dict(conninfo)
    every = psycopg.conninfo.make_conninfo(**{**_ALONE, **given})  # type: ignore[arg-type]
    # PQconnectdb() would hold the interpreter's lock, and with it the fake server.
    connection = PGconn.connect_start(every.encode())
    status = PollingStatus.WRITING
    while connection.status != ConnStatus.BAD and status != PollingStatus.OK:
        waits = [connection.socket]
        reads = status == PollingStatus.READING
        if not any(select(waits if reads else [], [] if reads else waits, [], TIMEOUT)):
            return f"nothing happened in {TIMEOUT} s"
        status = PollingStatus(connection.connect_poll())
    complaint = connection.error_message.decode(errors="replace")
    connection.finish()
    return complaint
