"""Requests and answers between two processes."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import cast

from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IReactorFDSet
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from pgtls.daemon.pipe_requests import MAX_WAITING, Answerer, PipeRequests, RequestFailed
from pgtls.daemon.worker_pipe import LineReader, LineSender


class Pair:
    """Two processes, each of which has what the other one sends at once."""

    def __init__(self, answerers: Mapping[str, Answerer]) -> None:
        self.clock = Clock()
        self.asks = PipeRequests(self.clock, self._to_answers, {})
        self.answers = PipeRequests(self.clock, self._to_asks, answerers)
        self.lines: list[str] = []

    def _to_answers(self, line: str) -> bool:
        self.lines.append(line)
        return self.answers.receive(line.encode())

    def _to_asks(self, line: str) -> bool:
        self.lines.append(line)
        return self.asks.receive(line.encode())


class Requests(SynchronousTestCase):
    def test_an_answer_at_once(self) -> None:
        pair = Pair({"double": lambda value: [value, value]})
        answer = pair.asks.ask("double", {"a": "b\nc"}, timeout=1)
        self.assertEqual(self.successResultOf(answer), [{"a": "b\nc"}] * 2)
        self.assertFalse(any("\n" in line for line in pair.lines))
        self.assertEqual(pair.clock.getDelayedCalls(), [])

    def test_answers_in_another_order(self) -> None:
        later: dict[object, Deferred[object]] = {"a": Deferred(), "b": Deferred()}
        pair = Pair({"wait": lambda value: later[value]})
        first, second = (pair.asks.ask("wait", each, timeout=1) for each in "ab")
        later["b"].callback(2)
        self.assertEqual(self.successResultOf(second), 2)
        self.assertNoResult(first)
        later["a"].callback(None)
        self.assertIsNone(self.successResultOf(first))

    def test_no_answer_in_time(self) -> None:
        later: Deferred[object] = Deferred()
        pair = Pair({"wait": lambda value: later})
        answer = pair.asks.ask("wait", timeout=2)
        pair.clock.advance(1.9)
        self.assertNoResult(answer)
        pair.clock.advance(0.1)
        self.failureResultOf(answer, RequestFailed)
        later.callback(1)  # too late, and nobody minds
        self.assertEqual(pair.clock.getDelayedCalls(), [])

    def test_a_request_that_the_other_process_does_not_know(self) -> None:
        self.failureResultOf(Pair({}).asks.ask("reload", timeout=1), RequestFailed)

    def test_one_that_fails(self) -> None:
        pair = Pair({"divide": lambda value: 1 // 0})
        self.failureResultOf(pair.asks.ask("divide", timeout=1), RequestFailed)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_one_that_fails_since_a_third_process_does(self) -> None:
        pair = Pair({"pass_on": lambda value: fail(RequestFailed("gone"))})
        self.failureResultOf(pair.asks.ask("pass_on", timeout=1), RequestFailed)

    def test_the_other_process_goes(self) -> None:
        pair = Pair({"wait": lambda value: Deferred()})
        answers = [pair.asks.ask("wait", timeout=1) for _ in range(3)]
        pair.asks.close()
        for answer in [*answers, pair.asks.ask("wait", timeout=1)]:
            self.failureResultOf(answer, RequestFailed)
        self.assertEqual(pair.clock.getDelayedCalls(), [])

    def test_the_other_process_takes_no_lines(self) -> None:
        requests = PipeRequests(Clock(), lambda line: False, {})
        self.failureResultOf(requests.ask("status", timeout=1), RequestFailed)

    def test_not_too_many_wait(self) -> None:
        pair = Pair({"wait": lambda value: Deferred()})
        answers = [pair.asks.ask("wait", timeout=1) for _ in range(MAX_WAITING)]
        self.failureResultOf(pair.asks.ask("wait", timeout=1), RequestFailed)
        pair.clock.advance(1)
        for answer in answers:
            self.failureResultOf(answer, RequestFailed)

    def test_one_that_is_given_up(self) -> None:
        pair = Pair({"wait": lambda value: Deferred()})
        answer = pair.asks.ask("wait", timeout=1)
        answer.addErrback(lambda _: None)
        answer.cancel()
        self.assertEqual(pair.clock.getDelayedCalls(), [])

    def test_other_lines_are_left_alone(self) -> None:
        requests = PipeRequests(Clock(), lambda line: True, {})
        for line in (b"ready null", b'failed ["why"]', b"{}", b"reload", b""):
            self.assertFalse(requests.receive(line))


class Writers:
    """A reactor's, as far as writing goes."""

    def __init__(self) -> None:
        self.writers: set[LineSender] = set()

    def addWriter(self, writer: LineSender) -> None:
        self.writers.add(writer)

    def removeWriter(self, writer: LineSender) -> None:
        self.writers.discard(writer)


class Sender(SynchronousTestCase):
    def setUp(self) -> None:
        self.reading, writing = os.pipe()
        self.reactor = Writers()
        self.sender = LineSender(cast(IReactorFDSet, self.reactor), writing)
        self.addCleanup(self.sender.connectionLost)

    def test_a_process_that_reads_late_has_every_line_whole(self) -> None:
        lines: list[bytes] = []
        reader = LineReader(self.reading, lines.append, lambda: None)
        self.addCleanup(reader.connectionLost)
        sent = 0
        while self.sender.write("x" * 5000):
            sent += 1
        self.assertGreater(sent, 200)  # a pipe has room for 13
        while self.reactor.writers:
            reader.doRead()
            self.sender.doWrite()
        self.assertTrue(self.sender.write("last"))
        while b"last" not in lines:
            reader.doRead()
        self.assertEqual(lines, [b"x" * 5000] * sent + [b"last"])

    def test_a_process_that_is_gone(self) -> None:
        os.close(self.reading)
        self.assertFalse(self.sender.write("reload"))

    def test_a_process_that_goes_while_lines_wait(self) -> None:
        while not self.reactor.writers:
            self.sender.write("x" * 5000)
        os.close(self.reading)
        self.assertIsInstance(self.sender.doWrite(), OSError)
        self.sender.connectionLost()
        self.assertFalse(self.sender.write("reload"))
        self.assertEqual(self.sender.fileno(), -1)
