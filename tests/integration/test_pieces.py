"""How a client's bytes are cut makes no difference to a gateway: over real sockets.

A piece is sent when the gateway has read the one before it, or all of them at once, on the fast
transports and on Twisted's own. (:mod:`~tests.integration.test_parity` has
the same bytes for PostgreSQL.)
"""

from __future__ import annotations

import atexit
import contextlib
import socket
import struct
from collections.abc import Iterable
from functools import cache

from OpenSSL import SSL

from tests.support.gateway_daemon import Gateway, GatewayCase, twistd, wait_until
from tests.support.in_memory import client_context
from tests.support.raw_client import (
    GSSENC_REQUEST,
    SSL_REQUEST,
    RawSession,
    connect,
    startup_message,
)
from tests.support.relay_client import whole_messages
from tests.support.servers import postgres
from tests.support.transports import OnTwistedsTransports

QUERY = b"Q" + struct.pack("!I", 20) + b"SELECT 'answer'\0"
TERMINATE = b"X\0\0\0\x04"
ROW = (b"D", b"\0\x01\0\0\0\x06answer")


@cache
def shared(fast: bool) -> tuple[Gateway, int]:
    """A gateway with ``ssl=on``; and how many files it has open at rest."""
    upstream = postgres(17).conninfo(user=None, dbname=None, sslmode="disable")
    gateway = Gateway("--ssl", "on", "--upstream", upstream, program=twistd(fast))
    atexit.register(gateway.remove)
    assert gateway.has_fast_transports() is fast
    return gateway, gateway.open_files_at_rest()


def bytes_of(data: bytes) -> list[bytes]:
    """Each on its own."""
    return [data[at : at + 1] for at in range(len(data))]


def crumbs(data: bytes) -> list[bytes]:
    """The first ten bytes each on its own, the others by the hundred."""
    return [*bytes_of(data[:10]), *(data[at : at + 100] for at in range(10, len(data), 100))]


class PieceCase(GatewayCase):
    """A test case with a gateway, a connection to it, and TLS that is done by hand."""

    def setUp(self) -> None:
        self.relay, self.at_rest = shared(self.fast)
        self.addCleanup(self._no_bug, self.relay, len(self.relay.log()))
        self.addCleanup(self.relay.wait_for_open_files, self.at_rest)
        self.begin()

    def begin(self) -> None:
        """A new connection."""
        self.socket = connect(self.relay.address)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.addCleanup(self.socket.close)
        self.tls = SSL.Connection(client_context(alpn=[b"postgresql"]))
        self.tls.set_connect_state()

    def send(self, pieces: Iterable[bytes]) -> None:
        """Each one when the one before it has been read."""
        for piece in pieces:
            self.socket.sendall(piece)
            self.relay.wait_until_read(self.socket)

    def answered(self, request: bytes, expected: bytes) -> None:
        """The answer to a request, which is one byte."""
        self.socket.sendall(request)
        self.assertEqual(self.socket.recv(100), expected)

    def to_send(self) -> bytes:
        """What TLS has to send."""
        with contextlib.suppress(SSL.WantReadError):
            return self.tls.bio_read(1 << 20)
        return b""

    def hello(self) -> bytes:
        """A ClientHello."""
        with contextlib.suppress(SSL.WantReadError):
            self.tls.do_handshake()
        return self.to_send()

    def shake_hands(self) -> bytes:
        """The rest of the handshake, up to its last message, which is still to be sent."""
        while True:
            self.tls.bio_write(self.socket.recv(65536))
            with contextlib.suppress(SSL.WantReadError):
                self.tls.do_handshake()
                return self.to_send()
            self.socket.sendall(self.to_send())

    def records(self, *contents: bytes) -> list[bytes]:
        """A TLS record of each."""
        return [self.record(content) for content in contents]

    def record(self, content: bytes) -> bytes:
        self.tls.sendall(content)
        return self.to_send()

    def read_tls(self) -> bytes:
        """What comes inside TLS until the end."""
        read = bytearray()
        with contextlib.suppress(SSL.ZeroReturnError, ConnectionError):
            while True:
                with contextlib.suppress(SSL.WantReadError):
                    read += self.tls.recv(65536)
                    continue
                data = self.socket.recv(65536)
                if not data:
                    break
                self.tls.bio_write(data)
        return bytes(read)

    def read_plain(self) -> bytes:
        """What comes until the end."""
        read = bytearray()
        with contextlib.suppress(ConnectionError):
            while data := self.socket.recv(65536):
                read += data
        return bytes(read)

    def is_session(self, data: bytes, answers: int = 1) -> None:
        """It has the answers to that many queries."""
        self.assertEqual(whole_messages(data).count(ROW), answers)

    def finish_inside_tls(self) -> None:
        """The handshake's last message; then a session with one query."""
        self.socket.sendall(self.shake_hands())
        self.socket.sendall(self.record(startup_message() + QUERY + TERMINATE))
        self.is_session(self.read_tls())


