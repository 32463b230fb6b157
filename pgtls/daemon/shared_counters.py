"""How many connections each process has that shares a port, in memory that they share."""

from __future__ import annotations

import mmap
import os
from collections.abc import Container
from fcntl import LOCK_EX, LOCK_NB, LOCK_UN, lockf
from time import monotonic
from typing import IO

from pgtls.daemon.unnamed_file import unnamed_file

_BYTES = 4

#: Seconds that a process waits, at most, while another one counts. Where that one has been stopped
#: just then the others wait once, and go on: the limit may then be exceeded by one.
_LONGEST_WAIT = 0.2


def counters_file(workers: int) -> IO[bytes]:
    """The file below the memory of one port: without a name, and gone with the processes that have
    it open.

    :param workers: how many processes share the port.
    :returns: the file, open.
    :raises OSError: there is no room for it.
    """
    # Written, not truncated: where there is no room for it, that is to show here.
    return unnamed_file(bytes(workers * _BYTES))


class ConnectionCounters:
    """The number of connections to one port, for each process that shares it.

    Each process writes its own number only. While it decides whether it may count one more it has
    a lock on the file, which ends with the process, however that ends.

    :param file: the descriptor of :func:`counters_file`; it stays open, and the caller's.
    :param workers: how many processes share the port.
    """

    def __init__(self, file: int, workers: int) -> None:
        self._file = file
        self._patience = _LONGEST_WAIT
        self._memory = mmap.mmap(file, workers * _BYTES)
        self._numbers = memoryview(self._memory).cast("I")

    def take(self, worker: int, limit: int) -> bool:
        """Count one more connection, unless there are too many already.

        :param worker: whose; its number, from 0.
        :param limit: how many all of them may have.
        :returns: whether it has been counted.
        """
        locked = self._lock()
        try:
            if sum(self._numbers) >= limit:
                return False
            self._numbers[worker] += 1
            return True
        finally:
            if locked:
                lockf(self._file, LOCK_UN)

    def give_back(self, worker: int) -> None:
        """Count one less.

        :param worker: whose; its number, from 0.
        """
        self._numbers[worker] -= 1

    def surplus(self, worker: int) -> int:
        """Compare one process with the others.

        :param worker: its number, from 0.
        :returns: how many connections more it has than the one with the fewest.
        """
        return int(self._numbers[worker] - min(self._numbers))

    def of_worker(self, worker: int) -> int:
        """How many connections a process has.

        :param worker: its number, from 0.
        :returns: their number.
        """
        return int(self._numbers[worker])

    def total(self) -> int:
        """How many connections there are.

        :returns: the number, of all processes.
        """
        return sum(self._numbers)

    def forget(self, worker: int) -> None:
        """A process has ended, and its connections with it.

        :param worker: its number, from 0.
        """
        self._numbers[worker] = 0

    def close(self) -> None:
        """Give the memory back; nothing may count in it here any more."""
        self._numbers.release()
        self._memory.close()

    def _lock(self) -> bool:
        deadline = 0.0
        while True:
            try:
                lockf(self._file, LOCK_EX | LOCK_NB)
            except OSError:  # another one counts, which takes it some microseconds
                now = monotonic()
                deadline = deadline or now + self._patience
                if now >= deadline:
                    self._patience = 0.0
                    return False
                os.sched_yield()
            else:
                self._patience = _LONGEST_WAIT
                return True


class Counters:
    """The counters of all ports, as the daemon has them, which counts nothing itself.

    :param workers: how many processes share the ports.
    """

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._ports: dict[int, tuple[IO[bytes], ConnectionCounters]] = {}

    def file(self, number: int) -> int:
        """The file that processes count in, made when it is asked for first.

        :param number: the gateway's.
        :returns: its descriptor, which stays open here.
        :raises OSError: there is no room for it.
        """
        if number not in self._ports:
            file = counters_file(self._workers)
            self._ports[number] = file, ConnectionCounters(file.fileno(), self._workers)
        return self._ports[number][0].fileno()

    def of_worker(self, worker: int) -> int:
        """How many connections a process has.

        :param worker: its number, from 0.
        :returns: their number, to all ports.
        """
        return sum(counters.of_worker(worker) for _, counters in self._ports.values())

    def forget(self, worker: int) -> None:
        """A process has ended, and its connections with it.

        :param worker: its number, from 0.
        """
        for _, counters in self._ports.values():
            counters.forget(worker)

    def close_unused(self, used: Container[int]) -> None:
        """Close those of ports that are closed, when their connections are.

        :param used: the numbers of the others.
        """
        for number, (file, counters) in list(self._ports.items()):
            if number not in used and not counters.total():
                del self._ports[number]
                counters.close()
                file.close()

    def close(self) -> None:
        """Close all of them."""
        for file, counters in self._ports.values():
            counters.close()
            file.close()
        self._ports.clear()


class SharedPlaces:
    """One process's part of the counters, as the listener has it.

    :param counters: the port's.
    :param worker: the process's number, from 0.
    """

    def __init__(self, counters: ConnectionCounters, worker: int) -> None:
        self._counters = counters
        self._worker = worker

    def take(self, limit: int) -> bool:
        """See :meth:`ConnectionCounters.take`.

        :param limit: how many all processes may have.
        :returns: whether one more has been counted.
        """
        return self._counters.take(self._worker, limit)

    def give_back(self) -> None:
        """A connection is closed."""
        self._counters.give_back(self._worker)

    def surplus(self) -> int:
        """See :meth:`ConnectionCounters.surplus`.

        :returns: how many connections more this process has than the one with the fewest.
        """
        return self._counters.surplus(self._worker)
