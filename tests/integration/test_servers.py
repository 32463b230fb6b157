"""The servers that the other tests lean on are what those tests take them for."""

from __future__ import annotations

import socket
import sys

from twisted.trial.unittest import TestCase

from tests.support.processes import ChildFailed, Daemon, run
from tests.support.servers import (
    Server,
    ServerFailed,
    negotiation_server,
    postgres,
    psql,
    scram_server,
)

SSL_REQUEST = bytes.fromhex("00000008 04d2162f")
HOW = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"


def answer_to_ssl_request(server: Server) -> bytes:
    with socket.create_connection((server.host, server.port)) as connection:
        connection.sendall(SSL_REQUEST)
        return connection.recv(1)


class SharedServers(TestCase):
    def test_17_with_ssl_accepts_an_ssl_request(self) -> None:
        self.assertEqual(answer_to_ssl_request(postgres(17, ssl=True)), b"S")

    def test_18_without_ssl_declines_an_ssl_request(self) -> None:
        self.assertEqual(answer_to_ssl_request(postgres(18)), b"N")

    async def test_psql_17_connects_with_sslmode_require(self) -> None:
        conninfo = postgres(17, ssl=True).conninfo(sslmode="require")
        done = await run([psql(17), "-XAt", "-c", HOW, conninfo])
        self.assertEqual(done, (0, "t\n", ""))

    async def test_the_certificate_verifies_for_localhost(self) -> None:
        server = postgres(17, ssl=True)
        conninfo = server.conninfo(sslmode="verify-full", sslrootcert=server.root_crt)
        done = await run([psql(17), "-XAt", "-c", HOW, conninfo])
        self.assertEqual(done, (0, "t\n", ""))

    def test_a_build_without_openssl_refuses_ssl(self) -> None:
        with self.assertRaisesRegex(ServerFailed, "SSL is not supported by this build"):
            Server(18, ssl=True)


class SpecialUsers(TestCase):
    def test_ssluser_comes_with_tls_only(self) -> None:
        server = negotiation_server(ssl=True)
        user = {"host": server.host, "user": "ssluser"}
        self.assertEqual(server.psql(HOW, sslmode="require", **user), "t")
        with self.assertRaisesRegex(ServerFailed, "no encryption"):
            server.psql(HOW, sslmode="disable", **user)

    def test_nossluser_comes_without_tls_only(self) -> None:
        server = negotiation_server(ssl=True)
        user = {"host": server.host, "user": "nossluser"}
        self.assertEqual(server.psql(HOW, sslmode="disable", **user), "f")
        with self.assertRaisesRegex(ServerFailed, "SSL encryption"):
            server.psql(HOW, sslmode="require", **user)

    def test_scramuser_needs_its_password(self) -> None:
        server = scram_server(17, ssl=True)
        user = {"host": server.host, "user": "scramuser", "channel_binding": "require"}
        self.assertEqual(server.psql(HOW, password="secret", **user), "t")
        with self.assertRaisesRegex(ServerFailed, "password authentication failed"):
            server.psql(HOW, password="wrong", **user)


class OneServer(TestCase):
    def test_reload_turns_ssl_on(self) -> None:
        server = Server(17, ssl=True, conf={"ssl": "off"})
        self.addCleanup(server.stop)
        self.assertEqual(answer_to_ssl_request(server), b"N")
        server.reload(conf={"ssl": "on"})
        self.assertEqual(answer_to_ssl_request(server), b"S")

    def test_it_comes_back_on_its_port(self) -> None:
        server = Server(18)
        self.addCleanup(server.stop)
        server.stop()
        self.assertRaises(ConnectionRefusedError, answer_to_ssl_request, server)
        server.start()
        self.assertEqual(answer_to_ssl_request(server), b"N")

    async def test_it_ends_when_the_tests_are_killed(self) -> None:
        asks = "from tests.support.servers import postgres\n"
        asks += "print('port', postgres(18).port, flush=True)"
        tests = [sys.executable, "-c", f"{asks}; import signal; signal.pause()"]
        killed = await Daemon.start(self, tests, r"^port (\d+)$")
        with socket.create_connection(("127.0.0.1", int(killed.ready[1])), timeout=30) as session:
            await killed.stop("KILL")
            while session.recv(1024):
                pass  # what it says before it closes the connection


class Children(TestCase):
    async def test_one_that_hangs_is_ended(self) -> None:
        hangs = run([sys.executable, "-c", "import signal; signal.pause()"], timeout=1)
        with self.assertRaisesRegex(ChildFailed, "did not end"):
            await hangs

    async def test_a_daemon_that_fails_to_start_says_why(self) -> None:
        fails = Daemon.start(self, [sys.executable, "-c", "raise SystemExit('why')"], "ready")
        with self.assertRaisesRegex(ChildFailed, "why"):
            await fails
