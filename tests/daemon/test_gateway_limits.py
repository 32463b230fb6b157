"""How much the gateway bears: many sessions, too many, and clients that mean no good."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import re
import socket
import struct
import subprocess
from collections.abc import Callable

import psycopg
from OpenSSL import SSL

from pgtls.protocols.places import REFUSED_AT_ONCE, REFUSING_HANDSHAKES
from tests.support.gateway_daemon import Gateway, GatewayCase, wait_until
from tests.support.in_memory import client_context
from tests.support.processes import TIMEOUT, environment
from tests.support.raw_client import (
    GSSENC_REQUEST,
    SSL_REQUEST,
    answer,
    connect,
    read_all,
    startup_message,
)
from tests.support.servers import HOST, Server, available, pgbench, postgres, psql, scram_server

MEGABYTE = 1 << 20
TOO_MANY = b"SFATAL\0VFATAL\0C53300\0Msorry, too many clients already\0"


def plain(server: Server) -> str:
    """Its connection string without a user."""
    return server.conninfo(user=None, dbname=None, sslmode="disable")


class ManySessions(GatewayCase):
    def test_500_at_once(self) -> None:
        gateway = self.gateway("--upstream", plain(postgres(17)))
        before = gateway.open_files_at_rest()
        asyncio.run(self.sessions_at_once(gateway, 500))
        gateway.wait_for_open_files(before)

    async def sessions_at_once(self, gateway: Gateway, count: int) -> None:
        async def open_one() -> psycopg.AsyncConnection:
            # Retries of TCP where the listener's queue was full take their time.
            return await psycopg.AsyncConnection.connect(gateway.conninfo(connect_timeout=60))

        before = gateway.open_files()
        sessions = await asyncio.gather(*(open_one() for _ in range(count)))
        self.assertEqual(len({session.info.backend_pid for session in sessions}), count)
        self.assertEqual(gateway.open_files(), before + 2 * count)
        for session in sessions:
            await session.close()

    def test_200_openings_at_the_same_time(self) -> None:
        gateway = self.gateway("--ssl", "on", "--upstream", plain(postgres(17)))
        before = gateway.open_files_at_rest()
        with contextlib.ExitStack() as stack:
            connections = [stack.enter_context(connect(gateway.address)) for _ in range(200)]
            for connection in connections:
                connection.sendall(SSL_REQUEST)
            for connection in connections:
                self.assertEqual(connection.recv(1), b"S")
        gateway.wait_for_open_files(before)
        self.assertTrue(psycopg.connect(gateway.conninfo()).pgconn.ssl_in_use)

    def test_sessions_that_are_over_leave_no_memory_behind(self) -> None:
        """What was buffered for clients that did not read goes with them."""
        server = postgres(17, ssl=True)
        upstream = server.conninfo(user=None, dbname=None, sslmode="require")
        gateway = self.gateway("--upstream", upstream)
        at_rest = gateway.open_files_at_rest()
        after = [self.unread(gateway, at_rest) for _ in range(4)]
        self.assertLess(after[-1] - after[0], 8 * MEGABYTE)

    def unread(self, gateway: Gateway, at_rest: int) -> int:
        """The gateway's memory after 100 clients that did not read."""
        with contextlib.ExitStack() as stack:
            for _ in range(100):
                session = psycopg.connect(gateway.conninfo(), autocommit=True)
                stack.enter_context(contextlib.closing(session))
                session.pgconn.send_query(b"SELECT repeat('x', 1000) FROM generate_series(1, 9000)")
                session.pgconn.flush()
            gateway.wait_until_still()
        gateway.wait_for_open_files(at_rest)
        return gateway.memory()


