"""The workers, as the daemon sees them: started, told, and replaced when they die."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from selectors import EVENT_READ, DefaultSelector
from time import monotonic

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from pgtls.daemon.cancel_requests import OtherProcess, cancel_answerers
from pgtls.daemon.task_handover import Sockets, TaskHandover
from pgtls.daemon.worker_pipe import Task
from pgtls.daemon.worker_process import WorkerProcess
from pgtls.errors import ConfigurationError
from pgtls.gateway.key_holders import KeyHolder, KeyHolders
from pgtls.transport.reactor import IReactor

_log = Logger(namespace="pgtls.gateway")

#: Seconds that the workers may take until they are ready.
START_TIMEOUT = 300.0

#: Seconds between looks at whether the daemon is to stop while its workers start.
_LOOK = 0.1

#: Seconds that a worker has to answer. One that has not is hung, or nearly so.
ANSWER_TIMEOUT = 10.0

#: Seconds that a worker may take to end, once its sessions have been closed.
END_TIMEOUT = 10.0

#: Seconds after which a worker's death has nothing to do with the one before; the longest pause
#: before one that dies sooner is replaced.
CALM = 60.0
LONGEST_PAUSE = 60.0


class Workers:
    """All of them.

    :param reactor: Twisted's reactor.
    :param task: what they are to do.
    :param sockets: the gateways' listening sockets.
    :param stop_requested: tells whether the daemon is to stop, while it does nothing but wait for
        them.
    :param elsewhere: has sessions beside theirs that cancel requests may be for.
    :ivar replaced: how many have died and were replaced.
    """

    def __init__(
        self,
        reactor: IReactor,
        task: Task,
        sockets: Sockets,
        stop_requested: Callable[[], bool],
        elsewhere: KeyHolder | None = None,
    ) -> None:
        self._reactor = reactor
        self._elsewhere = elsewhere or KeyHolders()
        self._stop_requested = stop_requested
        self._processes: dict[int, WorkerProcess] = {}
        self._handover = TaskHandover(task, sockets, self._processes.values)
        self._counters = self._handover.counters
        self._number = task.workers
        self._replacements: dict[int, IDelayedCall] = {}
        self._pauses: dict[int, float] = {}
        self._kill_timers: list[IDelayedCall] = []
        self._starting = True
        self.replaced = 0
        self._stopped: Deferred[None] | None = None

    def start(self) -> None:
        """Start them, and wait until they are ready, or until the daemon is to stop: then none is
        left. The reactor does not run yet.

        :raises ConfigurationError: one of them cannot work; none is left.
        """
        try:
            for number in range(self._number):
                self._start_one(number)
            self._wait_until_ready()
        except (ConfigurationError, OSError) as error:
            self._end_all()
            self._close()
            if isinstance(error, OSError):
                raise ConfigurationError(f"workers cannot be started: {error}") from error
            raise
        if self._stop_requested():
            self._end_all()
        self._starting = False
        for process in self._processes.values():
            self._watch(process)

    def _end_all(self) -> None:
        processes = list(self._processes.values())
        for process in processes:
            process.kill()
        for process in processes:
            process.close()

    def _start_one(self, number: int) -> WorkerProcess:
        others = KeyHolders(lambda: [*self.key_holders(besides=number), self._elsewhere])
        with self._handover.descriptors() as descriptors:
            process = WorkerProcess(
                self._reactor,
                self._handover.task.directory,
                descriptors,
                number,
                self._ended,
                cancel_answerers(others),
            )
        self._processes[number] = process
        return process

    def _watch(self, process: WorkerProcess) -> None:
        for reader in process.readers:
            if reader.fileno() >= 0:
                self._reactor.addReader(reader)

    def _wait_until_ready(self) -> None:
        """:raises ConfigurationError: one of them is not, for the reason that it has named."""
        deadline = monotonic() + START_TIMEOUT
        processes = list(self._processes.values())
        readers = {each.fileno(): each for process in processes for each in process.readers}
        with DefaultSelector() as selector:
            for descriptor in readers:
                selector.register(descriptor, EVENT_READ)
            while len(self._processes) == len(processes) and not all(p.ready for p in processes):
                if self._stop_requested():
                    return
                if monotonic() > deadline:
                    raise ConfigurationError(f"workers are not ready after {START_TIMEOUT:g} s")
                for key, _ in selector.select(_LOOK):
                    reader = readers[key.fd]
                    if reader.doRead() is not None:
                        selector.unregister(key.fd)
                        reader.connectionLost()
        ended = [process for process in processes if process not in self._processes.values()]
        if ended:
            # They have read the same files.
            raise ConfigurationError(*dict.fromkeys(why for each in ended for why in _why(each)))

    def _ended(self, process: WorkerProcess) -> None:
        number = process.number
        del self._processes[number]
        self._counters.forget(number)
        if self._starting:
            return
        if self._stopped is None:
            self._replace(process)
        elif not self._processes:
            self._all_ended(self._stopped)

    def _replace(self, process: WorkerProcess) -> None:
        """Another one at once; if they die again and again, after pauses that become longer."""
        number = process.number
        self.replaced += 1
        lived = monotonic() - process.began
        pause = self._pauses.get(number, 0.0) if lived < CALM else 0.0
        self._pauses[number] = min(max(1.0, 2 * pause), LONGEST_PAUSE)
        reasons = process.mistakes or [process.end()]
        for reason in reasons:
            _log.error(
                "worker {worker} (process {pid}): {reason}; another one follows in {pause:g} s",
                worker=number + 1,
                pid=process.pid,
                reason=reason,
                pause=pause,
            )
        self._replacements[number] = self._reactor.callLater(pause, self._start_replacement, number)

    def _start_replacement(self, number: int) -> None:
        del self._replacements[number]
        try:
            process = self._start_one(number)
        except OSError as error:
            _log.error("worker {worker}: {error}", worker=number + 1, error=error)
            self._replacements[number] = self._reactor.callLater(
                LONGEST_PAUSE, self._start_replacement, number
            )
            return
        self._watch(process)

    @property
    def ready(self) -> int:
        """How many of them serve."""
        return sum(process.ready for process in self._processes.values())

    @property
    def pids(self) -> list[int]:
        """Their process IDs."""
        return [process.pid for process in self._processes.values()]

    @property
    def names(self) -> list[str]:
        """What messages call each of them."""
        return [process.name for process in self._processes.values()]

    def ask_all(self, name: str, value: object, timeout: float) -> Deferred[dict[str, object]]:
        """Ask all of them something.

        :param name: what they know the request by.
        :param value: goes with it: what JSON can have.
        :param timeout: seconds that they have.
        :returns: fires with the answers, by the workers' names, without those that do not answer;
            never fails.
        """
        answers: dict[str, object] = {}
        asked = [
            process.requests.ask(name, value, timeout=timeout).addCallbacks(
                partial(answers.__setitem__, process.name), lambda failure: None
            )
            for process in self._processes.values()
            if process.ready
        ]
        return gatherResults(asked).addCallback(lambda _: answers)

    def key_holders(self, besides: int | None = None) -> list[KeyHolder]:
        """Ask them whose session a cancel request is for.

        :param besides: the number of one that is not to be asked.
        :returns: those that serve.
        """
        return [
            OtherProcess(process.requests)
            for number, process in self._processes.items()
            if process.ready and number != besides
        ]

    def connections(self) -> int:
        """How many connections of clients they have.

        :returns: the number, of all of them.
        """
        return sum(self._counters.of_worker(number) for number in self._processes)

    async def prepare(self, task: Task, sockets: Sockets) -> list[str]:
        """Have them get ready for another task; see :meth:`TaskHandover.prepare`.

        :param task: what they are to do then.
        :param sockets: the gateways' listening sockets, which stay the caller's.
        :returns: their mistakes.
        """
        return await self._handover.prepare(task, sockets, ANSWER_TIMEOUT)

    async def use(self) -> list[str]:
        """Have them do what they have prepared; see :meth:`TaskHandover.use`.

        :returns: the names of those that do not answer.
        """
        return await self._handover.use(ANSWER_TIMEOUT)

    def forget(self) -> None:
        """Have them go on with what they do."""
        self._handover.forget(ANSWER_TIMEOUT)

    def check_alive(self, timeout: float) -> None:
        """Ask each of them whether it is alive. One that does not answer is killed, and replaced.

        :param timeout: seconds that they have. A question that is on its way is not asked again.
        """
        for process in self._processes.values() if self._stopped is None else ():
            process.check_alive(timeout)

    def stop(self, timeout: float, *, leave: bool = False) -> Deferred[None]:
        """Let them begin no more sessions, and end when those that are open have.

        :param leave: whether another process serves the listeners.
        :param timeout: seconds that sessions have. A worker that has not ended
            :data:`END_TIMEOUT` seconds after them is killed; and one that does not answer and has
            no session, after :data:`ANSWER_TIMEOUT`.
        :returns: fires when none is left.
        """
        self._stopped = stopped = Deferred[None]()
        for replacement in self._replacements.values():
            replacement.cancel()
        self._replacements.clear()
        self._kill_timers = [
            self._reactor.callLater(ANSWER_TIMEOUT, self._check_answers),
            self._reactor.callLater(timeout + END_TIMEOUT, self.kill),
        ]
        for process in self._processes.values():
            process.stop(leave=leave)
        if not self._processes:
            self._all_ended(stopped)
        return stopped

    def _check_answers(self) -> None:
        for process in self._processes.values():
            if not process.stopping:
                _log.error("{worker} does not answer", worker=process.name)
                if not self._counters.of_worker(process.number):
                    process.kill()

    def kill(self) -> None:
        """End them at once, with their sessions."""
        for process in self._processes.values():
            process.kill()

    def _all_ended(self, stopped: Deferred[None]) -> None:
        for timer in self._kill_timers:
            if timer.active():
                timer.cancel()
        self._close()
        stopped.callback(None)

    def _close(self) -> None:
        self._counters.close()


def _why(process: WorkerProcess) -> list[str]:
    """Why a worker was never ready."""
    reason = f"worker {process.number + 1} {process.end()}"
    return process.mistakes or [f"{reason}: {process.last_line}".removesuffix(": ")]
