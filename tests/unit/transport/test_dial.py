"""Connections to one address: over TCP and Unix sockets, refused, late, cancelled."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.threads import deferToThread
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from pgtls.conninfo.connection_string import Host
from pgtls.errors import ConnectFailed
from pgtls.protocols.endpoint import PgTLSClientEndpoint
from pgtls.transport.connection import Connection
from pgtls.transport.dial import dial
from pgtls.wire.client_negotiation import Event
from pgtls.wire.messages import StartupMessage
from tests.support.processes import TIMEOUT, reactor
from tests.support.transports import OnTwistedsTransports, Transports

SOMEBODY = StartupMessage.build({b"user": b"somebody"})


class Client(Protocol):
    transport: Any

    def __init__(self) -> None:
        self.lost: Deferred[None] = Deferred()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost.callback(None)


class DialCase(Transports, TestCase):
    timeout = 60

    def listen(self, family: int, address: Any, backlog: int = 5) -> socket.socket:
        listener = socket.socket(family, socket.SOCK_STREAM)
        self.addCleanup(listener.close)
        listener.bind(address)
        listener.listen(backlog)
        return listener

    async def dialled(self, host: Host) -> Client:
        client = Client()
        connecting = dial(reactor, host, client, timeout=30)
        if connecting is not None:
            await connecting
        self.assertIs(isinstance(client.transport, Connection), self.fast)
        return client

    async def refusal(self, host: Host, timeout: float = 30) -> str:
        connecting = dial(reactor, host, Client(), timeout=timeout)
        assert connecting is not None
        with self.assertRaises(ConnectFailed) as caught:
            await connecting
        return caught.exception.reason

    async def close(self, client: Client) -> None:
        client.transport.loseConnection()
        await client.lost


class Hosts(DialCase):
    """PgTLSClientEndpoint on its way from one host to the next."""

    async def test_a_great_many_where_nobody_is(self) -> None:
        nobody = socket.socket()
        self.addCleanup(nobody.close)
        nobody.bind(("127.0.0.1", 0))
        port = self.listen(socket.AF_INET, ("127.0.0.1", 0)).getsockname()[1]
        ports = [nobody.getsockname()[1]] * 1000
        hosts = ",".join(["127.0.0.1"] * 1001)

        def endpoint(*ports: int) -> PgTLSClientEndpoint:
            text = ",".join(map(str, ports))
            return PgTLSClientEndpoint(reactor, f"host={hosts} port={text} sslmode=disable")

        there = endpoint(*ports, port)
        client = await there.connect(Factory.forProtocol(Client))
        self.assertEqual(there.reached.port if there.reached else None, port)
        await self.close(client)
        with self.assertRaises(ConnectFailed) as caught:
            await endpoint(*ports, ports[0]).connect(Factory.forProtocol(Client))
        self.assertEqual(caught.exception.reason, "Connection refused")
        self.assertEqual(len(caught.exception.__notes__), 1000)

    async def test_cancelling_when_the_next_attempt_is_reported(self) -> None:
        await self.at_the_next_attempt(lambda connecting: connecting.cancel(), CancelledError)

    async def test_an_error_of_who_is_told_of_the_next_attempt(self) -> None:
        # Twisted's transports log it, and close as if nobody were there.
        expected = ZeroDivisionError if self.fast else ConnectFailed
        await self.at_the_next_attempt(lambda connecting: 1 / 0, expected)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 0 if self.fast else 1)

    async def test_cancelling_in_the_report_that_completes_it(self) -> None:
        """Without a StartupMessage to send, a connection in plaintext is all that is wanted."""
        await self.at_the_next_attempt(
            lambda connecting: connecting.cancel(), CancelledError, startup=None
        )

    async def at_the_next_attempt(
        self,
        happens: Callable[[Deferred[Any]], object],
        failure: type[Exception],
        startup: StartupMessage | None = SOMEBODY,
    ) -> None:
        """See that the connection is closed, that no application gets it, and how connecting
        fails."""
        listener = self.listen(socket.AF_INET, ("127.0.0.1", 0))
        listener.settimeout(TIMEOUT)

        def serve() -> bool:
            """Answer the SSLRequest with an error; whether the next connection is closed."""
            first, _ = listener.accept()
            with first:
                first.recv(8)
                first.sendall(b"E")
            second, _ = listener.accept()
            with second:
                second.settimeout(TIMEOUT)
                with contextlib.suppress(ConnectionResetError):
                    while second.recv(65536):
                        pass
                return True

        def observe(event: Event) -> None:
            if event is Event.RECONNECT:
                happens(connecting)

        port = listener.getsockname()[1]
        endpoint = PgTLSClientEndpoint(
            reactor,
            f"host=127.0.0.1 port={port} sslmode=prefer",
            startup=startup,
            observe=observe,
        )
        serving = deferToThread(serve)
        made: list[Client] = []
        connecting = endpoint.connect(Factory.forProtocol(lambda: made.append(Client())))
        await self.assertFailure(connecting, failure).addTimeout(10, reactor)
        self.assertTrue(await serving)
        self.assertEqual(made, [])


class HostsOnTwisteds(OnTwistedsTransports, Hosts):
    """On Twisted's own."""


