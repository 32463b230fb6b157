"""Clients fail: resets in each phase, silence, half-closes, cables pulled, nothing read."""

from __future__ import annotations

import contextlib
import random
import select
import socket
import ssl
import struct
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from typing import Any

import psycopg

from tests.faults import network
from tests.faults.neighbours import MEGABYTE, Clients, FaultCase
from tests.faults.sockets import reset
from tests.support.gateway_daemon import wait_until
from tests.support.processes import environment
from tests.support.raw_client import SSL_REQUEST, connect, startup_message

MANY = 100
"""Clients that fail at a time."""

BIG = "SELECT repeat('x', 1000) FROM generate_series(1, 30000)"
"""An answer of 30 MB."""


STARTUP = startup_message(user="failing", database="postgres")


def query(sql: str) -> bytes:
    """A Query message."""
    body = sql.encode() + b"\0"
    return b"Q" + struct.pack("!I", len(body) + 4) + body


class ClientCase(FaultCase):
    """Both listeners have the same server: its sessions end with those of the clients that fail."""

    def setUp(self) -> None:
        super().setUp()
        self.own = self.server().conninfo(user=None, dbname=None, sslmode="disable")

    def sessions(self) -> int:
        """How many sessions the clients that fail have at the server."""
        return int(
            self.server().psql("SELECT count(*) FROM pg_stat_activity WHERE usename = 'failing'")
        )

    def no_sessions(self) -> None:
        """Wait until they have none."""
        wait_until(lambda: not self.sessions(), lambda: f"{self.sessions()} sessions stay")


class ClientResets(ClientCase):
    """A hundred clients that end with a RST, in each phase."""

    def setUp(self) -> None:
        super().setUp()
        if not self.server().psql("SELECT 1 FROM pg_roles WHERE rolname = 'failing'"):
            self.server().psql("CREATE USER failing; CREATE TABLE sink (line text)")
            self.server().psql("GRANT ALL ON sink TO failing")

    def resets(self, what: str, go: Callable[[socket.socket], socket.socket | None]) -> None:
        """Neither the gateway nor the server keeps anything of them.

        :param go: takes a connection as far as that; returns it where TLS has made another of it.
        """
        self.beside(self.own, 'ssl = "on"')

        def fault(neighbours: Clients) -> dict[str, Any]:
            with contextlib.ExitStack() as stack:
                connections = [
                    stack.enter_context(connect(self.relay.address)) for _ in range(MANY)
                ]
                for connection in [go(connection) or connection for connection in connections]:
                    reset(connection)
            self.no_sessions()
            return {"clients": MANY}

        self.survives(f"clients reset {what}", fault)

    def test_before_sslrequest(self) -> None:
        self.resets("before SSLRequest", lambda connection: None)

    def test_half_an_sslrequest(self) -> None:
        self.resets("within SSLRequest", lambda connection: connection.sendall(SSL_REQUEST[:5]))

    def test_in_the_handshake(self) -> None:
        def go(connection: socket.socket) -> None:
            connection.sendall(SSL_REQUEST)
            connection.recv(1)
            connection.sendall(hello()[:100])

        self.resets("in the handshake", go)

    def test_when_the_server_has_shown_its_certificate(self) -> None:
        def go(connection: socket.socket) -> None:
            connection.sendall(SSL_REQUEST)
            connection.recv(1)
            connection.sendall(hello())
            connection.recv(100)

        self.resets("in the middle of the handshake", go)

    def test_half_a_startup_message(self) -> None:
        self.resets(
            "within StartupMessage",
            lambda connection: connection.sendall(startup_message(user="failing")[:12]),
        )

    def test_after_the_startup_message(self) -> None:
        self.resets(
            "after StartupMessage",
            lambda connection: connection.sendall(STARTUP),
        )

    def test_in_a_query(self) -> None:
        def go(connection: socket.socket) -> None:
            connection.sendall(STARTUP + query("SELECT pg_sleep(0.2)"))

        self.resets("in a query", go)

    def test_in_copy_out(self) -> None:
        self.resets("in COPY TO", copy_out)

    def test_in_copy_out_in_tls(self) -> None:
        self.resets("in COPY TO, in TLS", lambda connection: copy_out(in_tls(connection)))

    def test_in_copy_in(self) -> None:
        self.resets("in COPY FROM", copy_in)

    def test_in_copy_in_in_tls(self) -> None:
        self.resets("in COPY FROM, in TLS", lambda connection: copy_in(in_tls(connection)))


def copy_out(connection: socket.socket) -> socket.socket:
    """A client in the middle of COPY TO."""
    connection.sendall(STARTUP + query(f"COPY ({BIG}) TO STDOUT"))
    connection.recv(1)
    return connection


def copy_in(connection: socket.socket) -> socket.socket:
    """A client in the middle of COPY FROM."""
    connection.sendall(STARTUP + query("COPY sink FROM STDIN"))
    connection.sendall((b"d" + struct.pack("!I", 1004) + b"x" * 999 + b"\n") * 50)
    return connection


def in_tls(connection: socket.socket) -> ssl.SSLSocket:
    """The same connection when the handshake is over."""
    connection.sendall(SSL_REQUEST)
    connection.recv(1)
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["postgresql"])
    return context.wrap_socket(connection)


