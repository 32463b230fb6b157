"""Clients as they are in the field, through the gateway: who gets in, what arrives, cancelling."""

from __future__ import annotations

import asyncio
import hashlib
import signal
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import closing

import asyncpg
import pg8000.dbapi
import psycopg

from tests.support.gateway_daemon import Gateway, GatewayCase, in_thread, wait_until
from tests.support.processes import TIMEOUT, environment
from tests.support.raw_client import RawSession, answer, connect
from tests.support.servers import HOST, Server, available, free_port, postgres, psql, scram_server

SESSION = "SELECT current_user, inet_server_port()"
MEGABYTE = 1 << 20


def psql_says(version: int, conninfo: str, sql: str) -> str:
    """What that psql prints for ``sql``, error messages included."""
    done = subprocess.run(
        [psql(version), "-XAtc", sql, conninfo],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT,
    )
    return (done.stdout + done.stderr).rstrip("\n")


class VerifyFull(GatewayCase):
    """Each client verifies the certificate that the gateway made for itself."""

    def setUp(self) -> None:
        self.gateway_ = self.shared()
        self.expected = ("postgres", postgres(17).port)
        self.verifying = ssl.create_default_context(cafile=self.gateway_.root_crt)

    def psql(self, version: int, **parameters: str | int | None) -> None:
        said = psql_says(version, self.gateway_.conninfo(**parameters), SESSION)
        self.assertEqual(said, "|".join(map(str, self.expected)))

    def test_psql_of_the_distribution(self) -> None:
        """libpq 15 on Debian 12: it offers no ALPN."""
        self.psql(15 if available(15) else 17)

    def test_psql_17(self) -> None:
        self.psql(17)

    def test_psql_17_with_direct_tls(self) -> None:
        self.psql(17, sslnegotiation="direct")

    def test_psql_18_has_no_tls_and_is_refused(self) -> None:
        said = psql_says(18, self.gateway_.conninfo(sslmode=None, sslrootcert=None), SESSION)
        self.assertIn("FATAL:  connection without SSL encryption refused", said)

    def test_psycopg(self) -> None:
        with psycopg.connect(self.gateway_.conninfo()) as connection:
            self.assertGreaterEqual(psycopg.pq.version(), 180000)
            self.assertEqual(connection.execute(SESSION).fetchone(), self.expected)

    def test_psycopg_with_direct_tls_and_protocol_3_2(self) -> None:
        conninfo = self.gateway_.conninfo(sslnegotiation="direct", max_protocol_version="3.2")
        with psycopg.connect(conninfo) as connection:
            self.assertEqual(connection.execute(SESSION).fetchone(), self.expected)

    def test_asyncpg(self) -> None:
        async def session() -> tuple[object, ...]:
            connection = await asyncpg.connect(
                host="localhost",
                port=self.gateway_.port,
                user="postgres",
                database="postgres",
                ssl=self.verifying,
            )
            row = await connection.fetchrow(SESSION)
            await connection.close()
            return tuple(row)

        self.assertEqual(asyncio.run(session()), self.expected)

    def test_pg8000(self) -> None:
        connection = pg8000.dbapi.connect(
            user="postgres",
            database="postgres",
            host="localhost",
            port=self.gateway_.port,
            ssl_context=self.verifying,
        )
        with closing(connection), closing(connection.cursor()) as cursor:
            cursor.execute(SESSION)
            self.assertEqual(tuple(cursor.fetchone()), self.expected)

    def test_a_password(self) -> None:
        upstream = scram_server().conninfo(user=None, dbname=None, sslmode="disable")
        gateway = self.gateway("--upstream", upstream)
        conninfo = gateway.conninfo(user="scramuser", password="secret")
        with psycopg.connect(conninfo) as connection:
            self.assertEqual(connection.info.user, "scramuser")

    def test_a_replication_connection(self) -> None:
        conninfo = self.gateway_.conninfo(replication="database")
        self.assertIn("|postgres", psql_says(17, conninfo, "IDENTIFY_SYSTEM"))

    def test_a_wrong_name_is_noticed_by_the_client(self) -> None:
        conninfo = self.gateway_.conninfo(host="db.example.com")
        with self.assertRaisesRegex(psycopg.OperationalError, "does not match host name"):
            psycopg.connect(conninfo)