class MaxConnections(GatewayCase):
    def full(
        self, *options: str, limit: int = 1, **parameters: str
    ) -> tuple[Gateway, psycopg.Connection]:
        """A gateway without room, and one of the sessions that take it."""
        gateway = self.gateway(
            "--upstream", plain(postgres(17)), "--max-connections", str(limit), *options
        )
        conninfo = gateway.conninfo(**parameters)
        sessions = [psycopg.connect(conninfo, autocommit=True) for _ in range(limit)]
        for session in sessions:
            self.addCleanup(session.close)
        return gateway, sessions[0]

    def test_one_too_many_in_plaintext(self) -> None:
        gateway, _ = self.full("--ssl", "on")
        self.assertIn(TOO_MANY, answer(gateway.address, startup_message()))

    def psql(self, version: int, conninfo: str) -> str:
        done = subprocess.run(
            [psql(version), "-Xc", "SELECT 1", conninfo],
            env=environment(),
            capture_output=True,
            text=True,
            check=False,
            timeout=TIMEOUT,
        )
        self.assertEqual(done.returncode, 2)
        return done.stderr

    def test_psql_shows_why(self) -> None:
        """Inside TLS: since CVE-2024-10977 libpq shows nothing of what comes unencrypted."""
        gateway, _ = self.full()
        for version in (15 if available(15) else 17, 17):
            said = self.psql(version, gateway.conninfo())
            self.assertIn("FATAL:  sorry, too many clients already", said)
        self.assertIn("sorry, too many clients already", gateway.log())

    def test_psql_without_tls_shows_why(self) -> None:
        gateway, _ = self.full()
        said = self.psql(17, gateway.conninfo(sslmode="disable"))
        self.assertIn("FATAL:  sorry, too many clients already", said)

    def test_direct_tls_shows_why(self) -> None:
        gateway, _ = self.full()
        said = self.psql(17, gateway.conninfo(sslnegotiation="direct"))
        self.assertIn("FATAL:  sorry, too many clients already", said)

    def cancelled(
        self,
        cancel: Callable[[psycopg.Connection], None],
        ssl: str = "require",
        **parameters: str,
    ) -> None:
        _, session = self.full("--ssl", ssl, **parameters)
        server = postgres(17)
        session.pgconn.send_query(b"SELECT pg_sleep(3600)")
        asleep = f"SELECT wait_event FROM pg_stat_activity WHERE pid = {session.info.backend_pid}"
        wait_until(lambda: server.psql(asleep) == "PgSleep", lambda: "it does not sleep")
        cancel(session)
        result = session.pgconn.get_result()
        assert result is not None
        self.assertEqual(result.error_field(psycopg.pq.DiagnosticField.SQLSTATE), b"57014")

    def test_a_cancel_request_gets_through(self) -> None:
        self.cancelled(psycopg.Connection.cancel)

    def test_a_cancel_request_inside_direct_tls_gets_through(self) -> None:
        self.cancelled(psycopg.Connection.cancel_safe, sslnegotiation="direct")

    def test_a_cancel_request_in_plaintext_gets_through(self) -> None:
        self.cancelled(psycopg.Connection.cancel, sslmode="disable", ssl="on")

    def test_a_cancel_request_inside_tls_gets_through(self) -> None:
        self.cancelled(psycopg.Connection.cancel_safe)

    def test_there_is_room_when_one_leaves(self) -> None:
        gateway, session = self.full("--ssl", "on", limit=2)
        self.assertIn(TOO_MANY, answer(gateway.address, startup_message()))
        session.close()
        gateway.wait_for_log("disconnection: user=postgres")
        psycopg.connect(gateway.conninfo()).close()

    def test_those_without_room_take_none(self) -> None:
        """When a session leaves there is room, however many wait to hear that there is none."""
        gateway, session = self.full(limit=2)
        files = gateway.open_files_at_rest()
        with connect(gateway.address), connect(gateway.address):
            wait_until(lambda: gateway.open_files() == files + 2, gateway.log)
            session.close()
            gateway.wait_for_log("disconnection: user=postgres")
            psycopg.connect(gateway.conninfo()).close()

    def test_handshakes_that_only_refuse_have_a_bound(self) -> None:
        gateway, _ = self.full()
        with contextlib.ExitStack() as stack:
            for _ in range(REFUSING_HANDSHAKES):
                connection = stack.enter_context(connect(gateway.address))
                connection.sendall(SSL_REQUEST)
                self.assertEqual(connection.recv(1), b"S")
            said = answer(gateway.address, SSL_REQUEST)
            self.assertEqual(said[:1], b"E")
            self.assertIn(TOO_MANY, said)
            self.assertEqual(answer(gateway.address, client_hello()[:1]), b"")
        wait_until(lambda: "too many" in self.psql(17, gateway.conninfo()), lambda: "no handshakes")

    def crowd(self, listen: str, header: bytes) -> None:
        """More clients than are kept to be refused: the oldest of them is closed, and the newest
        hears why."""
        gateway = self.gateway(
            *("--upstream", plain(postgres(17)), "--max-connections", "1", "--ssl", "on"),
            listen=listen,
        )
        with contextlib.ExitStack() as stack:
            session = stack.enter_context(connect(gateway.address))
            session.sendall(header + SSL_REQUEST)
            self.assertEqual(session.recv(1), b"S")
            oldest = stack.enter_context(connect(gateway.address))
            oldest.sendall(header)
            for _ in range(REFUSED_AT_ONCE):
                newest = stack.enter_context(connect(gateway.address))
            self.assertEqual(until_closed(oldest), b"")
            newest.sendall(header + startup_message())
            self.assertIn(TOO_MANY, read_all(newest))

    def test_a_crowd_without_room(self) -> None:
        self.crowd("tcp:0:interface=127.0.0.1", b"")

    def test_a_crowd_without_room_behind_haproxy(self) -> None:
        self.crowd(
            "haproxy:tcp:0:interface=127.0.0.1", b"PROXY TCP4 192.0.2.7 198.51.100.1 56324 5432\r\n"
        )


