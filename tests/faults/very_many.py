"""Ten thousand sessions, and a thousand reloads."""

from __future__ import annotations

import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tests.faults.neighbours import MEGABYTE, Clients, FaultCase, say
from tests.support import certificates
from tests.support.gateway_daemon import Gateway, wait_until
from tests.support.processes import children, environment
from tests.support.servers import HOST

IDLE = 10_000

AGAIN = 3_000

WORKERS = 2
"""Two descriptors a session, and the limit of a process is often 20,000."""


def tree(gateway: Gateway) -> list[int]:
    """The daemon and its workers."""
    return [gateway.pid, *children(gateway.pid)]


def memory(gateway: Gateway) -> float:
    """Of all of them in MB, each page once."""
    total = 0
    for pid in tree(gateway):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1])
    return round(total / 1024, 1)


def files(gateway: Gateway) -> int:
    """Open descriptors of all of them."""
    return sum(len(list(Path(f"/proc/{pid}/fd").iterdir())) for pid in tree(gateway))


class IdleSessions(FaultCase):
    """Sessions that are there, and ask nothing."""

    def setUp(self) -> None:
        super().setUp()
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        self.assertGreaterEqual(limits[1], 2 * IDLE, "the hard limit of open files (ulimit -Hn)")
        resource.setrlimit(resource.RLIMIT_NOFILE, (2 * IDLE, limits[1]))
        self.addCleanup(resource.setrlimit, resource.RLIMIT_NOFILE, limits)

    def program(self, *command: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment(),
            text=True,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        for cleanup in (process.wait, process.kill, process.stdin.close, process.stdout.close):
            self.addCleanup(cleanup)
        return process

    def line(self, process: subprocess.Popen[str]) -> str:
        assert process.stdout is not None
        return process.stdout.readline().strip()

    def test_10000(self) -> None:
        port = self.line(self.program("tests.faults.idle_server", HOST, "0"))
        self.beside(
            f"host={HOST} port={port} sslmode=disable",
            "max_connections = 12000",
            top=f"workers = {WORKERS}",
        )
        neighbours = Clients(self.neighbours_conninfo())
        self.addCleanup(neighbours.close)
        # The first ones bring what every gateway has, whatever the number.
        self.opened(100)
        before, files_before = memory(self.relay), files(self.relay)
        began = time.monotonic()
        sessions = self.program("tests.faults.idle_clients", *self.where(), str(IDLE))
        self.assertEqual(self.line(sessions), str(IDLE))
        seconds = time.monotonic() - began
        neighbours.go_on()
        full, files_full = memory(self.relay), files(self.relay)
        assert sessions.stdin is not None
        sessions.stdin.close()
        self.assertEqual(self.line(sessions), "all answered")
        wait_until(
            lambda: files(self.relay) <= files_before + 20,  # those of the neighbours come and go
            lambda: f"{files(self.relay)} files, {files_before} before",
        )
        most = before + (full - before) / 2
        wait_until(lambda: memory(self.relay) < most, lambda: f"{memory(self.relay)} MB stay")
        self.relay.wait_until_still()
        seen = neighbours.report()
        after = memory(self.relay)
        self.opened(AGAIN)  # with the memory of those that are over
        again = memory(self.relay)
        say(
            f"{IDLE} idle sessions in TLS, {WORKERS} workers",
            {
                "seconds_to_open": round(seconds),
                "memory": [before, full, after, again],
                "kb_a_session": round((full - before) * MEGABYTE / 1024 / IDLE, 1),
                "files": [files_before, files_full, files(self.relay)],
                "neighbours": seen,
            },
        )
        self.not_noticed(seen)
        self.assertLess(again, full + 10)
        self.assertLess((full - before) * MEGABYTE / IDLE, 64 * 1024)

    def opened(self, count: int) -> None:
        """Open that many, and close them."""
        sessions = self.program("tests.faults.idle_clients", *self.where(), str(count))
        self.assertEqual(self.line(sessions), str(count))
        assert sessions.stdin is not None
        sessions.stdin.close()
        self.assertEqual(self.line(sessions), "all answered")

    def where(self) -> tuple[str, str, str]:
        return HOST, str(self.relay.port), self.relay.root_crt


class Reloads(FaultCase):
    """A thousand of them, the certificate another one each time."""

    def test_1000(self) -> None:
        own = self.server().conninfo(user=None, dbname=None, sslmode="disable")
        directory = Path(self.mktemp()).absolute()
        directory.mkdir()
        pairs = [certificates.localhost() for _ in range(2)]
        certificates.Files(directory).write("server.crt", pairs[0].chain())
        certificates.Files(directory).write("server.key", pairs[0].key.pem(), mode=0o600)
        self.beside(
            own,
            f'ssl_cert_file = "{directory / "server.crt"}"',
            f'ssl_key_file = "{directory / "server.key"}"',
            top="reload_interval = 0",
        )
        done = 0

        def fault(neighbours: Clients) -> dict[str, Any]:
            nonlocal done
            for _ in range(500):
                done += 1
                pair = pairs[done % 2]
                (directory / "server.crt").write_bytes(pair.chain())
                (directory / "server.key").write_bytes(pair.key.pem())
                self.relay.signal(signal.SIGHUP)
                self.relay.wait_for_log("reloaded: new connections", done)
            return {"reloads_until_now": done}

        self.survives("reloads", fault)
