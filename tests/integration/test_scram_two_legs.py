"""SCRAM over two connections with two certificates: the gateway authenticates, and logs in."""

from __future__ import annotations

import asyncio
import signal
import socket
import ssl
import struct
import subprocess
import threading
from pathlib import Path

import asyncpg
import pg8000.dbapi
import psycopg
from twisted.trial.unittest import SynchronousTestCase

from pgtls.policy.auth_file import format_auth_file
from pgtls.wire.messages import ErrorResponse
from pgtls.wire.scram_secret import ScramSecret
from tests.integration.test_scram_postgresql import MALFORMED, Wire
from tests.support.certificates import Authority, Files
from tests.support.command_line import pgtls
from tests.support.gateway_daemon import Gateway, GatewayFailed
from tests.support.processes import TIMEOUT, environment
from tests.support.raw_client import SSL_REQUEST, startup_message
from tests.support.servers import HOST, Server, available, psql, scram_server

BOUND = {"channel_binding": "require", "require_auth": "scram-sha-256"}


def secret_of(server: Server, role: str = "scramuser") -> ScramSecret:
    """What pg_authid has."""
    text = server.psql(f"SELECT rolpassword FROM pg_authid WHERE rolname = '{role}'")
    return ScramSecret.parse(text.strip())


class TwoLegsCase(SynchronousTestCase):
    """A gateway with an auth_file in front of a server."""

    def setUp(self) -> None:
        self.directory = Path(self.mktemp()).absolute()  # type: ignore[no-untyped-call]
        self.directory.mkdir()
        self.auth_file = self.directory / "userlist.txt"

    def write(self, *entries: tuple[bytes, ScramSecret]) -> None:
        self.auth_file.write_bytes(format_auth_file(entries))
        self.auth_file.chmod(0o600)

    def gateway(self, server: Server, *options: str, upstream: str = "") -> Gateway:
        if not self.auth_file.exists():
            self.write((b"scramuser", secret_of(server)))
        started = Gateway(
            "--upstream",
            upstream
            or f"host=localhost hostaddr={HOST} port={server.port} sslmode=verify-full "
            f"sslrootcert={server.root_crt} channel_binding=require",
            "--auth-file",
            str(self.auth_file),
            *(options or ("--auth-type", "scram-sha-256")),
        )
        self.addCleanup(started.remove)
        return started

    def conninfo(self, gateway: Gateway, **parameters: str) -> str:
        wanted = {"user": "scramuser", "password": "secret", **BOUND, **parameters}
        return gateway.conninfo(**wanted)  # type: ignore[arg-type]

    def refused(self, conninfo: str) -> str:
        with self.assertRaises(psycopg.OperationalError) as raised:
            psycopg.connect(conninfo).close()
        return str(raised.exception)