class Dial(DialCase):
    """On the fast transports."""

    async def test_tcp(self) -> None:
        for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
            listener = self.listen(family, (address, 0))
            port = listener.getsockname()[1]
            client = await self.dialled(Host("", address, port))
            peer, seen = listener.accept()
            self.addCleanup(peer.close)
            self.assertEqual(client.transport.getPeer().host, address)
            self.assertEqual(client.transport.getPeer().port, port)
            self.assertEqual(client.transport.getHost().port, seen[1])
            await self.close(client)
            self.assertEqual(peer.recv(1), b"")

    async def test_unix_socket(self) -> None:
        for name in (str(Path(self.mktemp())), f"\0pgtls-{id(self)}"):
            listener = self.listen(socket.AF_UNIX, f"{name}.s.PGSQL.5432"[-100:])
            path = f"{name}.s.PGSQL.5432"[-100:].replace("\0", "@")
            client = await self.dialled(_Socket(path))
            peer, _ = listener.accept()
            self.addCleanup(peer.close)
            await self.close(client)
            self.assertEqual(peer.recv(1), b"")

    async def test_nobody_listens(self) -> None:
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            reason = await self.refusal(Host("", "127.0.0.1", unused.getsockname()[1]))
        self.assertEqual(reason, "Connection refused")
        self.assertEqual(
            await self.refusal(_Socket("nowhere/.s.PGSQL.5432")), "No such file or directory"
        )


class DialOnTwistedsTransports(OnTwistedsTransports, Dial):
    """The same through Twisted's endpoints."""


class FullQueues(DialCase):
    """A Unix socket whose server does not come to accepting. Twisted's endpoint fails there."""

    async def test_a_queue_that_is_full_for_a_while(self) -> None:
        """A Unix socket whose server is slow to accept is waited for."""
        path = str(Path(self.mktemp()))
        listener = self.listen(socket.AF_UNIX, path, backlog=0)
        first = await self.dialled(_Socket(path))
        waiting = Deferred.fromCoroutine(self.dialled(_Socket(path)))
        self.assertFalse(waiting.called)
        peer, _ = listener.accept()
        second = await waiting
        for each in (peer, listener.accept()[0]):
            each.close()
        for client in (first, second):
            await self.close(client)

    async def test_one_that_does_not_answer(self) -> None:
        """Its queue is full for good; and whoever waits may lose interest."""
        path = str(Path(self.mktemp()))
        self.listen(socket.AF_UNIX, path, backlog=0)
        client = await self.dialled(_Socket(path))
        self.assertEqual(await self.refusal(_Socket(path), timeout=0.05), "timeout expired")
        waiting = dial(reactor, _Socket(path), Client(), timeout=30)
        assert waiting is not None
        waiting.cancel()
        with self.assertRaises(CancelledError):
            await waiting
        await self.close(client)


class _Socket(Host):
    """A Unix socket, wherever it is."""

    def __init__(self, path: str) -> None:
        super().__init__(path, "", 5432)

    @property
    def unix_path(self) -> str:
        return self.host
