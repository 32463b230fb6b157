"""Sessions counted by several processes at the same time."""

from __future__ import annotations

import os

from twisted.trial.unittest import SynchronousTestCase

from pgtls.daemon.shared_counters import ConnectionCounters, Counters, SharedPlaces, counters_file

WORKERS = 4
LIMIT = 50


class SharedCountersTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.file = counters_file(WORKERS)
        self.addCleanup(self.file.close)
        self.counters = ConnectionCounters(self.file.fileno(), WORKERS)
        self.addCleanup(self.counters.close)

    def test_the_limit_is_everybodys(self) -> None:
        first, second = (SharedPlaces(self.counters, number) for number in (0, 1))
        self.assertEqual([first.take(2), second.take(2), first.take(2)], [True, True, False])
        second.give_back()
        self.assertTrue(first.take(2))
        self.assertEqual((first.surplus(), self.counters.of_worker(1)), (2, 0))

    def test_it_is_exact_whatever_processes_do_at_the_same_moment(self) -> None:
        """Each takes places and gives them back, and then keeps what it gets."""
        begin, ready = os.pipe()
        processes = [self._fork(number, begin, ready) for number in range(WORKERS)]
        os.close(begin)
        os.close(ready)  # all of them see the end of it at once
        for process in processes:
            self.assertEqual(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), 0)
        self.assertEqual(self.counters.total(), LIMIT)

    def _fork(self, number: int, begin: int, ready: int) -> int:
        process = os.fork()
        if process:
            return process
        status = 1
        try:
            os.close(ready)
            os.read(begin, 1)
            for _ in range(300):
                if self.counters.take(number, LIMIT):
                    self.counters.give_back(number)
            for _ in range(LIMIT):
                self.counters.take(number, LIMIT)
                if self.counters.total() > LIMIT:
                    return 0
            status = 0
        finally:
            os._exit(status)

    def test_what_a_process_that_has_ended_had_is_free(self) -> None:
        self.counters.take(3, 1)
        self.assertFalse(self.counters.take(0, 1))
        self.counters.forget(3)
        self.assertTrue(self.counters.take(0, 1))

    def test_counters_of_a_port_that_is_closed_stay_as_long_as_its_sessions(self) -> None:
        counters = Counters(WORKERS)
        self.addCleanup(counters.close)
        worker = ConnectionCounters(counters.file(7), WORKERS)
        self.addCleanup(worker.close)
        worker.take(1, 9)
        counters.close_unused(())
        self.assertEqual(counters.of_worker(1), 1)
        worker.give_back(1)
        counters.close_unused(())
        self.assertNotEqual(counters.file(7), -1)
        self.assertEqual(counters.of_worker(1), 0)
