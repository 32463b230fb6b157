"""Where transports with TLS go wrong: at the seams of handshake, buffers, pauses and endings.

Against sockets of the test's own, on the fast transports and on Twisted's.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import resource
import socket
import ssl
import struct
import sys
from array import array
from collections.abc import Callable
from fcntl import ioctl
from pathlib import Path
from termios import FIONREAD

from OpenSSL import SSL
from twisted.internet.address import IPv4Address
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.error import ConnectionDone
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from pgtls.protocols.server_factory import PgTLSServerFactory
from pgtls.protocols.server_settings import ListenerSettings
from pgtls.protocols.server_tls import ServerTLS
from pgtls.tls.server_context import ServerTLSSettings
from pgtls.transport.listening import listen
from pgtls.wire.server_negotiation import SSL as ServerSSL
from tests.support.certificates import Files, authority, localhost
from tests.support.in_memory import client_context
from tests.support.processes import TIMEOUT, reactor, run
from tests.support.transports import OnTwistedsTransports, Transports
from tests.unit.transport.test_connection import End, Pausing, listen_for

MEGABYTE = 1 << 20
RESET = struct.pack("ii", 1, 0)


async def turns(count: int) -> None:
    """Let the reactor come round that often."""
    for _ in range(count):
        await deferLater(reactor, 0, lambda: None)


async def until(condition: Callable[[], bool]) -> None:
    """Let the reactor come round until something is so."""
    while not condition():
        await deferLater(reactor, 0.001, lambda: None)


def unread(connection: socket.socket) -> int:
    """The bytes that have come to a socket and have not been read."""
    size = array("i", [0])
    ioctl(connection, FIONREAD, size)
    return size[0]


class CornerCase(Transports, TestCase):
    """A test case with connections whose other end is a socket."""

    timeout = TIMEOUT

    async def connect(self, end: End, receive_buffer: int = 0) -> socket.socket:
        """Connect a socket to ``end``."""
        listening = await listen_for(end)
        self.addCleanup(listening.stopListening)
        peer = socket.socket()
        if receive_buffer:
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        peer.connect(("127.0.0.1", listening.getHost().port))
        peer.settimeout(TIMEOUT)
        self.addCleanup(self.close, end, peer)
        await end.made
        return peer

    async def close(self, end: End, peer: socket.socket) -> None:
        peer.close()
        if not end.lost.called:
            end.transport.abortConnection()
            await end.lost

    def tls(self, chain: bytes = b"") -> ServerTLS:
        certificate, key = Files(Path(self.mktemp())).pair("server", localhost())
        with Path(certificate).open("ab") as file:
            file.write(chain)
        return ServerTLS(ServerTLSSettings(ssl_cert_file=certificate, ssl_key_file=key))

    async def connect_tls(self, end: End, **parameters: int) -> ssl.SSLSocket:
        """Connect TLS to ``end``."""
        peer = await self.connect(end, **parameters)
        end.transport.startTLS(self.tls())
        return await deferToThread(self.shake_hands, peer)

    async def connect_records(self, end: End) -> tuple[socket.socket, SSL.Connection]:
        """The same; the peer sends records when and how the test wants it."""
        peer = await self.connect(end)
        end.transport.startTLS(self.tls())
        records = SSL.Connection(client_context())
        records.set_connect_state()
        await deferToThread(self.shake_hands_by_hand, peer, records)
        return peer, records

    def shake_hands(self, peer: socket.socket) -> ssl.SSLSocket:
        context = ssl.create_default_context(cadata=authority().pem().decode())
        return context.wrap_socket(peer, server_hostname="localhost", suppress_ragged_eofs=False)

    def shake_hands_by_hand(self, peer: socket.socket, records: SSL.Connection) -> None:
        over = False
        while not over:
            with contextlib.suppress(SSL.WantReadError):
                records.do_handshake()
                over = True
            with contextlib.suppress(SSL.WantReadError):
                peer.sendall(records.bio_read(MEGABYTE))
            if not over:
                records.bio_write(peer.recv(65536))

    def read_by_hand(self, peer: socket.socket, records: SSL.Connection) -> bytes:
        while True:
            with contextlib.suppress(SSL.WantReadError):
                return records.recv(65536)
            records.bio_write(peer.recv(65536))

    def read(self, peer: socket.socket, size: int) -> bytes:
        read = bytearray()
        while len(read) < size:
            piece = peer.recv(min(size - len(read), 65536))
            if not piece:
                break
            read += piece
        return bytes(read)


class Corners(CornerCase):
    """On the fast transports."""

    async def test_what_is_written_behind_startTLS_goes_inside(self) -> None:
        end = End()
        peer = await self.connect(end)
        end.transport.write(b"S")
        end.transport.startTLS(self.tls())
        end.transport.write(b"se")
        end.transport.writeSequence([b"cr", b"et"])
        self.assertEqual(await deferToThread(peer.recv, 100), b"S")
        secure = await deferToThread(self.shake_hands, peer)
        self.assertEqual(await deferToThread(self.read, secure, 6), b"secret")
        self.check_transports()

    async def test_plaintext_that_is_not_sent_when_TLS_starts(self) -> None:
        end = End()
        peer = await self.connect(end)
        end.transport.write(b"S" * 8 * MEGABYTE)
        end.transport.startTLS(self.tls())
        end.transport.write(b"secret")
        plain = await deferToThread(self.read, peer, 8 * MEGABYTE)
        self.assertEqual(plain, b"S" * 8 * MEGABYTE)
        secure = await deferToThread(self.shake_hands, peer)
        self.assertEqual(await deferToThread(self.read, secure, 6), b"secret")

    async def test_a_handshake_for_which_the_socket_has_no_room(self) -> None:
        """The server's certificates do not fit, and the client does not read them yet."""
        end = End()
        peer = await self.connect(end, receive_buffer=4096)
        end.transport.getHandle().setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        end.transport.startTLS(self.tls(chain=authority().pem() * 60))
        hello = SSL.Connection(client_context())
        hello.set_connect_state()
        with self.assertRaises(SSL.WantReadError):
            hello.do_handshake()
        peer.sendall(hello.bio_read(MEGABYTE))
        await until(lambda: unread(peer) > 0)
        await turns(20)
        await deferToThread(self.shake_hands_by_hand, peer, hello)
        end.transport.write(b"secret")
        self.assertEqual(await deferToThread(self.read_by_hand, peer, hello), b"secret")

    async def test_records_in_one_piece_for_a_reader_that_pauses(self) -> None:
        """What OpenSSL has in its hands, no epoll knows of."""
        for size in (1, 100, 5000, 16384):
            end = Pausing()
            peer, records = await self.connect_records(end)
            sent = hashlib.shake_128(b"data").digest(20 * size)
            for start in range(0, len(sent), size):
                records.send(sent[start : start + size])
            piece = records.bio_read(MEGABYTE)
            await deferToThread(peer.sendall, piece)
            self.assertEqual(await end.bytes(len(sent)), sent)

    async def test_a_goodbye_behind_data_for_a_reader_that_pauses(self) -> None:
        end = Pausing()
        peer, records = await self.connect_records(end)
        sent = hashlib.shake_128(b"data").digest(200000)
        records.sendall(sent)
        records.shutdown()
        await deferToThread(peer.sendall, records.bio_read(MEGABYTE))
        self.assertIsInstance(await end.lost, ConnectionDone)
        self.assertEqual(bytes(end.received), sent)

    async def test_the_goodbye_comes_behind_all_data(self) -> None:
        """However full the socket is when it is to be sent."""
        for size in range(60000, 100000, 1777):
            end = End()
            secure = await self.connect_tls(end, receive_buffer=4096)
            end.transport.write(b"x" * size)
            end.transport.loseConnection()
            await turns(3)
            self.assertEqual(len(await deferToThread(self.read, secure, MEGABYTE)), size)
            secure.close()
            await end.lost

    async def test_what_was_written_before_the_handshake_was_over_then_the_end(self) -> None:
        """Nothing turns in circles while the client takes its time."""
        end = End()
        peer = await self.connect(end)
        end.transport.startTLS(self.tls())
        end.transport.write(b"secret")
        end.transport.loseConnection()
        before = self._events
        await turns(50)
        self.assertLess(self._events - before, 5)
        secure = await deferToThread(self.shake_hands, peer)
        self.assertEqual(await deferToThread(self.read, secure, 100), b"secret")

    async def test_a_first_byte_that_only_looks_like_TLS(self) -> None:
        end = End()
        peer = await self.connect(end)
        peer.sendall(b"\x16hello")
        await until(lambda: len(end.received) >= 6)
        self.assertEqual(end.received, b"\x16hello")


