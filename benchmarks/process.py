"""A proxy as a child process, and what it has used."""

from __future__ import annotations

import os
import pwd
import re
import socket
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryFile

from tests.support.processes import environment
from tests.support.servers import HOST

START_TIMEOUT = 30.0
STOP_TIMEOUT = 10.0

#: Seconds in which a process that is at rest uses less than ``RESTING`` seconds of CPU time.
PAUSE = 0.05
RESTING = 0.001
REST_TIMEOUT = 10.0


class ProxyFailed(Exception):
    """A proxy did not start; the text is what it wrote."""


class Proxy:
    """A running proxy that listens on ``port`` of 127.0.0.1.

    :param command: the program and its arguments; it stays in the foreground.
    :param user: who runs it, where we are root and it does not run as root.
    :raises ProxyFailed: it ends, or does not listen in time.
    """

    def __init__(self, command: Sequence[str], port: int, user: str | None = None) -> None:
        self.port = port
        self._output = TemporaryFile()  # noqa: SIM115 - closed in stop()
        self._process = subprocess.Popen(
            command,
            env=environment({"HOME": "/tmp"}),
            cwd="/tmp",
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=self._output,
            user=pwd.getpwnam(user).pw_uid if user and os.geteuid() == 0 else None,
        )
        try:
            self._wait_until_it_listens()
        except ProxyFailed:
            self.stop()
            raise

    def cpu(self) -> float:
        """Seconds of CPU time that it has used so far, its threads and children included."""
        return sum(_cpu(pid) for pid in _with_children(self._process.pid))

    def cpu_at_rest(self) -> float:
        """The same, when it has done what there is to do, such as closing connections."""
        end = time.monotonic() + REST_TIMEOUT
        before = self.cpu()
        while time.monotonic() < end:
            time.sleep(PAUSE)
            now = self.cpu()
            if now - before < RESTING:
                return now
            before = now
        return before

    def memory(self) -> int:
        """Bytes of memory: shared pages count in parts (PSS)."""
        return sum(_pss(pid) for pid in _with_children(self._process.pid))

    def stop(self) -> None:
        """End it."""
        self._process.terminate()
        try:
            self._process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._output.close()

    def _wait_until_it_listens(self) -> None:
        end = time.monotonic() + START_TIMEOUT
        while time.monotonic() < end and self._process.poll() is None:
            try:
                socket.create_connection((HOST, self.port), 1.0).close()
            except OSError:
                time.sleep(PAUSE)
            else:
                return
        self._output.seek(0)
        raise ProxyFailed(self._output.read().decode(errors="replace"))


def _with_children(pid: int) -> list[int]:
    found = [pid]
    for each in found:
        for task in Path(f"/proc/{each}/task").glob("*/children"):
            with suppress(FileNotFoundError):  # the thread has ended
                found += map(int, task.read_text().split())
    return found


def _cpu(pid: int) -> float:
    # The clock of another process, as clock_getcpuclockid(3) makes it: to the nanosecond, and
    # threads that have ended are in it. /proc/PID/stat counts in hundredths of a second.
    return time.clock_gettime(~pid << 3 | 2)


def _pss(pid: int) -> int:
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    match = re.search(r"^Pss: +(\d+) kB", rollup, re.MULTILINE)
    return int(match[1]) * 1024 if match else 0
