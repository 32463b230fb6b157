"""Time limits that share a timer."""

from __future__ import annotations

import socket
import time

from twisted.internet.abstract import FileDescriptor
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase, TestCase

from pgtls.transport.deadlines import Deadlines
from tests.support.processes import reactor


class DeadlineTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.deadlines = Deadlines(self.clock)
        self.over: list[str] = []

    def limit(self, seconds: float, name: str) -> None:
        self.deadlines.call_later(seconds, lambda: self.over.append(name))

    def fails(self) -> None:
        raise ZeroDivisionError

    def test_never_early_and_hardly_late(self) -> None:
        self.clock.advance(0.1)
        self.limit(5, "a")
        self.clock.advance(4.99)
        self.assertEqual(self.over, [])
        self.clock.advance(0.26)
        self.assertEqual(self.over, ["a"])

    def test_each_at_its_time(self) -> None:
        for seconds in (60, 5, 2, 60, 2.25):
            self.limit(seconds, str(seconds))
        for _ in range(4 * 61):
            self.clock.advance(0.25)
        self.assertEqual(self.over, ["2", "2.25", "5", "60", "60"])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_all_that_are_over_after_a_long_turn_of_the_reactor(self) -> None:
        for seconds in (3, 1, 2):
            self.limit(seconds, str(seconds))
        self.clock.advance(10)
        for _ in range(3):
            self.clock.advance(0)
        self.assertEqual(self.over, ["1", "2", "3"])

    def test_many_share_a_timer(self) -> None:
        for _ in range(1000):
            self.limit(60, "x")
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)

    def test_cancelled(self) -> None:
        first = self.deadlines.call_later(1, lambda: self.over.append("first"))
        self.limit(1, "second")
        first.cancel()
        first.cancel()
        self.clock.advance(1)
        self.assertEqual(self.over, ["second"])

    def test_the_last_one_takes_the_timer_with_it(self) -> None:
        limits = [self.deadlines.call_later(seconds, lambda: None) for seconds in (1, 2)]
        for limit in limits:
            limit.cancel()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_kept_timer_serves_those_to_come(self) -> None:
        self.deadlines.keep_timer()
        for _ in range(10):
            self.deadlines.call_later(60, lambda: None).cancel()
            self.clock.advance(1)
        [timer] = self.clock.getDelayedCalls()
        self.assertEqual(timer.getTime(), 60)
        self.limit(60, "late")
        self.limit(1, "soon")
        self.clock.advance(1)
        self.assertEqual(self.over, ["soon"])
        self.clock.advance(59)
        self.assertEqual(self.over, ["soon", "late"])
        self.deadlines.let_timer_go()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_without_limits_there_is_nothing_to_wake_up_for(self) -> None:
        self.deadlines.keep_timer()
        self.deadlines.call_later(60, lambda: None).cancel()
        self.clock.advance(60)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_one_ends_another(self) -> None:
        def end() -> None:
            self.over.append("first")
            second.cancel()
            self.limit(1, "third")

        self.deadlines.call_later(1, end)
        second = self.deadlines.call_later(1, lambda: self.over.append("second"))
        self.limit(1.5, "between")
        for _ in range(4):
            self.clock.advance(0.5)
        self.assertEqual(self.over, ["first", "between", "third"])

    def test_an_error_in_one_does_not_hinder_the_others(self) -> None:
        self.deadlines.call_later(1, self.fails)
        self.limit(1, "second")
        self.clock.advance(1)
        self.assertEqual(self.over, ["second"])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)


class AfterALongTurnTests(TestCase):
    """With the real reactor, which was busy until a limit's time was over."""

    async def test_what_came_in_time_is_read_first(self) -> None:
        here, peer = socket.socketpair()
        self.addCleanup(here.close)
        self.addCleanup(peer.close)
        first: Deferred[str] = Deferred()
        limit = Deadlines(reactor).call_later(0.01, lambda: first.callback("the limit"))

        def answered() -> None:
            reactor.removeReader(reader)
            limit.cancel()
            first.callback("the answer")

        reader = FileDescriptor(reactor)
        reader.fileno = here.fileno
        reader.doRead = answered
        reactor.addReader(reader)
        peer.send(b"S")
        time.sleep(0.3)
        self.assertEqual(await first, "the answer")