class ClientTests(TwoLegsCase):
    """Both channels bound, each to another certificate."""

    def test_libpq(self) -> None:
        gateway = self.gateway(scram_server(17, ssl=True))
        with psycopg.connect(self.conninfo(gateway)) as connection:
            row = connection.execute("SELECT current_user, pg_backend_pid()").fetchone()
            assert row is not None
            self.assertEqual(row[0], "scramuser")
            connection.execute("CREATE TEMP TABLE t (v text)")
            with connection.cursor().copy("COPY t FROM STDIN") as copy:
                copy.write("x\n" * 100_000)
            counted = connection.execute("SELECT count(*) FROM t").fetchone()
            self.assertEqual(counted, (100_000,))
        gateway.wait_for_log(r"method=scram-sha-256: user=scramuser")
        gateway.wait_for_log("upstream: reached")
        self.assertNotIn("channel binding will fail", gateway.log())
        self.assertNotIn("SCRAM-SHA-256$", gateway.log())

    def test_psql_of_other_versions(self) -> None:
        gateway = self.gateway(scram_server(17, ssl=True))
        for version in (15, 17):
            if not available(version):
                continue
            conninfo = self.conninfo(gateway)
            if version < 16:
                conninfo = conninfo.replace("require_auth='scram-sha-256'", "")
            done = subprocess.run(
                [psql(version), "-XAtc", "SELECT current_user", conninfo],
                env=environment(),
                capture_output=True,
                text=True,
                check=False,
                timeout=TIMEOUT,
            )
            self.assertEqual((done.stdout, done.stderr), ("scramuser\n", ""), version)

    def test_other_clients(self) -> None:
        gateway = self.gateway(scram_server(17, ssl=True))
        context = ssl.create_default_context(cafile=gateway.root_crt)

        async def by_asyncpg() -> object:
            connection = await asyncpg.connect(
                host="localhost",
                port=gateway.port,
                user="scramuser",
                password="secret",
                database="postgres",
                ssl=context,
            )
            try:
                return await connection.fetchval("SELECT current_user")
            finally:
                await connection.close()

        self.assertEqual(asyncio.run(by_asyncpg()), "scramuser")
        connection = pg8000.dbapi.connect(
            user="scramuser",
            password="secret",
            host="localhost",
            port=gateway.port,
            database="postgres",
            ssl_context=context,
        )
        cursor = connection.cursor()
        cursor.execute("SELECT current_user")
        self.assertEqual(list(cursor.fetchone()), ["scramuser"])
        connection.close()

    def test_kinds_of_certificates(self) -> None:
        server = scram_server(17, ssl=True)
        root = Authority("root")
        files = Files(self.directory)
        ca = files.write("ca.crt", root.pem())
        for kind in ("rsa", "ecdsa", "ed25519"):
            files.pair(kind, root.issue(["localhost"], key=kind))  # type: ignore[arg-type]
            gateway = self.gateway(
                server,
                "--auth-type",
                "scram-sha-256",
                "--ssl-cert-file",
                str(self.directory / f"{kind}.crt"),
                "--ssl-key-file",
                str(self.directory / f"{kind}.key"),
            )
            conninfo = self.conninfo(gateway, sslrootcert=ca)
            psycopg.connect(conninfo).close()

    def test_a_client_in_plaintext(self) -> None:
        gateway = self.gateway(
            scram_server(17, ssl=True), "--auth-type", "scram-sha-256", "--ssl", "on"
        )
        plain = self.conninfo(gateway, sslmode="disable", channel_binding="prefer", sslrootcert="x")
        psycopg.connect(plain).close()

    def test_cancel_requests(self) -> None:
        gateway = self.gateway(scram_server(17, ssl=True))
        with psycopg.connect(self.conninfo(gateway)) as connection:
            connection.execute("SET statement_timeout = 0")
            threading.Timer(0.5, connection.cancel_safe).start()
            with self.assertRaises(psycopg.errors.QueryCanceled):
                connection.execute("SELECT pg_sleep(60)")

    def test_servers_without_tls_and_without_a_password(self) -> None:
        server = scram_server(17)
        self.write((b"scramuser", secret_of(server)), (b"postgres", secret_of(server)))
        gateway = self.gateway(server, upstream=f"host={HOST} port={server.port} sslmode=disable")
        psycopg.connect(self.conninfo(gateway)).close()
        # The server trusts this one: it is the gateway that asks.
        psycopg.connect(self.conninfo(gateway, user="postgres")).close()
        self.assertIn(
            'password authentication failed for user "postgres"',
            self.refused(self.conninfo(gateway, user="postgres", password="x")),
        )


