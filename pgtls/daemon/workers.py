"""The workers, as the daemon sees them: started, told, and replaced when they die."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Generator
from contextlib import suppress
from selectors import EVENT_READ, DefaultSelector
from time import monotonic
from typing import Any

import attrs
from twisted.internet.defer import Deferred, DeferredList, inlineCallbacks
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger, eventFromJSON, globalLogPublisher

from pgtls.daemon.shared_counters import ConnectionCounters, counters_file
from pgtls.daemon.worker import SIGNALS
from pgtls.daemon.worker_pipe import LineReader, Task, write_all
from pgtls.errors import ConfigurationError

_log = Logger(namespace="pgtls.gateway")

#: Seconds that the workers may take until they are ready.
START_TIMEOUT = 300.0

#: Seconds that a worker may take to end, once its sessions have been closed.
END_TIMEOUT = 10.0

#: Seconds after which a worker's death has nothing to do with the one before; the longest pause
#: before one that dies sooner is replaced.
CALM = 60.0
LONGEST_PAUSE = 60.0


class _Process:
    """A worker's process.

    :param ended: is called when it is gone.
    :ivar ready: whether it has said that it serves.
    :ivar mistakes: why it cannot.
    :ivar readers: of its pipes; for the reactor.
    :ivar last_words: the last line that it wrote to its standard error.
    :raises OSError: it cannot be started.
    """

    def __init__(self, task: Task, ended: Callable[[_Process], None]) -> None:
        self.number = task.worker + 1
        self.ready = False
        self.mistakes: list[str] = []
        self.last_words = ""
        self.began = monotonic()
        self._ended = ended
        self._answers: deque[Deferred[Any]] = deque()
        control, self._control = os.pipe()
        report, report_end = os.pipe()
        output, output_end = os.pipe()
        try:
            self._popen = _started(task, control, report_end, output_end)
        except OSError:
            for descriptor in (self._control, report, output):
                os.close(descriptor)
            raise
        finally:
            for descriptor in (control, report_end, output_end):
                os.close(descriptor)
        os.set_blocking(output, False)
        self._output = LineReader(output, self._wrote, lambda: None)
        self.readers = (LineReader(report, self._said, self._gone), self._output)
        with suppress(OSError):  # if it is gone, that will show
            task.send(self._control)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._popen.pid

    def ask(self, word: str) -> Deferred[Any]:
        """Tell it something.

        :returns: fires with its answer; with None where it dies instead.
        """
        answer: Deferred[Any] = Deferred()
        self._answers.append(answer)
        with suppress(OSError):
            write_all(self._control, word.encode() + b"\n")
        return answer

    def kill(self) -> None:
        """End it at once."""
        self._popen.kill()

    def end(self) -> str:
        """How it ended."""
        code = self._popen.wait()
        if code < 0:
            return f"was ended by signal {-code} ({signal.Signals(-code).name})"
        return f"exited with status {code}"

    def _said(self, line: bytes) -> None:
        if line.startswith(b"{"):
            event = eventFromJSON(line.decode())
            event["worker"] = self.number
            globalLogPublisher(event)
            return
        word, _, value = line.partition(b" ")
        if word == b"ready":
            self.ready = True
            _log.info("worker {worker} is ready: process {pid}", worker=self.number, pid=self.pid)
        elif word == b"failed":
            self.mistakes = json.loads(value)
        elif self._answers:
            self._answers.popleft().callback(json.loads(value))

    def _wrote(self, line: bytes) -> None:
        self.last_words = line.decode(errors="replace")
        _log.error("worker {worker}: {line}", worker=self.number, line=self.last_words)

    def _gone(self) -> None:
        with suppress(BlockingIOError):  # what it wrote comes before its end in the log
            while self._output.fileno() >= 0 and self._output.doRead() is None:
                pass
        os.close(self._control)
        self._popen.wait()
        for answer in self._answers:
            answer.callback(None)
        self._ended(self)


def _started(task: Task, control: int, report: int, output: int) -> subprocess.Popen[bytes]:
    """:raises OSError: it cannot be started."""
    command = [sys.executable, "-P", "-m", "pgtls.daemon.worker"]
    command += [f"worker={task.worker + 1}", f"control={control}", f"report={report}"]
    # It is to find the modules that we have found, wherever that was.
    path = os.pathsep.join(os.path.join(task.directory, each) for each in sys.path)
    # Ctrl-C is sent to it as well, even before it can say that it takes no notice.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        return subprocess.Popen(  # noqa: S603
            command,
            env=os.environ | {"PYTHONPATH": path},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            pass_fds=(control, report, task.counters, *(g.descriptor for g in task.gateways)),
        )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class Workers:
    """All of them.

    :param task: what they are to do; each gets its number.
    """

    def __init__(self, reactor: Any, task: Task) -> None:
        self._reactor = reactor
        self._counters_file = counters_file(len(task.gateways), task.workers)
        self._task = attrs.evolve(task, counters=self._counters_file.fileno())
        self._counters = ConnectionCounters(self._task.counters, len(task.gateways), task.workers)
        self._processes: dict[int, _Process] = {}
        self._waiting: dict[int, IDelayedCall] = {}
        self._pauses: dict[int, float] = {}
        self._starting = True
        self._stopping = False
        self._all_ended: Deferred[None] = Deferred()

    def start(self) -> None:
        """Start them, and wait until they are ready. The reactor does not run yet.

        :raises ConfigurationError: one of them cannot work.
        """
        try:
            for number in range(self._task.workers):
                self._begin(number)
            self._wait_until_ready()
        except (ConfigurationError, OSError) as error:
            for process in self._processes.values():
                process.kill()
            if isinstance(error, OSError):
                raise ConfigurationError(f"workers cannot be started: {error}") from error
            raise
        self._starting = False
        for process in self._processes.values():
            self._watch(process)

    def _begin(self, number: int) -> _Process:
        task = attrs.evolve(self._task, worker=number)
        self._processes[number] = process = _Process(task, self._ended)
        return process

    def _watch(self, process: _Process) -> None:
        for reader in process.readers:
            if reader.fileno() >= 0:
                self._reactor.addReader(reader)

    def _wait_until_ready(self) -> None:
        """:raises ConfigurationError: one of them is not, for the reason that it has named."""
        deadline = monotonic() + START_TIMEOUT
        processes = list(self._processes.values())
        with DefaultSelector() as selector:
            for process in processes:
                for each in process.readers:
                    selector.register(each, EVENT_READ)
            while len(self._processes) == len(processes) and not all(p.ready for p in processes):
                found = selector.select(max(0, deadline - monotonic()))
                if not found:
                    raise ConfigurationError(f"workers are not ready after {START_TIMEOUT:g} s")
                for key, _ in found:
                    reader: Any = key.fileobj
                    if reader.doRead() is not None:
                        selector.unregister(reader)
                        reader.connectionLost()
        ended = [process for process in processes if process not in self._processes.values()]
        if ended:
            # They have read the same files.
            raise ConfigurationError(*dict.fromkeys(why for each in ended for why in _why(each)))

    def _ended(self, process: _Process) -> None:
        number = process.number - 1
        del self._processes[number]
        self._counters.forget(number)
        if self._starting:
            return
        if not self._stopping:
            self._replace(process)
        elif not self._processes and not self._all_ended.called:
            self._all_ended.callback(None)

    def _replace(self, process: _Process) -> None:
        """Another one at once; if they die again and again, after pauses that become longer."""
        number = process.number - 1
        lived = monotonic() - process.began
        pause = self._pauses.get(number, 0.0) if lived < CALM else 0.0
        self._pauses[number] = min(max(1.0, 2 * pause), LONGEST_PAUSE)
        reasons = process.mistakes or [process.end()]
        for reason in reasons:
            _log.error(
                "worker {worker} (process {pid}): {reason}; another one follows in {pause:g} s",
                worker=process.number,
                pid=process.pid,
                reason=reason,
                pause=pause,
            )
        self._waiting[number] = self._reactor.callLater(pause, self._begin_again, number)

    def _begin_again(self, number: int) -> None:
        del self._waiting[number]
        try:
            process = self._begin(number)
        except OSError as error:
            _log.error("worker {worker}: {error}", worker=number + 1, error=error)
            self._waiting[number] = self._reactor.callLater(
                LONGEST_PAUSE, self._begin_again, number
            )
            return
        self._watch(process)

    def reload(self) -> Deferred[list[str]]:
        """Have them read their files again.

        :returns: fires with their mistakes.
        """
        return self._ask("reload").addCallback(
            lambda answers: list(dict.fromkeys(each for answer in answers for each in answer or ()))
        )

    def stop(self) -> Deferred[int]:
        """Let them accept no more connections, and end when their sessions have.

        :returns: fires with the number of sessions.
        """
        self._stopping = True
        for waiting in self._waiting.values():
            waiting.cancel()
        return self._ask("stop").addCallback(lambda answers: sum(each or 0 for each in answers))

    def _ask(self, word: str) -> Deferred[list[Any]]:
        asked = DeferredList([process.ask(word) for process in self._processes.values()])
        return asked.addCallback(lambda results: [answer for _, answer in results])

    @inlineCallbacks
    def ended(self, timeout: float) -> Generator[Deferred[None], None, None]:
        """Wait until they have ended.

        :param timeout: seconds that sessions have.
        :returns: fires when none is left.
        """
        if self._processes:
            kill = self._reactor.callLater(timeout + END_TIMEOUT, self._kill)
            yield self._all_ended
            if kill.active():
                kill.cancel()
        self._close()

    def _close(self) -> None:
        self._counters.close()
        self._counters_file.close()

    def _kill(self) -> None:
        for process in self._processes.values():
            process.kill()


def _why(process: _Process) -> list[str]:
    """Why a worker was never ready."""
    reason = f"worker {process.number} {process.end()}"
    return process.mistakes or [f"{reason}: {process.last_words}".removesuffix(": ")]
