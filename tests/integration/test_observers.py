"""Observers and a router of an application's, in a gateway with a real server behind it."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase
from zope.interface import implementer

from pgtls import (
    Client,
    IRouter,
    ISession,
    ListenerSettings,
    PgTLSClientEndpoint,
    PgTLSServerFactory,
    Refuse,
    SessionObserver,
    Upstream,
)
from pgtls.gateway.cancel import CancelForwarder
from pgtls.gateway.channel_binding_check import ChannelBinding
from pgtls.gateway.client_side import ClientSides
from pgtls.gateway.session import SessionContext
from pgtls.gateway.single_upstream import SingleUpstream
from pgtls.protocols.observers import Observers
from pgtls.transport.listening import listen
from pgtls.wire.messages import ErrorResponse
from pgtls.wire.server_negotiation import SSL
from tests.support.processes import TIMEOUT, reactor
from tests.support.raw_client import RawSession, answer, startup_message
from tests.support.servers import postgres
from tests.support.transports import OnTwistedsTransports, Transports

BULK = 3_000_000


class Witness(SessionObserver):
    """Remembers what it is told.

    :ivar over: fires with the session when one has ended.
    """

    counts_bytes = True

    def __init__(self) -> None:
        self.events: list[str] = []
        self.over: Deferred[ISession] = Deferred()

    def negotiated(self, client: Client) -> None:
        self.events.append(f"negotiated {client.startup.user.decode()}")

    def connected(self, session: ISession) -> None:
        assert session.host is not None
        self.events.append(f"connected {session.route} {session.host.hostaddr}")

    def refused(self, refused: Any) -> None:
        self.events.append(f"refused {refused.stage} {refused.reason}")

    def ended(self, session: ISession) -> None:
        self.events.append("ended")
        self.over.callback(session)


@implementer(IRouter)
class Router:
    """Answers when, and what, the test says."""

    def __init__(self) -> None:
        self.answer: Deferred[Any] = Deferred()
        self.asked: Deferred[Client] = Deferred()

    def upstream(self, client: Client) -> Deferred[Any]:
        self.asked.callback(client)
        return self.answer


class GatewayInProcess(Transports, TestCase):
    timeout = TIMEOUT

    async def start(self, **parameters: Any) -> tuple[str, int]:
        """A gateway with the router and the witness.

        :returns: where it listens.
        """
        server = postgres(17)
        self.router, self.witness = Router(), Witness()
        self.endpoint = PgTLSClientEndpoint(
            reactor, server.conninfo(user=None, dbname=None, sslmode="disable")
        )
        observers = Observers([self.witness])
        context = SessionContext(
            reactor,
            self.router,
            SingleUpstream(self.endpoint),
            ChannelBinding(),
            parameters.get("timeout", TIMEOUT),
            tls_parameters=False,
            cancels=CancelForwarder(reactor),
            observers=observers,
        )
        factory = PgTLSServerFactory(
            ClientSides(context),
            None,
            ListenerSettings(ssl=SSL.OFF),
            observers=observers,
            reactor=reactor,
        )
        endpoint = TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1")
        port: Any = await listen(endpoint, factory, reactor)
        self.addCleanup(port.stopListening)
        return "127.0.0.1", port.getHost().port

    async def test_a_session(self) -> None:
        address = await self.start()

        def session() -> tuple[int, int]:
            """A query with much to read; what was sent and read."""
            raw = RawSession(address)
            raw.send_query(f"SELECT repeat('x', {BULK})")
            read = sum(len(body) + 5 for _, body in raw.messages())
            raw.close()
            return len(startup_message()), read

        running = deferToThread(session)
        client = await self.router.asked
        self.assertEqual(client.startup.user, b"postgres")
        self.router.answer.callback(Upstream(self.endpoint, "the only one"))
        _, read = await running
        ended = await self.witness.over
        self.assertEqual(
            self.witness.events,
            ["negotiated postgres", "connected the only one 127.0.0.1", "ended"],
        )
        assert ended.bytes_from_server is not None
        self.assertGreater(ended.bytes_from_server, read)  # what came at the beginning, too
        self.assertLess(ended.bytes_from_server, read + 2000)
        self.assertEqual(ended.bytes_from_client, len(f"SELECT repeat('x', {BULK})") + 6)
        self.assertGreater(ended.seconds, 0)
        self.check_transports()

    async def test_a_router_that_refuses(self) -> None:
        address = await self.start()
        running = deferToThread(answer, address, startup_message())
        await self.router.asked
        response = ErrorResponse.fatal("08004", 'no route for database "postgres"')
        self.router.answer.callback(Refuse(response))
        self.assertEqual(await running, response.encode())
        await self.witness.over
        self.assertEqual(
            self.witness.events,
            [
                "negotiated postgres",
                'refused route no route for database "postgres"',
                "ended",
            ],
        )

    async def test_a_router_that_takes_too_long(self) -> None:
        address = await self.start(timeout=0.3)
        said = await deferToThread(answer, address, startup_message())
        self.assertIn(b"authentication_timeout is over", said)
        await self.witness.over

    async def test_a_router_that_fails(self) -> None:
        address = await self.start()
        running = deferToThread(answer, address, startup_message())
        await self.router.asked
        self.router.answer.errback(ZeroDivisionError())
        self.assertIn(b"internal error", await running)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        await self.witness.over


class GatewayInProcessOnTwisteds(OnTwistedsTransports, GatewayInProcess):
    """On Twisted's own."""
