"""Records: plaintext goes in and comes out, however the bytes between are cut."""

from __future__ import annotations

import hashlib
import random
import socket
import subprocess
from typing import Self

from OpenSSL import SSL
from twisted.trial.unittest import SynchronousTestCase

from pgtls.tls.record_size import RECORD_LIMIT
from pgtls.tls.records import BULK, PIECE, Records, received
from tests.support.in_memory import client_context, server_context

#: Seconds after which a client is taken to hang.
TIMEOUT = 60.0

VERSIONS = (SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION)


class SClient:
    """``openssl s_client``, which can ask for more than pyOpenSSL, and the server's end.

    :ivar records: the server's end; the handshake is over.
    """

    def __init__(self, *options: str) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listening:
            listening.settimeout(TIMEOUT)
            port = listening.getsockname()[1]
            command = ["openssl", "s_client", "-quiet", "-connect", f"127.0.0.1:{port}", *options]
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
            )
            self._socket, _ = listening.accept()
        self._socket.settimeout(TIMEOUT)
        server = SSL.Connection(server_context())
        server.set_accept_state()
        self.records = Records(server)
        while not self.records.handshake(self._socket.recv_into(received)):
            self.send(bytes(self.records.take()))
        self.send(bytes(self.records.take()))

    def __enter__(self) -> Self:
        return self

    def send(self, data: bytes) -> None:
        """To the client; less than a socket holds, as nothing reads what it prints yet."""
        self._socket.sendall(data)

    def read(self) -> bytes:
        """What it has received, until the connection was closed."""
        return self._process.communicate(timeout=TIMEOUT)[0]

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()
        self._socket.close()


class RecordsCase(SynchronousTestCase):
    def pair(self, version: int) -> tuple[Records, Records]:
        """A server's end and a client's, which have agreed."""
        server = SSL.Connection(server_context())
        server.set_accept_state()
        client = SSL.Connection(client_context(version=version))
        client.set_connect_state()
        ends = (Records(server), Records(client))
        done = [False, False]
        while not all(done):
            for number in (1, 0):
                if not done[number]:
                    done[number] = ends[number].handshake(0)
                ends[1 - number].feed(bytes(ends[number].take()))
        for end in ends:
            self.assertEqual(end.open(0), b"")  # tickets
        return ends

    def open(self, end: Records, data: bytes) -> bytes:
        """What comes of bytes that are read at once."""
        received[: len(data)] = data
        return end.open(len(data))

    def seal(self, end: Records, data: bytes) -> bytes:
        """All records of some plaintext."""
        taken, made = 0, b""
        while taken < len(data):
            taken, records = end.seal(data, taken)
            made += bytes(records)
        return made


class RecordsTests(RecordsCase):
    def test_however_they_are_cut(self) -> None:
        chance = random.Random(0)
        for version in VERSIONS:
            server, client = self.pair(version)
            for sender, receiver in ((server, client), (client, server)):
                sent, sealed, read = b"", b"", 0
                for _ in range(60):
                    size = chance.choice((1, 10, 100, 5000, 8192, 8193, 20000, 200000))
                    piece = hashlib.shake_128(bytes([size % 256])).digest(size)
                    sent += piece
                    sealed += self.seal(sender, piece)
                opened = []
                while read < len(sealed):
                    size = chance.choice((1, 4, 5, 6, 30, 8209, 8216, 16384, PIECE))
                    opened.append(self.open(receiver, sealed[read : read + size]))
                    read += size
                self.assertEqual(b"".join(opened), sent)
                self.assertIsNone(receiver.error)

    def test_one_after_the_other(self) -> None:
        """As in a session: each in a piece of its own, and time and again two in one."""
        for version in VERSIONS:
            server, client = self.pair(version)
            for number in range(300):
                sealed = self.seal(server, b"a" * (number + 1))
                if number % 7 == 0:
                    self.assertEqual(self.open(client, sealed[:9]), b"")
                    sealed = sealed[9:]
                if number % 5 == 0:
                    sealed += self.seal(server, b"b")
                expected = b"a" * (number + 1) + (b"b" if number % 5 == 0 else b"")
                self.assertEqual(self.open(client, sealed), expected)

    def test_many_are_made_at_once_and_none_is_too_long(self) -> None:
        server, _ = self.pair(SSL.TLS1_3_VERSION)
        taken, records = server.seal(bytes(10 * BULK), 0)
        self.assertEqual(taken, BULK)
        self.assertEqual(bytes(server.take()), b"")
        made = bytes(records)
        sizes = []
        while made:
            size = int.from_bytes(made[3:5], "big")
            sizes.append(size - 17)
            made = made[5 + size :]
        self.assertEqual(sizes, [RECORD_LIMIT] * (BULK // RECORD_LIMIT))

    def test_a_peer_asks_for_shorter_ones(self) -> None:
        sent = hashlib.shake_128(b"").digest(5000 + 2 * PIECE)
        # Of TLS 1.2 that suite whose records have most around their content.
        for options in ([], ["-tls1_2", "-cipher", "ECDHE-ECDSA-AES256-SHA384"]):
            with SClient("-maxfraglen", "512", *options) as client:
                for piece in (sent[:5000], sent[5000:]):
                    client.send(self.seal(client.records, piece))
                client.records.close()
                client.send(bytes(client.records.take()))
                self.assertEqual(client.read(), sent)

    def test_memory_is_given_back_unless_something_is_in_it(self) -> None:
        server, client = self.pair(SSL.TLS1_3_VERSION)
        self.assertTrue(client.release())
        sealed = self.seal(server, b"x" * 50000)
        self.assertEqual(len(self.open(client, sealed)), 50000)
        self.assertTrue(client.in_use)
        self.assertTrue(client.release())
        client.close()
        self.assertFalse(client.release())
        self.assertEqual(self.open(server, bytes(client.take())), b"")
        self.assertIsInstance(server.error, SSL.ZeroReturnError)

    def test_why_it_ends(self) -> None:
        for version in VERSIONS:
            server, client = self.pair(version)
            sealed = self.seal(server, b"last")
            server.close()
            self.assertEqual(self.open(client, sealed + bytes(server.take())), b"last")
            self.assertIsInstance(client.error, SSL.ZeroReturnError)
            server, client = self.pair(version)
            sealed = self.seal(server, b"one") + self.seal(server, b"broken")[:-1] + b"\0"
            self.assertEqual(self.open(client, sealed), b"one")
            self.assertIsInstance(client.error, SSL.Error)
            self.assertNotIsInstance(client.error, SSL.ZeroReturnError)
            self.assertTrue(client.has_output)  # an alert
