"""The process that is to take this one's place: started with its listening sockets, and watched
until it is ready, or is not."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from typing import IO, Any

import attrs

from pgtls.daemon.exit_status import described
from pgtls.daemon.pipe_requests import Answerer
from pgtls.daemon.predecessor import VARIABLE
from pgtls.daemon.process_link import ProcessLink
from pgtls.daemon.unnamed_file import unnamed_file
from pgtls.transport.reactor import IReactor
from pgtls.transport.socket_table import SocketTable

#: Seconds that it has until it is ready.
READY_TIMEOUT = 60.0

#: Seconds that it may take to end when it has closed the link.
_END_TIMEOUT = 5.0

#: Bytes that are read of what it has written to its standard error.
_WRITTEN = 10_000

_STANDARD_ERROR = 2


@attrs.frozen
class Program:
    """What is started: this process's own program.

    :ivar arguments: its command line.
    :ivar directory: where it was started.
    :ivar environ: what is added to the environment.
    """

    arguments: Sequence[str]
    directory: str
    environ: Mapping[str, str]

    @classmethod
    def of_this_process(cls, environ: Mapping[str, str]) -> Program:
        """The program that this process runs, as it was started: by path, so that the new version
        is what runs where another one has been installed.

        :param environ: what is added to the environment.
        :returns: the program.
        """
        return cls([sys.executable, *sys.orig_argv[1:]], os.getcwd(), environ)


class Successor:
    """One such process.

    :param reactor: Twisted's reactor.
    :param program: what it runs.
    :param sockets: the listening sockets, which it gets.
    :param pid_file: the descriptor of twistd's pid file; None where there is none.
    :param older: processes before this one whose sessions go on, and the descriptors of links to
        them.
    :param answerers: what answers its requests, by their names.
    :param ready: is called when it serves.
    :param failed: is called with the reason if it does not: it is gone then.
    :ivar process: its process id.
    :raises OSError: it cannot be started.
    """

    def __init__(
        self,
        reactor: IReactor,
        program: Program,
        sockets: SocketTable,
        pid_file: int | None,
        older: Sequence[tuple[int, int]],
        answerers: Mapping[str, Answerer],
        ready: Callable[[], None],
        failed: Callable[[str], None],
    ) -> None:
        self._ready = ready
        self._failed = failed
        self._mistakes: list[str] = []
        self._decided = False
        with ExitStack() as undo:
            self._written = undo.enter_context(unnamed_file(b""))
            mine, theirs = map(undo.enter_context, socket.socketpair())
            self._popen = _started(
                program,
                sockets,
                {"link": theirs.fileno(), "pid_file": pid_file, "older": older},
                self._written,
            )
            self.process = self._popen.pid
            undo.callback(self.kill)
            self._link = ProcessLink(reactor, mine.fileno(), self._said, self._gone, answerers)
            undo.pop_all()
        mine.detach()  # it is the link's
        theirs.close()
        self._link.start()
        self._timer = reactor.callLater(READY_TIMEOUT, self._too_late)

    def serve(self) -> None:
        """Leave the listening sockets to it."""
        self._link.say("serve")

    def kill(self) -> None:
        """End it, since this process is to be stopped itself."""
        self._decided = True
        self._kill()
        self._popen.wait()

    def reap(self) -> None:
        """Where it has detached itself, as daemons do, the process that was started has ended."""
        self._popen.poll()

    def _said(self, line: bytes) -> None:
        word, _, value = line.partition(b" ")
        if word == b"process":
            self.process = int(value)
        elif word == b"failed":
            self._mistakes = json.loads(value)
        elif word == b"ready" and not self._decided:
            self._decided = True
            self._timer.cancel()
            self._pass_on()
            self._ready()

    def _too_late(self) -> None:
        self._mistakes = [f"it is not ready after {READY_TIMEOUT:g} s"]
        self._kill()

    def _kill(self) -> None:
        for process in {self._popen.pid, self.process}:
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)

    def _gone(self) -> None:
        if self._timer.active():
            self._timer.cancel()
        reason = "" if self._decided else self._reason(self._end())
        self._popen.poll()
        self._written.close()
        if not self._decided:
            self._decided = True
            self._failed(reason)

    def _end(self) -> int:
        try:
            return self._popen.wait(_END_TIMEOUT)
        except subprocess.TimeoutExpired:
            self._popen.kill()
            return self._popen.wait()

    def _reason(self, code: int) -> str:
        if self._mistakes:
            return "; ".join(self._mistakes)
        written = os.pread(self._written.fileno(), _WRITTEN, 0).decode(errors="replace")
        lines = [line.strip() for line in written.splitlines() if line.strip()]
        mistakes = [line.removeprefix("pgtls: ") for line in lines if line.startswith("pgtls: ")]
        if mistakes:
            return "; ".join(mistakes)
        self._pass_on()  # a traceback, say
        return ": ".join(["it " + described(code), *lines[-1:]])

    def _pass_on(self) -> None:
        """What it has written to its standard error goes to ours."""
        with suppress(OSError):
            os.write(_STANDARD_ERROR, os.pread(self._written.fileno(), _WRITTEN, 0))


def _started(
    program: Program, sockets: SocketTable, passed: dict[str, Any], written: IO[bytes]
) -> subprocess.Popen[bytes]:
    """:raises OSError: it cannot be started."""
    listening = sockets.listening()
    named = [*listening, *sockets.systemds, *passed["older"]]
    stderr = os.dup(_STANDARD_ERROR)
    passed |= {
        "process": os.getpid(),
        "stderr": stderr,
        "sockets": listening,
        "systemds": sockets.systemds,
    }
    single = [passed["link"], passed["pid_file"], stderr]
    try:
        return subprocess.Popen(  # noqa: S603
            program.arguments,
            cwd=program.directory if os.access(program.directory, os.X_OK) else None,
            env=os.environ | program.environ | {VARIABLE: json.dumps(passed)},
            stderr=written,
            pass_fds=[each for each in (*single, *(fd for _, fd in named)) if each is not None],
        )
    finally:
        os.close(stderr)