#: AuthenticationCleartextPassword
ASKS_FOR_A_PASSWORD = b"R\0\0\0\x08\0\0\0\x03"


class AuthenticationTimeout(GatewayCase):
    """Nobody holds a place without saying who it is."""

    def start(self, seconds: float = 0.5) -> Gateway:
        return self.gateway(
            "--upstream", plain(postgres(17)), "--authentication-timeout", str(seconds)
        )

    def test_nothing_at_all(self) -> None:
        self.assertEqual(answer(self.start().address, b""), b"")

    def test_half_a_packet(self) -> None:
        self.assertEqual(answer(self.start().address, startup_message()[:20]), b"")

    def test_an_ssl_request_without_a_handshake(self) -> None:
        gateway = self.start()
        with connect(gateway.address) as connection:
            connection.sendall(SSL_REQUEST)
            self.assertEqual(until_closed(connection), b"S")
            self.logged_once(gateway, connection)

    def logged_once(self, gateway: Gateway, connection: socket.socket) -> None:
        """That the handshake was not completed either follows from it."""
        client = rf"\({connection.getsockname()[1]}\): (.*)"
        gateway.wait_for_log(client)
        gateway.wait_until_still()
        [line] = re.findall(client, gateway.log())
        self.assertIn("canceling authentication due to timeout", line)

    def test_half_a_client_hello(self) -> None:
        gateway = self.start()
        with connect(gateway.address) as connection:
            connection.sendall(client_hello()[:100])
            self.assertEqual(until_closed(connection), b"")
            self.logged_once(gateway, connection)

    def test_half_a_handshake(self) -> None:
        gateway = self.start()
        with connect(gateway.address) as connection:
            connection.sendall(client_hello())
            self.assertEqual(until_closed(connection)[:1], b"\x16")

    def test_tls_without_a_startup_message(self) -> None:
        gateway = self.start()
        before = gateway.open_files_at_rest()
        with connect(gateway.address) as connection:
            tls = SSL.Connection(client_context(alpn=[b"postgresql"]), connection)
            connection.settimeout(None)
            tls.set_connect_state()
            tls.do_handshake()
            with self.assertRaises((SSL.ZeroReturnError, SSL.SysCallError)):
                tls.recv(1)
            if not self.fast:
                tls.shutdown()  # Twisted's own transports wait for it, until CLOSE_TIMEOUT
            gateway.wait_for_open_files(before)

    def test_one_byte_at_a_time(self) -> None:
        gateway = self.start()
        with connect(gateway.address) as connection:
            connection.settimeout(0.05)
            with self.assertRaises(ConnectionError):
                for byte in startup_message(application_name="x" * 5000):
                    connection.sendall(bytes([byte]))
                    self.pause(connection)

    def pause(self, connection: socket.socket) -> None:
        """Wait a moment for an answer that does not come."""
        try:
            if connection.recv(1) == b"":
                raise ConnectionResetError
        except TimeoutError:
            pass

    def test_a_client_that_does_not_answer_the_server(self) -> None:
        """The server, a look-alike, would wait for ever."""
        with socket.create_server((HOST, 0)) as listening:
            port = listening.getsockname()[1]
            gateway = self.gateway(
                *("--ssl", "on", "--authentication-timeout", "0.5"),
                *("--upstream", f"host={HOST} port={port} sslmode=disable"),
            )
            listening.accept()[0].close()  # the gateway's look at the start
            with connect(gateway.address) as client:
                client.sendall(startup_message())
                server = listening.accept()[0]
                with server:
                    server.recv(10000)
                    server.sendall(ASKS_FOR_A_PASSWORD)
                    received = until_closed(client)
                    self.assertEqual(until_closed(server), b"")
        self.assertTrue(received.startswith(ASKS_FOR_A_PASSWORD))
        self.assertIn(
            b"SFATAL\0VFATAL\0C57014\0Mcanceling authentication due to timeout\0", received
        )
        gateway.wait_for_log("upstream: canceling authentication due to timeout")
        gateway.wait_for_log("disconnection: user=postgres")

    def test_a_client_that_postgresql_does_not_wait_for(self) -> None:
        server = Server(17, hba="host all all all password\n", conf={"authentication_timeout": "1"})
        gateway = self.gateway("--ssl", "on", "--upstream", plain(server))
        with connect(gateway.address) as client:
            client.sendall(startup_message())
            received = until_closed(client)
        self.assertEqual(received, ASKS_FOR_A_PASSWORD)  # it closes, and only its log has a reason
        self.assertIn("canceling authentication due to timeout", server.log())
        gateway.wait_for_log("disconnection: user=postgres")
        self.assertNotIn("canceling authentication", gateway.log())
        server.stop()

    def test_a_session_with_a_password_may_last(self) -> None:
        gateway = self.gateway(
            *("--upstream", plain(scram_server(17)), "--authentication-timeout", "0.5")
        )
        conninfo = gateway.conninfo(user="scramuser", password="secret")
        with psycopg.connect(conninfo) as session:
            session.execute("SELECT pg_sleep(1)")

    def test_a_session_may_last(self) -> None:
        with psycopg.connect(self.start(seconds=0.3).conninfo()) as session:
            session.execute("SELECT pg_sleep(1)")


