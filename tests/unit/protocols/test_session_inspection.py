"""What is known of hosts is shared, for a moment."""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from pgtls.conninfo.hosts import Host
from pgtls.protocols.session_inspection import ATTRIBUTES_LIFETIME, Inspected, KnownAttributes

HOST = Host("db", "192.0.2.1", 5432)
OTHER = Host("db2", "192.0.2.2", 5432)


class KnownAttributesTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.asked: list[Host] = []
        self.answers: list[Deferred[Inspected]] = []
        self.cancelled = 0
        self.known = KnownAttributes(self.clock, self.look)

    def look(self, host: Host) -> Deferred[Inspected]:
        self.asked.append(host)
        self.answers.append(Deferred(lambda _: self.note_cancelled()))
        return self.answers[-1]

    def note_cancelled(self) -> None:
        self.cancelled += 1

    def test_many_ask_at_a_time(self) -> None:
        waiting = [self.known.of(HOST) for _ in range(100)]
        self.known.of(OTHER)
        self.assertEqual(self.asked, [HOST, OTHER])
        self.answers[0].callback(Inspected(HOST))
        self.assertEqual([self.successResultOf(each) for each in waiting], [Inspected(HOST)] * 100)

    def test_for_how_long(self) -> None:
        self.known.of(HOST)
        self.answers[0].callback(Inspected(None))
        self.clock.advance(ATTRIBUTES_LIFETIME * 0.9)
        self.assertEqual(self.successResultOf(self.known.of(HOST)), Inspected(None))
        self.clock.advance(ATTRIBUTES_LIFETIME * 0.1)
        self.assertNoResult(self.known.of(HOST))
        self.assertEqual(self.asked, [HOST, HOST])

    def test_forgotten(self) -> None:
        self.known.of(HOST)
        self.answers[0].callback(Inspected(HOST))
        self.known.forget(OTHER)
        self.successResultOf(self.known.of(HOST))
        self.known.forget(HOST)
        self.assertNoResult(self.known.of(HOST))

    def test_one_that_does_not_wait_any_more(self) -> None:
        first, second = self.known.of(HOST), self.known.of(HOST)
        first.cancel()
        self.failureResultOf(first, CancelledError)
        self.assertEqual(self.cancelled, 0)
        second.cancel()
        self.failureResultOf(second, CancelledError)
        self.assertEqual(self.cancelled, 1)
        self.assertNoResult(self.known.of(HOST))
        self.assertEqual(self.asked, [HOST, HOST])

    def test_an_error_is_for_all_that_wait(self) -> None:
        waiting = [self.known.of(HOST) for _ in range(2)]
        self.answers[0].errback(ValueError("a mistake"))
        for each in waiting:
            self.failureResultOf(each, ValueError)
        self.assertNoResult(self.known.of(HOST))
