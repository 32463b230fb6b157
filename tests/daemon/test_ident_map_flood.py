"""A flood of role names that a map's regular expression takes long over: neighbours go on."""

from __future__ import annotations

import re
import threading
import time
from pathlib import Path

import psycopg

from tests.support import servers
from tests.support.certificates import Authority, Files
from tests.support.gateway_daemon import GatewayCase, in_thread

#: The first is one for which others backtrack without end; the second takes long here too.
MAP = r"""
m alice /^(([a-z]+)[0-9]*)+$
m alice /^A(a*)(a*)(a*)(a*)(a*)(a*)\1\2\3\4\5\6b$
m alice postgres
"""


class IdentMapFloodTests(GatewayCase):
    def setUp(self) -> None:
        root = Authority("clients")
        self.files = Files(Path(self.mktemp()).absolute())
        self.files.pair("alice", root.issue(cn="alice", client=True))
        self.ident = self.files.write("pg_ident.conf", MAP.encode())
        ca = self.files.write("root.crt", root.pem())
        self.attacked = self.gateway(
            *("--upstream", servers.postgres(17).conninfo()),
            *("--ssl-ca-file", ca, "--clientcert", "verify-full"),
            *("--map", "m", "--ident-file", self.ident),
        )

    def conninfo(self, user: str) -> str:
        directory = self.files.directory
        return self.attacked.conninfo(
            user=user, sslcert=f"{directory}/alice.crt", sslkey=f"{directory}/alice.key"
        )

    def flood(self, over: threading.Event) -> None:
        """Ask for roles that cannot be, one after the other."""
        number = 0
        while not over.is_set():
            number += 1
            middle = "a" * (41 + 2 * (number % 10))
            name = f"A{middle}b" if number % 2 else f"{middle}!"
            try:
                psycopg.connect(self.conninfo(name)).close()
            except psycopg.OperationalError:
                continue
            raise AssertionError(name)

    def test_a_neighbour_is_served_as_ever(self) -> None:
        over = threading.Event()
        threads = [in_thread(lambda: self.flood(over)) for _ in range(3)]
        slowest = 0.0
        with psycopg.connect(self.conninfo("postgres"), autocommit=True) as session:
            end = time.monotonic() + 5
            while time.monotonic() < end:
                start = time.monotonic()
                session.execute("SELECT 1")
                slowest = max(slowest, time.monotonic() - start)
        over.set()
        for thread in threads:
            thread.join()
        self.assertLess(slowest, 2.0)
        self.attacked.wait_for_log(
            re.escape(
                "the regular expression in line 3 of configuration file "
                f'"{self.ident}" takes too long over it'
            )
        )
