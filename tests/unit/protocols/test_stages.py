"""The stages of a session in a listener: a policy that takes its time, observers, the Client."""

from __future__ import annotations

from typing import Any, cast

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IStreamServerEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyClass

from pgtls import (
    ADMIT,
    Client,
    IAccessPolicy,
    IPostgreSQLSession,
    ISessionObserver,
    ListenerSettings,
    PgTLSServerEndpoint,
    PgTLSServerFactory,
    Refuse,
    SessionObserver,
)
from pgtls.protocols.deciding import EARLY_LIMIT
from pgtls.protocols.places import SHUTTING_DOWN
from pgtls.wire.messages import CancelRequest, ErrorResponse, StartupMessage
from pgtls.wire.server_negotiation import SSL

STARTUP = StartupMessage.build({b"user": b"alice", b"database": b"shop"})
CANCEL = CancelRequest.build(b"\0\0\0\7" + b"k" * 4).raw
PEER = IPv4Address("TCP", "192.0.2.7", 1234)
NO_ENTRY = Refuse(ErrorResponse.fatal("28000", "no entry"), "line 3 says so")


@implementer(IPostgreSQLSession)
class Session(Protocol):
    """Notes what it gets."""

    def __init__(self) -> None:
        self.got: list[Any] = []

    def session_requested(self, client: Client) -> None:
        self.got.append(client)

    def cancel_requested(self, request: CancelRequest, tls: object) -> None:
        self.got.append(request)

    def dataReceived(self, data: bytes) -> None:
        self.got.append(data)


@implementer(IAccessPolicy)
class Policy:
    """Says what the test wants it to say."""

    answer: Any = ADMIT

    def decide(self, client: Client) -> Any:
        self.client = client
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


class Witness(SessionObserver):
    """Remembers the names of all events."""

    def __init__(self) -> None:
        self.events: list[tuple[Any, ...]] = []
        for name in ISessionObserver.names():
            if not name.startswith("counts_"):
                setattr(self, name, lambda *args, name=name: self.events.append((name, *args)))

    def names(self) -> list[str]:
        return [name for name, *_ in self.events]

    # Defined, or nobody would call them.
    accepted = negotiated = admitted = refused = cancel_requested = connected = ended = stopped = (
        lambda self, *args: None
    )


class StageCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.policy, self.witness = Policy(), Witness()
        self.sessions: list[Session] = []
        self.factory = PgTLSServerFactory(
            Factory.forProtocol(self.session),
            None,
            ListenerSettings(ssl=SSL.OFF),
            policy=self.policy,
            observers=(self.witness,),
            reactor=self.clock,
        )
        self.protocol: Any = self.factory.buildProtocol(None)
        self.transport = StringTransport(peerAddress=PEER)
        self.protocol.makeConnection(self.transport)

    def session(self) -> Session:
        self.sessions.append(Session())
        return self.sessions[-1]

    def refused_with(self, response: ErrorResponse) -> None:
        self.assertEqual(self.transport.value(), response.encode())
        self.assertTrue(self.transport.disconnecting)
        self.assertEqual(self.sessions, [])


class PolicyTests(StageCase):
    def test_it_is_told_all_of_the_client(self) -> None:
        self.clock.advance(0)
        self.protocol.dataReceived(STARTUP.raw + b"more")
        self.assertEqual(self.policy.client, Client(STARTUP, PEER))
        self.assertEqual(self.sessions[0].got, [self.policy.client, b"more"])

    def test_it_refuses(self) -> None:
        self.policy.answer = NO_ENTRY
        self.protocol.dataReceived(STARTUP.raw)
        self.refused_with(NO_ENTRY.response)
        [refused] = [event[1] for event in self.witness.events if event[0] == "refused"]
        self.assertEqual((refused.reason, refused.client), ("line 3 says so", self.policy.client))

    def test_an_error_in_it_refuses(self) -> None:
        self.policy.answer = ZeroDivisionError()
        self.protocol.dataReceived(STARTUP.raw)
        self.assertIn(b"CXX000", self.transport.value())
        self.assertEqual(self.sessions, [])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)


