"""The PROXY header that an upstream gets."""

from __future__ import annotations

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.interfaces import IAddress
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase

from pgtls.gateway.upstream_header import upstream_header
from pgtls.tls.algorithm_names import key_name, signature_name
from pgtls.tls.certificate import Certificate
from pgtls.tls.tls_info import NegotiatedTLS
from pgtls.wire.proxy_header import TLV, ProxyAddress, ProxyHeader
from pgtls.wire.proxy_header_reader import ProxyHeaderReader
from tests.support.certificates import Authority, Kind, authority


def tls(certificate: Certificate | None) -> NegotiatedTLS:
    return NegotiatedTLS(
        *("TLSv1.3", "TLS_AES_256_GCM_SHA384", 256, "X25519MLKEM768", "postgresql", True),
        certificate,
    )


class HeaderTests(SynchronousTestCase):
    def header(
        self,
        client: IAddress,
        own: IAddress,
        negotiated: NegotiatedTLS | None = None,
        sni: str | None = None,
        received: ProxyHeader | None = None,
    ) -> ProxyHeader:
        transport = StringTransport(hostAddress=own, peerAddress=client)
        header = ProxyHeaderReader().receive(upstream_header(transport, negotiated, sni, received))
        assert header is not None
        self.assertEqual(header.tlvs[-1][0], TLV.CRC32C)
        return header

    def of_ipv4(self, *rest: object) -> ProxyHeader:
        client, own = IPv4Address("TCP", "192.0.2.7", 1), IPv4Address("TCP", "192.0.2.1", 2)
        return self.header(client, own, *rest)  # type: ignore[arg-type]

    def test_addresses(self) -> None:
        self.assertEqual(self.of_ipv4().source, ProxyAddress("192.0.2.7", 1))
        self.assertEqual(self.of_ipv4().destination, ProxyAddress("192.0.2.1", 2))
        ours = IPv6Address("TCP", "2001:db8::1", 2)
        header = self.header(IPv6Address("TCP", "fe80::7%lo", 1), ours)
        self.assertEqual(header.source, ProxyAddress("fe80::7", 1))

    def test_a_unix_socket(self) -> None:
        header = self.header(UNIXAddress(None), UNIXAddress(b"/run/.s.PGSQL.5432"))
        self.assertEqual(header.source, ProxyAddress("", None))
        self.assertEqual(header.destination, ProxyAddress("/run/.s.PGSQL.5432", None))

    def test_what_there_is_not_is_left_out(self) -> None:
        self.assertEqual([kind for kind, _ in self.of_ipv4().tlvs], [TLV.UNIQUE_ID, TLV.CRC32C])

    def test_tls(self) -> None:
        header = self.of_ipv4(tls(None), "db.example.com")
        self.assertEqual(header.authority, "db.example.com")
        self.assertEqual(header.value(TLV.ALPN), b"postgresql")
        said = header.tls
        assert said is not None
        self.assertEqual((said.version, said.cipher), ("TLSv1.3", "TLS_AES_256_GCM_SHA384"))
        self.assertFalse(said.verified)
        self.assertNotEqual(said.verify, 0)

    def test_a_client_certificate(self) -> None:
        said = self.of_ipv4(tls(authority().issue(cn="alice", client=True).shown)).tls
        assert said is not None
        self.assertEqual(said.common_name, "alice")
        self.assertTrue(said.verified)

    def test_ids_are_unique_and_those_of_another_proxy_pass(self) -> None:
        first, second = self.of_ipv4().unique_id, self.of_ipv4().unique_id
        assert first is not None
        self.assertTrue(first.startswith("192.0.2.7:1_192.0.2.1:2_"))
        self.assertNotEqual(first, second)
        theirs = ProxyHeader(2, tlvs=((5, b"\xff id"), (2, b"db.example.com")))
        header = self.of_ipv4(None, None, theirs)
        self.assertEqual(header.value(TLV.UNIQUE_ID), b"\xff id")
        self.assertEqual(header.authority, "db.example.com")


class NameTests(SynchronousTestCase):
    """As HAProxy calls them."""

    def test_each(self) -> None:
        kinds: tuple[tuple[Kind, str, str], ...] = (
            ("ecdsa", "EC256", "ecdsa-with-SHA256"),
            ("rsa", "RSA2048", "RSA-SHA256"),
            ("ed25519", "ED25519", "ED25519"),
        )
        for kind, key, signature in kinds:
            shown = Authority("root", kind).issued.shown
            self.assertEqual((key_name(shown), signature_name(shown)), (key, signature))

    def test_what_cannot_be_read(self) -> None:
        self.assertIsNone(key_name(Certificate(b"")))
        self.assertIsNone(signature_name(Certificate(b"")))
