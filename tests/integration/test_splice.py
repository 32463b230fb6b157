"""Bytes that go from one connection to another inside the kernel arrive as those do that are read
and written, and end as they do."""

from __future__ import annotations

import hashlib
import os
import random
import re
import signal
import socket
import ssl
import struct
import sys
from typing import Any

from twisted.internet.endpoints import SSL4ServerEndpoint, TCP4ServerEndpoint, UNIXServerEndpoint
from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import IHalfCloseableProtocol, IStreamServerEndpoint
from twisted.internet.protocol import Factory
from twisted.internet.ssl import PrivateCertificate
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface import implementer

from pgtls.transport import poller
from pgtls.transport.listening import listen
from pgtls.transport.relay_transport import can_half_close
from pgtls.transport.splice import Pipe
from tests.integration.test_relay import GENERATED, STORED, digest, lines_of, text
from tests.support.certificates import authority, localhost
from tests.support.gateway_daemon import GatewayCase
from tests.support.processes import reactor
from tests.support.relay_case import COPY_DONE, copy_data
from tests.support.relay_client import Session
from tests.support.servers import postgres
from tests.unit.transport.test_connection import End

BIG = 8 * 1024 * 1024

#: What may be in memory for a connection that takes nothing more.
IN_MEMORY = 262144

_RESET = struct.pack("ii", 1, 0)


@implementer(IHalfCloseableProtocol)
class Passing(End):
    """Passes everything on to another one, as the sides of a session do."""

    other: Passing

    def pass_to(self, other: Passing) -> None:
        self.other = other
        other.transport.registerProducer(self.transport, True)
        self.transport.splice_to(other.transport)

    def dataReceived(self, data: bytes) -> None:
        super().dataReceived(data)
        self.other.transport.write(data)

    def readConnectionLost(self) -> None:
        self.other.transport.unregisterProducer()
        self.other.transport.loseWriteConnection()

    def writeConnectionLost(self) -> None:
        pass


