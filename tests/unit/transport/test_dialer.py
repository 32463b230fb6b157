"""A name is looked up once at a time, however many want to know; each waits as long as it may."""

from __future__ import annotations

from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from pgtls.conninfo.connection_string import Host
from pgtls.errors import ConnectFailed
from pgtls.transport.dialer import NAME_LIFETIME, DirectDialer

DB = Host(host="db.example.com", hostaddr="", port=5432)
OTHER = Host(host="other.example.com", hostaddr="", port=5432)


class Reactor(Clock):
    """A clock, and a resolver that answers when it is told to.

    :ivar asked: names and who wants to know them.
    """

    def __init__(self) -> None:
        super().__init__()
        self.nameResolver = self
        self.asked: list[tuple[str, Any]] = []

    def resolveHostName(self, receiver: Any, name: str, **parameters: object) -> None:
        self.asked.append((name, receiver))

    def answer(self, *addresses: str) -> None:
        """Answer the oldest question."""
        _, receiver = self.asked.pop(0)
        for address in addresses:
            receiver.addressResolved(IPv4Address("TCP", address, 0))
        receiver.resolutionComplete()


class Lookups(SynchronousTestCase):
    def setUp(self) -> None:
        self.reactor = Reactor()
        self.dialer = DirectDialer(self.reactor)  # type: ignore[arg-type]

    def names(self) -> list[str]:
        return [name for name, _ in self.reactor.asked]

    def test_one_question_for_all(self) -> None:
        found = [self.dialer.addresses(DB, 10) for _ in range(30)]
        other = self.dialer.addresses(OTHER, 10)
        self.assertEqual(self.names(), [DB.host, OTHER.host])
        self.reactor.answer("192.0.2.1")
        for each in found:
            self.assertEqual([host.hostaddr for host in self.successResultOf(each)], ["192.0.2.1"])
        self.assertNoResult(other)
        self.reactor.answer("192.0.2.2")
        self.successResultOf(other)

    def test_silence(self) -> None:
        """Each has its own timeout; whoever comes later waits for the same answer."""
        short, long = self.dialer.addresses(DB, 2), self.dialer.addresses(DB, 5)
        self.reactor.advance(2)
        self.failureResultOf(short, ConnectFailed)
        self.assertNoResult(long)
        self.reactor.advance(3)
        self.failureResultOf(long, ConnectFailed)
        late = self.dialer.addresses(DB, 5)
        self.assertEqual(self.names(), [DB.host])
        self.reactor.answer("192.0.2.1")
        self.successResultOf(late)

    def test_no_such_name(self) -> None:
        found = [self.dialer.addresses(DB, 10) for _ in range(2)]
        self.reactor.answer()
        for each in found:
            self.failureResultOf(each, ConnectFailed)
        again = self.dialer.addresses(DB, 10)
        self.reactor.answer("192.0.2.1")
        self.successResultOf(again)

    def test_one_who_leaves(self) -> None:
        leaving, staying = self.dialer.addresses(DB, 10), self.dialer.addresses(DB, 10)
        leaving.cancel()
        self.failureResultOf(leaving)
        self.reactor.answer("192.0.2.1")
        self.successResultOf(staying)

    def test_changes_are_followed(self) -> None:
        self.dialer.addresses(DB, 10)
        self.reactor.answer("192.0.2.1")
        self.assertEqual(
            self.successResultOf(self.dialer.addresses(DB, 10))[0].hostaddr, "192.0.2.1"
        )
        self.reactor.advance(NAME_LIFETIME)
        changed = self.dialer.addresses(DB, 10)
        self.reactor.answer("192.0.2.9")
        self.assertEqual(self.successResultOf(changed)[0].hostaddr, "192.0.2.9")
