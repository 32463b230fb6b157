"""How many connections all processes have that share listeners, in memory that they share."""

from __future__ import annotations

import mmap
import tempfile
from collections.abc import Callable
from typing import IO

_BYTES = 4


def census_file(gateways: int, workers: int) -> IO[bytes]:
    """The file below the memory: without a name, and gone with the processes that have it open."""
    file = tempfile.TemporaryFile()  # noqa: SIM115 - it stays open
    # Written, not truncated: where there is no room for it, that is to show here.
    file.write(bytes(gateways * workers * _BYTES))
    file.flush()
    return file


class Census:
    """A number for each gateway and worker.

    Each process writes its own numbers only, so nothing has to be locked. What another one counts
    in the same moment may be missed: a limit can be overshot by one for each other worker.

    :param file: the descriptor of :func:`census_file`.
    """

    def __init__(self, file: int, gateways: int, workers: int) -> None:
        self._workers = workers
        memory = mmap.mmap(file, gateways * workers * _BYTES)
        self._numbers = memoryview(memory).cast("I")

    def of(self, gateway: int, worker: int) -> Callable[[int], int]:
        """What takes a worker's own number and gives that of all."""
        numbers = self._of(gateway)

        def count(own: int) -> int:
            numbers[worker] = own
            return sum(numbers)

        return count

    def ahead(self, gateway: int, worker: int) -> Callable[[], int]:
        """What tells how many more a worker has than the one with the fewest."""
        numbers = self._of(gateway)
        return lambda: int(numbers[worker] - min(numbers))

    def _of(self, gateway: int) -> memoryview:
        return self._numbers[gateway * self._workers : (gateway + 1) * self._workers]

    def forget(self, worker: int) -> None:
        """A worker is gone, and its connections with it."""
        for number in range(worker, len(self._numbers), self._workers):
            self._numbers[number] = 0
