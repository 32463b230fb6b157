"""Cancel requests between processes: asked by one, answered by another."""

from __future__ import annotations

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from pgtls.daemon.cancel_requests import FIND_TIMEOUT, OtherProcess, cancel_answerers
from pgtls.daemon.pipe_requests import PipeRequests
from pgtls.gateway.key_holders import KeyHolder, KeyHolders

#: Process ID and secret, from the shortest to the longest.
KEYS = [b"\0\0\0\1" + b"k", b"\0\n \xff" * 2, b"\0\0\0\2" + bytes(range(256))]


class Sessions:
    """A process's sessions.

    :ivar cancelled: the keys of those that were.
    """

    def __init__(self, *keys: bytes) -> None:
        self._keys = keys
        self.cancelled: list[bytes] = []

    def has_key(self, key: bytes) -> Deferred[bool | None]:
        return succeed(key in self._keys)

    def cancel(self, key: bytes) -> Deferred[bool | None]:
        if key in self._keys:
            self.cancelled.append(key)
        return succeed(key in self._keys)


class Silent:
    """A process that hangs."""

    def has_key(self, key: bytes) -> Deferred[bool | None]:
        return Deferred()

    def cancel(self, key: bytes) -> Deferred[bool | None]:
        return Deferred()


class Processes(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()

    def beyond(self, holder: KeyHolder, asks_others: int = 0) -> OtherProcess:
        """A holder of keys, asked over a pipe."""
        asks = PipeRequests(self.clock, lambda line: answers.receive(line.encode()), {})
        answers = PipeRequests(
            self.clock, lambda line: asks.receive(line.encode()), cancel_answerers(holder)
        )
        return OtherProcess(asks, asks_others)

    def test_keys_of_every_length(self) -> None:
        sessions = Sessions(*KEYS)
        other = self.beyond(sessions)
        for key in KEYS:
            self.assertIs(self.successResultOf(other.has_key(key)), True)
            self.assertIs(self.successResultOf(other.cancel(key)), True)
            self.assertIs(self.successResultOf(other.has_key(key + b"x")), False)
            self.assertIs(self.successResultOf(other.cancel(key[:-1])), False)
        self.assertEqual(sessions.cancelled, KEYS)

    def test_one_that_hangs(self) -> None:
        other = self.beyond(Silent())
        answer = other.has_key(KEYS[0])
        self.clock.advance(FIND_TIMEOUT)
        self.assertIsNone(self.successResultOf(answer))

    def test_from_worker_to_worker_by_way_of_two_daemons(self) -> None:
        """As in an upgrade. A worker that hangs leaves the others' answers in time."""
        sessions = Sessions(*KEYS)
        old = KeyHolders(lambda: [self.beyond(Silent()), self.beyond(sessions)])
        new = KeyHolders(lambda: [self.beyond(Silent()), self.beyond(old, 1)])
        worker = self.beyond(new, 2)
        self.assertIs(self.successResultOf(worker.has_key(KEYS[2])), True)
        self.assertIs(self.successResultOf(worker.cancel(KEYS[2])), True)
        self.assertEqual(sessions.cancelled, [KEYS[2]])
        unknown = worker.has_key(b"\0\0\0\1none")
        self.assertNoResult(unknown)
        self.clock.advance(FIND_TIMEOUT)
        self.assertIsNone(self.successResultOf(unknown))
        self.assertNotEqual(self.clock.getDelayedCalls(), [])  # the cancel of those that hang

    def test_one_that_knows_no_such_request(self) -> None:
        requests = PipeRequests(self.clock, lambda line: True, {})
        requests.close()
        other = OtherProcess(requests)
        self.assertIsNone(self.successResultOf(other.has_key(KEYS[0])))
        self.assertIsNone(self.successResultOf(other.cancel(KEYS[0])))
