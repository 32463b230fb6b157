"""What waits to be sent, and when its producer pauses."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from pgtls.transport.outgoing import LIMIT, Outgoing
from pgtls.transport.states import TRANSITIONS, Change, State


class Producer:
    def __init__(self) -> None:
        self.calls: list[str] = []

    def pauseProducing(self) -> None:
        self.calls.append("pause")

    def resumeProducing(self) -> None:
        self.calls.append("resume")

    def stopProducing(self) -> None:
        self.calls.append("stop")


class OutgoingTests(SynchronousTestCase):
    def test_in_order_and_in_parts(self) -> None:
        outgoing = Outgoing()
        whole = b"".join(bytes([n]) * (n * 997) for n in range(100))
        for n in range(100):
            outgoing.add(bytes([n]) * (n * 997))
        sent = b""
        while outgoing.size:
            piece = outgoing.next()
            count = min(len(piece), 10007)
            sent += piece[:count]
            outgoing.sent(count)
            outgoing.sent(0) if outgoing.size else None
        self.assertEqual(sent, whole)

    def test_all_at_once(self) -> None:
        outgoing = Outgoing()
        outgoing.add(b"one")
        outgoing.add(b"")
        outgoing.add(memoryview(b"two"))
        self.assertEqual((outgoing.size, outgoing.take_all(), outgoing.size), (6, b"onetwo", 0))

    def test_a_producer_pauses_past_the_limit_and_resumes_when_all_is_sent(self) -> None:
        outgoing, producer = Outgoing(), Producer()
        outgoing.register(producer, True)  # type: ignore[arg-type]
        outgoing.add(bytes(LIMIT))
        outgoing.pause(0)
        self.assertEqual(producer.calls, [])
        self.assertFalse(outgoing.resume())
        outgoing.pause(1)
        self.assertTrue(outgoing.resume())
        self.assertEqual(producer.calls, ["pause", "resume"])
        outgoing.stop()
        self.assertEqual((producer.calls[-1], outgoing.size), ("stop", 0))

    def test_one_producer_at_a_time(self) -> None:
        outgoing = Outgoing()
        outgoing.register(Producer(), False)  # type: ignore[arg-type]
        self.assertTrue(outgoing.resume())  # asked each time
        with self.assertRaises(RuntimeError):
            outgoing.register(Producer(), True)  # type: ignore[arg-type]


class StateTests(SynchronousTestCase):
    def test_every_state_but_the_last_ends_in_it(self) -> None:
        for state in State:
            ends = TRANSITIONS.get((state, Change.LOST))
            self.assertIs(ends, None if state is State.CLOSED else State.CLOSED)

    def test_nothing_goes_back(self) -> None:
        order = list(State)
        for (before, _), after in TRANSITIONS.items():
            self.assertGreater(order.index(after), order.index(before))
