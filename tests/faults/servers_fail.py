"""The server fails: stopped, killed, full, silent, resetting. Others' sessions go on."""

from __future__ import annotations

import contextlib
import logging
import socket
import struct
import time
from collections.abc import Callable
from threading import Event
from typing import Any

import psycopg
from OpenSSL.SSL import Connection

from tests.faults.neighbours import LONGEST, MEGABYTE, Clients, FaultCase
from tests.faults.sockets import READY, full_queue, message, packet, reset, serving
from tests.support.gateway_daemon import in_thread
from tests.support.in_memory import server_context
from tests.support.servers import HOST, Server

AT_ONCE = 20
"""Clients that meet a failing server at a time."""


class Nothing(FaultCase):
    """For comparison."""

    def test_nothing(self) -> None:
        self.beside(self.server().conninfo(user=None, dbname=None, sslmode="disable"))
        self.survives("nothing", lambda neighbours: neighbours.go_on(queries=400))


class ServerUnderLoad(FaultCase):
    """A server goes away and comes back."""

    def setUp(self) -> None:
        super().setUp()
        self.failing = Server(17, conf={"max_connections": "100"})
        self.addCleanup(self.failing.stop)

    def away(self, what: str, end: Callable[[], None]) -> None:
        """It ends and is started again, under load: what is lost is what it held."""
        self.beside(self.failing.conninfo(user=None, dbname=None, sslmode="disable"))

        def fault(neighbours: Clients) -> dict[str, Any]:
            clients = Clients(self.relay.conninfo())
            with contextlib.closing(clients):
                clients.go_on()
                end()
                gone = time.monotonic()
                neighbours.go_on()
                self.failing.start()
                started = time.monotonic()
                clients.go_on(queries=0)
                back = time.monotonic()
                report = clients.report()
            self.assertLess(back - started, LONGEST)
            return {
                "away": round(started - gone, 1),
                "served_again_after": round(back - started, 2),
                "failed": report["failures"],
                "lost": report["lost"],
            }

        self.survives(what, fault)

    def test_restarted(self) -> None:
        self.away("server restarted", self.failing.stop)

    def test_killed(self) -> None:
        self.away("server killed", self.failing.kill)


class ServerUnreachable(FaultCase):
    """A server that is there and does not answer: its clients hear so, in time."""

    def refused(self, neighbours: Clients) -> dict[str, Any]:
        """All that come at the same time, after connect_timeout."""
        refusals: list[str] = []
        threads = [
            in_thread(lambda: refusals.append(self.refusal(seconds=15))) for _ in range(AT_ONCE)
        ]
        neighbours.go_on()
        for thread in threads:
            thread.join()
        self.assertEqual(len(refusals), AT_ONCE)
        return {"refused": len(refusals), "in_words": refusals[0].strip().splitlines()[-1]}

    def test_full_accept_queue(self) -> None:
        with full_queue() as port:
            self.beside(f"host={HOST} port={port} connect_timeout=2 sslmode=disable")
            self.survives("accept queue of the server full", self.refused)

    def test_silent_server(self) -> None:
        with serving(drain) as port:
            self.beside(f"host={HOST} port={port} connect_timeout=2 sslmode=require")
            self.survives("server accepts and says nothing", self.refused)