class DeferredPolicyTests(StageCase):
    def setUp(self) -> None:
        super().setUp()
        self.cancelled = 0
        self.answer: Deferred[Any] = Deferred(self.cancel)
        self.policy.answer = self.answer
        self.protocol.dataReceived(STARTUP.raw + b"1")

    def cancel(self, answer: Deferred[Any]) -> None:
        self.cancelled += 1

    def test_it_admits(self) -> None:
        self.protocol.dataReceived(b"2")
        self.assertEqual(self.sessions, [])
        self.answer.callback(ADMIT)
        self.assertEqual(self.sessions[0].got, [self.policy.client, b"12"])
        self.protocol.dataReceived(b"3")
        self.assertEqual(self.sessions[0].got[2:], [b"3"])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_it_refuses(self) -> None:
        self.answer.callback(NO_ENTRY)
        self.refused_with(NO_ENTRY.response)

    def test_it_fails(self) -> None:
        self.answer.errback(Failure(ZeroDivisionError()))
        self.assertIn(b"CXX000", self.transport.value())
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_it_takes_too_long(self) -> None:
        self.clock.advance(60)
        self.refused_with(ErrorResponse.fatal("57014", "canceling authentication due to timeout"))
        self.assertEqual(self.cancelled, 1)

    def test_the_client_goes_meanwhile(self) -> None:
        self.protocol.connectionLost()
        self.assertEqual(self.cancelled, 1)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(self.factory.connections, set())

    def test_a_shutdown_begins_meanwhile(self) -> None:
        self.factory.refuse_sessions(SHUTTING_DOWN)
        self.answer.callback(ADMIT)
        self.refused_with(SHUTTING_DOWN)

    def test_a_client_that_sends_much_is_not_read_from_meanwhile(self) -> None:
        self.protocol.dataReceived(b"x" * EARLY_LIMIT)
        self.assertEqual(self.transport.producerState, "paused")
        self.answer.callback(ADMIT)
        self.assertEqual(self.transport.producerState, "producing")
        self.assertEqual(len(self.sessions[0].got[1]), EARLY_LIMIT + 1)


@implementer(IStreamServerEndpoint)
class Wrapped:
    """Keeps the factory."""

    def listen(self, protocolFactory: Any) -> Deferred[Any]:
        self.factory = protocolFactory
        return Deferred()


class EndpointTests(StageCase):
    def test_it_hands_on_policy_and_observers(self) -> None:
        wrapped, reactor = Wrapped(), cast(Any, self.clock)
        PgTLSServerEndpoint(
            reactor,
            wrapped,
            ListenerSettings(ssl=SSL.OFF),
            policy=self.policy,
            observers=(self.witness,),
        ).listen(Factory.forProtocol(self.session))
        protocol = wrapped.factory.buildProtocol(None)
        protocol.makeConnection(StringTransport())
        protocol.dataReceived(STARTUP.raw)
        self.assertEqual(self.policy.client.startup, STARTUP)
        self.assertEqual(self.witness.names()[-1], "admitted")


class ObserverTests(StageCase):
    def test_a_session(self) -> None:
        self.protocol.dataReceived(STARTUP.raw)
        self.assertEqual(self.witness.names(), ["accepted", "negotiated", "admitted"])
        self.assertEqual(self.witness.events[0], ("accepted", PEER))

    def test_a_cancel_request(self) -> None:
        self.protocol.dataReceived(CANCEL)
        self.assertEqual(self.witness.events[1], ("cancel_requested", PEER, None, True))

    def test_a_refusal_has_its_response(self) -> None:
        self.protocol.dataReceived(b"\0\0\0\x09\0\3\0\0x")
        [refused] = [event[1] for event in self.witness.events if event[0] == "refused"]
        self.assertEqual((refused.address, refused.client), (PEER, None))
        self.assertEqual(refused.response.sqlstate, "28000")

    def test_nothing_is_told_of_one_that_says_nothing(self) -> None:
        self.protocol.connectionLost()
        self.assertEqual(self.witness.names(), ["accepted"])

    def test_the_end_of_the_listener(self) -> None:
        self.factory.doStart()
        self.factory.doStop()
        self.assertEqual(self.witness.names()[-1], "stopped")

    def test_an_error_in_one_hinders_nothing(self) -> None:
        class Broken(SessionObserver):
            def negotiated(self, client: Client) -> None:
                raise ZeroDivisionError

        factory = PgTLSServerFactory(
            Factory.forProtocol(self.session),
            None,
            ListenerSettings(ssl=SSL.OFF),
            observers=(Broken(), self.witness),
            reactor=self.clock,
        )
        protocol: Any = factory.buildProtocol(None)
        protocol.makeConnection(StringTransport())
        protocol.dataReceived(STARTUP.raw)
        self.assertEqual(len(self.sessions), 1)
        self.assertEqual(self.witness.names()[-2:], ["negotiated", "admitted"])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_the_base_class_has_everything(self) -> None:
        self.assertTrue(verifyClass(ISessionObserver, SessionObserver))
