"""The workers' task: what those that start are given, and how the others get another one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress

from twisted.internet.defer import Deferred, gatherResults, succeed
from twisted.python.failure import Failure

from pgtls.daemon.shared_counters import Counters
from pgtls.daemon.worker_pipe import Task
from pgtls.daemon.worker_process import WorkerProcess

#: The listening sockets, by the gateways' numbers.
Sockets = Mapping[int, int]


class TaskHandover:
    """Hands tasks to workers, with the listening sockets and the counters of connections.

    :param task: what they are to do at first.
    :param sockets: the gateways' listening sockets, which stay the caller's.
    :param processes: gives the workers that there are.
    :ivar task: what they are to do now.
    :ivar counters: what they count in.
    """

    def __init__(
        self, task: Task, sockets: Sockets, processes: Callable[[], Iterable[WorkerProcess]]
    ) -> None:
        self.task = self._prepared = task
        self.counters = Counters(task.workers)
        self._sockets = self._prepared_sockets = sockets
        self._processes = processes
        self._message = 0
        self._asked: list[WorkerProcess] = []
        self._hung: set[WorkerProcess] = set()

    @contextmanager
    def descriptors(self) -> Iterator[list[int]]:
        """What goes to a worker that starts.

        :returns: the context manager, with the descriptors; the first, the task's file, is closed
            at its end.
        :raises OSError: there is no room for it.
        """
        with self._descriptors(self.task, self._sockets) as descriptors:
            yield descriptors

    @contextmanager
    def _descriptors(self, task: Task, sockets: Sockets) -> Iterator[list[int]]:
        with task.file() as file:
            descriptors = [file.fileno()]
            for gateway in task.gateways:
                descriptors += [sockets[gateway.number], self.counters.file(gateway.number)]
            yield descriptors

    async def prepare(self, task: Task, sockets: Sockets, timeout: float) -> list[str]:
        """Have the workers get ready for another task, which takes effect by :meth:`use`.

        :param task: what they are to do then.
        :param sockets: the gateways' listening sockets, which stay the caller's.
        :param timeout: seconds that they have.
        :returns: their mistakes. A worker that is hung makes none: it does as the others do when it
            reads on.
        """
        self._message += 1
        self._prepared, self._prepared_sockets = task, sockets
        self._asked, self._hung = [], set()
        try:
            answers = self._ask_to_prepare(timeout)
        except OSError as error:
            return [f"workers cannot be told: {error.strerror}"]
        found = await gatherResults(answers)
        return list(dict.fromkeys(mistake for mistakes in found for mistake in mistakes))

    def _ask_to_prepare(self, timeout: float) -> list[Deferred[list[str]]]:
        """Ask those that have not been asked yet.

        :returns: for each what fires with its mistakes; it never fails.
        :raises OSError: they cannot be asked.
        """
        processes = [each for each in self._processes() if each not in self._asked]
        if not processes:
            return []
        self._asked += processes
        with self._descriptors(self._prepared, self._prepared_sockets) as descriptors:
            answers = [
                process.prepare(self._message, descriptors, timeout).addErrback(
                    self._not_prepared, process
                )
                for process in processes
            ]
        # One that has just been started has its own time; what it has been told it finds then.
        return [a if p.ready else succeed([]) for p, a in zip(processes, answers, strict=True)]

    def _not_prepared(self, failure: Failure, process: WorkerProcess) -> list[str]:
        self._hung.add(process)
        return []

    async def use(self, timeout: float) -> list[str]:
        """Have them do what they have prepared, and those that take their places later, too.

        :param timeout: seconds that they have.
        :returns: the names of those that do not answer. They do it when they read on.
        """
        self.task, self._sockets = self._prepared, self._prepared_sockets
        hung: list[str] = []
        answers: list[Deferred[object]] = []
        with suppress(OSError):
            self._ask_to_prepare(timeout)  # those that have been started since
        for process in self._asked:
            answer = process.use(self._message, timeout)
            answer.addErrback(self._not_used, process, hung)
            if process in self._hung:
                self._not_used(None, process, hung)
            elif process.ready:
                answers.append(answer)
        await gatherResults(answers)
        self._close_unused()
        return hung

    def _not_used(self, _: object, process: WorkerProcess, hung: list[str]) -> None:
        if process in self._processes() and process.name not in hung:
            hung.append(process.name)

    def forget(self, timeout: float) -> None:
        """Have them go on with what they do: what they have prepared is not used.

        :param timeout: seconds that they have.
        """
        for process in self._asked:
            process.forget(self._message, timeout).addErrback(lambda _: None)
        self._close_unused()

    def _close_unused(self) -> None:
        self.counters.close_unused({gateway.number for gateway in self.task.gateways})
