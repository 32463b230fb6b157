"""Clients behind ``haproxy:``: whose connection it is, and what the log says of a wrong header."""

from __future__ import annotations

from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionDone
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.logger import globalLogPublisher
from twisted.protocols.haproxy._wrapper import HAProxyWrappingFactory
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from pgtls.protocols.server_factory import PgTLSServerFactory
from pgtls.protocols.server_settings import ListenerSettings
from pgtls.wire.messages import SSL_REQUEST
from pgtls.wire.server_negotiation import SSL
from tests.support.raw_client import startup_message
from tests.unit.wire.test_proxy_header import IPV4, IPV6, V1, v2


class ProxiedClientTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.lines: list[str] = []
        globalLogPublisher.addObserver(self.log)
        self.addCleanup(globalLogPublisher.removeObserver, self.log)
        factory = PgTLSServerFactory(
            Factory.forProtocol(Protocol), None, ListenerSettings(ssl=SSL.OFF), reactor=self.clock
        )
        self.protocol = HAProxyWrappingFactory(factory).buildProtocol(None)
        self.transport = StringTransport(peerAddress=IPv4Address("TCP", "203.0.113.1", 9))
        self.protocol.makeConnection(self.transport)

    def log(self, event: dict[str, object]) -> None:
        if event.get("log_namespace") == "pgtls.server":
            self.lines.append(str(event["line"]))

    def receive(self, *pieces: bytes) -> None:
        for piece in pieces:
            self.protocol.dataReceived(piece)

    def gone(self) -> None:
        self.protocol.connectionLost(Failure(ConnectionDone()))

    def is_session_of(self, address: str) -> None:
        [line] = self.lines
        self.assertTrue(line.startswith(f"{address}: user=postgres"), line)

    def refused(self, *pieces: bytes) -> str:
        self.receive(*pieces)
        self.assertTrue(self.transport.disconnecting)
        self.assertEqual(self.transport.value(), b"")
        [line] = self.lines
        return line

    def test_version_1(self) -> None:
        self.receive(V1 + startup_message())
        self.is_session_of("192.0.2.7(56324)")

    def test_ipv6_is_compressed(self) -> None:
        self.receive(v2(0x21, IPV6), startup_message())
        self.is_session_of("2001:db8::7(1)")

    def test_in_pieces(self) -> None:
        header = v2(0x11, IPV4)
        self.receive(*(header[at : at + 1] for at in range(len(header))), startup_message())
        self.is_session_of("192.0.2.7(56324)")

    def test_unknown_is_the_proxy_itself(self) -> None:
        self.receive(b"PROXY UNKNOWN\r\n", startup_message())
        self.is_session_of("203.0.113.1(9)")

    def test_without_a_header(self) -> None:
        self.assertEqual(
            self.refused(SSL_REQUEST),
            "203.0.113.1(9): PROXY header refused: the connection does not begin with one",
        )

    def test_a_wrong_header(self) -> None:
        self.assertIn("PROXY header refused: too short", self.refused(v2(0x11, b"")))

    def test_what_follows_a_wrong_header_is_not_read(self) -> None:
        self.refused(b"PROXY TCP4\r\n", V1, startup_message())

    def test_half_a_header(self) -> None:
        self.receive(V1[:10])
        self.gone()
        self.assertEqual(self.lines, ["203.0.113.1(9): PROXY header refused: it is not complete"])

    def test_half_a_header_and_no_end(self) -> None:
        self.receive(V1[:10])
        self.clock.advance(60)
        self.assertTrue(self.transport.disconnecting)
        self.assertIn("PROXY header refused: it is not complete", self.lines[0])

    def test_health_checks_are_silent(self) -> None:
        self.receive(v2(0, b"", 0x20))
        self.gone()
        self.assertEqual(self.lines, [])

    def test_nothing_at_all_is_silent(self) -> None:
        self.gone()
        self.assertEqual(self.lines, [])
