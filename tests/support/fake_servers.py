"""Servers inside the process of a test that say what a script tells them, right or wrong."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, cast

from OpenSSL import SSL
from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.interfaces import (
    IAddress,
    IDelayedCall,
    IHandshakeListener,
    IOpenSSLServerConnectionCreator,
)
from twisted.internet.protocol import Protocol, ServerFactory, connectionDone
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase
from zope.interface import implementer

from tests.support.in_memory import server_context

reactor = cast(Any, _reactor)

HOST = "127.0.0.1"

AUTHENTICATION_OK = b"R\0\0\0\x08\0\0\0\0"
READY_FOR_QUERY = b"Z\0\0\0\x05I"
SASL = b"R\0\0\0\x17\0\0\0\x0aSCRAM-SHA-256\0\0"


class Gone(Exception):
    """The client has closed, or its TLS handshake has failed."""


@implementer(IHandshakeListener)
class Peer(Protocol):
    """One client of a fake server, as its script sees it.

    :ivar received: all that the client sent, decrypted where TLS is up.
    """

    transport: Any

    def __init__(self) -> None:
        self.received = b""
        self.gone: Deferred[None] = Deferred()
        self._read = 0
        self._waiting: Deferred[None] | None = None
        self._secured = False
        self._rest: IDelayedCall | None = None

    async def take(self, count: int) -> bytes:
        """The next bytes.

        :raises Gone: there are not so many.
        """
        end = self._read + count
        while len(self.received) < end:
            await self._wait()
        taken, self._read = self.received[self._read : end], end
        return taken

    async def packet(self) -> bytes:
        """The client's next packet of the startup phase, without its length word.

        :raises Gone: there is none.
        """
        return await self.take(int.from_bytes(await self.take(4), "big") - 4)

    async def start_tls(self, alpn: bytes | None = None) -> None:
        """Do the handshake, with a good certificate for localhost.

        :param alpn: what to select, whatever the client offers; nothing where it is None.
        :raises Gone: the handshake failed.
        """
        context = server_context()
        if alpn is not None:
            context.set_alpn_select_callback(lambda connection, offered: alpn)
        self.transport.startTLS(_ConnectionCreator(context))
        while not self._secured:
            await self._wait()

    def send(self, data: bytes) -> None:
        self.transport.write(data)

    def send_byte_by_byte(self, data: bytes) -> None:
        """Send each byte on its own: the next one when the reactor comes round again."""
        self.transport.write(data[:1])
        if data[1:]:
            self._rest = reactor.callLater(0, self.send_byte_by_byte, data[1:])

    def close(self) -> None:
        self.transport.loseConnection()

    def connectionMade(self) -> None:
        self.transport.setTcpNoDelay(True)

    def dataReceived(self, data: bytes) -> None:
        self.received += data
        self._wake()

    def handshakeCompleted(self) -> None:
        self._secured = True
        self._wake()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._rest is not None and self._rest.active():
            self._rest.cancel()
        self.gone.callback(None)
        self._wake()

    async def _wait(self) -> None:
        if self.gone.called:
            raise Gone
        self._waiting = Deferred()
        await self._waiting

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting:
            waiting.callback(None)


@implementer(IOpenSSLServerConnectionCreator)
class _ConnectionCreator:
    def __init__(self, context: SSL.Context) -> None:
        self._context = context

    def serverConnectionForTLS(self, tlsProtocol: object) -> SSL.Connection:
        return SSL.Connection(self._context, None)


Script = Callable[[Peer], Awaitable[None]]
"""What a fake server does with one connection. Where it ends, the connection stays open."""


class FakeServer(ServerFactory):
    """A server that does what it is told.

    :param test: it ends with this test.
    :param scripts: one for each connection in turn; the last one is for all that follow, too.

    :ivar peers: the connections so far.
    """

    noisy = False

    def __init__(self, test: TestCase, *scripts: Script) -> None:
        self._scripts = scripts
        self.peers: list[Peer] = []
        self._listening = reactor.listenTCP(0, self, interface=HOST)
        self.port: int = self._listening.getHost().port
        test.addCleanup(self._stop)

    def conninfo(self, **parameters: str | int | None) -> str:
        """A connection string, user ``somebody``, and ``parameters``: None leaves one out."""
        every = {"host": HOST, "port": self.port, "user": "somebody", **parameters}
        return " ".join(f"{key}={value}" for key, value in every.items() if value is not None)

    def buildProtocol(self, addr: IAddress | None) -> Peer:
        script = self._scripts[min(len(self.peers), len(self._scripts) - 1)]
        peer = _Scripted(script)
        self.peers.append(peer)
        return peer

    async def _stop(self) -> None:
        await self._listening.stopListening()
        for peer in self.peers:
            if not peer.gone.called:
                peer.transport.abortConnection()
        await gatherResults([peer.gone for peer in self.peers])


class _Scripted(Peer):
    def __init__(self, script: Script) -> None:
        super().__init__()
        self._script = script

    def connectionMade(self) -> None:
        super().connectionMade()
        Deferred.fromCoroutine(self._run()).addErrback(lambda failure: failure.trap(Gone))

    async def _run(self) -> None:
        await self._script(self)