class LastWords(CornerCase):
    """What a peer has said before it reset the connection is read; writing meets the end first."""

    async def test_of_a_session_that_has_written_before(self) -> None:
        for secure in (False, True):
            end = End()
            peer = await (self.connect_tls(end) if secure else self.connect(end))
            end.transport.write(b"hello")
            await deferToThread(self.read, peer, 5)
            await turns(3)
            peer.sendall(b"FATAL")
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            peer.close()
            end.transport.write(b"x")
            await end.lost
            self.assertEqual(end.received, b"FATAL")

    async def test_of_many_words(self) -> None:
        """More than one read's worth, to a session that could not write and did not read."""
        end = End()
        peer = await self.connect(end)
        end.transport.pauseProducing()
        end.transport.getHandle().setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, MEGABYTE)
        end.transport.write(b"x" * 16 * MEGABYTE)
        sent = 150000
        peer.sendall(b"x" * sent)
        await until(lambda: unread(end.transport.getHandle()) == sent)
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        peer.close()
        await end.lost
        self.assertEqual(len(end.received), sent)


class CornersOnTwisteds(OnTwistedsTransports, Corners):
    """On Twisted's own."""


class Listening(Transports, TestCase):
    """A port and those who want to connect."""

    timeout = 60

    async def listen(self, factory: Factory) -> int:
        """The number of a port."""
        port = await listen(TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1"), factory, reactor)
        self.addCleanup(port.stopListening)
        return int(port.getHost().port)

    def call(self, port: int) -> socket.socket:
        peer = socket.create_connection(("127.0.0.1", port))
        peer.settimeout(TIMEOUT)
        self.addCleanup(peer.close)
        return peer

    async def over(self, ends: list[End]) -> None:
        for end in ends:
            end.transport.abortConnection()
            await end.lost
        self.check_transports()

    async def test_no_descriptor_is_left_for_one_of_them(self) -> None:
        ends = [End(), End()]
        coming = iter(ends)
        port = await self.listen(Factory.forProtocol(lambda: next(coming)))
        first = self.call(port)
        await ends[0].made
        second = socket.socket()
        second.settimeout(TIMEOUT)
        self.addCleanup(second.close)
        free = os.dup(0)
        os.close(free)
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (free, limits[1]))
        try:
            second.connect(("127.0.0.1", port))
            turned_away = await deferToThread(second.recv, 1)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        self.assertEqual(turned_away, b"")
        first.sendall(b"still here")
        self.assertEqual(await ends[0].bytes(10), b"still here")
        self.call(port).sendall(b"the next")
        self.assertEqual(await ends[1].bytes(8), b"the next")
        await self.over(ends)

    async def test_for_one_of_them_no_protocol_can_be_made(self) -> None:
        ends = [End(), End()]
        coming = iter([lambda: ends[0], lambda: 1 / 0, lambda: None, lambda: ends[1]])
        factory = Factory()
        factory.buildProtocol = lambda addr: next(coming)()  # type: ignore[method-assign]
        port = await self.listen(factory)
        self.call(port)
        await ends[0].made
        self.call(port)
        self.assertEqual(await deferToThread(self.call(port).recv, 1), b"")
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.call(port).sendall(b"the next")
        self.assertEqual(await ends[1].bytes(8), b"the next")
        await self.over(ends)

    async def test_each_has_tcps_options_and_knows_its_peer(self) -> None:
        factory = PgTLSServerFactory(
            Factory.forProtocol(Protocol), None, ListenerSettings(ssl=ServerSSL.OFF)
        )
        port = await self.listen(factory)
        peers = [self.call(port) for _ in range(3)]  # none of them has been accepted yet
        await until(lambda: len(factory.connections) == len(peers))
        peers.append(self.call(port))
        await until(lambda: len(factory.connections) == len(peers))
        transports = [connection.transport for connection in factory.connections]
        self.assertTrue(all(each.getTcpNoDelay() for each in transports))
        self.assertTrue(all(each.getTcpKeepAlive() for each in transports))
        self.assertEqual(
            {each.getPeer() for each in transports},
            {IPv4Address("TCP", *peer.getsockname()) for peer in peers},
        )
        for peer in peers:
            peer.sendall(b"x")
            peer.close()
        await until(lambda: not factory.connections)
        self.check_transports()


class ListeningOnTwisteds(OnTwistedsTransports, Listening):
    """On Twisted's own."""


REACTOR_ENDS = """
import sys
from twisted.internet import reactor
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.endpoints import TCP4ServerEndpoint, TCP4ClientEndpoint
from pgtls.transport import reactor as ours
from pgtls.transport.listening import listen
ours.EPOLL = sys.argv[1] == "True"

class Server(Protocol):
    def connectionMade(self):
        reactor.callLater(0, reactor.stop)
    def connectionLost(self, reason):
        print("lost", reason.type.__name__)

def opened(port):
    endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", port.getHost().port)
    endpoint.connect(Factory.forProtocol(Protocol))
endpoint = TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1")
listen(endpoint, Factory.forProtocol(Server), reactor).addCallback(opened)
reactor.run()
"""


class ReactorEnds(TestCase):
    """A protocol whose connection is open when the reactor ends hears of it."""

    fast = True

    async def test_it_is_told(self) -> None:
        done = await run([sys.executable, "-c", REACTOR_ENDS, str(self.fast)])
        self.assertEqual((done.out, done.err), ("lost ConnectionLost\n", ""))


class ReactorEndsOnTwisteds(OnTwistedsTransports, ReactorEnds):
    """On Twisted's own."""
