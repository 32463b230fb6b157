"""How many clients a listener takes, and what those get to hear for whom there is no place."""

from __future__ import annotations

from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase

from pgtls.protocols.places import (
    CANCEL_CLIENTS_AT_ONCE,
    CANCELS_AT_ONCE,
    REFUSED_AT_ONCE,
    REFUSING_HANDSHAKES,
    SHUTTING_DOWN,
    TOO_MANY_CLIENTS,
    Place,
    Places,
    descriptors,
)
from pgtls.protocols.server import PgTLSServerProtocol
from pgtls.protocols.server_factory import PgTLSServerFactory
from pgtls.protocols.server_settings import ListenerSettings
from pgtls.wire.messages import CancelRequest, StartupMessage
from pgtls.wire.server_negotiation import SSL

STARTUP = StartupMessage.build({b"user": b"alice"}).raw
CANCEL = CancelRequest.build(b"\0\0\0\7" + b"k" * 4).raw


class PlacesTests(SynchronousTestCase):
    """Connections are numbers here."""

    def setUp(self) -> None:
        self.evicted: list[int] = []
        self.places = Places[int](2, self.evicted.append)

    def enter(self, *connections: int) -> list[Place]:
        return [self.places.enter(each) for each in connections]

    def test_those_within_the_limit_have_a_place(self) -> None:
        self.assertEqual(self.enter(1, 2, 3), [Place.SESSION, Place.SESSION, Place.REFUSED])
        self.assertIsNone(self.places.session_refusal(2))
        self.assertIs(self.places.session_refusal(3), TOO_MANY_CLIENTS)

    def test_a_place_is_free_when_one_leaves(self) -> None:
        self.enter(1, 2)
        self.places.leave(1)
        self.assertEqual(self.enter(3), [Place.SESSION])

    def test_others_count_too(self) -> None:
        class Shared:
            count = 1  # another process's

            def take(self, limit: int) -> bool:
                taken = self.count < limit
                self.count += taken
                return taken

            def give_back(self) -> None:
                self.count -= 1

        self.places.shared = shared = Shared()
        self.assertEqual(self.enter(1, 2), [Place.SESSION, Place.REFUSED])
        self.places.leave(2)
        self.assertEqual(shared.count, 2)
        self.places.leave(1)
        self.assertEqual(shared.count, 1)

    def test_the_oldest_of_too_many_that_are_refused_goes(self) -> None:
        self.enter(1, 2)
        self.enter(*range(100, 100 + REFUSED_AT_ONCE))
        self.assertEqual(self.evicted, [])
        self.enter(3)
        self.assertEqual(self.evicted, [100])
        self.assertEqual(len(self.places.refused), REFUSED_AT_ONCE)

    def test_handshakes_that_only_refuse_have_a_bound(self) -> None:
        self.enter(1, 2)
        refused = range(100, 100 + REFUSING_HANDSHAKES)
        self.enter(*refused, 3)
        for each in refused:
            self.assertIsNone(self.places.handshake_refusal(each))
        self.assertIs(self.places.handshake_refusal(3), TOO_MANY_CLIENTS)
        self.assertIsNone(self.places.handshake_refusal(1))
        self.places.leave(100)
        self.assertIsNone(self.places.handshake_refusal(3))

    def test_a_cancel_request_needs_no_place(self) -> None:
        self.enter(1, 2)
        self.assertTrue(self.places.cancel(2))
        self.assertEqual(self.enter(3), [Place.SESSION])

    def test_cancel_requests_have_a_bound(self) -> None:
        for each in range(CANCEL_CLIENTS_AT_ONCE):
            self.enter(each)
            self.assertTrue(self.places.cancel(each))
        self.enter(-1)
        self.assertFalse(self.places.cancel(-1))
        self.places.leave(0)
        self.assertTrue(self.places.cancel(-1))

    def test_none_when_sessions_are_refused(self) -> None:
        self.enter(1, 2)
        self.places.refuse(SHUTTING_DOWN, [2])
        self.enter(3)
        for each in (1, 2, 3):
            self.assertIs(self.places.session_refusal(each), SHUTTING_DOWN)
        self.assertEqual(self.places.sessions, {1})
        self.assertEqual(self.places.refused, [2, 3])


class DescriptorsTests(SynchronousTestCase):
    """How many files a listener may have open."""

    def test_through_SSH_a_pair_of_sockets_is_in_the_place_of_one(self) -> None:
        direct = descriptors(500, through_ssh=False)
        self.assertEqual(descriptors(501, through_ssh=False) - direct, 3)
        self.assertEqual(descriptors(500, through_ssh=True) - direct, 500 + CANCELS_AT_ONCE)


class Session(Protocol):
    """An application that takes everything and says nothing."""


class DrainTests(SynchronousTestCase):
    """No new sessions; those that are open may go on, and be cancelled."""

    def setUp(self) -> None:
        self.clock = Clock()
        reactor: IReactorTime = self.clock
        self.factory = PgTLSServerFactory(
            Factory.forProtocol(Session), None, ListenerSettings(ssl=SSL.OFF), reactor=reactor
        )

    def connect(self, *said: bytes) -> tuple[PgTLSServerProtocol, StringTransport]:
        protocol = self.factory.buildProtocol(None)
        assert isinstance(protocol, PgTLSServerProtocol)
        transport = StringTransport()
        protocol.makeConnection(transport)
        for each in said:
            protocol.dataReceived(each)
        return protocol, transport

    def lost(self, *protocols: PgTLSServerProtocol) -> None:
        for each in protocols:
            each.connectionLost()

    def test_a_new_session_is_refused(self) -> None:
        self.factory.refuse_sessions(SHUTTING_DOWN)
        protocol, transport = self.connect(STARTUP)
        self.assertEqual(transport.value(), SHUTTING_DOWN.encode())
        self.assertTrue(transport.disconnecting)
        self.lost(protocol)

    def test_so_is_one_that_has_not_begun(self) -> None:
        protocol, transport = self.connect(STARTUP[:10])
        self.factory.refuse_sessions(SHUTTING_DOWN)
        protocol.dataReceived(STARTUP[10:])
        self.assertEqual(transport.value(), SHUTTING_DOWN.encode())
        self.lost(protocol)

    def test_it_is_over_with_the_last_session(self) -> None:
        sessions = [self.connect(STARTUP)[0] for _ in range(2)]
        self.factory.refuse_sessions(SHUTTING_DOWN)
        drained = self.factory.drain(10)
        _, waiting = self.connect()
        self.lost(sessions[0])
        self.assertNoResult(drained)
        self.lost(sessions[1])
        self.successResultOf(drained)
        self.assertTrue(waiting.disconnected)

    def test_a_cancel_request_goes_on_and_is_waited_for(self) -> None:
        session, _ = self.connect(STARTUP)
        self.factory.refuse_sessions(SHUTTING_DOWN)
        drained = self.factory.drain(10)
        cancel, transport = self.connect(CANCEL)
        self.assertFalse(transport.disconnecting)
        self.lost(session)
        self.assertNoResult(drained)
        self.lost(cancel)
        self.successResultOf(drained)

    def test_after_the_timeout_sessions_are_closed(self) -> None:
        session, transport = self.connect(STARTUP)
        drained = self.factory.drain(10)
        self.clock.advance(9)
        self.assertFalse(transport.disconnected)
        self.clock.advance(1)
        self.assertTrue(transport.disconnected)
        self.lost(session)
        self.successResultOf(drained)
        self.assertEqual(self.clock.getDelayedCalls(), [])