class ClientHello(PieceCase):
    """Cut in the middle of the record's header, behind it, and in its content."""

    cuts = (1, 2, 5, 6, 100, -1)

    def test_in_two_pieces(self) -> None:
        for cut in self.cuts:
            hello = self.hello()
            self.send([hello[:cut], hello[cut:]])
            self.finish_inside_tls()
            self.begin()

    def test_in_two_pieces_behind_an_SSLRequest(self) -> None:
        for cut in self.cuts:
            self.answered(SSL_REQUEST, b"S")
            hello = self.hello()
            self.send([hello[:cut], hello[cut:]])
            self.finish_inside_tls()
            self.begin()

    def test_in_crumbs_behind_both_requests(self) -> None:
        self.answered(GSSENC_REQUEST, b"N")
        self.answered(SSL_REQUEST, b"S")
        self.send(crumbs(self.hello()))
        self.finish_inside_tls()

    def test_in_crumbs(self) -> None:
        self.send(crumbs(self.hello()))
        self.finish_inside_tls()

    def test_with_something_else_behind_it(self) -> None:
        """What is not TLS ends it, and is nowhere taken for a StartupMessage."""
        self.socket.sendall(self.hello() + startup_message() + QUERY)
        said = self.read_plain()
        self.assertNotIn(b"answer", said)
        self.assertEqual(said[:1], b"\x16")

    def test_the_handshakes_end_in_crumbs(self) -> None:
        self.socket.sendall(self.hello())
        self.send(crumbs(self.shake_hands()))
        self.send(crumbs(self.record(startup_message() + QUERY + TERMINATE)))
        self.is_session(self.read_tls())


class InsideTLS(PieceCase):
    """A StartupMessage and what follows it, in records."""

    def ready(self) -> bytes:
        """As far as the handshake's last message, which is still to be sent."""
        self.answered(SSL_REQUEST, b"S")
        self.socket.sendall(self.hello())
        return self.shake_hands()

    def test_all_at_once_with_the_handshakes_end(self) -> None:
        end = self.ready()
        records = self.records(startup_message(), QUERY, QUERY, TERMINATE)
        self.socket.sendall(end + b"".join(records))
        self.is_session(self.read_tls(), answers=2)

    def test_a_record_for_each_byte_in_one_piece(self) -> None:
        end = self.ready()
        records = self.records(*bytes_of(startup_message()), *bytes_of(QUERY), TERMINATE)
        self.socket.sendall(end + b"".join(records))
        self.is_session(self.read_tls())

    def test_a_record_for_each_byte_one_by_one(self) -> None:
        self.send([self.ready(), *self.records(*bytes_of(startup_message()))])
        self.send(self.records(*bytes_of(QUERY), TERMINATE))
        self.is_session(self.read_tls())

    def test_records_cut_across_messages_and_pieces_across_records(self) -> None:
        end = self.ready()
        said = startup_message() + QUERY + QUERY + TERMINATE
        records = b"".join(self.records(*(said[at : at + 7] for at in range(0, len(said), 7))))
        sent = end + records
        self.send(sent[at : at + 97] for at in range(0, len(sent), 97))
        self.is_session(self.read_tls(), answers=2)

    def test_a_request_inside(self) -> None:
        for request in (SSL_REQUEST, GSSENC_REQUEST):
            self.socket.sendall(self.ready() + self.record(request + startup_message()))
            self.assertIn(b"C0A000\0", self.read_tls())
            self.begin()


