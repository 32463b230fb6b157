"""What an application sees of a connection of ours is what it sees of Twisted's."""

from __future__ import annotations

import gc
import hashlib
import os
import socket
import ssl
import struct
import weakref
from pathlib import Path
from typing import Any

from OpenSSL import SSL
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IHalfCloseableProtocol, IListeningPort, ISSLTransport
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.ssl import PrivateCertificate
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase
from zope.interface import implementer

from pgtls.conninfo.connection_string import Host
from pgtls.protocols.server_tls import ServerTLS
from pgtls.tls.server_context import ServerTLSSettings
from pgtls.transport import poller
from pgtls.transport.connection import Connection
from pgtls.transport.dial import dial
from pgtls.transport.listening import listen
from tests.support.certificates import Files, authority, localhost
from tests.support.processes import reactor

BIG = 8 * 1024 * 1024


class End(Protocol):
    """One end, which keeps what it reads."""

    transport: Any

    def __init__(self) -> None:
        self.received = bytearray()
        self.made: Deferred[End] = Deferred()
        self.lost: Deferred[Any] = Deferred()
        self._wanted: list[tuple[int, Deferred[bytes]]] = []

    def connectionMade(self) -> None:
        self.made.callback(self)

    def dataReceived(self, data: bytes) -> None:
        self.received += data
        for size, waiting in self._wanted[:]:
            if len(self.received) >= size:
                self._wanted.remove((size, waiting))
                waiting.callback(bytes(self.received))

    def bytes(self, size: int) -> Deferred[bytes]:
        """Fires when that many bytes have come."""
        waiting: Deferred[bytes] = Deferred()
        self._wanted.append((size, waiting))
        self.dataReceived(b"")
        return waiting

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost.callback(reason.value)


@implementer(IHalfCloseableProtocol)
class HalfCloseable(End):
    """One that is told of half-closes."""

    def __init__(self) -> None:
        super().__init__()
        self.read_lost: Deferred[None] = Deferred()

    def readConnectionLost(self) -> None:
        self.read_lost.callback(None)

    def writeConnectionLost(self) -> None:
        pass


def listen_for(end: End) -> Deferred[IListeningPort]:
    """A port whose connections are one end's."""
    endpoint = TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1")
    return listen(endpoint, Factory.forProtocol(lambda: end), reactor)