def blocks(megabytes: int) -> Iterator[bytes]:
    """That many megabytes of text for COPY, 64 kB at a time, no two alike."""
    for number in range(megabytes * 16):
        digits = hashlib.sha256(str(number).encode()).hexdigest()
        yield ((digits * 16)[:1023] + "\n").encode() * 64


class Copy(GatewayCase):
    megabytes = 64

    def both_ways(self, upstream: Server, gateway: Gateway) -> None:
        """COPY FROM, then COPY TO: what comes out has the digest of what went in."""
        sent, received = hashlib.sha256(), hashlib.sha256()
        with psycopg.connect(gateway.conninfo()) as connection, connection.cursor() as cursor:
            cursor.execute("CREATE TEMPORARY TABLE copied (line text)")
            with cursor.copy("COPY copied FROM STDIN") as copy:
                for block in blocks(self.megabytes):
                    sent.update(block)
                    copy.write(block)
            with cursor.copy("COPY copied TO STDOUT") as copy:
                for part in copy:
                    received.update(part)
        self.assertEqual(received.hexdigest(), sent.hexdigest())

    def test_both_ways(self) -> None:
        self.both_ways(postgres(17), self.shared())

    def test_both_ways_with_tls_on_both_sides(self) -> None:
        server = postgres(17, ssl=True)
        gateway = self.gateway("--upstream", server.conninfo(user=None, sslmode="require"))
        self.both_ways(server, gateway)


#: What a gateway may need for a connection whose other side does not read.
ALLOWANCE = 8 * MEGABYTE


class BackPressure(GatewayCase):
    """Memory stays bounded when one side does not read, and nothing gets lost."""

    def test_a_client_that_does_not_read(self) -> None:
        gateway = self.shared()
        with closing(psycopg.connect(gateway.conninfo(), autocommit=True)) as connection:
            before = gateway.memory()
            connection.pgconn.send_query(
                b"SELECT repeat('x', 1000) FROM generate_series(1, 100000)"
            )
            connection.pgconn.set_single_row_mode()
            connection.pgconn.flush()
            gateway.wait_until_still()
            self.assertLess(gateway.memory() - before, ALLOWANCE)
            rows = 0
            while (result := connection.pgconn.get_result()) is not None:
                rows += result.ntuples
            self.assertEqual(rows, 100000)

    def test_a_client_that_never_reads_and_leaves(self) -> None:
        gateway = self.gateway("--upstream", postgres(17).conninfo(user=None, sslmode="disable"))
        before = gateway.open_files_at_rest()
        with closing(psycopg.connect(gateway.conninfo(), autocommit=True)) as connection:
            connection.pgconn.send_query(
                b"SELECT repeat('x', 1000) FROM generate_series(1, 100000)"
            )
            connection.pgconn.flush()
            gateway.wait_until_still()
        gateway.wait_for_open_files(before)

    def test_a_server_that_does_not_read(self) -> None:
        server = postgres(17)
        gateway = self.shared()
        server.psql(STALLING_TABLE)
        self.addCleanup(server.psql, "DROP TABLE stalling; DROP FUNCTION stall")
        lock = psycopg.connect(server.conninfo(), autocommit=True)
        with closing(lock), closing(psycopg.connect(gateway.conninfo())) as connection:
            lock.execute("SELECT pg_advisory_lock(1)")
            before = gateway.memory()
            sending = in_thread(lambda: copy_in(connection, 64))
            gateway.wait_until_still()
            self.assertLess(gateway.memory() - before, ALLOWANCE)
            self.assertTrue(sending.is_alive())
            lock.execute("SELECT pg_advisory_unlock(1)")
            sending.join(TIMEOUT)
            self.assertEqual(
                connection.execute("SELECT count(*) FROM stalling").fetchone(), (65536,)
            )


