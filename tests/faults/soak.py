"""Everything at once, for a long time: ``nox -s soak``, ``nox -s soak -- --minutes 5 --workers 2``.

Good clients of every kind, clients that mean no good, certificates that rotate, reloads, and in
the first third of the time upgrades. The gateway of the last upgrade serves for the rest: when the
processes before it are gone, its memory and descriptors in the first quarter of what remains are
compared with those in the last. The report has all four quarters.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from threading import Event
from typing import Any, NamedTuple

from tests.faults.sockets import reset
from tests.support import certificates
from tests.support.gateway_daemon import BUG, Gateway, in_thread, wait_until
from tests.support.processes import TWISTD, alive, children, environment
from tests.support.raw_client import SSL_REQUEST, connect, startup_message
from tests.support.servers import HOST, Server

UPGRADES = 5
MEGABYTE = 1 << 20

MORE_MEMORY = 8.0
"""MB that the last quarter may have more than the first."""

MORE_FILES = 10
"""Descriptors that it may have more: there are not always equally many sessions."""


class Sample(NamedTuple):
    """What the gateway's processes have at a moment.

    :ivar memory: resident, in MB.
    """

    at: float
    memory: float
    files: int


class Soak:
    """One run.

    :param minutes: how long.
    :param workers: of the gateway.
    """

    def __init__(self, minutes: float, workers: int = 1) -> None:
        self.seconds = minutes * 60
        self.workers = workers
        self.over = Event()
        self.did: dict[str, int] = {}
        self.samples: list[Sample] = []
        self.troubles: list[str] = []
        self._stack = contextlib.ExitStack()
        self.directory = Path(tempfile.mkdtemp(prefix="pgtls-soak-", dir="/tmp"))
        self._stack.callback(shutil.rmtree, self.directory)
        self.pid_file = self.directory / "pid"

    def run(self) -> dict[str, Any]:
        """From the beginning to the end.

        :returns: the report; ``troubles`` in it is empty where all is well.
        """
        with self._stack:
            self._start()
            began = time.monotonic()
            for each in (self.rotate, self.reload, self.garbage, self.half_open):
                in_thread(lambda each=each: self._repeat(each))
            next_upgrade = 1
            while (now := time.monotonic() - began) < self.seconds:
                if next_upgrade <= UPGRADES and now > self.seconds / 3 * next_upgrade / UPGRADES:
                    next_upgrade += 1
                    self.upgrade()
                if next_upgrade > UPGRADES and not self.old_processes():
                    self.sample()
                time.sleep(1)
            self.over.set()
            return self._report()

    def _start(self) -> None:
        server = Server(17, conf={"max_connections": "200"})
        self._stack.callback(server.stop)
        files = certificates.Files(self.directory)
        root = files.write("root.crt", certificates.authority().pem())
        self.rotate()
        upstream = server.conninfo(user=None, dbname=None, sslmode="disable")
        self.gateway = Gateway(
            config=f"""
                state_dir = "{{state}}"
                reload_interval = 2
                shutdown_timeout = 120
                workers = {self.workers}
                [[gateway]]
                listen = "tcp:0:interface={HOST}"
                upstream = "{upstream}"
                ssl = "on"
                ssl_cert_file = "{self.directory / "server.crt"}"
                ssl_key_file = "{self.directory / "server.key"}"
                authentication_timeout = 10
            """,
            program=(*TWISTD, "-n", f"--pidfile={self.pid_file}"),
        )
        self._stack.callback(self.gateway.remove)
        self._stack.callback(self._kill)
        conninfo = self.gateway.conninfo(sslrootcert=root)
        self.clients = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.soak_load", conninfo],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment(),
            text=True,
        )
        self._stack.callback(self.clients.communicate)
        self._stack.callback(self.clients.kill)
        assert self.clients.stdout is not None
        self.clients.stdout.readline()

    def pid(self) -> int:
        """Of the gateway that serves now."""
        return int(self.pid_file.read_text())

    def old_processes(self) -> int:
        """How many there are of those whose place another one has taken."""
        return sum(map(alive, self._old()))

    def _old(self) -> set[int]:
        return set(map(int, re.findall(r"in place of process (\d+)", self.gateway.log())))

    def _kill(self) -> None:
        for pid in {self.pid(), *self._old()}:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _repeat(self, act: Callable[[], None]) -> None:
        while not self.over.is_set():
            try:
                act()
            except Exception as error:
                self.troubles.append(f"{act.__name__}: {error!r}")
            self.did[act.__name__] = self.did.get(act.__name__, 0) + 1

    def rotate(self) -> None:
        """A new certificate, written as cert-manager and certbot do: the key first."""
        leaf = certificates.localhost()
        for name, content in (("server.key", leaf.key.pem()), ("server.crt", leaf.chain())):
            path = self.directory / f"{name}.new"
            path.write_bytes(content)
            path.chmod(0o600)
            path.rename(self.directory / name)
        self.over.wait(11)

    def reload(self) -> None:
        """SIGHUP."""
        os.kill(self.pid(), signal.SIGHUP)
        self.over.wait(7)

    def garbage(self) -> None:
        """Clients that send anything, and end in any way."""
        with contextlib.suppress(OSError), connect(self.gateway.address) as client:
            client.sendall(
                random.choice(
                    (
                        random.randbytes(random.randrange(1, 9000)),
                        SSL_REQUEST + random.randbytes(100),
                        startup_message()[: random.randrange(1, 30)],
                        b"\x16\x03\x01\x02\x00" + random.randbytes(200),
                    )
                )
            )
            if random.random() < 0.5:
                reset(client)
            else:
                client.shutdown(socket.SHUT_WR)
                client.settimeout(1)
                client.recv(1000)
        self.over.wait(0.1)

    def half_open(self) -> None:
        """Clients that say nothing, or not enough, for some seconds."""
        with contextlib.ExitStack() as stack:
            for beginning in (b"", SSL_REQUEST, SSL_REQUEST[:4], startup_message()[:9]) * 5:
                client = stack.enter_context(connect(self.gateway.address))
                client.sendall(beginning)
            self.over.wait(12)

    def upgrade(self) -> None:
        """SIGUSR2, until the new process serves."""
        before = self.pid()
        os.kill(before, signal.SIGUSR2)
        wait_until(lambda: self.pid_file.exists() and self.pid() != before, self.gateway.log)
        self.gateway.wait_for_log(rf"in place of process {before} from now on")
        self.did["upgrade"] = self.did.get("upgrade", 0) + 1

    def sample(self) -> None:
        """Look at the processes that serve."""
        kilobytes = files = 0
        for pid in (self.pid(), *children(self.pid())):
            process = Path(f"/proc/{pid}")
            match = re.search(r"^VmRSS:\s+(\d+) kB", (process / "status").read_text(), re.MULTILINE)
            assert match
            kilobytes += int(match[1])
            files += len(os.listdir(process / "fd"))
        self.samples.append(Sample(time.monotonic(), kilobytes / 1024, files))

    def _quarters(self) -> list[list[Sample]]:
        """:returns: those of the samples; none where there are too few."""
        size = len(self.samples) // 4
        return [self.samples[size * each :][:size] for each in range(4)] if size else []

    def _report(self) -> dict[str, Any]:
        assert self.clients.stdin is not None
        assert self.clients.stdout is not None
        self.clients.stdin.write("\n")
        self.clients.stdin.flush()
        clients = json.loads(self.clients.stdout.readline())
        log = self.gateway.log()
        quarters = self._quarters()
        memory = [round(statistics.median(x.memory for x in each), 1) for each in quarters]
        files = [statistics.median(x.files for x in each) for each in quarters]
        if clients["failures"]:
            self.troubles.append("good clients failed")
        if bug := BUG.search(log):
            self.troubles.append(f"in the log: {log[bug.start() - 200 : bug.end() + 500]}")
        if not quarters:
            self.troubles.append("too short to see whether memory grows: --minutes 3, at least")
        elif memory[-1] - memory[0] > MORE_MEMORY or files[-1] - files[0] > MORE_FILES:
            self.troubles.append("memory or descriptors grow")
        return {
            "minutes": round(self.seconds / 60, 1),
            "clients": clients,
            "did": self.did,
            "reloaded": log.count("reloaded: new connections"),
            "not_reloaded": log.count("not reloaded"),
            "memory": memory,
            "files": files,
            "samples": len(self.samples),
            "old_processes_left": self.old_processes(),
            "troubles": self.troubles,
        }


def main() -> None:
    """Run, and exit with status 1 where something was wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--workers", type=int, default=1)
    given = parser.parse_args()
    report = Soak(given.minutes, given.workers).run()
    print(json.dumps(report, indent=2))
    sys.exit(bool(report["troubles"]))


if __name__ == "__main__":
    main()