class ConnectionTests(TestCase):
    """Against a thread with a socket of its own, so that the other end is not ours too."""

    timeout = 60

    async def connect(self, end: End) -> tuple[End, socket.socket]:
        """An end of ours, connected to a plain socket."""
        self.listening = await listen_for(end)
        self.addCleanup(self.listening.stopListening)
        peer = socket.create_connection(("127.0.0.1", self.listening.getHost().port))
        peer.settimeout(30)
        self.addCleanup(self.close, end, peer)
        await end.made
        return end, peer

    async def close(self, end: End, peer: socket.socket) -> None:
        peer.close()
        if not end.lost.called:
            end.transport.abortConnection()
            await end.lost

    def tls(self) -> ServerTLS:
        certificate, key = Files(Path(self.mktemp())).pair("server", localhost())
        return ServerTLS(ServerTLSSettings(ssl_cert_file=certificate, ssl_key_file=key))

    async def connect_tls(self, end: End) -> tuple[End, ssl.SSLSocket]:
        """An end of ours with TLS, and its peer."""
        end, peer = await self.connect(end)
        end.transport.startTLS(self.tls())
        return end, await deferToThread(self.shake_hands, peer)

    def shake_hands(self, peer: socket.socket) -> ssl.SSLSocket:
        context = ssl.create_default_context(cadata=authority().pem().decode())
        return context.wrap_socket(peer, server_hostname="localhost")

    def read(self, peer: socket.socket, size: int) -> bytes:
        read = bytearray()
        while len(read) < size:
            piece = peer.recv(65536)
            if not piece:
                break
            read += piece
        return bytes(read)

    async def test_bytes_go_both_ways(self) -> None:
        for connect in (self.connect, self.connect_tls):
            end, peer = await connect(End())
            self.assertIsInstance(end.transport, Connection)
            data = hashlib.shake_128(b"data").digest(BIG)
            end.transport.write(data)
            self.assertEqual(await deferToThread(self.read, peer, BIG), data)
            sending = deferToThread(peer.sendall, data)
            self.assertEqual(await end.bytes(BIG), data)
            await sending

    async def test_a_peer_that_does_not_read_pauses_the_producer(self) -> None:
        for connect in (self.connect, self.connect_tls):
            end, peer = await connect(End())
            producer = Producer(end.transport)
            end.transport.registerProducer(producer, True)
            await producer.paused
            before = producer.sent
            self.assertLess(before, BIG)  # the rest is in nobody's memory
            reading = deferToThread(self.read, peer, before + 1)
            await producer.resumed
            end.transport.write(b"!")
            end.transport.unregisterProducer()
            self.assertEqual(len(await reading), before + 1)

    async def test_nothing_is_lost_for_a_reader_that_pauses(self) -> None:
        for connect in (self.connect, self.connect_tls):
            end, peer = await connect(Pausing())
            sending = deferToThread(peer.sendall, b"x" * BIG)
            self.assertEqual(len(await end.bytes(BIG)), BIG)
            await sending

    async def test_what_was_written_is_sent_before_the_end(self) -> None:
        for connect in (self.connect, self.connect_tls):
            end, peer = await connect(End())
            end.transport.write(b"x" * BIG)
            end.transport.loseConnection()
            self.assertEqual(len(await deferToThread(self.read, peer, BIG + 1)), BIG)
            self.assertIsInstance(await end.lost, ConnectionDone)

    async def test_what_is_written_after_loseConnection_is_sent_as_well(self) -> None:
        """As with Twisted's own; in the middle of an event, where a close follows at once."""
        for connect in (self.connect, self.connect_tls):
            end, peer = await connect(Leaving())
            peer.sendall(b"?")
            self.assertEqual(await deferToThread(self.read, peer, 3), b"bye")
            self.assertIsInstance(await end.lost, ConnectionDone)

    async def test_the_peer_goes(self) -> None:
        end, peer = await self.connect(End())
        peer.close()
        self.assertIsInstance(await end.lost, ConnectionDone)
        end, secure = await self.connect_tls(End())
        await deferToThread(secure.unwrap)
        self.assertIsInstance(await end.lost, ConnectionDone)

    async def test_last_words_are_read_where_a_write_fails(self) -> None:
        """A server that refuses does not read what is on its way to it, so that TCP resets; its
        reason has come before."""
        for connect in (self.connect, self.connect_tls):
            end, peer = await connect(End())
            # Or Nagle's algorithm may hold it back, and the reset discards it.
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            peer.sendall(b"FATAL")
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            peer.close()
            end.transport.write(b"x")
            await end.lost
            self.assertEqual(end.received, b"FATAL")

    async def test_half_close(self) -> None:
        end = HalfCloseable()
        _, peer = await self.connect(end)
        peer.shutdown(socket.SHUT_WR)
        await end.read_lost
        end.transport.write(b"still here")
        end.transport.loseWriteConnection()
        self.assertEqual(await deferToThread(self.read, peer, 100), b"still here")

    async def test_the_handshake_fails(self) -> None:
        end, peer = await self.connect(End())
        end.transport.startTLS(self.tls())
        peer.sendall(b"\x16\x03\x01\x00\x05hello")
        self.assertIsInstance(await end.lost, SSL.Error)

    async def test_it_says_what_it_is(self) -> None:
        end, _ = await self.connect(End())
        self.assertFalse(ISSLTransport.providedBy(end.transport))
        end, secure = await self.connect_tls(End())
        self.assertTrue(ISSLTransport.providedBy(end.transport))
        self.assertEqual(end.transport.getHandle().get_cipher_name(), secure.cipher()[0])

    async def test_a_context_of_somebody_else(self) -> None:
        certificate = localhost()
        end, peer = await self.connect(End())
        end.transport.startTLS(
            PrivateCertificate.loadPEM(certificate.key.pem() + certificate.pem()).options()
        )
        secure = await deferToThread(self.shake_hands, peer)
        await deferToThread(secure.sendall, b"hello")
        self.assertEqual(await end.bytes(5), b"hello")
        end.transport.write(b"x" * BIG)
        self.assertEqual(len(await deferToThread(self.read, secure, BIG)), BIG)

    async def test_as_a_client(self) -> None:
        server = End()
        listening = await listen_for(server)
        self.addCleanup(listening.stopListening)
        client = End()
        host = Host("", "127.0.0.1", listening.getHost().port)
        dial(reactor, host, client, timeout=30)
        await client.made
        await server.made
        self.assertEqual(client.transport.getPeer(), listening.getHost())
        self.assertIsInstance(client.transport, Connection)
        client.transport.write(b"x" * BIG)
        await server.bytes(BIG)
        client.transport.abortConnection()
        await client.lost
        await server.lost

    async def test_what_is_over_leaves_nothing_to_the_garbage_collector(self) -> None:
        """Buffers would stay until it comes by."""
        gc.collect()
        gc.disable()
        self.addCleanup(gc.enable)
        for ending in (b"", b"\x17\x03\x03\x00\x30" + bytes(48)):
            end, secure = await self.connect_tls(End())
            transport = weakref.ref(end.transport)
            if ending:
                with socket.socket(fileno=os.dup(secure.fileno())) as below:
                    below.sendall(ending)
            else:
                await deferToThread(secure.unwrap)
            await end.lost
            end.transport = None
            await deferLater(reactor, 0, lambda: None)
            self.assertIsNone(transport())

    async def test_an_error_in_one_connection_is_its_own(self) -> None:
        end, peer = await self.connect(Failing())
        other, other_peer = await self.connect(End())
        peer.sendall(b"x")
        self.assertIsInstance(await end.lost, ZeroDivisionError)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        other_peer.sendall(b"hello")
        self.assertEqual(await other.bytes(5), b"hello")

    async def test_an_error_at_the_end_of_one_connection_is_its_own(self) -> None:
        """Be it the peer who ends it, or the protocol itself in the middle of an event."""
        for kind in (FailingAtTheEnd, LeavingAndFailing):
            other, other_peer = await self.connect(End())
            end, peer = await self.connect(kind())
            peer.sendall(b"?")
            peer.shutdown(socket.SHUT_WR)
            await end.lost
            other_peer.sendall(b"still here")
            self.assertEqual(await other.bytes(10), b"still here")
            self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    async def test_the_reactor_is_left_alone_when_nothing_is_open(self) -> None:
        end, peer = await self.connect(End())
        self.assertIn(poller.poller(reactor), reactor.getReaders())
        peer.close()
        await end.lost
        await self.listening.stopListening()
        self.assertNotIn(poller.poller(reactor), reactor.getReaders())


