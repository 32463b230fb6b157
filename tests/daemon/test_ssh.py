"""``upstream_via`` and ``pgtls tunnel``: through OpenSSH's server to PostgreSQL."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import tempfile
from pathlib import Path
from unittest import SkipTest

import psycopg
from twisted.trial.unittest import SynchronousTestCase

from tests.daemon.test_status import STATUS, StatusSite
from tests.support import servers
from tests.support.command_line import PGTLS
from tests.support.gateway_daemon import Gateway, GatewayCase, GatewayFailed, wait_until
from tests.support.processes import TIMEOUT, environment
from tests.support.servers import HOST, free_port
from tests.support.ssh_server import SSHD, SSHServer

CONNECTED = "connected, host key SHA256:"


class SSHCase(GatewayCase):
    """An SSH server, and PostgreSQL behind it."""

    def setUp(self) -> None:
        if SSHD is None:
            raise SkipTest("OpenSSH's server is not installed")
        self.ssh = SSHServer()
        self.addCleanup(self.ssh.remove)
        self.server = servers.postgres(17, ssl=True)

    def through(self, *options: str, key: str = "id", known: str = "", **conninfo: str) -> Gateway:
        """A gateway whose upstream is behind the SSH server."""
        place = {"host": "localhost", "port": str(self.server.port), **conninfo}
        upstream = " ".join(f"{name}={value}" for name, value in place.items())
        identity = ("--ssh-identity-file", str(self.ssh.directory / key)) if key else ()
        known = known or self.ssh.known_hosts
        via = ("--upstream-via", self.ssh.address, "--ssh-known-hosts-file", known)
        return self.gateway("--upstream", upstream, *via, *identity, *options)

    def session(self, gateway: Gateway) -> psycopg.Connection[tuple[object, ...]]:
        """A session that is closed with the test."""
        connection = psycopg.connect(
            gateway.conninfo(sslmode="require", user="postgres", dbname="postgres"),
            autocommit=True,
        )
        self.addCleanup(connection.close)
        return connection

    def why_refused(self, gateway: Gateway) -> str:
        """What a client reads that gets no session."""
        error = self.assertRaises(psycopg.OperationalError, self.session, gateway)
        return str(error)


class TunnelTests(SSHCase):
    """What goes through."""

    def test_verify_full_inside_and_half_a_hundred_sessions_in_one_connection(self) -> None:
        gateway = self.through(sslmode="verify-full", sslrootcert=self.server.root_crt)
        sessions = [self.session(gateway) for _ in range(50)]
        for number, session in enumerate(sessions):
            row = session.execute(
                "SELECT %s, ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()", [number]
            ).fetchone()
            self.assertEqual(row, (number, True))
        self.assertEqual(gateway.log().count(CONNECTED), 1)

    def test_bulk_both_ways_arrives_whole(self) -> None:
        session = self.session(self.through())
        session.execute("CREATE TEMPORARY TABLE rows (number int, text text)")
        with session.cursor().copy("COPY rows FROM STDIN") as copy:
            for number in range(20_000):
                copy.write_row((number, "x" * 1000))
        total = 0
        with session.cursor().copy("COPY rows TO STDOUT") as copy:
            for line in copy:
                total += len(line)
        expected = sum(len(str(number)) + 1002 for number in range(20_000))
        self.assertEqual(total, expected)

    def test_a_server_that_does_not_listen_is_said_by_the_SSH_server(self) -> None:
        gateway = self.through("--status", STATUS, port=str(free_port()))
        reason = "the SSH server could not connect to it (Connection refused)"
        self.assertIn(reason, self.why_refused(gateway))
        site = StatusSite(gateway)
        wait_until(lambda: reason in site.ask("/readyz")[1], lambda: site.ask("/readyz")[1])
        self.assertIn(f" through {self.ssh.address}) is not reachable", site.ask("/readyz")[1])
        self.assertIn(f'"upstream_via": "{self.ssh.address}"', site.ask("/status.json")[1])

    def test_the_server_restarts_sessions_end_and_new_ones_work(self) -> None:
        gateway = self.through()
        session = self.session(gateway)
        self.ssh.stop()
        self.assertRaises(psycopg.OperationalError, session.execute, "SELECT 1")
        self.assertIn("Connection refused", self.why_refused(gateway))
        self.ssh.start()
        again = self.session(gateway)
        self.assertEqual(again.execute("SELECT 1").fetchone(), (1,))

    def test_a_server_that_does_not_forward_is_named_with_what_to_change(self) -> None:
        self.ssh.stop()
        self.ssh.start("AllowTcpForwarding no")
        why = self.why_refused(self.through())
        self.assertIn(f"{self.ssh.address}: the SSH server does not forward this", why)
        self.assertIn("see AllowTcpForwarding and PermitOpen in its sshd_config", why)


class IdentityTests(SSHCase):
    """Who is at the other end, and who we are."""

    def test_a_host_key_that_is_not_known(self) -> None:
        known = self.ssh.directory / "empty"
        known.touch()
        why = self.why_refused(self.through(known=str(known)))
        self.assertIn("Host key verification failed: the host key ssh-ed25519 SHA256:", why)
        self.assertIn(f"is not known ({known})", why)

    def test_a_host_key_that_has_changed(self) -> None:
        known = self.ssh.known("other", file="changed")
        why = self.why_refused(self.through(known=known))
        self.assertIn("the host key of 127.0.0.1 has changed", why)
        self.assertIn(f'"{known}", line 1', why)

    def test_a_revoked_host_key(self) -> None:
        self.ssh.known("host_key", file="revoked")
        known = self.ssh.known("host_key", "@revoked", file="revoked")
        self.assertIn("is revoked in", self.why_refused(self.through(known=known)))

    def test_a_key_that_the_server_does_not_let_in(self) -> None:
        why = self.why_refused(self.through(key="other"))
        self.assertIn("Permission denied (publickey", why)
        self.assertIn("1 key was offered", why)

    def test_a_key_file_that_others_may_read_is_refused_at_the_start(self) -> None:
        path = Path(self.ssh.make_key("readable"))
        path.chmod(0o644)
        error = self.assertRaises(GatewayFailed, self.through, key="readable")
        self.assertIn(f'private key file "{path}" has group or world access', str(error))

    def let_in_with_SHA_256_alone(self, session: psycopg.Connection[tuple[object, ...]]) -> None:
        """The SSH server restarts, and lets in no other signatures. It ends a session."""
        self.ssh.stop()
        self.assertRaises(psycopg.OperationalError, session.execute, "SELECT 1")
        self.ssh.start("PubkeyAcceptedAlgorithms rsa-sha2-256")

    def test_RSA_with_a_passphrase(self) -> None:
        self.ssh.make_key("rsa", "rsa", "secret words")
        self.ssh.let_in("rsa")
        gateway = self.through("--ssh-passphrase-command", "echo secret words", key="rsa")
        self.let_in_with_SHA_256_alone(self.session(gateway))
        session = self.session(gateway)
        self.assertEqual(session.execute("SELECT 1").fetchone(), (1,))
        error = self.assertRaises(GatewayFailed, self.through, key="rsa")
        self.assertIn("set ssh_passphrase_command to a command that prints its", str(error))

    def test_workers_keep_key_and_connection_at_a_reload(self) -> None:
        self.ssh.make_key("encrypted", passphrase="secret")
        asked = self.ssh.directory / "asked"
        command = f"echo >> {asked}; echo secret"
        gateway = self.gateway(
            *("--workers", "2", "--upstream", f"host=localhost port={self.server.port}"),
            *("--upstream-via", self.ssh.address, "--ssh-known-hosts-file", self.ssh.known_hosts),
            *("--ssh-identity-file", str(self.ssh.directory / "encrypted")),
            *("--ssh-passphrase-command", command),
            listen="tcp:0:interface=127.0.0.1",
        )
        at_the_start = asked.read_text()
        gateway.signal(signal.SIGHUP)
        gateway.wait_for_log("reloaded: ")
        self.assertEqual(asked.read_text(), at_the_start)

    def test_keys_of_an_agent(self) -> None:
        socket_path = str(self.ssh.directory / "agent")
        agent = subprocess.Popen(["ssh-agent", "-D", "-a", socket_path], stdout=subprocess.DEVNULL)
        self.addCleanup(agent.wait)
        self.addCleanup(agent.kill)
        wait_until(lambda: os.path.exists(socket_path), lambda: "no agent")
        self.ssh.make_key("of_agent", "rsa")
        self.ssh.let_in("of_agent")
        env = {**environment(), "SSH_AUTH_SOCK": socket_path}
        key = str(self.ssh.directory / "of_agent")
        subprocess.run(["ssh-add", "-q", key], env=env, check=True, timeout=TIMEOUT)
        with tempfile.TemporaryDirectory() as home:
            gateway = self.gateway(
                *("--upstream", f"host=localhost port={self.server.port}"),
                *("--upstream-via", self.ssh.address),
                *("--ssh-known-hosts-file", self.ssh.known_hosts),
                env={"SSH_AUTH_SOCK": socket_path, "HOME": home},
            )
            self.let_in_with_SHA_256_alone(self.session(gateway))
            session = self.session(gateway)
            self.assertEqual(session.execute("SELECT 1").fetchone(), (1,))


class CommandTests(SSHCase):
    """``pgtls tunnel``."""

    def test_psql_through_a_socket_for_the_user_alone(self) -> None:
        directory = self.ssh.directory / "sockets"
        directory.mkdir()
        command = [
            *(*PGTLS, "tunnel", self.ssh.address),
            f"host=localhost port={self.server.port}",
            *("--socket", str(directory), "-i", str(self.ssh.directory / "id")),
            *("--known-hosts", self.ssh.known_hosts),
        ]
        tunnel = subprocess.Popen(
            command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        self.addCleanup(tunnel.stdout.close)
        self.addCleanup(tunnel.wait)
        self.addCleanup(tunnel.kill)
        path = directory / ".s.PGSQL.5432"
        wait_until(path.is_socket, lambda: "no socket")
        self.assertEqual(path.stat().st_mode & 0o777, 0o600)
        with psycopg.connect(f"host={directory} user=postgres dbname=postgres") as session:
            self.assertEqual(session.execute("SELECT 1").fetchone(), (1,))
        tunnel.send_signal(signal.SIGINT)
        said, _ = tunnel.communicate(timeout=TIMEOUT)
        self.assertIn(f"psql host={directory}\n", said)
        self.assertFalse(path.exists())


class CommandThatFailsTests(SynchronousTestCase):
    """``pgtls tunnel`` where it cannot listen."""

    def test_a_port_in_use_is_an_error_and_no_psql_line_is_printed(self) -> None:
        with socket.create_server((HOST, 0)) as taken:
            port = taken.getsockname()[1]
            command = [*PGTLS, "tunnel", "ssh://alice@localhost", "host=db", "--port", str(port)]
            with tempfile.TemporaryDirectory() as home:
                ended = subprocess.run(
                    command,
                    env={**environment(), "HOME": home},
                    check=False,
                    capture_output=True,
                    text=True,
                    timeout=TIMEOUT,
                )
        self.assertNotEqual(ended.returncode, 0)
        said = ended.stdout + ended.stderr
        self.assertIn("Address already in use", said)
        self.assertNotIn("psql", said)