STALLING_TABLE = """
    CREATE TABLE stalling (line text);
    CREATE FUNCTION stall() RETURNS trigger LANGUAGE plpgsql AS
        'BEGIN PERFORM pg_advisory_xact_lock_shared(1); RETURN NULL; END';
    CREATE TRIGGER stall BEFORE INSERT ON stalling FOR EACH STATEMENT EXECUTE FUNCTION stall();
"""


def copy_in(connection: psycopg.Connection, megabytes: int) -> None:
    with connection.cursor().copy("COPY stalling FROM STDIN") as copy:
        for block in blocks(megabytes):
            copy.write(block)


class Cancel(GatewayCase):
    """A statement is cancelled where it runs, whichever of the servers that is."""

    def start(self, *options: str) -> Gateway:
        """A gateway in front of two servers, either of which may get a session."""
        self.servers = {each.port: each for each in (postgres(17), postgres(18))}
        ports = ",".join(map(str, self.servers))
        upstream = f"host={HOST},{HOST} port={ports} sslmode=disable load_balance_hosts=random"
        return self.gateway("--upstream", upstream, *options)

    def sleepers(self, gateway: Gateway, **parameters: str) -> list[psycopg.Connection]:
        """A session on each of the servers, asleep for an hour."""
        found: dict[int, psycopg.Connection] = {}
        while len(found) < 2:
            connection = psycopg.connect(gateway.conninfo(**parameters), autocommit=True)
            self.addCleanup(connection.close)
            row = connection.execute("SELECT inet_server_port()").fetchone()
            assert row is not None
            found[row[0]] = connection
        for port, connection in found.items():
            self.sleep(self.servers[port], connection)
        return list(found.values())

    def sleep(self, server: Server, connection: psycopg.Connection) -> None:
        connection.pgconn.send_query(b"SELECT pg_sleep(3600)")
        pid = connection.info.backend_pid
        asleep = f"SELECT wait_event FROM pg_stat_activity WHERE pid = {pid}"
        wait_until(lambda: server.psql(asleep) == "PgSleep", lambda: "it does not sleep")
        self.assertTrue(self.sleeps(connection))

    def sleeps(self, connection: psycopg.Connection) -> bool:
        connection.pgconn.consume_input()
        return bool(connection.pgconn.is_busy())

    def cancelled(self, connection: psycopg.Connection) -> None:
        result = connection.pgconn.get_result()
        assert result is not None
        self.assertEqual(result.error_field(psycopg.pq.DiagnosticField.SQLSTATE), b"57014")
        self.assertIsNone(connection.pgconn.get_result())

    def test_in_plaintext_as_libpq_before_17(self) -> None:
        first, second = self.sleepers(self.start())
        first.cancel()
        self.cancelled(first)
        self.assertTrue(self.sleeps(second))
        second.cancel()
        self.cancelled(second)

    def test_inside_tls_as_libpq_18(self) -> None:
        first, second = self.sleepers(self.start("--cancel", "tls"))
        first.cancel_safe()
        self.cancelled(first)
        self.assertTrue(self.sleeps(second))
        second.cancel_safe()
        self.cancelled(second)

    def test_the_long_key_of_protocol_3_2(self) -> None:
        upstream = postgres(18).conninfo(user=None, dbname=None, sslmode="disable")
        gateway = self.gateway("--upstream", upstream)
        with psycopg.connect(gateway.conninfo(max_protocol_version="3.2")) as connection:
            self.assertEqual(connection.pgconn.full_protocol_version, 30002)
            self.sleep(postgres(18), connection)
            connection.cancel_safe()
            self.cancelled(connection)

    def test_to_an_upstream_with_tls(self) -> None:
        server = postgres(17, ssl=True)
        upstream = server.conninfo(user=None, dbname=None, sslmode="require")
        gateway = self.gateway("--upstream", upstream)
        with psycopg.connect(gateway.conninfo()) as connection:
            self.sleep(server, connection)
            connection.cancel()
            self.cancelled(connection)

    def test_to_an_upstream_on_a_unix_socket(self) -> None:
        server = postgres(17)
        gateway = self.gateway("--upstream", f"host={server.socket_dir} port={server.port}")
        with psycopg.connect(gateway.conninfo()) as connection:
            self.sleep(server, connection)
            connection.cancel()
            self.cancelled(connection)

    def interrupted(self, version: int) -> None:
        """Ctrl-C at a psql that sleeps."""
        server, gateway = postgres(17), self.shared()
        name = f"interrupted {version}"
        conninfo = gateway.conninfo(application_name=name)
        psql_ = subprocess.Popen(
            [psql(version), "-Xc", "SELECT pg_sleep(3600)", conninfo],
            env=environment(),
            stderr=subprocess.PIPE,
            text=True,
        )
        asleep = f"SELECT wait_event FROM pg_stat_activity WHERE application_name = '{name}'"
        wait_until(lambda: server.psql(asleep) == "PgSleep", lambda: "it does not sleep")
        psql_.send_signal(signal.SIGINT)
        _, said = psql_.communicate(timeout=TIMEOUT)
        self.assertIn("ERROR:  canceling statement due to user request", said)

    def test_an_interrupt_at_the_distributions_psql(self) -> None:
        self.interrupted(15 if available(15) else 17)

    def test_an_interrupt_at_psql_17(self) -> None:
        self.interrupted(17)

    def test_in_plaintext_where_only_tls_is_allowed(self) -> None:
        gateway = self.start("--cancel", "tls")
        first, _ = self.sleepers(gateway)
        first.cancel()
        gateway.wait_for_log('cancel request in plaintext refused: cancel is "tls"')
        self.assertTrue(self.sleeps(first))