class OverTCP(TestCase):
    """A thread has the sockets at the other ends."""

    timeout = 120

    async def connect(self) -> tuple[Passing, socket.socket]:
        """An end of ours, and the socket at the other end."""
        end = Passing()
        factory = Factory.forProtocol(lambda: end)
        listening: Any = await listen(self.place(), factory, reactor)
        self.addCleanup(listening.stopListening)
        peer = self.dial(listening.getHost())
        peer.settimeout(60)
        self.addCleanup(self.close, end, peer)
        await end.made
        return end, peer

    def place(self) -> IStreamServerEndpoint:
        return TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1")

    def dial(self, address: Any) -> socket.socket:
        return socket.create_connection(("127.0.0.1", address.port))

    async def close(self, end: End, peer: socket.socket) -> None:
        peer.close()
        if not end.lost.called:
            end.transport.abortConnection()
            await end.lost

    async def pair(self) -> tuple[Passing, socket.socket, Passing, socket.socket]:
        """Two ends, each of which passes everything on to the other one."""
        left, sender = await self.connect()
        right, receiver = await self.connect()
        left.pass_to(right)
        right.pass_to(left)
        sender.sendall(b"\0")  # the first byte of all says that this is not TLS
        receiver.sendall(b"\0")
        await left.bytes(1)
        await right.bytes(1)
        await deferToThread(self.read, sender, 1)
        await deferToThread(self.read, receiver, 1)
        self.assertEqual((left.received, right.received), (b"\0", b"\0"))
        return left, sender, right, receiver

    def read(self, peer: socket.socket, size: int, most: int = 65536) -> bytes:
        """So many bytes, or up to the end."""
        read = bytearray()
        while len(read) < size:
            piece = peer.recv(min(most, size - len(read)))
            if not piece:
                break
            read += piece
        return bytes(read)

    def some(self, size: int = BIG) -> bytes:
        return hashlib.shake_128(self.id().encode()).digest(size)

    async def test_both_directions(self) -> None:
        left, a, right, b = await self.pair()
        data = self.some()
        for end, sender, receiver in ((left, a, b), (right, b, a)):
            sending = deferToThread(sender.sendall, data)
            self.assertEqual(await deferToThread(self.read, receiver, BIG), data)
            await sending
            self.assertLess(len(end.received), BIG)

    async def test_in_bulk_and_not_keeps_the_order(self) -> None:
        """Pieces of all sizes, and a receiver that takes pieces of all sizes."""
        left, sender, _, receiver = await self.pair()
        chance = random.Random(0)
        data = self.some()

        def send() -> None:
            sent = 0
            while sent < len(data):
                size = chance.choice([1, 100, 8192, 65536, 300000, 1000000])
                sender.sendall(data[sent : sent + size])
                sent += size

        sending = deferToThread(send)
        read = [
            await deferToThread(self.read, receiver, BIG // 16, 1 + 7919 * n) for n in range(16)
        ]
        self.assertEqual(b"".join(read), data)
        await sending
        self.assertLess(len(left.received), BIG)

    async def test_what_is_written_beside_it_comes_whole(self) -> None:
        """The other protocol's own words, while bytes in bulk go by."""
        _, sender, right, receiver = await self.pair()
        sending = deferToThread(sender.sendall, b"x" * BIG)
        words = b"<0123456789>" * 20000
        read = b""
        for _ in range(5):
            read += await deferToThread(self.read, receiver, 100000)
            right.transport.write(words)
        read += await deferToThread(self.read, receiver, BIG + 5 * len(words) - len(read))
        await sending
        self.assertEqual(read.count(words), 5)
        self.assertEqual(read.replace(words, b"").strip(b"x"), b"")

    async def test_a_receiver_that_does_not_read(self) -> None:
        """Its sender has to wait, and next to nothing is in memory."""
        _, sender, right, receiver = await self.pair()
        data = self.some(4 * BIG)
        sending = deferToThread(sender.sendall, data)
        outgoing = right.transport._outgoing
        while not outgoing.paused:
            await deferToThread(lambda: None)
        self.assertFalse(sending.called)
        self.assertLessEqual(outgoing.size, IN_MEMORY)
        self.assertEqual(await deferToThread(self.read, receiver, len(data)), data)
        await sending

    async def test_the_sender_ends_in_the_middle(self) -> None:
        _, sender, _, receiver = await self.pair()
        data = self.some(BIG + 1)
        sending = deferToThread(sender.sendall, data)
        read = await deferToThread(self.read, receiver, BIG // 2)
        sending.addCallback(lambda _: sender.shutdown(socket.SHUT_WR))
        self.assertEqual(read + await deferToThread(self.read, receiver, 2 * BIG), data)

    async def test_half_closed_the_other_direction_goes_on(self) -> None:
        _, sender, right, receiver = await self.pair()
        sender.shutdown(socket.SHUT_WR)
        self.assertEqual(await deferToThread(self.read, receiver, 1), b"")
        data = self.some()
        sending = deferToThread(receiver.sendall, data)
        self.assertEqual(await deferToThread(self.read, sender, BIG), data)
        await sending
        self.assertLess(len(right.received), BIG)

    async def test_the_receiver_is_gone_in_the_middle(self) -> None:
        _, sender, right, receiver = await self.pair()
        sending = deferToThread(self.send_until_lost, sender)
        await deferToThread(self.read, receiver, BIG)
        self.reset(receiver)
        self.assertIsInstance(await right.lost, ConnectionLost)
        sender.close()
        await sending

    def send_until_lost(self, sender: socket.socket) -> None:
        try:
            while True:
                sender.sendall(b"x" * 65536)
        except OSError:
            pass

    def reset(self, peer: socket.socket) -> None:
        """Go, with something unread."""
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        peer.close()

    async def test_where_it_does_not_work_bytes_are_read_and_written(self) -> None:
        refused = Refused()
        self.addCleanup(refused.close)
        self.patch(poller.poller(reactor), "pipe", refused)
        left, sender, _, receiver = await self.pair()
        data = self.some()
        sending = deferToThread(sender.sendall, data)
        self.assertEqual(await deferToThread(self.read, receiver, BIG), data)
        await sending
        self.assertEqual(len(left.received), BIG + 1)


class OverUnixSockets(OverTCP):
    """The same."""

    def place(self) -> IStreamServerEndpoint:
        self.path = os.path.relpath(self.mktemp())
        return UNIXServerEndpoint(reactor, self.path)

    def dial(self, address: Any) -> socket.socket:
        peer = socket.socket(socket.AF_UNIX)
        peer.connect(self.path)
        return peer


class BelowTwistedsTLS(TestCase):
    """Where an endpoint of the application's puts TLS around a connection of ours, what comes in
    bulk is not what the protocol would read."""

    timeout = 120

    async def test_what_is_decrypted_is_passed_on(self) -> None:
        issued = localhost()
        options = PrivateCertificate.loadPEM(issued.key.pem() + issued.pem()).options()
        source, sink = Passing(), Passing()
        secure: Any = await listen(
            SSL4ServerEndpoint(reactor, 0, options, interface="127.0.0.1"),
            Factory.forProtocol(lambda: source),
            reactor,
        )
        plain: Any = await listen(
            TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1"),
            Factory.forProtocol(lambda: sink),
            reactor,
        )
        for port in (secure, plain):
            self.addCleanup(port.stopListening)
        context = ssl.create_default_context(cadata=authority().pem().decode())
        receiver = socket.create_connection(("127.0.0.1", plain.getHost().port), 60)
        await sink.made

        def connect() -> ssl.SSLSocket:
            sender = socket.create_connection(("127.0.0.1", secure.getHost().port), 60)
            return context.wrap_socket(sender, server_hostname="localhost")

        sender = await deferToThread(connect)
        await source.made
        source.pass_to(sink)
        sink.pass_to(source)
        self.assertFalse(can_half_close(source.transport))
        data = hashlib.shake_128(b"data").digest(BIG)
        sending = deferToThread(sender.sendall, data)

        def read() -> bytes:
            whole = b""
            while len(whole) < BIG and (piece := receiver.recv(1 << 20)):
                whole += piece
            return whole

        self.assertEqual(await deferToThread(read) == data, True)
        await sending
        for end in (source, sink):
            end.transport.abortConnection()
            await end.lost
        sender.close()
        receiver.close()


class Closed(Pipe):
    """One that does not stay until the end of the process."""

    def close(self) -> None:
        os.close(self._in)
        os.close(self._out)


class Refused(Closed):
    """One as in a sandbox without splice(): it is none, so that the system says no."""

    def __init__(self) -> None:
        super().__init__()
        with open(os.devnull, "r+b") as nothing:
            os.dup2(nothing.fileno(), self._in)


class PipeTests(SynchronousTestCase):
    """By itself."""

    def setUp(self) -> None:
        self.pipe = Closed()
        self.addCleanup(self.pipe.close)
        self.left = self.sockets()
        self.right = self.sockets()

    def sockets(self) -> tuple[socket.socket, socket.socket]:
        pair = socket.socketpair()
        for one in pair:
            one.setblocking(False)
            self.addCleanup(one.close)
        return pair

    def pass_on(self) -> tuple[int, bytes]:
        return self.pipe.pass_on(self.left[1].fileno(), self.right[0].fileno())

    def fill(self) -> None:
        try:
            while True:
                self.right[0].send(b"-" * 65536)
        except BlockingIOError:
            pass

    def test_it_arrives(self) -> None:
        self.left[0].send(b"x" * 10000)
        self.assertEqual(self.pass_on(), (10000, b""))
        self.assertEqual(self.right[1].recv(65536), b"x" * 10000)

    def test_what_is_not_taken_comes_back(self) -> None:
        self.fill()
        self.left[0].send(b"x" * 10000)
        self.assertEqual(self.pass_on(), (10000, b"x" * 10000))
        self.assertTrue(self.pipe.usable)

    def test_it_comes_back_where_the_other_one_is_gone(self) -> None:
        self.right[1].close()
        self.left[0].send(b"x" * 10000)
        self.assertEqual(self.pass_on(), (10000, b"x" * 10000))

    def test_nothing_is_there(self) -> None:
        self.assertRaises(BlockingIOError, self.pass_on)
        self.assertTrue(self.pipe.usable)

    def test_the_end(self) -> None:
        self.left[0].close()
        self.assertEqual(self.pass_on(), (0, b""))

    def test_one_that_failed_is_not_used_again(self) -> None:
        """Something of one connection's may be inside."""
        self.patch(os, "read", None)
        self.fill()
        self.left[0].send(b"x")
        self.assertRaises(TypeError, self.pass_on)
        self.assertFalse(self.pipe.usable)


COUNTING = (
    sys.executable,
    "-c",
    "import os; from pgtls.transport.splice import Pipe; pass_on = Pipe.pass_on\n"
    "def counted(*args):\n"
    "    count, rest = pass_on(*args); os.write(2, b'spliced %d.\\n' % count)\n"
    "    return count, rest\n"
    "Pipe.pass_on = counted\n"
    "from twisted.scripts.twistd import run; run()",
    "-n",
)
"""``twistd``, saying so at each splice."""


class InAGateway(GatewayCase):
    """Between a client and a server in plaintext, a COPY in bulk goes from socket to socket. It is
    in bulk where the gateway has been stopped for a while."""

    unix = False

    def setUp(self) -> None:
        server = postgres(17)
        host = server.socket_dir if self.unix else "127.0.0.1"
        self.relay = self.gateway(
            *("--ssl", "off", "--upstream", f"host={host} port={server.port} sslmode=disable"),
            program=COUNTING,
        )
        self.session = Session(self.relay.address, False)
        self.addCleanup(self.session.close)

    def spliced(self) -> int:
        """How many bytes have been."""
        return sum(map(int, re.findall(r"^spliced (\d+)\.$", self.relay.log(), re.MULTILINE)))

    def test_copy_to(self) -> None:
        self.session.query(f"COPY ({GENERATED}) TO STDOUT")
        self.relay.wait_until_still()
        self.relay.signal(signal.SIGSTOP)
        try:
            read = self.session.read_what_comes()
        finally:
            self.relay.signal(signal.SIGCONT)
        self.assertEqual(digest(lines_of(self.session, read)), digest(text()))
        self.assertGreater(self.spliced(), 65536)

    def test_copy_from(self) -> None:
        self.session.query("CREATE TEMPORARY TABLE copied (number serial, line text)")
        list(self.session.messages())
        self.session.query("COPY copied (line) FROM STDIN")
        self.assertEqual(self.session.message()[0], b"G")
        self.relay.signal(signal.SIGSTOP)
        try:
            left = self.session.send_what_goes(copy_data(text()) + COPY_DONE)
        finally:
            self.relay.signal(signal.SIGCONT)
        self.session.send(left)
        self.assertEqual([kind for kind, _ in self.session.messages()], [b"C", b"Z"])
        self.session.query(STORED)
        rows = [body[6:] for kind, body in self.session.messages() if kind == b"D"]
        self.assertEqual(rows, [digest(text()).encode()])
        self.assertGreater(self.spliced(), 65536)

    def test_small_queries_are_not(self) -> None:
        for _ in range(10):
            self.session.query("SELECT 1")
            list(self.session.messages())
        self.assertEqual(self.spliced(), 0)


class InAGatewayToAUnixSocket(InAGateway):
    """The same."""

    unix = True