class RefusalTests(TwoLegsCase):
    """Who does not get in, and what they read."""

    def test_wrong_passwords_and_unknown_roles_alike(self) -> None:
        gateway = self.gateway(scram_server(17, ssl=True))
        for user, password in (("scramuser", "x"), ("nobody", "secret"), ("postgres", "secret")):
            self.assertIn(
                f'FATAL:  password authentication failed for user "{user}"',
                self.refused(self.conninfo(gateway, user=user, password=password)),
            )
        gateway.wait_for_log('Role "nobody" has no secret in the auth_file: user=')
        gateway.wait_for_log("The password does not match: user=")

    def test_a_stale_secret(self) -> None:
        server = scram_server(17, ssl=True)
        self.write((b"scramuser", ScramSecret.build("secret", b"another salt", 4096)))
        gateway = self.gateway(server)
        self.assertIn("the auth_file is out of date", self.refused(self.conninfo(gateway)))
        self.write((b"scramuser", secret_of(server)))
        gateway.signal(signal.SIGHUP)
        gateway.wait_for_log("reloaded: new connections")
        psycopg.connect(self.conninfo(gateway)).close()

    def test_a_server_that_asks_for_the_password(self) -> None:
        for method, said in (("password", "password"), ("md5", "md5")):
            server = Server(
                17,
                hba=f"local all all trust\nhost all all all {method}\n",
                conf={"password_encryption": "md5" if method == "md5" else "scram-sha-256"},
            )
            server.psql("CREATE USER scramuser PASSWORD 'secret'")
            self.write((b"scramuser", ScramSecret.build("secret", b"salt", 4096)))
            gateway = self.gateway(
                server, upstream=f"host={HOST} port={server.port} sslmode=disable"
            )
            self.assertIn(
                f"the server asks for {said} authentication",
                self.refused(self.conninfo(gateway)),
            )
            server.stop()

    def test_malformed_messages_are_answered_as_postgresql_does(self) -> None:
        server = scram_server(17, ssl=True)
        gateway = self.gateway(server)
        for bodies in MALFORMED:
            answers = [
                self.answer(address, root, bodies)
                for address, root in (
                    ((HOST, server.port), server.root_crt),
                    (gateway.address, gateway.root_crt),
                )
            ]
            self.assertEqual(answers[0], answers[1], bodies)

    def answer(self, address: tuple[str, int], root: str, bodies: list[bytes]) -> list[str]:
        """The kinds of the messages, and what is in the error."""
        connection: socket.socket = socket.create_connection(address, timeout=TIMEOUT)
        connection.sendall(SSL_REQUEST)
        assert connection.recv(1) == b"S"
        connection = ssl.create_default_context(cafile=root).wrap_socket(
            connection, server_hostname="localhost"
        )
        with connection:
            wire = Wire(connection)
            connection.sendall(startup_message(user="scramuser"))
            said, nonce = [], b""
            kind, answer = wire.message()
            for body in bodies:
                wire.send(b"p", body.replace(b"{nonce}", nonce))
                kind, answer = wire.message()
                said.append(
                    f"{kind!r} {struct.unpack('!I', answer[:4])[0] if kind == b'R' else ''}"
                )
                if kind == b"E":
                    error = ErrorResponse.parse(answer, b"")
                    return said + [error.fields.get(name, "") for name in "SVCMD"]
                nonce = answer[6:].partition(b",")[0]
            return said

    def test_another_message_in_place_of_an_answer(self) -> None:
        server = scram_server(17)
        gateway = self.gateway(
            server,
            "--auth-type",
            "scram-sha-256",
            "--ssl",
            "on",
            upstream=f"host={HOST} port={server.port} sslmode=disable",
        )
        answers = []
        for address in ((HOST, server.port), gateway.address):
            with socket.create_connection(address, timeout=TIMEOUT) as connection:
                wire = Wire(connection)
                connection.sendall(startup_message(user="scramuser"))
                wire.message()
                wire.send(b"Q", b"SELECT 1\0")
                kind, body = wire.message()
                error = ErrorResponse.parse(body, b"")
                answers.append((kind, error.sqlstate, error.message))
        self.assertEqual(answers[0], answers[1])

    def test_every_mistake_at_the_start(self) -> None:
        server = scram_server(17)
        self.auth_file.write_text('"alice" "secret"\n"bob" "md5' + "0" * 32 + '"\n')
        with self.assertRaises(GatewayFailed) as raised:
            self.gateway(server)
        self.assertIn("line 1 of auth_file", str(raised.exception))
        self.assertIn("line 2 of auth_file", str(raised.exception))
        with self.assertRaises(GatewayFailed) as raised:
            self.gateway(server, "--auth-type", "scram-sha-256", "--auth-file", "")
        self.assertIn("auth_type = scram-sha-256 needs auth_file", str(raised.exception))


class HbaTests(TwoLegsCase):
    """The method of a line."""

    def test_lines_decide(self) -> None:
        server = scram_server(17, ssl=True)
        hba = self.directory / "pg_hba.conf"
        hba.write_text("hostssl all scramuser all scram-sha-256\nhostssl all postgres all trust\n")
        self.write((b"scramuser", secret_of(server)))
        gateway = self.gateway(
            server,
            *("--hba-file", str(hba), "--tls-parameters", "on"),
            upstream=f"host=localhost hostaddr={HOST} port={server.port} sslmode=verify-full "
            f"sslrootcert={server.root_crt}",
        )
        told = "SELECT current_setting('pgtls.auth_method')"
        with psycopg.connect(self.conninfo(gateway)) as connection:
            self.assertEqual(connection.execute(told).fetchone(), ("scram-sha-256",))
        gateway.wait_for_log(rf"method=scram-sha-256 \({hba}:1\): user=scramuser")
        with psycopg.connect(gateway.conninfo()) as connection:
            self.assertEqual(connection.execute(told).fetchone(), ("trust",))
        self.assertIn(
            'password authentication failed for user "scramuser"',
            self.refused(self.conninfo(gateway, password="x")),
        )

    def test_a_line_needs_an_auth_file(self) -> None:
        hba = self.directory / "pg_hba.conf"
        hba.write_text("host all all all scram-sha-256\n")
        with self.assertRaises(GatewayFailed) as raised:
            self.gateway(scram_server(17), "--hba-file", str(hba), "--auth-file", "")
        self.assertIn("scram-sha-256 needs auth_file", str(raised.exception))