class InPlaintext(PieceCase):
    """The same without TLS."""

    def test_all_at_once(self) -> None:
        self.socket.sendall(startup_message() + QUERY + QUERY + TERMINATE)
        self.is_session(self.read_plain(), answers=2)

    def test_byte_by_byte(self) -> None:
        self.send(bytes_of(startup_message() + QUERY + TERMINATE))
        self.is_session(self.read_plain())

    def test_more_than_may_wait_for_the_server(self) -> None:
        """Queries right behind the StartupMessage, of more than is kept until it is there."""
        padded = f"SELECT 'answer' -- {'x' * 100000}\0".encode()
        query = b"Q" + struct.pack("!I", len(padded) + 4) + padded
        self.socket.sendall(startup_message() + query * 5 + TERMINATE)
        self.is_session(self.read_plain(), answers=5)

    def test_requests_that_must_come_alone(self) -> None:
        for request in (SSL_REQUEST, GSSENC_REQUEST):
            for behind in (b"\0", startup_message(), self.hello()):
                self.socket.sendall(request + behind)
                said = self.read_plain()
                self.assertNotIn(b"S", said[:1])
                self.assertIn(b"C08P01\0", said)
                self.begin()


class CancelRequests(PieceCase):
    """They reach the backend, however they come, and are not answered."""

    def setUp(self) -> None:
        super().setUp()
        self.session = RawSession(self.relay.address)
        self.addCleanup(self.session.close)
        self.session.send_query("SELECT pg_sleep(3600)")
        asleep = f"SELECT wait_event FROM pg_stat_activity WHERE pid = {self.session.pid}"
        wait_until(lambda: postgres(17).psql(asleep) == "PgSleep", lambda: "it does not sleep")

    def cancelled(self) -> None:
        answers = dict(self.session.messages())
        self.assertIn(b"C57014\0", answers[b"E"])

    def test_byte_by_byte(self) -> None:
        self.send(bytes_of(self.session.cancel_request()))
        self.assertEqual(self.read_plain(), b"")
        self.cancelled()

    def test_inside_tls_with_the_handshakes_end(self) -> None:
        self.answered(SSL_REQUEST, b"S")
        self.socket.sendall(self.hello())
        end = self.shake_hands()
        self.socket.sendall(end + self.record(self.session.cancel_request()))
        self.assertEqual(self.read_tls(), b"")
        self.cancelled()

    def test_inside_direct_tls_byte_by_byte(self) -> None:
        self.socket.sendall(self.hello())
        self.socket.sendall(self.shake_hands())
        self.send(self.records(*bytes_of(self.session.cancel_request())))
        self.assertEqual(self.read_tls(), b"")
        self.cancelled()

    def test_by_one_who_resets_at_once(self) -> None:
        self.send([self.session.cancel_request()])
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()
        self.cancelled()


class HealthChecks(PieceCase):
    """A load balancer's: nothing is left of them, in the log neither."""

    def test_many_in_silence(self) -> None:
        before = self.relay.log()
        for reset in (False, True) * 10:
            check = connect(self.relay.address)
            if reset:
                check.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            check.close()
        self.socket.sendall(startup_message() + QUERY + TERMINATE)
        self.is_session(self.read_plain())
        self.relay.wait_for_open_files(self.at_rest)
        lines = self.relay.log()[len(before) :].splitlines()
        port = self.socket.getsockname()[1]
        self.assertEqual([line for line in lines if f"({port})" not in line], [])


class ClientHelloOnTwisteds(OnTwistedsTransports, ClientHello):
    pass


class InsideTLSOnTwisteds(OnTwistedsTransports, InsideTLS):
    pass


class InPlaintextOnTwisteds(OnTwistedsTransports, InPlaintext):
    pass


class CancelRequestsOnTwisteds(OnTwistedsTransports, CancelRequests):
    pass


class HealthChecksOnTwisteds(OnTwistedsTransports, HealthChecks):
    pass
