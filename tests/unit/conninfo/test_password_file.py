"""``~/.pgpass``."""

from __future__ import annotations

import os
from pathlib import Path

import psycopg.conninfo
from psycopg.pq import PGconn
from twisted.trial.unittest import SynchronousTestCase

from pgtls.conninfo.hosts import Host, default_host
from pgtls.conninfo.password_file import password_from_file
from pgtls.errors import ConfigurationError

FILE = rb"""# a comment
db.example.com:5432:sales:alice:first
db.example.com:5432:sales:alice:second
db.example.com:*:*:bob:any port
192.0.2.1:5432:*:*:by address
localhost:5432:*:*:local
a\:b:5432:d\\b:*:p\:a\\ss\word:not this
too:few:fields
db.example.com:5432:empty:carol:
*:*:*:dave:last
"""


class PasswordFileTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.path = Path(self.mktemp())  # type: ignore[no-untyped-call]
        self.path.write_bytes(FILE)
        self.path.chmod(0o600)

    def test_the_first_line_that_matches(self) -> None:
        for host, database, user, password in (
            (Host("db.example.com", "", 5432), "sales", "alice", b"first"),
            (Host("db.example.com", "192.0.2.1", 5432), "sales", "alice", b"first"),
            (Host("db.example.com", "", 5433), "sales", "alice", None),
            (Host("db.example.com", "", 7), "x", "bob", b"any port"),
            (Host("", "192.0.2.1", 5432), "x", "alice", b"by address"),
            (Host(default_host(), "", 5432), "x", "alice", b"local"),
            (Host("/elsewhere", "", 5432), "x", "alice", None),
            (Host("a:b", "", 5432), "d\\b", "x", b"p:a\\ssword"),
            (Host("db.example.com", "", 5432), "empty", "carol", b""),
            (Host("other", "", 1), "x", "dave", b"last"),
        ):
            self.assertEqual(password_from_file(self.path, host, database, user), password)
            if host.unix_path is None:
                self.assertEqual(self.libpqs(host, database, user), password or b"")

    def libpqs(self, host: Host, database: str, user: str) -> bytes:
        """What libpq finds; it goes no further than to begin to connect."""
        options = {
            "host": host.host,
            "hostaddr": host.hostaddr or "192.0.2.7",
            "port": str(host.port),
            "dbname": database,
            "user": user,
            "passfile": str(self.path),
        }
        if not host.host:
            del options["host"]
        conninfo = psycopg.conninfo.make_conninfo(**options)  # type: ignore[arg-type]
        connection = PGconn.connect_start(conninfo.encode())
        self.addCleanup(connection.finish)
        return connection.password

    def test_files_that_do_not_count(self) -> None:
        host = Host("other", "", 1)
        self.path.chmod(0o640)
        with self.assertRaisesRegex(ConfigurationError, "group or world access"):
            password_from_file(self.path, host, "x", "dave")
        self.path.unlink()
        self.assertIsNone(password_from_file(self.path, host, "x", "dave"))
        os.mkfifo(self.path, 0o600)
        with self.assertRaisesRegex(ConfigurationError, "not a plain file"):
            password_from_file(self.path, host, "x", "dave")