class ExampleTests(TwoLegsCase):
    """conf/scram.toml"""

    def test_it_works(self) -> None:
        server = scram_server(17, ssl=True)
        self.write((b"scramuser", secret_of(server)))
        files = Files(self.directory)
        files.pair("server", Authority("gateways").issue(cn="localhost"))
        text = (Path(__file__).parents[2] / "conf" / "scram.toml").read_text("utf-8")
        for old, new in {
            "/etc/pgtls": str(self.directory),
            "tcp:6432": f"tcp:0:interface={HOST}",
            "host=db.example.com": f"host=localhost hostaddr={HOST} port={server.port}",
            "sslrootcert=system": f"sslrootcert={server.root_crt}",
        }.items():
            self.assertIn(old, text)
            text = text.replace(old, new)
        gateway = Gateway(config='state_dir = "{state}"\n' + text)
        self.addCleanup(gateway.remove)
        conninfo = self.conninfo(gateway, sslmode="require", sslrootcert="")
        with psycopg.connect(conninfo) as connection:
            row = connection.execute("SELECT current_user").fetchone()
        self.assertEqual(row, ("scramuser",))


class CommandTests(TwoLegsCase):
    """``pgtls auth-file``."""

    def test_what_it_writes_lets_clients_in(self) -> None:
        server = scram_server(17, ssl=True)
        done = pgtls("auth-file", server.conninfo(), "-o", str(self.auth_file), "scramuser")
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertEqual(self.auth_file.stat().st_mode & 0o777, 0o600)
        gateway = self.gateway(server)
        psycopg.connect(self.conninfo(gateway)).close()
        again = pgtls("auth-file", server.conninfo(), "-o", str(self.auth_file))
        self.assertEqual(again.returncode, 1)
        self.assertIn("exists: --force replaces it", again.stderr)
        forced = pgtls("auth-file", "--force", server.conninfo(), "-o", str(self.auth_file))
        self.assertEqual(forced.returncode, 0, forced.stderr)
        self.assertIn("postgres has no SCRAM secret", forced.stdout + forced.stderr)

    def test_each_way_to_log_in(self) -> None:
        for method in ("scram-sha-256", "password", "md5"):
            for tls in (False, True):
                server = Server(
                    17,
                    ssl=tls,
                    hba=f"local all all trust\nhost all all all {method}\n",
                    conf={"password_encryption": "md5" if method == "md5" else "scram-sha-256"},
                )
                server.psql("CREATE USER boss SUPERUSER PASSWORD 'b\u00f6ss'")
                server.psql("SET password_encryption = 'scram-sha-256'; CREATE USER a PASSWORD 'x'")
                wanted = {"user": "boss", "password": "b\u00f6ss"}
                if tls:
                    wanted |= {"sslmode": "verify-ca", "sslrootcert": str(server.root_crt)}
                output = self.directory / f"{method}-{tls}"
                done = pgtls("auth-file", server.conninfo(**wanted), "-o", str(output), "a")
                self.assertEqual((done.returncode, done.stderr), (0, ""), method)
                wanted["password"] = "wrong"
                done = pgtls("auth-file", server.conninfo(**wanted), "-o", f"{output}2", "a")
                self.assertEqual(done.returncode, 1)
                self.assertIn("password authentication failed", done.stderr)
                del wanted["password"]
                done = pgtls("auth-file", server.conninfo(**wanted), "-o", f"{output}2", "a")
                self.assertIn("the server asks for a password", done.stderr)
                self.assertFalse((self.directory / f"{output}2").exists())
                server.stop()

    def test_who_cannot_be_written(self) -> None:
        server = scram_server(17)
        done = pgtls("auth-file", server.conninfo(), "-o", str(self.auth_file), "nobody")
        self.assertEqual(done.returncode, 1)
        self.assertIn('role "nobody" has no SCRAM secret', done.stderr)
        unprivileged = server.conninfo(user="scramuser", password="secret")
        done = pgtls("auth-file", unprivileged, "-o", str(self.auth_file))
        self.assertIn("permission denied", done.stderr)
        self.assertFalse(self.auth_file.exists())
        self.assertEqual(pgtls("auth-file", "port=x", "-o", str(self.auth_file)).returncode, 2)
