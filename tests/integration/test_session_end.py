"""What is left for one side of a session when the other has gone may be read, but not for ever."""

from __future__ import annotations

import socket
from contextlib import closing
from threading import Event
from typing import Any

from OpenSSL.SSL import Connection as SSLConnection
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.error import ConnectionAborted, ConnectionDone
from twisted.internet.protocol import Factory, connectionDone
from twisted.internet.task import Clock
from twisted.internet.threads import deferToThread
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from pgtls.gateway.cancel import CancelForwarder
from pgtls.gateway.channel_binding_check import ChannelBinding
from pgtls.gateway.client_side import ClientSides
from pgtls.gateway.relay import DRAIN_TIMEOUT, RelaySide
from pgtls.gateway.session import SessionContext
from pgtls.gateway.single_upstream import SingleUpstream
from pgtls.protocols.endpoint import PgTLSClientEndpoint
from pgtls.protocols.observers import Observers
from pgtls.protocols.server_factory import PgTLSServerFactory
from pgtls.protocols.server_settings import ListenerSettings
from pgtls.transport.listening import listen
from pgtls.wire.server_negotiation import SSL
from tests.support.fake_servers import AUTHENTICATION_OK, READY_FOR_QUERY
from tests.support.in_memory import server_context
from tests.support.processes import TIMEOUT, reactor
from tests.support.raw_client import startup_message
from tests.support.relay_client import Session
from tests.support.transports import OnTwistedsTransports, Transports

#: BackendKeyData.
KEY = b"K\0\0\0\x0c\0\0\0\x01\0\0\0\x02"

LAST_WORDS = b"E\0\0\0\x0bSFATAL\0"


class LastWords(RelaySide):
    """Says what it is asked for, which is the last that it says."""

    def __init__(self, shared: Any) -> None:
        super().__init__(shared)
        self.finished: Deferred[None] = Deferred()
        self.lost: Deferred[Exception] = Deferred()

    def dataReceived(self, data: bytes) -> None:
        self.transport.write(b"x" * int(data))
        self.close_when_read()
        self.finished.callback(None)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        super().connectionLost(reason)
        self.lost.callback(reason.value)


class EndCase(Transports, TestCase):
    """With a listener in the process of the tests."""

    timeout = TIMEOUT

    async def listen(self, factory: Any) -> int:
        """:returns: the port."""
        endpoint = TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1")
        listening: Any = await listen(endpoint, factory, reactor)
        self.addCleanup(listening.stopListening)
        port: int = listening.getHost().port
        return port


class WhatIsLeft(EndCase):
    async def last_words(self, size: int) -> tuple[LastWords, Clock, socket.socket]:
        """A connection whose other side has gone, with that much to be read."""
        clock = Clock()
        leg = LastWords(clock)
        port = await self.listen(Factory.forProtocol(lambda: leg))
        peer = socket.create_connection(("127.0.0.1", port), TIMEOUT)
        self.addCleanup(peer.close)
        peer.sendall(str(size).encode())
        await leg.finished
        return leg, clock, peer

    def read_all(self, peer: socket.socket) -> int:
        read = 0
        while piece := peer.recv(1 << 20):
            read += len(piece)
        return read

    async def read(self, size: int) -> None:
        """See that it can be read, and that nothing goes on then."""
        leg, clock, peer = await self.last_words(size)
        self.assertEqual(await deferToThread(self.read_all, peer), size)
        self.assertIsInstance(await leg.lost, ConnectionDone)
        self.assertEqual(clock.getDelayedCalls(), [])
        self.check_transports()

    async def test_nothing(self) -> None:
        await self.read(0)

    async def test_a_little(self) -> None:
        await self.read(1000)

    async def test_much(self) -> None:
        await self.read(32 << 20)

    async def test_who_does_not_read_is_cut_off(self) -> None:
        leg, clock, peer = await self.last_words(32 << 20)
        clock.advance(DRAIN_TIMEOUT - 1)
        self.assertFalse(leg.lost.called)
        clock.advance(1)
        self.assertIsInstance(await leg.lost, ConnectionAborted)
        with self.assertRaises(ConnectionResetError):
            await deferToThread(self.read_all, peer)
        self.assertEqual(clock.getDelayedCalls(), [])
        self.check_transports()


