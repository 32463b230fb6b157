"""The good clients of the soak: everything that they do has to succeed.

``python -m tests.faults.soak_load CONNINFO``: prints one line when all of it goes on; and for each
line of its input what has happened until then, in JSON.
"""

from __future__ import annotations

import json
import random
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable
from typing import Any

import psycopg

ROWS = 20_000
"""Of a COPY: about 2 MB."""

LIFE = (5, 40)
"""Seconds that a long session lives, at least and at most."""


class SoakLoad:
    """Clients of every kind, and what they have seen.

    :param conninfo: the gateway.
    """

    def __init__(self, conninfo: str) -> None:
        self.conninfo = conninfo
        self._lock = threading.Lock()
        self._done: Counter[str] = Counter()
        self._failures: list[str] = []

    def start(self) -> None:
        """Start all of them."""
        kinds = [self.short] * 3 + [self.long] * 4 + [self.copy_out, self.copy_in, self.cancel]
        with psycopg.connect(self.conninfo) as session:
            session.execute("CREATE TABLE IF NOT EXISTS sink (number int, line text)")
        for kind in kinds:
            threading.Thread(target=self._repeat, args=(kind,), daemon=True).start()

    def report(self) -> dict[str, Any]:
        """What has happened until now."""
        with self._lock:
            failures = self._failures
            return {"done": dict(self._done), "failures": len(failures), "first": failures[:3]}

    def _repeat(self, kind: Callable[[], None]) -> None:
        while True:
            try:
                kind()
            except Exception:
                with self._lock:
                    self._failures.append(
                        f"{time.strftime('%H:%M:%S')} {kind.__name__}: "
                        f"{traceback.format_exc(limit=-2)[-400:]}"
                    )
                time.sleep(0.2)

    def _count(self, what: str) -> None:
        with self._lock:
            self._done[what] += 1

    def short(self) -> None:
        """Connect, ask, close."""
        with psycopg.connect(self.conninfo) as session:
            session.execute("SELECT 1")
        self._count("connections")
        time.sleep(0.02)

    def long(self) -> None:
        """A session that asks every 50 ms, and for something long now and then."""
        end = time.monotonic() + random.uniform(*LIFE)
        with psycopg.connect(self.conninfo, autocommit=True) as session:
            while time.monotonic() < end:
                size = random.choice((1, 10, 100, 100_000))
                row = session.execute("SELECT repeat('x', %s)", (size,)).fetchone()
                assert row is not None
                assert row[0] == "x" * size
                self._count("queries")
                time.sleep(0.05)

    def copy_out(self) -> None:
        """COPY TO: every row comes."""
        sql = f"COPY (SELECT i, repeat('x', 100) FROM generate_series(1, {ROWS}) i) TO STDOUT"
        with psycopg.connect(self.conninfo) as session, session.cursor().copy(sql) as rows:
            assert sum(bytes(chunk).count(b"\n") for chunk in rows) == ROWS
        self._count("copies_out")
        time.sleep(0.2)

    def copy_in(self) -> None:
        """COPY FROM: every row arrives."""
        lines = b"".join(b"%d\t%s\n" % (number, b"x" * 100) for number in range(1000))
        with psycopg.connect(self.conninfo) as session:
            cursor = session.cursor()
            with cursor.copy("COPY sink FROM STDIN") as copy:
                for _ in range(ROWS // 1000):
                    copy.write(lines)
            assert cursor.rowcount == ROWS
            session.execute("TRUNCATE sink")
        self._count("copies_in")
        time.sleep(0.2)

    def cancel(self) -> None:
        """A query that would take a minute, and is cancelled."""
        over = threading.Event()

        def ask() -> None:
            while not over.wait(0.3):
                session.cancel_safe(timeout=10)

        with psycopg.connect(self.conninfo, autocommit=True) as session:
            asking = threading.Thread(target=ask, daemon=True)
            asking.start()
            try:
                session.execute("SELECT pg_sleep(60)")
            except psycopg.errors.QueryCanceled:
                self._count("cancels")
            else:
                raise AssertionError("the query was not cancelled")
            finally:
                over.set()
                asking.join()


def main(conninfo: str) -> None:
    """Run until the end of the input."""
    load = SoakLoad(conninfo)
    load.start()
    print("ready", flush=True)
    for _ in sys.stdin:
        print(json.dumps(load.report()), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