@cache
def hello() -> bytes:
    """A ClientHello."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    context = ssl.create_default_context()
    context.set_alpn_protocols(["postgresql"])
    connection = context.wrap_bio(incoming, outgoing, server_hostname="localhost")
    with contextlib.suppress(ssl.SSLWantReadError):
        connection.do_handshake()
    return outgoing.read()


class ClientsSayNothing(ClientCase):
    """Connections on which nothing, or not enough, ever comes."""

    def test_half_open(self) -> None:
        self.beside(self.own, 'ssl = "on"', "authentication_timeout = 2", "max_connections = 1000")
        beginnings = [b"", SSL_REQUEST[:3], SSL_REQUEST, startup_message()[:9], b"\x16\x03\x01"]

        def fault(neighbours: Clients) -> dict[str, Any]:
            with contextlib.ExitStack() as stack:
                connections = [
                    stack.enter_context(connect(self.relay.address)) for _ in range(MANY * 3)
                ]
                for connection in connections:
                    connection.sendall(random.choice(beginnings))
                most = self.relay.open_files()
                neighbours.go_on()
                for connection in connections:
                    connection.settimeout(20)
                    with contextlib.suppress(ConnectionResetError):
                        while connection.recv(100):
                            pass
            return {"clients": MANY * 3, "files_meanwhile": most}

        self.survives("half-open clients", fault)

    def test_garbage(self) -> None:
        self.beside(self.own, 'ssl = "on"')

        def fault(neighbours: Clients) -> dict[str, Any]:
            for _ in range(MANY * 3):
                with connect(self.relay.address) as connection, contextlib.suppress(OSError):
                    connection.sendall(random.randbytes(random.randrange(1, 20000)))
                    connection.shutdown(socket.SHUT_WR)
            return {"clients": MANY * 3}

        self.survives("garbage", fault)


class ClientsDoNotRead(ClientCase):
    """Answers that nobody takes."""

    def test_bounded_memory(self) -> None:
        self.beside(self.own)

        def fault(neighbours: Clients) -> dict[str, Any]:
            before = self.relay.memory()
            with contextlib.ExitStack() as stack:
                for _ in range(MANY // 2):
                    session = psycopg.connect(self.relay.conninfo(), autocommit=True)
                    stack.enter_context(contextlib.closing(session))
                    session.pgconn.send_query(BIG.encode())
                    session.pgconn.flush()
                neighbours.go_on(queries=100)
                more = (self.relay.memory() - before) / MEGABYTE
            self.assertLess(more, MANY // 2)
            return {"sessions": MANY // 2, "each_mb": 30, "memory_meanwhile": round(more, 1)}

        self.survives("clients that do not read", fault)


VANISHING = """\
import sys, psycopg
sessions = [psycopg.connect(sys.argv[1], autocommit=True) for _ in range(20)]
for session in sessions[:10]:
    session.pgconn.send_query(sys.argv[2].encode())
    session.pgconn.flush()
print("ready", flush=True)
sys.stdin.read()
"""
"""Twenty sessions, half of them in an answer of 30 MB."""


class BlackHole(ClientCase):
    """A machine whose cable is pulled: nothing of it comes any more, not even an end."""

    def setUp(self) -> None:
        super().setUp()
        network.make_switch()
        self.addCleanup(network.remove_switch)
        self.machine = network.Machine("50", "10.77.0.50")
        self.addCleanup(self.machine.remove)

    def test_clients_vanish(self) -> None:
        """Their sessions end by tcp_user_timeout and the keepalives."""
        self.beside(
            self.own,
            "tcp_keepalives_idle = 1",
            "tcp_keepalives_interval = 1",
            "tcp_keepalives_count = 3",
            "tcp_user_timeout = 3000",
            interface=network.GATE,
        )

        def fault(neighbours: Clients) -> dict[str, Any]:
            conninfo = self.relay.conninfo(hostaddr=network.GATE, application_name="vanishing")
            count = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'vanishing'"
            with subprocess.Popen(
                [*self.machine.enter, sys.executable, "-c", VANISHING, conninfo, BIG],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=environment(),
            ) as clients:
                assert clients.stdout is not None
                self.assertEqual(clients.stdout.readline(), b"ready\n")
                self.machine.plug(False)
                self.assertEqual(self.server().psql(count), "20")
                wait_until(
                    lambda: self.server().psql(count) == "0",
                    lambda: f"{self.server().psql(count)} stay\n{self.relay.log()}",
                )
                clients.kill()
                self.machine.plug(True)
            return {"sessions": 20}

        self.survives("clients vanish", fault)

    def test_server_vanishes(self) -> None:
        """Its sessions end by the keepalives of the connection string, and new ones by
        connect_timeout."""
        port = 6543
        program = [*self.machine.enter, sys.executable, "-m", "tests.faults.idle_server"]
        with subprocess.Popen(
            [*program, self.machine.address, str(port)], stdout=subprocess.PIPE, env=environment()
        ) as server:
            self.addCleanup(server.kill)
            assert server.stdout is not None
            server.stdout.readline()
            self.beside(
                f"host={self.machine.address} port={port} sslmode=disable connect_timeout=2 "
                "keepalives_idle=1 keepalives_interval=1 keepalives_count=3 tcp_user_timeout=3000"
            )
            self.survives("server vanishes", self.server_vanishes)
            server.kill()

    def server_vanishes(self, neighbours: Clients) -> dict[str, Any]:
        sessions = [psycopg.connect(self.relay.conninfo(), autocommit=True) for _ in range(20)]
        for session in sessions:
            session.execute("SELECT 1")
        self.machine.plug(False)
        for session in sessions[:10]:
            session.pgconn.send_query(b"SELECT 1")
            session.pgconn.flush()
        refused = self.refusal(seconds=15)
        for session in sessions:
            # What the gateway says of it, or just the end.
            self.assertTrue(select.select([session], [], [], 20)[0])
            session.close()
        self.machine.plug(True)
        wait_until(self.serves_again, self.relay.log)
        return {"sessions": len(sessions), "refused": refused.strip().splitlines()[-1]}

    def serves_again(self) -> bool:
        try:
            psycopg.connect(self.relay.conninfo()).close()
        except psycopg.OperationalError:
            return False
        return True
