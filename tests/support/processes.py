"""Child processes for the tests, without blocking the reactor: :func:`run` and :class:`Daemon`."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, cast

from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.interfaces import IProcessTransport
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

reactor = cast(Any, _reactor)

TIMEOUT = 60.0
"""Seconds before a child is taken to hang; generous, since only what is broken takes that long."""

TWISTD = (sys.executable, "-c", "from twisted.scripts.twistd import run; run()")
"""``twistd`` of the interpreter that runs the tests, wherever its scripts are installed."""


class ChildFailed(Exception):
    """A child ended too early or not in time; the text has all of its output."""


class Finished(NamedTuple):
    """How a child ended: its exit code, or minus the number of the signal, and what it wrote."""

    code: int
    out: str
    err: str


def environment(extra: Mapping[str, str] = {}) -> dict[str, str]:
    """The environment of a child: ours without what would steer libpq, and with ``extra``.

    PG* variables and the files in ``~/.postgresql`` of whoever runs the tests must not decide
    their outcome. Python children find the source tree that is being tested, and what they print
    is seen when they print it.
    """
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    inherited.pop("COVERAGE_PROCESS_START", None)  # tests measure children's time and memory
    inherited.pop("PYTHONDONTWRITEBYTECODE", None)  # or each of hundreds would compile pgtls anew
    source = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join(filter(None, [source, os.environ.get("PYTHONPATH")]))
    own = {"HOME": "/nonexistent", "LC_ALL": "C", "PYTHONPATH": path, "PYTHONUNBUFFERED": "1"}
    return inherited | own | dict(extra)


class _Child(ProcessProtocol):
    """A child process whose end can be awaited.

    :ivar ended: fires with the exit code, or minus the signal's number, once all output is in.
    """

    transport: IProcessTransport

    def __init__(self) -> None:
        self.ended: Deferred[int] = Deferred()
        self.code: int | None = None

    def spawn(self, args: Sequence[str], env: Mapping[str, str], cwd: str | None) -> None:
        reactor.spawnProcess(self, args[0], list(args), env=environment(env), path=cwd)

    def signal(self, name: str) -> None:
        """Send the signal of that name, without ``SIG``; nothing where it has exited already."""
        with suppress(ProcessExitedAlready):
            self.transport.signalProcess(name)

    def kill(self) -> None:
        """End the child at once, and stop listening to grandchildren that hold its output open."""
        self.signal("KILL")
        self.transport.loseConnection()

    def processEnded(self, reason: Failure) -> None:
        ending = cast(Any, reason.value)  # ProcessDone or ProcessTerminated
        self.code = ending.exitCode if ending.signal is None else -ending.signal
        self.ended.callback(self.code)


class _Collector(_Child):
    def __init__(self) -> None:
        super().__init__()
        self.written = {1: bytearray(), 2: bytearray()}

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        self.written[childFD] += data


async def run(
    args: Sequence[str],
    *,
    env: Mapping[str, str] = {},
    input: str = "",
    cwd: str | None = None,
    timeout: float = TIMEOUT,
) -> Finished:
    """Run a program to its end.

    :param args: the program's path and its arguments.
    :param env: what to add to :func:`environment`.
    :param input: its standard input.
    :raises ChildFailed: it took longer than ``timeout`` seconds, and was killed.
    """
    child = _Collector()
    child.spawn(args, env, cwd)
    child.transport.write(input.encode())
    child.transport.closeStdin()
    late = reactor.callLater(timeout, child.kill)
    code = await child.ended
    out, err = (child.written[fd].decode(errors="replace") for fd in (1, 2))
    if not late.active():
        raise ChildFailed(f"{args[0]} did not end within {timeout} s\n{out}\n{err}")
    late.cancel()
    return Finished(code, out, err)


class Daemon(_Child):
    """A child that runs until it is stopped, watched through the lines that it writes.

    :ivar lines: every whole line on its standard output and standard error, as they came.
    :ivar ready: the match of the line that said that it is ready.
    """

    ready: re.Match[str]

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []
        self._partial = {1: b"", 2: b""}
        self._seen = 0
        self._wanted: re.Pattern[str] | None = None
        self._waiting: Deferred[re.Match[str]] | None = None

    @classmethod
    async def start(
        cls,
        test: TestCase,
        args: Sequence[str],
        ready: str,
        *,
        env: Mapping[str, str] = {},
        cwd: str | None = None,
        timeout: float = TIMEOUT,
    ) -> Daemon:
        """Start a program, wait until it says that it is ready; it is stopped when the test ends.

        :param args: the program's path and its arguments, such as ``[*TWISTD, "-n", "pgtls"]``.
        :param ready: a regular expression, searched for in each line that the program writes.
        :param env: what to add to :func:`environment`.
        :raises ChildFailed: it ended before that line, or took longer than ``timeout`` seconds.
        """
        daemon = cls()
        daemon.spawn(args, env, cwd)
        test.addCleanup(daemon.stop)
        daemon.ready = await daemon.line(ready, timeout)
        return daemon

    @property
    def pid(self) -> int:
        return cast(int, self.transport.pid)

    @property
    def output(self) -> str:
        """All lines so far, as one text."""
        return "\n".join(self.lines)

    def line(self, pattern: str, timeout: float = TIMEOUT) -> Deferred[re.Match[str]]:
        """The next line in which ``pattern`` is found, after the one that the last call found.

        :raises ChildFailed: the program ends without it, or it does not come in time.
        """
        assert self._waiting is None, "one wait at a time"
        self._wanted = re.compile(pattern)
        found: Deferred[re.Match[str]] = Deferred()
        self._waiting = found
        found.addTimeout(timeout, reactor, lambda _, seconds: self._missing(f"in {seconds} s"))
        self._look()
        return found

    def stop(self, signal: str = "TERM", timeout: float = TIMEOUT) -> Deferred[int]:
        """End it, and wait until it has ended.

        :return: the exit code, or minus the number of the signal that ended it (-9 where it had to
            be killed for not ending within ``timeout`` seconds).
        """
        if self.code is not None:
            return succeed(self.code)
        self.signal(signal)
        late = reactor.callLater(timeout, self.kill)
        stopped: Deferred[int] = Deferred()

        def ended(code: int) -> int:
            if late.active():
                late.cancel()
            stopped.callback(code)
            return code

        self.ended.addCallback(ended)
        return stopped

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        *whole, self._partial[childFD] = (self._partial[childFD] + data).split(b"\n")
        self.lines += [line.decode(errors="replace") for line in whole]
        self._look()

    def processEnded(self, reason: Failure) -> None:
        self.lines += [rest.decode(errors="replace") for rest in self._partial.values() if rest]
        self._look()
        super().processEnded(reason)
        waiting, self._waiting = self._waiting, None
        if waiting:
            waiting.errback(self._failure(f"before it ended with {self.code}"))

    def _look(self) -> None:
        while self._waiting and self._wanted and self._seen < len(self.lines):
            self._seen += 1
            if match := self._wanted.search(self.lines[self._seen - 1]):
                waiting, self._waiting = self._waiting, None
                waiting.callback(match)

    def _failure(self, circumstance: str) -> ChildFailed:
        wanted = self._wanted.pattern if self._wanted else ""
        return ChildFailed(f"no line with {wanted!r} {circumstance}; output:\n{self.output}")

    def _missing(self, circumstance: str) -> re.Match[str]:
        self._waiting = None
        raise self._failure(circumstance)


def children(pid: int) -> list[int]:
    """A process's children, in the order in which they were started."""
    path = Path(f"/proc/{pid}/task/{pid}/children")
    return sorted(int(number) for number in path.read_text().split())


def alive(pid: int) -> bool:
    """Whether a process is there, and not just its exit status."""
    with suppress(OSError):
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    return False