def until_closed(connection: socket.socket) -> bytes:
    """What comes until the other side closes; it may do so with a reset."""
    received = b""
    with contextlib.suppress(ConnectionResetError):
        while chunk := connection.recv(65536):
            received += chunk
    return received


def client_hello() -> bytes:
    """What a TLS client says first."""
    connection = SSL.Connection(client_context(alpn=[b"postgresql"]))
    connection.set_connect_state()
    with contextlib.suppress(SSL.WantReadError):
        connection.do_handshake()
    return connection.bio_read(65536)


class HostileOpenings(GatewayCase):
    """Nobody's session is disturbed by another's garbage."""

    #: PGTLS_HOSTILE_OPENINGS=1000 is the full size; pgbench then runs for 10 s.
    count = int(os.environ.get("PGTLS_HOSTILE_OPENINGS", "200"))
    seconds = 10 if count > 200 else 3

    def test_while_pgbench_runs(self) -> None:
        server = postgres(17)
        server.psql("CREATE DATABASE hostile")
        self.addCleanup(server.psql, "DROP DATABASE hostile WITH (FORCE)")
        direct = server.conninfo(dbname="hostile")
        self.pgbench("--initialize", "--quiet", direct)
        gateway = self.gateway("--upstream", plain(server), "--authentication-timeout", "1")
        self.pgbench("--select-only", "--time=1", *CLIENTS, gateway.conninfo(dbname="hostile"))
        chance = random.Random(0)
        files, memory = gateway.open_files_at_rest(), gateway.memory()
        with self.started(
            "--select-only", f"--time={self.seconds}", *CLIENTS, gateway.conninfo(dbname="hostile")
        ) as bench:
            for _ in range(self.count):
                self.addCleanup(hostile_opening(gateway.address, chance).close)
            said, errors = bench.communicate(timeout=TIMEOUT)
        self.assertEqual(bench.returncode, 0, errors)
        self.assertIn("number of failed transactions: 0 ", said)
        self.assertNotIn("error", errors)
        gateway.wait_for_open_files(files)
        self.assertLess(gateway.memory() - memory, 8 * MEGABYTE)

    def started(self, *options: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [pgbench(17), *options],
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def pgbench(self, *options: str) -> None:
        with self.started(*options) as bench:
            _, errors = bench.communicate(timeout=TIMEOUT)
        self.assertEqual(bench.returncode, 0, errors)


CLIENTS = ("--client=20", "--jobs=2")

ANSWER = b""
"""In an opening: wait for the gateway's answer."""


def opening(chance: random.Random) -> list[bytes]:
    """One of many ways to begin badly: what is sent, and where an answer is waited for."""
    hello = client_hello()
    part_of_hello = hello[: chance.randrange(1, len(hello))]
    cancel_request = bytes.fromhex("00000010 04d2162e") + chance.randbytes(8)
    return chance.choice(
        [
            [chance.randbytes(chance.randrange(1, 2000))],
            [startup_message()[: chance.randrange(1, 40)]],
            [startup_message()],
            [b"\0\0\x27\x10" + chance.randbytes(9000)],
            [SSL_REQUEST + hello],
            [SSL_REQUEST * 3],
            [SSL_REQUEST, ANSWER, SSL_REQUEST],
            [GSSENC_REQUEST, ANSWER, GSSENC_REQUEST],
            [SSL_REQUEST, ANSWER],
            [SSL_REQUEST, ANSWER, chance.randbytes(500)],
            [SSL_REQUEST, ANSWER, part_of_hello],
            [SSL_REQUEST, ANSWER, hello],
            [SSL_REQUEST, ANSWER, hello, ANSWER, chance.randbytes(500)],
            [part_of_hello],
            [hello],
            [cancel_request],
        ]
    )


def hostile_opening(address: tuple[str, int], chance: random.Random) -> socket.socket:
    """Begin badly.

    :returns: a connection that may still be open.
    """
    connection = connect(address)
    with contextlib.suppress(ConnectionError):
        for part in opening(chance):
            if part == ANSWER:
                connection.recv(65536)
            else:
                connection.sendall(part)
    ending = chance.choice(["stay", "close", "reset"])
    if ending == "reset":
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    if ending != "stay":
        connection.close()
    return connection