class ServerResets(FaultCase):
    """A server that resets its connections, in each phase."""

    def setUp(self) -> None:
        super().setUp()
        psycopg_log = logging.getLogger("psycopg")
        self.addCleanup(psycopg_log.setLevel, psycopg_log.level)
        psycopg_log.setLevel(logging.ERROR)  # it warns of each connection that it loses

    def resets(
        self,
        what: str,
        script: Callable[[socket.socket], None],
        ssl: bool = False,
        ask: Callable[[psycopg.Connection], object] = lambda session: session.execute("SELECT 1"),
    ) -> None:
        """All clients that meet it get an error, at once."""
        mode = "require" if ssl else "disable"

        def client() -> None:
            with contextlib.suppress(psycopg.OperationalError):
                with psycopg.connect(self.relay.conninfo(), autocommit=True) as session:
                    ask(session)
                ended.append("without an error")
            ended.append("error")

        ended: list[str] = []

        def fault(neighbours: Clients) -> dict[str, Any]:
            ended.clear()
            threads = [in_thread(client) for _ in range(AT_ONCE)]
            for thread in threads:
                thread.join(30)
            self.assertEqual(ended, ["error"] * AT_ONCE)
            return {"errors": len(ended)}

        with serving(script) as port:
            self.beside(f"host={HOST} port={port} connect_timeout=5 sslmode={mode}")
            self.survives(f"server resets {what}", fault)

    def test_before_it_says_anything(self) -> None:
        self.resets("when it has accepted", reset)

    def test_before_the_answer_to_sslrequest(self) -> None:
        def script(connection: socket.socket) -> None:
            packet(connection)
            reset(connection)

        self.resets("after SSLRequest", script, ssl=True)

    def test_in_the_handshake(self) -> None:
        def script(connection: socket.socket) -> None:
            packet(connection)
            connection.sendall(b"S")
            connection.recv(100)
            connection.sendall(b"\x16\x03\x03\0\x7a\x02")  # the beginning of a ServerHello
            reset(connection)

        self.resets("in the handshake", script, ssl=True)

    def test_after_the_startup_message(self) -> None:
        def script(connection: socket.socket) -> None:
            packet(connection)
            reset(connection)

        self.resets("after StartupMessage", script)

    def test_in_a_query(self) -> None:
        def script(connection: socket.socket) -> None:
            packet(connection)
            connection.sendall(READY)
            message(connection)
            connection.sendall(b"T\0\0\0\x1b\0\x01a")  # the beginning of a RowDescription
            reset(connection)

        self.resets("in a query", script)

    def test_in_a_query_in_tls(self) -> None:
        def script(connection: socket.socket) -> None:
            packet(connection)
            connection.sendall(b"S")
            tls = Connection(server_context(), connection)
            tls.set_accept_state()
            packet(tls)
            tls.sendall(READY)
            message(tls)
            tls.sendall(b"T\0\0\0\x1b\0\x01a")
            reset(connection)

        self.resets("in a query, in TLS", script, ssl=True)

    def test_in_copy_out(self) -> None:
        def script(connection: socket.socket) -> None:
            packet(connection)
            connection.sendall(READY)
            message(connection)
            connection.sendall(b"H\0\0\0\x09\0\0\x01\0\0")
            for _ in range(100):
                connection.sendall(b"d" + struct.pack("!I", 1004) + b"x" * 1000)
            reset(connection)

        self.resets("in COPY TO", script, ask=copy_out)

    def test_in_copy_in(self) -> None:
        def script(connection: socket.socket) -> None:
            packet(connection)
            connection.sendall(READY)
            message(connection)
            connection.sendall(b"G\0\0\0\x09\0\0\x01\0\0")
            for _ in range(10):
                message(connection)
            reset(connection)

        self.resets("in COPY FROM", script, ask=copy_in)


class ServerDoesNotRead(FaultCase):
    """Clients send more than their server takes."""

    def test_bounded_memory(self) -> None:
        over = Event()

        def script(connection: socket.socket) -> None:
            packet(connection)
            connection.sendall(READY)
            over.wait(120)
            reset(connection)

        def send() -> None:
            with contextlib.suppress(psycopg.OperationalError):
                session = psycopg.connect(self.relay.conninfo(), autocommit=True)
                with contextlib.closing(session):
                    session.execute(b"SELECT '" + b"x" * (16 * MEGABYTE) + b"'")

        def fault(neighbours: Clients) -> dict[str, Any]:
            over.clear()
            before = self.relay.memory()
            threads = [in_thread(send) for _ in range(AT_ONCE)]
            neighbours.go_on(queries=200)
            more = (self.relay.memory() - before) / MEGABYTE
            over.set()
            for thread in threads:
                thread.join(60)
            self.assertLess(more, AT_ONCE)
            return {"sessions": AT_ONCE, "each_sends_mb": 16, "memory_meanwhile": round(more, 1)}

        with serving(script) as port:
            self.beside(f"host={HOST} port={port} sslmode=disable")
            self.survives("servers that do not read", fault)


def copy_out(session: psycopg.Connection) -> None:
    """COPY ... TO STDOUT, all of it."""
    with session.cursor().copy("COPY numbers TO STDOUT") as rows:
        for _ in rows:
            pass


def copy_in(session: psycopg.Connection) -> None:
    """COPY ... FROM STDIN, 100 MB."""
    with session.cursor().copy("COPY numbers FROM STDIN") as copy:
        for _ in range(100):
            copy.write(b"1\n" * (MEGABYTE // 2))


def drain(connection: socket.socket) -> None:
    """Read to the end, and say nothing."""
    while connection.recv(1 << 16):
        pass
