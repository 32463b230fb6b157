"""A worker's process, as the daemon sees it: its pipes, what it says, how it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from time import monotonic

from twisted.internet.defer import Deferred
from twisted.logger import Logger, eventFromJSON, globalLogPublisher
from twisted.python.failure import Failure

from pgtls.daemon.pipe_requests import Answerer, PipeRequests, RequestFailed
from pgtls.daemon.worker import SIGNALS
from pgtls.daemon.worker_pipe import LineReader, LineSender, Task
from pgtls.transport.reactor import IReactor

_log = Logger(namespace="pgtls.gateway")


class WorkerProcess:
    """A worker's process.

    :param reactor: Twisted's reactor; it need not run yet.
    :param task: what it is to do.
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
        task: Task,
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
        self._reloads: deque[Deferred[list[str]]] = deque()
        control, control_end = os.pipe()
        report, report_end = os.pipe()
        output, output_end = os.pipe()
        try:
            self._popen = _started(task, number, control, report_end, output_end)
        except OSError:
            for descriptor in (control_end, report, output):
                os.close(descriptor)
            raise
        finally:
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

    def reload(self, word: str) -> Deferred[list[str]]:
        """Have it read its files again.

        :param word: see :meth:`pgtls.daemon.workers.Workers.reload`.
        :returns: fires with the mistakes; with none where it ends instead.
        """
        answer: Deferred[list[str]] = Deferred()
        self._reloads.append(answer)
        self._control.write(word)
        return answer

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

    def stop(self) -> None:
        """Have it end when its sessions have."""
        self._control.write("stop")

    def kill(self) -> None:
        """End it at once."""
        self._popen.kill()

    def end(self) -> str:
        """Wait for its end.

        :returns: how it ended.
        """
        code = self._popen.wait()
        if code < 0:
            return f"was ended by signal {-code} ({signal.Signals(-code).name})"
        return f"exited with status {code}"

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
        elif word == b"reloaded" and self._reloads:
            answer = self._reloads.popleft()
            if not answer.called:  # it took too long
                answer.callback(json.loads(value))

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
        for answer in self._reloads:
            if not answer.called:
                answer.callback([])
        self._ended(self)


def _started(
    task: Task, number: int, control: int, report: int, output: int
) -> subprocess.Popen[bytes]:
    """:raises OSError: it cannot be started."""
    with task.file() as file:
        command = [sys.executable, "-P", "-m", "pgtls.daemon.worker", f"worker={number + 1}"]
        command += [f"parent={os.getpid()}", f"task={file.fileno()}"]
        command += [f"control={control}", f"report={report}"]
        # It is to find the modules that we have found, wherever that was.
        path = os.pathsep.join(os.path.join(task.directory, each) for each in sys.path)
        sockets = [gateway.descriptor for gateway in task.gateways]
        # Ctrl-C is sent to it as well, even before it can say that it takes no notice.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        try:
            return subprocess.Popen(  # noqa: S603
                command,
                env=os.environ | {"PYTHONPATH": path},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=(file.fileno(), control, report, task.counters, *sockets),
            )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