class Pausing(End):
    """Pauses at each piece, for one turn of the reactor."""

    def dataReceived(self, data: bytes) -> None:
        super().dataReceived(data)
        self.transport.pauseProducing()
        reactor.callLater(0, self.transport.resumeProducing)


class Leaving(End):
    """Goes, and then says so."""

    def dataReceived(self, data: bytes) -> None:
        self.transport.loseConnection()
        self.transport.write(b"bye")


class FailingAtTheEnd(End):
    """Has a bug where nobody can be told any more."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        super().connectionLost(reason)
        raise ZeroDivisionError


class LeavingAndFailing(FailingAtTheEnd):
    """Goes by itself."""

    def dataReceived(self, data: bytes) -> None:
        self.transport.loseConnection()


class Failing(End):
    """Has a bug."""

    def dataReceived(self, data: bytes) -> None:
        raise ZeroDivisionError


class Producer:
    """Writes until it is paused."""

    def __init__(self, transport: Any) -> None:
        self._transport = transport
        self.sent = 0
        self.paused: Deferred[None] = Deferred()
        self.resumed: Deferred[None] = Deferred()
        reactor.callLater(0, self._write)

    def _write(self) -> None:
        while not self.paused.called:
            self.sent += 65536
            self._transport.write(b"x" * 65536)

    def pauseProducing(self) -> None:
        if not self.paused.called:
            self.paused.callback(None)

    def resumeProducing(self) -> None:
        if self.paused.called and not self.resumed.called:
            self.resumed.callback(None)

    def stopProducing(self) -> None:
        pass