class CancelByHand(GatewayCase):
    """CancelRequests that libpq would not send."""

    def start(self, upstream: str = "") -> Gateway:
        self.server = postgres(17)
        upstream = upstream or self.server.conninfo(user=None, dbname=None, sslmode="disable")
        return self.gateway("--ssl", "on", "--upstream", upstream)

    def sleeper(self, gateway: Gateway) -> RawSession:
        session = RawSession(gateway.address)
        self.addCleanup(session.close)
        session.send_query("SELECT pg_sleep(3600)")
        wait_until(lambda: self.asleep(session), lambda: "it does not sleep")
        return session

    def asleep(self, session: RawSession) -> bool:
        query = f"SELECT wait_event FROM pg_stat_activity WHERE pid = {session.pid}"
        return self.server.psql(query) == "PgSleep"

    def cancelled(self, session: RawSession) -> None:
        answers = dict(session.messages())
        self.assertIn(b"C57014\0Mcanceling statement due to user request", answers[b"E"])

    def test_a_client_that_does_not_wait_for_the_end(self) -> None:
        """As drivers do that send the request and close."""
        gateway = self.start()
        session = self.sleeper(gateway)
        with connect(gateway.address) as connection:
            connection.sendall(session.cancel_request())
        self.cancelled(session)

    def test_a_wrong_key_does_nothing_and_is_not_answered(self) -> None:
        gateway = self.start()
        session = self.sleeper(gateway)
        wrong = bytearray(session.cancel_request())
        wrong[-1] ^= 1
        self.assertEqual(answer(gateway.address, bytes(wrong)), b"")
        self.assertTrue(self.asleep(session))

    def test_a_session_that_is_over(self) -> None:
        gateway = self.start()
        session = RawSession(gateway.address)
        session.close()
        gateway.wait_for_log("disconnection: user=postgres")
        self.assertEqual(answer(gateway.address, session.cancel_request()), b"")

    def test_the_session_of_another_gateway_where_one_of_the_hosts_is_down(self) -> None:
        server = postgres(17)
        ports = f"{free_port()},{server.port}"
        upstream = f"host={HOST},{HOST} port={ports} sslmode=disable"
        session = self.sleeper(self.start(upstream))
        self.assertEqual(answer(self.start(upstream).address, session.cancel_request()), b"")
        self.cancelled(session)
