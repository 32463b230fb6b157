"""A worker's process, as the daemon sees it: its pipes, what it says, how it ends."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from time import monotonic
from typing import cast

from twisted.internet.defer import Deferred, fail
from twisted.logger import Logger, eventFromJSON, globalLogPublisher
from twisted.python.failure import Failure

from pgtls.daemon.exit_status import described
from pgtls.daemon.handover import hand_over
from pgtls.daemon.pipe_requests import Answerer, PipeRequests, RequestFailed
from pgtls.daemon.worker import SIGNALS
from pgtls.daemon.worker_pipe import LineReader, LineSender
from pgtls.transport.reactor import IReactor

_log = Logger(namespace="pgtls.gateway")


class WorkerProcess:
    """A worker's process.

    :param reactor: Twisted's reactor; it need not run yet.
    :param directory: where the names of files count from.
    :param descriptors: its task's: the file, then listening sockets and counters.
    :param number: its own, from 0.
    :param ended: is called when it is gone.
    :param answerers: what answers the worker's requests, by their names.
    :ivar requests: asks the worker.
    :ivar ready: whether it has said that it serves.
    :ivar stopping: whether it has said that it is about to end.
    :ivar mistakes: why it cannot serve.
    :ivar readers: of its pipes; for the reactor.
    :ivar last_line: the last one that it wrote to its standard error.
    :raises OSError: it cannot be started.
    """

    def __init__(
        self,
        reactor: IReactor,
        directory: str,
        descriptors: Sequence[int],
        number: int,
        ended: Callable[[WorkerProcess], None],
        answerers: Mapping[str, Answerer],
    ) -> None:
        self.number = number
        self.ready = False
        self.stopping = False
        self.mistakes: list[str] = []
        self.last_line = ""
        self.began = monotonic()
        self._ended = ended
        self._asked: float | None = None
        control, control_end = os.pipe()
        report, report_end = os.pipe()
        output, output_end = os.pipe()
        self._handover, handover_end = socket.socketpair()
        self._handover.setblocking(False)
        try:
            hand_over(self._handover, 0, descriptors)
            ends = {"control": control, "report": report_end, "handover": handover_end.fileno()}
            self._popen = _started(directory, number, ends, output_end)
        except OSError:
            self._handover.close()
            for descriptor in (control_end, report, output):
                os.close(descriptor)
            raise
        finally:
            handover_end.close()
            for descriptor in (control, report_end, output_end):
                os.close(descriptor)
        os.set_blocking(output, False)
        self._control = LineSender(reactor, control_end)  # a hung worker holds up nobody
        self.requests = PipeRequests(reactor, self._control.write, answerers)
        self._output = LineReader(output, self._wrote, lambda: None)
        self.readers = (LineReader(report, self._said, self._gone), self._output)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._popen.pid

    @property
    def name(self) -> str:
        """What messages call it."""
        return f"worker {self.number + 1} (process {self.pid})"

    def prepare(
        self, message: int, descriptors: Sequence[int], timeout: float
    ) -> Deferred[list[str]]:
        """Have it get ready for another task.

        :param message: a number for this task, greater than the last one's.
        :param descriptors: the task's: the file, then listening sockets and counters.
        :param timeout: seconds that it has.
        :returns: fires with the mistakes; fails with :class:`RequestFailed`.
        """
        try:
            hand_over(self._handover, message, descriptors)
        except OSError as error:
            return fail(RequestFailed(f"prepare: {error.strerror}"))
        answer = self.requests.ask("prepare", message, timeout=timeout)
        return answer.addCallback(lambda mistakes: cast(list[str], mistakes))

    def use(self, message: int, timeout: float) -> Deferred[object]:
        """Have it do what it has prepared.

        :param message: the task's number.
        :param timeout: seconds that it has.
        :returns: fires when it does; fails with :class:`RequestFailed`.
        """
        return self.requests.ask("use", message, timeout=timeout)

    def forget(self, message: int, timeout: float) -> Deferred[object]:
        """Have it go on with what it does.

        :param message: the number of the task that it has prepared.
        :param timeout: seconds that it has.
        :returns: fires when it has; fails with :class:`RequestFailed`.
        """
        return self.requests.ask("forget", message, timeout=timeout)

    def check_alive(self, timeout: float) -> None:
        """Ask it whether it is alive, unless that has been asked; kill it if there is no answer.

        :param timeout: seconds that it has.
        """
        if self.ready and self._asked is None:
            self._asked = monotonic()
            answer = self.requests.ask("alive", timeout=timeout)
            answer.addCallbacks(self._alive, self._not_alive, errbackArgs=(timeout, self._asked))

    def _alive(self, _: object) -> None:
        self._asked = None

    def _not_alive(self, failure: Failure, timeout: float, asked: float) -> None:
        failure.trap(RequestFailed)
        self._asked = None
        took_too_long = monotonic() - asked > timeout / 2  # otherwise it could not be asked
        if took_too_long and self._popen.poll() is None:
            _log.error(
                "{worker} has not answered for {timeout:g} s: it is killed",
                worker=self.name,
                timeout=timeout,
            )
            self.kill()

    def stop(self, *, leave: bool) -> None:
        """Have it end when its sessions have.

        :param leave: whether it is to leave the listeners to another process.
        """
        self._control.write("leave" if leave else "stop")

    def kill(self) -> None:
        """End it at once."""
        self._popen.kill()

    def end(self) -> str:
        """Wait for its end.

        :returns: how it ended.
        """
        return described(self._popen.wait())

    def close(self) -> None:
        """Wait for its end, and close its pipes, where the reactor does not know of them yet."""
        self._popen.wait()
        for reader in self.readers:
            if reader.fileno() >= 0:
                reader.connectionLost()

    def _said(self, line: bytes) -> None:
        if line.startswith(b"{"):
            event = eventFromJSON(line.decode())
            event["worker"] = self.number + 1
            globalLogPublisher(event)
            return
        if self.requests.receive(line):
            return
        word, _, value = line.partition(b" ")
        if word == b"ready":
            self.ready = True
            _log.info(
                "worker {worker} is ready: process {pid}", worker=self.number + 1, pid=self.pid
            )
        elif word == b"failed":
            self.mistakes = json.loads(value)
        elif word == b"stopping":
            self.stopping = True

    def _wrote(self, line: bytes) -> None:
        self.last_line = line.decode(errors="replace")
        _log.error("worker {worker}: {line}", worker=self.number + 1, line=self.last_line)

    def _gone(self) -> None:
        with suppress(BlockingIOError):  # what it wrote comes before its end in the log
            while self._output.fileno() >= 0 and self._output.doRead() is None:
                pass
        self._control.connectionLost()
        self._popen.wait()
        self.requests.close()
        self._handover.close()
        self._ended(self)


def _started(
    directory: str, number: int, ends: Mapping[str, int], output: int
) -> subprocess.Popen[bytes]:
    """:raises OSError: it cannot be started."""
    command = [sys.executable, "-P", "-m", "pgtls.daemon.worker", f"worker={number + 1}"]
    command += [f"parent={os.getpid()}", *(f"{name}={end}" for name, end in ends.items())]
    # It is to find the modules that we have found, wherever that was.
    path = os.pathsep.join(os.path.join(directory, each) for each in sys.path)
    # Ctrl-C is sent to it as well, even before it can say that it takes no notice.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        return subprocess.Popen(  # noqa: S603
            command,
            env=os.environ | {"PYTHONPATH": path},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            pass_fds=tuple(ends.values()),
        )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
