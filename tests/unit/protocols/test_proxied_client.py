"""Clients behind a proxy: whose connection it is, what the log says of a wrong header, and who may
send one."""

from __future__ import annotations

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.logger import globalLogPublisher
from twisted.protocols.haproxy._wrapper import HAProxyWrappingFactory
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from pgtls.errors import ConfigurationError
from pgtls.protocols.server_factory import PgTLSServerFactory
from pgtls.protocols.server_settings import ListenerSettings, behind_haproxy
from pgtls.wire.messages import SSL_REQUEST
from pgtls.wire.proxy_header import TLV, ProxyProtocol
from pgtls.wire.server_negotiation import SSL
from tests.support.raw_client import startup_message
from tests.unit.wire.test_proxy_header import IPV4, IPV6, V1, tlv, v2

OFF, ALLOW, REQUIRE = ProxyProtocol


class ProxiedCase(SynchronousTestCase):
    """A listener without a network, and its log."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.lines: list[str] = []
        self.events: list[dict[str, object]] = []
        self.application = Protocol()
        globalLogPublisher.addObserver(self.log)
        self.addCleanup(globalLogPublisher.removeObserver, self.log)

    def factory(self, protocol: ProxyProtocol, *trusted: str) -> PgTLSServerFactory:
        settings = ListenerSettings(
            ssl=SSL.OFF, proxy_protocol=protocol, proxy_protocol_from=trusted
        )
        application = Factory.forProtocol(lambda: self.application)
        return PgTLSServerFactory(application, None, settings, reactor=self.clock)

    def connect(self, factory: Factory, peer: IAddress) -> None:
        self.protocol = factory.buildProtocol(peer)  # type: ignore[assignment]
        self.transport = StringTransport(peerAddress=peer)
        self.protocol.makeConnection(self.transport)

    def log(self, event: dict[str, object]) -> None:
        if event.get("log_namespace") == "pgtls.server":
            self.lines.append(str(event["line"]))
            self.events.append(event)

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


class HeaderTests(ProxiedCase):
    """The listener reads it."""

    def setUp(self) -> None:
        super().setUp()
        self.connect(self.listener(), IPv4Address("TCP", "203.0.113.1", 9))

    def listener(self) -> Factory:
        return self.factory(REQUIRE, "203.0.113.0/24")

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

    def test_the_application_gets_the_client_s_addresses(self) -> None:
        self.receive(V1 + startup_message())
        transport = self.application.transport
        assert transport is not None
        self.assertEqual(transport.getPeer(), IPv4Address("TCP", "192.0.2.7", 56324))
        self.assertEqual(transport.getHost(), IPv4Address("TCP", "198.51.100.1", 5432))

    def test_a_unix_socket_of_the_proxy_s(self) -> None:
        self.receive(v2(0x31, b"/a".ljust(108, b"\0") * 2), startup_message())
        self.is_session_of("[local]")

    def test_the_log_has_the_proxy_too(self) -> None:
        self.receive(V1 + startup_message())
        self.assertEqual(self.events[0]["proxy"], "203.0.113.1(9)")
        self.assertIn(" proxy=203.0.113.1(9)", self.lines[0])

    def test_the_log_has_what_the_proxy_says(self) -> None:
        ssl = b"\3\0\0\0\0" + tlv(TLV.SSL_VERSION, b"TLSv1.3") + tlv(TLV.SSL_CN, b"al\nice")
        fields = tlv(TLV.AUTHORITY, b"db.example.com") + tlv(TLV.UNIQUE_ID, b"7") + tlv(0x20, ssl)
        self.receive(v2(0x11, IPV4 + fields), startup_message())
        self.assertIn(
            "SSL=off proxy=203.0.113.1(9) proxy_sni=db.example.com proxy_unique_id=7 "
            "proxy_tls_version=TLSv1.3 proxy_client_cn=al\\x0aice",
            self.lines[0],
        )
        self.assertEqual(self.events[0]["client_dn"], None)
        self.assertEqual(self.events[0]["tls_version"], None)

    def test_a_cancel_request_is_the_client_s(self) -> None:
        self.receive(V1, bytes.fromhex("00000010 04d2162e 00000001 00000002"))
        self.assertEqual(self.lines, ["192.0.2.7(56324): cancel request SSL=off"])

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

    def test_a_second_header(self) -> None:
        self.assertIn("PROXY header refused: none is taken", self.refused(V1 + V1))


class HeaderBehindTwistedsWrapperTests(HeaderTests):
    """The wrapper reads it, by our reader; who sends it does not matter."""

    def listener(self) -> Factory:
        return HAProxyWrappingFactory(self.factory(OFF))  # type: ignore[return-value]


class StrangerTests(ProxiedCase):
    """Who may send headers."""

    def stranger(self, protocol: ProxyProtocol, *trusted: str, host: str = "203.0.113.1") -> None:
        kind = IPv6Address if ":" in host else IPv4Address
        self.connect(self.factory(protocol, *trusted), kind("TCP", host, 9))

    def test_a_header_from_a_stranger(self) -> None:
        for header in (V1, v2(0x11, IPV4), v2(0, b"", 0x20)):
            for protocol, reason in (
                (OFF, "none is taken from this address (proxy_protocol, proxy_protocol_from)"),
                (ALLOW, "none is taken from this address (proxy_protocol, proxy_protocol_from)"),
                (REQUIRE, "203.0.113.1 is not in proxy_protocol_from"),
            ):
                self.stranger(protocol, "203.0.113.2")
                self.assertEqual(
                    self.refused(header + startup_message()),
                    f"203.0.113.1(9): PROXY header refused: {reason}",
                )
                self.lines.clear()

    def test_a_header_from_a_stranger_in_pieces(self) -> None:
        for protocol in ProxyProtocol:
            for header in (V1, v2(0x11, IPV4)):
                self.stranger(protocol)
                self.receive(*(header[at : at + 1] for at in range(len(header))))
                self.assertTrue(self.transport.disconnecting)
                [line] = self.lines
                self.assertIn("PROXY header refused: ", line)
                self.lines.clear()

    def test_what_a_stranger_sends_where_a_header_is_required(self) -> None:
        self.stranger(REQUIRE)
        self.assertIn("PROXY header refused: 203.0.113.1 is not", self.refused(startup_message()))

    def test_a_stranger_that_sends_nothing_is_silent(self) -> None:
        for protocol in ProxyProtocol:
            self.stranger(protocol)
            self.gone()
        self.assertEqual(self.lines, [])

    def test_a_stranger_s_session_where_headers_are_allowed(self) -> None:
        self.stranger(ALLOW)
        self.receive(startup_message())
        self.is_session_of("203.0.113.1(9)")
        self.assertNotIn("proxy=", self.lines[0])

    def test_without_a_list_it_is_this_machine(self) -> None:
        for host in ("127.0.0.1", "127.8.9.10", "::1", "::ffff:127.0.0.1"):
            self.stranger(REQUIRE, host=host)
            self.receive(V1, startup_message())
            self.is_session_of("192.0.2.7(56324)")
            self.lines.clear()

    def test_networks(self) -> None:
        for network, host in (
            ("203.0.113.9/24", "203.0.113.1"),
            ("203.0.113.0/24", "::ffff:203.0.113.1"),
            ("2001:db8::/32", "2001:db8::1"),
            ("fe80::/10", "fe80::1%eth0"),
            ("0.0.0.0/0", "203.0.113.1"),
        ):
            self.stranger(REQUIRE, "10.0.0.7", network, host=host)
            self.receive(V1, startup_message())
            self.is_session_of("192.0.2.7(56324)")
            self.lines.clear()

    def test_over_a_unix_socket_headers_are_believed(self) -> None:
        for protocol in (ALLOW, REQUIRE):
            self.connect(self.factory(protocol, "10.0.0.7"), UNIXAddress(b""))
            self.receive(V1, startup_message())
            self.is_session_of("192.0.2.7(56324)")
            self.lines.clear()

    def test_what_is_no_network(self) -> None:
        with self.assertRaisesRegex(ConfigurationError, "proxy_protocol_from must be addresses or"):
            self.factory(REQUIRE, "balancer.example.com")


class AllowTests(ProxiedCase):
    """A proxy that is believed may send a header."""

    def setUp(self) -> None:
        super().setUp()
        self.connect(self.factory(ALLOW), IPv4Address("TCP", "127.0.0.1", 9))

    def test_with_a_header(self) -> None:
        self.receive(V1, startup_message())
        self.is_session_of("192.0.2.7(56324)")

    def test_without_a_header(self) -> None:
        self.receive(startup_message())
        self.is_session_of("127.0.0.1(9)")
        self.assertEqual(self.events[0]["proxy"], None)

    def test_without_a_header_in_pieces(self) -> None:
        message = startup_message()
        self.receive(*(message[at : at + 1] for at in range(len(message))))
        self.is_session_of("127.0.0.1(9)")

    def test_what_is_neither(self) -> None:
        self.assertIn("invalid length of startup packet", self.refused(b"PRO", b"FIT" * 9))

    def test_a_wrong_header(self) -> None:
        self.assertIn("PROXY header refused: too short", self.refused(v2(0x11, b"")))

    def test_half_a_header(self) -> None:
        self.receive(V1[:4])
        self.gone()
        self.assertEqual(self.lines, ["127.0.0.1(9): PROXY header refused: it is not complete"])

    def test_nothing_for_too_long(self) -> None:
        self.clock.advance(60)
        self.assertIn("canceling authentication due to timeout", self.lines[0])

    def test_half_a_header_for_too_long(self) -> None:
        self.receive(V1[:4])
        self.clock.advance(60)
        self.assertIn("PROXY header refused: it is not complete", self.lines[0])


class HAProxyStringTests(SynchronousTestCase):
    """What ``haproxy:`` says in our settings."""

    def test_it_requires_a_header_and_believes_everyone(self) -> None:
        listener = behind_haproxy(ListenerSettings())
        self.assertEqual(listener.proxy_protocol, REQUIRE)
        self.assertEqual(listener.proxy_protocol_from, ("0.0.0.0/0", "::/0"))

    def test_or_those_that_are_named(self) -> None:
        listener = behind_haproxy(ListenerSettings(proxy_protocol_from=("10.0.0.7",)))
        self.assertEqual(listener.proxy_protocol_from, ("10.0.0.7",))

    def test_it_cannot_allow(self) -> None:
        with self.assertRaises(ConfigurationError):
            behind_haproxy(ListenerSettings(proxy_protocol=ALLOW))
