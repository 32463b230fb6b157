"""The clients of a fleet: short connections one after the other, and long sessions.

``python load.py CONNINFO THREADS SESSIONS``: prints one line when all of it goes on; and for each
line of its input what has happened until then, in JSON.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from typing import Any

import psycopg

PAUSE = 0.05
"""Seconds between two queries of a long session."""
LATE = 1.0
"""Seconds after which a long session waits for an answer that does not come."""


class Load:
    """All clients, and what they have seen."""

    def __init__(self, conninfo: str) -> None:
        self.conninfo = conninfo
        self.stop = threading.Event()
        self.lock = threading.Lock()
        self.connections = 0
        self.failures: list[tuple[float, str]] = []
        self.lost: list[tuple[float, str]] = []
        self.longest = 0.0
        self.queries = 0
        self.longest_query = 0.0
        self.waiting: dict[psycopg.Connection, float] = {}

    def short(self) -> None:
        """Connect, ask, close."""
        while not self.stop.is_set():
            began = time.monotonic()
            try:
                with psycopg.connect(self.conninfo) as connection:
                    connection.execute("SELECT 1")
            except psycopg.Error as error:
                with self.lock:
                    self.failures.append((time.time(), str(error).strip()[-200:]))
                time.sleep(0.05)
            else:
                with self.lock:
                    self.connections += 1
                    self.longest = max(self.longest, time.monotonic() - began)

    def long(self, connection: psycopg.Connection) -> None:
        """One session for all the time."""
        try:
            while not self.stop.is_set():
                began = time.monotonic()
                with self.lock:
                    self.waiting[connection] = began
                connection.execute("SELECT 1")
                with self.lock:
                    del self.waiting[connection]
                    self.queries += 1
                    self.longest_query = max(self.longest_query, time.monotonic() - began)
                time.sleep(PAUSE)
        except psycopg.Error as error:
            with self.lock:
                del self.waiting[connection]
                self.lost.append((time.time(), str(error).strip()[-200:]))

    def report(self) -> dict[str, Any]:
        """What has happened until now."""
        with self.lock:
            times = [when for when, _ in self.failures]
            now = time.monotonic()
            late = now - LATE
            return {
                "connections": self.connections,
                "failures": len(self.failures),
                "failing_seconds": round(max(times) - min(times), 1) if times else 0,
                "reasons": sorted({why for _, why in self.failures}),
                "lost": len(self.lost),
                "lost_reasons": sorted({why for _, why in self.lost}),
                "stuck": sum(began < late for began in self.waiting.values()),
                "oldest": round(now - min(self.waiting.values(), default=now), 2),
                "longest": round(self.longest, 2),
                "queries": self.queries,
                "longest_query": round(self.longest_query, 2),
            }


def main(conninfo: str, threads: int, sessions: int) -> None:
    """Run until the end of the input."""
    load = Load(conninfo)
    connections = [psycopg.connect(conninfo, autocommit=True) for _ in range(sessions)]
    for connection in connections:
        threading.Thread(target=load.long, args=(connection,), daemon=True).start()
    for _ in range(threads):
        threading.Thread(target=load.short, daemon=True).start()
    print("ready", flush=True)
    for _ in sys.stdin:
        print(json.dumps(load.report()), flush=True)
    load.stop.set()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
