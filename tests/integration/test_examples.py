"""examples/: each is run as its first lines say, beside a real client or server."""

from __future__ import annotations

import sys
from pathlib import Path
from threading import Timer

import psycopg
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from tests.support.certificates import Files, authority, localhost
from tests.support.processes import Daemon, run
from tests.support.servers import HOST, free_port, postgres, psql

EXAMPLES = Path(__file__).parent.parent.parent / "examples"


class ExampleTests(TestCase):
    """The three of them."""

    def setUp(self) -> None:
        self.files = Files(Path(self.mktemp()).absolute())
        certificate, key = self.files.pair("server", localhost())
        self.root = self.files.write("root.crt", authority().pem())
        self.listen = f"pgtls:tcp:0:interface={HOST}:ssl_cert_file={certificate}:ssl_key_file={key}"

    async def start(self, name: str, *arguments: str) -> str:
        """Run one that listens.

        :returns: the connection string of a client that verifies it.
        """
        daemon = await Daemon.start(
            self,
            [sys.executable, str(EXAMPLES / name), self.listen, *arguments],
            r"listening on IPv4Address\(.*port=(\d+)\)",
        )
        where = f"host=localhost hostaddr={HOST} port={daemon.ready[1]}"
        return f"{where} user=postgres dbname=postgres sslmode=verify-full sslrootcert={self.root}"

    async def test_the_client_asks_a_server(self) -> None:
        server = postgres(17, ssl=True)
        conninfo = server.conninfo(sslmode="verify-ca", sslrootcert=self.root)
        done = await run([sys.executable, str(EXAMPLES / "client.py"), conninfo])
        self.assertEqual((done.code, done.err), (0, ""))
        self.assertIn("version='TLSv1.3'", done.out)
        self.assertEqual(done.out.splitlines()[-1], "42")

    async def test_the_client_says_why_there_is_no_session(self) -> None:
        server = postgres(17, ssl=True)
        conninfo = server.conninfo(dbname="nowhere", sslmode="verify-ca", sslrootcert=self.root)
        done = await run([sys.executable, str(EXAMPLES / "client.py"), conninfo])
        self.assertEqual((done.code, done.err), (1, 'database "nowhere" does not exist\n'))

    async def test_the_server_answers_psql(self) -> None:
        conninfo = await self.start("server.py")
        done = await run([psql(17), "-XAt", "-c", "SELECT 1", conninfo])
        self.assertEqual((done.code, done.out, done.err), (0, "TLSv1.3\n", ""))

    async def test_a_session_through_the_proxy(self) -> None:
        conninfo = await self.start("proxy.py", postgres(18).conninfo())
        # More than what either side buffers, both ways.
        rows = "SELECT count(*), sum(length(repeat(i::text, 1000))) FROM generate_series(1, 9999) i"
        done = await run([psql(17), "-XAt", "-c", rows, conninfo])
        self.assertEqual((done.code, done.out, done.err), (0, "9999|38889000\n", ""))
        copy = "COPY (SELECT repeat('x', 1000) FROM generate_series(1, 20000)) TO STDOUT"
        done = await run([psql(17), "-XAt", "-c", copy, conninfo])
        self.assertEqual((done.code, len(done.out)), (0, 20000 * 1001))

    async def test_a_cancel_request_through_the_proxy(self) -> None:
        conninfo = await self.start("proxy.py", postgres(18).conninfo())

        def cancelled() -> bool:
            with psycopg.connect(conninfo, autocommit=True) as connection:
                timer = Timer(0.5, connection.cancel_safe)
                timer.start()
                try:
                    connection.execute("SELECT pg_sleep(60)")
                except psycopg.errors.QueryCanceled:
                    return True
                finally:
                    timer.join()
            return False

        self.assertTrue(await deferToThread(cancelled))

    async def test_the_proxy_says_why_it_reaches_no_server(self) -> None:
        nobody = f"host={HOST} port={free_port()}"
        conninfo = await self.start("proxy.py", nobody)
        done = await run([psql(17), "-XAt", "-c", "SELECT 1", conninfo])
        self.assertEqual(done.code, 2)
        self.assertIn("Connection refused", done.err)
