"""How many connections each process has that shares a port, in memory that they share."""

from __future__ import annotations

import mmap
import tempfile
from collections.abc import Callable
from typing import IO

_BYTES = 4


def counters_file(gateways: int, workers: int) -> IO[bytes]:
    """The file below the memory: without a name, and gone with the processes that have it open.

    :param gateways: how many ports are shared.
    :param workers: how many processes share them.
    :returns: the file, open.
    :raises OSError: there is no room for it.
    """
    file = tempfile.TemporaryFile()  # noqa: SIM115 - it stays open
    # Written, not truncated: where there is no room for it, that is to show here.
    file.write(bytes(gateways * workers * _BYTES))
    file.flush()
    return file


class ConnectionCounters:
    """A number of connections for each gateway and worker.

    Each process writes its own numbers only, so nothing has to be locked. What another one counts
    in the same moment may be missed: a limit can be overshot by one for each other worker.

    :param file: the descriptor of :func:`counters_file`.
    :param gateways: how many ports are shared.
    :param workers: how many processes share them.
    """

    def __init__(self, file: int, gateways: int, workers: int) -> None:
        self._workers = workers
        self._memory = mmap.mmap(file, gateways * workers * _BYTES)
        self._numbers = memoryview(self._memory).cast("I")

    def everywhere(self, gateway: int, worker: int) -> Callable[[int], int]:
        """Counts one worker's connections to a gateway, and those of all.

        :param gateway: the gateway's number, from 0.
        :param worker: the worker's number, from 0.
        :returns: what takes the worker's own number and returns that of all workers.
        """
        numbers = self._of_gateway(gateway)

        def count(own: int) -> int:
            numbers[worker] = own
            return sum(numbers)

        return count

    def surplus(self, gateway: int, worker: int) -> Callable[[], int]:
        """Compares one worker's connections to a gateway with those of the others.

        :param gateway: the gateway's number, from 0.
        :param worker: the worker's number, from 0.
        :returns: what returns how many more it has than the worker with the fewest.
        """
        numbers = self._of_gateway(gateway)
        return lambda: int(numbers[worker] - min(numbers))

    def _of_gateway(self, gateway: int) -> memoryview:
        return self._numbers[gateway * self._workers : (gateway + 1) * self._workers]

    def of_worker(self, worker: int) -> int:
        """How many connections a worker has.

        :param worker: its number, from 0.
        :returns: their number, to all gateways.
        """
        return sum(self._numbers[worker :: self._workers])

    def close(self) -> None:
        """Give the memory back; nothing may count in it here any more."""
        self._numbers.release()
        self._memory.close()

    def forget(self, worker: int) -> None:
        """A worker has ended, and its connections with it.

        :param worker: its number, from 0.
        """
        for number in range(worker, len(self._numbers), self._workers):
            self._numbers[number] = 0