class WhatIsLeftOnTwisteds(OnTwistedsTransports, WhatIsLeft):
    pass


class NoBinding:
    """Instead of what looks after channel binding."""

    def editor(self, client: object, upstream: object) -> None:
        raise ZeroDivisionError


class SessionCase(EndCase):
    """With a gateway and a server in the process of the tests."""

    async def gateway(self, sslmode: str, binding: Any) -> tuple[int, socket.socket]:
        """A gateway without TLS for its clients.

        :param sslmode: to the server.
        :param binding: what looks after channel binding.
        :returns: its port, and the server's listening socket.
        """
        server = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(server.close)
        server.settimeout(TIMEOUT)
        upstream = PgTLSClientEndpoint(
            reactor, f"host=127.0.0.1 port={server.getsockname()[1]} sslmode={sslmode}"
        )
        context = SessionContext(
            reactor,
            SingleUpstream(upstream),
            SingleUpstream(upstream),
            binding,
            TIMEOUT,
            tls_parameters=False,
            cancels=CancelForwarder(reactor),
            observers=Observers(),
        )
        sides = ClientSides(context)
        settings = ListenerSettings(ssl=SSL.OFF)
        port = await self.listen(PgTLSServerFactory(sides, None, settings, reactor=reactor))
        return port, server


class AnErrorAtTheBeginning(SessionCase):
    """Of ours, when the server has answered: both sides are closed, and the log says why."""

    async def test_both_sides_are_closed(self) -> None:
        port, server = await self.gateway("disable", NoBinding())

        def session() -> tuple[bytes, bytes]:
            """What the client and the server read in the end."""
            with socket.create_connection(("127.0.0.1", port), TIMEOUT) as client:
                client.sendall(startup_message())
                backend, _ = server.accept()
                with backend:
                    backend.settimeout(TIMEOUT)
                    backend.recv(1000)
                    backend.sendall(b"R\0\0\0\x08\0\0\0\0")
                    return client.recv(1), backend.recv(1)

        self.assertEqual(await deferToThread(session), (b"", b""))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.check_transports()


class AnErrorAtTheBeginningOnTwisteds(OnTwistedsTransports, AnErrorAtTheBeginning):
    pass


class TheServerSaysGoodbye(SessionCase):
    """In TLS, while the client sends more than it reads."""

    async def test_both_sides_are_closed(self) -> None:
        """It reads on then, as TCP wants it, so that no write tells the gateway of the end."""
        port, server = await self.gateway("require", ChannelBinding())

        def client() -> bytes:
            """:returns: all that the client reads."""
            session = Session(("127.0.0.1", port), tls=False)
            with closing(session.socket):
                session.send_what_goes(bytes(32 << 20))
                stuck.set()
                return session.read_all()

        def backend() -> bytes:
            """:returns: what comes behind the gateway's close_notify."""
            connection, _ = server.accept()
            with connection:
                connection.settimeout(TIMEOUT)
                connection.recv(8)
                connection.sendall(b"S")
                connection.settimeout(None)  # pyOpenSSL wants it to block
                tls = SSLConnection(server_context(), connection)
                tls.set_accept_state()
                tls.recv(1000)
                tls.sendall(AUTHENTICATION_OK + KEY + READY_FOR_QUERY)
                stuck.wait(TIMEOUT)
                tls.sendall(LAST_WORDS)
                tls.shutdown()
                connection.settimeout(TIMEOUT)
                while connection.recv(1 << 20):
                    pass
                return b""

        stuck = Event()
        sides = [deferToThread(side) for side in (client, backend)]
        self.assertEqual([await each for each in sides], [LAST_WORDS, b""])
        self.check_transports()


class TheServerSaysGoodbyeOnTwisteds(OnTwistedsTransports, TheServerSaysGoodbye):
    pass
