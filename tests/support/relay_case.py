"""Test cases for what goes through a gateway: a gateway for each kind of connections.

A subclass is a test case for clients with TLS and a server without, on the fast transports; for the
other kinds :func:`other_kinds` makes subclasses of that one.
"""

from __future__ import annotations

import atexit
import os
import signal
import struct
from collections.abc import Collection
from functools import cache
from typing import Any, ClassVar

import psycopg

from tests.support.gateway_daemon import Gateway, GatewayCase, twistd, wait_until
from tests.support.relay_client import Session
from tests.support.servers import Server, postgres
from tests.support.transports import OnTwistedsTransports

MEGABYTE = 1 << 20

#: What a gateway may need for connections whose other side does not read.
ALLOWANCE = 8 * MEGABYTE


def server(upstream: str) -> Server:
    """The server behind a gateway of that kind."""
    return postgres(17, ssl=upstream == "TLS")


def upstream_conninfo(upstream: str) -> str:
    """How a gateway of that kind connects to its server."""
    behind = server(upstream)
    if upstream == "Unix":
        return f"host={behind.socket_dir} port={behind.port}"
    sslmode = "require" if upstream == "TLS" else "disable"
    return behind.conninfo(user=None, dbname=None, sslmode=sslmode)


@cache
def shared(upstream: str, fast: bool) -> tuple[Gateway, int]:
    """A gateway for clients with TLS and without; and how many files it has open at rest."""
    gateway = Gateway(
        *("--ssl", "on", "--upstream", upstream_conninfo(upstream)), program=twistd(fast)
    )
    atexit.register(gateway.remove)
    assert gateway.has_fast_transports() is fast
    return gateway, gateway.open_files_at_rest()


class RelayCase(GatewayCase):
    """A test case beside whose session there is another one. When the test is over, that one still
    answers, and the gateway has no more files open than before.

    :cvar tls: whether clients have TLS.
    :cvar upstream: how the gateway connects to the server: ``plain``, ``TLS``, ``Unix``.
    """

    tls: ClassVar[bool] = True
    upstream: ClassVar[str] = "plain"

    def setUp(self) -> None:
        self.server = server(self.upstream)
        self.relay, self.at_rest = shared(self.upstream, self.fast)
        self.addCleanup(self._no_bug, self.relay, len(self.relay.log()))
        self.admin = psycopg.connect(self.server.conninfo(), autocommit=True)
        self.addCleanup(self.admin.close)
        beside = self.session()
        self.assertIs(self.relay.is_fast(beside.socket), self.fast)
        self.addCleanup(self._nothing_is_left, beside)

    def _nothing_is_left(self, beside: Session) -> None:
        self.assertEqual(self.answer(beside, "SELECT 'unharmed'"), [b"unharmed"])
        beside.close()
        self.relay.wait_for_open_files(self.at_rest)

    def session(self, **parameters: int) -> Session:
        """A session through the gateway."""
        session = Session(self.relay.address, self.tls, **parameters)
        self.addCleanup(session.close)
        return session

    def conninfo(self, **parameters: str) -> str:
        """The gateway's, for other clients."""
        return self.relay.conninfo(sslmode="verify-full" if self.tls else "disable", **parameters)

    def answer(self, session: Session, sql: str) -> list[bytes]:
        """The first column of each row."""
        session.query(sql)
        return [body[6:] for kind, body in session.messages() if kind == b"D"]

    def freeze(self, session: Session) -> None:
        """Let its backend read and write nothing, until :meth:`thaw`."""
        self.addCleanup(self.thaw, session)
        os.kill(session.pid, signal.SIGSTOP)

    def thaw(self, session: Session) -> None:
        """Let its backend go on, if it is still there."""
        if self.backends("pid", session.pid):
            os.kill(session.pid, signal.SIGCONT)

    def terminate(self, session: Session) -> None:
        """As a superuser does."""
        self.admin.execute("SELECT pg_terminate_backend(%s)", [session.pid])

    def backends(self, column: str, value: object) -> int:
        """How many there are of which ``pg_stat_activity`` says that."""
        sql: Any = f"SELECT count(*) FROM pg_stat_activity WHERE {column} = %s"
        row = self.admin.execute(sql, [value]).fetchone()
        assert row is not None
        return int(row[0])

    def wait_for_backends(self, count: int, column: str, value: object) -> None:
        """Until there are as many."""
        wait_until(
            lambda: self.backends(column, value) == count,
            lambda: f"there are not {count} backends with {column} {value}",
        )

    def begin_copy_from(self, session: Session) -> None:
        """Until the server is ready for CopyData."""
        session.query("CREATE TEMPORARY TABLE copied (number serial, line text)")
        list(session.messages())
        session.query("COPY copied (line) FROM STDIN")
        self.assertEqual(session.message()[0], b"G")


def copy_data(data: bytes) -> bytes:
    """CopyData messages of 8,000 bytes."""
    pieces = (data[start : start + 8000] for start in range(0, len(data), 8000))
    return b"".join(b"d" + struct.pack("!I", len(piece) + 4) + piece for piece in pieces)


COPY_DONE = b"c\0\0\0\x04"


#: The other kinds: whether clients have TLS, and how the gateway connects to the server.
KINDS = {
    "PlainToPlain": (False, "plain"),
    "PlainToTLS": (False, "TLS"),
    "TLSToTLS": (True, "TLS"),
    "TLSToUnix": (True, "Unix"),
}


def other_kinds(
    case: type[RelayCase],
    on_twisteds: Collection[str] = ("TLSToPlain", "PlainToPlain", "PlainToTLS", "TLSToTLS"),
) -> dict[str, type[RelayCase]]:
    """The same tests over the other kinds of connections, and on Twisted's own transports.

    :param case: for clients with TLS and a server without: ``TLSToPlain``.
    :param on_twisteds: of which kinds.
    :returns: test cases by their names, for the module that ``case`` is in.
    """
    kinds = {
        name: type(name, (case,), {"tls": tls, "upstream": upstream, "__module__": case.__module__})
        for name, (tls, upstream) in KINDS.items()
    }
    by_name = {case.__name__: case, **kinds}
    return kinds | {
        f"{name}OnTwisteds": type(
            f"{name}OnTwisteds",
            (OnTwistedsTransports, by_name[name]),
            {"__module__": case.__module__},
        )
        for name in on_twisteds
    }
