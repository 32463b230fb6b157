"""PROXY headers: HAProxy's ``doc/proxy-protocol.txt``."""

from __future__ import annotations

import struct

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from pgtls.wire.proxy_header import (
    TLV,
    InvalidProxyHeader,
    NoProxyHeader,
    ProxiedTLS,
    ProxyAddress,
    ProxyHeader,
    begins_like_header,
    crc32c,
)
from pgtls.wire.proxy_header_reader import ProxyHeaderReader
from pgtls.wire.proxy_header_writer import LOCAL_HEADER, encode, encode_tls
from tests.unit.wire.test_messages import pieces

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
CLIENT, SERVER = ProxyAddress("192.0.2.7", 56324), ProxyAddress("198.51.100.1", 5432)
V1 = b"PROXY TCP4 192.0.2.7 198.51.100.1 56324 5432\r\n"
IPV4 = bytes([192, 0, 2, 7, 198, 51, 100, 1]) + struct.pack("!HH", 56324, 5432)
IPV6 = bytes.fromhex("20010db8000000000000000000000007") * 2 + struct.pack("!HH", 1, 2)


def v2(family: int, body: bytes, command: int = 0x21) -> bytes:
    return SIGNATURE + struct.pack("!BBH", command, family, len(body)) + body


def tlv(kind: int, value: bytes) -> bytes:
    return struct.pack("!BH", kind, len(value)) + value


def with_checksum(family: int, body: bytes) -> bytes:
    zeroed = v2(family, body + tlv(3, bytes(4)))
    return v2(family, body + tlv(3, crc32c(zeroed).to_bytes(4, "big")))


def read(data: bytes) -> ProxyHeader | None:
    return ProxyHeaderReader().receive(data)


class Version1Tests(SynchronousTestCase):
    def test_ipv4(self) -> None:
        self.assertEqual(read(V1), ProxyHeader(1, source=CLIENT, destination=SERVER))

    def test_ipv6_is_compressed(self) -> None:
        header = read(b"PROXY TCP6 2001:db8:0:0:0:0:0:7 ::FFFF:192.0.2.7 1 2\r\n")
        assert header is not None
        self.assertEqual(header.source, ProxyAddress("2001:db8::7", 1))
        self.assertEqual(header.destination, ProxyAddress("::ffff:192.0.2.7", 2))

    def test_unknown(self) -> None:
        for line in (b"PROXY UNKNOWN\r\n", b"PROXY UNKNOWN ffff:f::1 ffff:f::2 65535 65535\r\n"):
            self.assertEqual(read(line), ProxyHeader(1))

    def test_what_is_wrong(self) -> None:
        for line in (
            b"PROXY TCP4 192.0.2.7 198.51.100.1 56324",
            b"PROXY TCP4 192.0.2.7 198.51.100.1 56324 5432 1",
            b"PROXY TCP4 192.0.2.7  198.51.100.1 56324 5432",
            b"PROXY TCP4 ::1 ::1 1 2",
            b"PROXY TCP6 192.0.2.7 198.51.100.1 56324 5432",
            b"PROXY TCP6 fe80::1%eth0 ::1 1 2",
            b"PROXY TCP4 192.0.2.7 198.51.100.1 65536 5432",
            b"PROXY TCP4 192.0.2.7 198.51.100.1 +1 5432",
            b"PROXY TCP4 192.0.2.256 198.51.100.1 1 2",
            b"PROXY UDP4 192.0.2.7 198.51.100.1 1 2",
            b"PROXY ",
            b"PROXY TCP4 \xb2 198.51.100.1 1 2",
        ):
            self.assertRaises(InvalidProxyHeader, read, line + b"\r\n")

    def test_a_line_without_an_end(self) -> None:
        self.assertIsNone(read(b"PROXY UNKNOWN " + b"x" * 92))
        self.assertRaises(InvalidProxyHeader, read, b"PROXY UNKNOWN " + b"x" * 93)


class Version2Tests(SynchronousTestCase):
    def test_ipv4(self) -> None:
        self.assertEqual(read(v2(0x11, IPV4)), ProxyHeader(2, source=CLIENT, destination=SERVER))

    def test_ipv6_is_compressed(self) -> None:
        header = read(v2(0x21, IPV6))
        assert header is not None
        self.assertEqual(header.source, ProxyAddress("2001:db8::7", 1))

    def test_unix(self) -> None:
        header = read(v2(0x31, b"/a".ljust(108, b"\0") + b"/b".ljust(108, b"\0")))
        assert header is not None
        self.assertEqual(header.source, ProxyAddress("/a", None))
        self.assertEqual(header.destination, ProxyAddress("/b", None))

    def test_local(self) -> None:
        for family, body in ((0, b""), (0x11, IPV4), (0x99, b"whatever")):
            self.assertEqual(read(v2(family, body, 0x20)), ProxyHeader(2, local=True))

    def test_what_tells_nothing(self) -> None:
        self.assertEqual(read(v2(0x00, b"")), ProxyHeader(2))
        self.assertEqual(read(v2(0x12, IPV4)), ProxyHeader(2))

    def test_further_fields(self) -> None:
        fields = tlv(1, b"postgresql") + tlv(4, b"") + tlv(5, b"id")
        expected = ((1, b"postgresql"), (4, b""), (5, b"id"))
        for family, addresses in ((0x11, IPV4), (0x00, b"")):
            header = read(v2(family, addresses + fields))
            assert header is not None
            self.assertEqual(header.tlvs, expected)

    def test_the_checksum(self) -> None:
        self.assertEqual(crc32c(b"123456789"), 0xE3069283)
        good = with_checksum(0x11, IPV4 + tlv(1, b"postgresql"))
        self.assertEqual(read(good), read(good))
        self.assertRaises(InvalidProxyHeader, read, good.replace(b"postgresql", b"postgresqL"))
        self.assertRaises(InvalidProxyHeader, read, v2(0x11, IPV4 + tlv(3, b"")))

    def test_one_checksum(self) -> None:
        """Each takes time, and a header has room for thousands."""
        self.assertRaises(InvalidProxyHeader, read, v2(0x11, IPV4 + tlv(3, bytes(4)) * 2))

    def test_what_the_proxy_says_of_tls(self) -> None:
        inside = tlv(0x21, b"TLSv1.3") + tlv(0x7F, b"unknown") + tlv(0x22, b"alice \xc3\xa9")
        field = tlv(0x20, b"\x07\0\0\0\0" + inside)
        header = read(v2(0x11, IPV4 + field + tlv(2, b"db.example.com") + tlv(5, b"\xff7")))
        assert header is not None
        self.assertEqual(
            header.tls, ProxiedTLS(7, 0, version="TLSv1.3", common_name="alice \u00e9")
        )
        self.assertEqual(header.authority, "db.example.com")
        self.assertEqual(header.unique_id, "\\xff7")

    def test_whether_a_certificate_was_verified(self) -> None:
        for client, verify, verified in ((1, 0, False), (3, 0, True), (5, 0, True), (7, 1, False)):
            self.assertEqual(ProxiedTLS(client, verify).verified, verified)

    def test_what_is_wrong_in_fields(self) -> None:
        for field in (
            tlv(0x20, bytes(4)),
            tlv(0x20, bytes(5) + b"\x21"),
            tlv(0x20, bytes(5) + b"\x21\0\7TLSv1."),
            tlv(5, bytes(129)),
        ):
            self.assertRaises(InvalidProxyHeader, read, v2(0x11, IPV4 + field))

    def test_what_is_wrong(self) -> None:
        for data in (
            v2(0x11, IPV4[:-1]),
            v2(0x21, IPV4),
            v2(0x31, b"/a"),
            v2(0x11, IPV4, 0x22),
            v2(0x11, IPV4, 0x11),
            v2(0x13, IPV4),
            v2(0x41, IPV4),
            v2(0x11, IPV4 + b"\1"),
            v2(0x11, IPV4 + b"\1\0\5abcd"),
        ):
            self.assertRaises(InvalidProxyHeader, read, data)


class PieceTests(SynchronousTestCase):
    """Cut anywhere; and what is no header at all."""

    headers = (
        V1,
        b"PROXY UNKNOWN\r\n",
        v2(0x11, IPV4),
        with_checksum(0x21, IPV6),
        v2(0, b"", 0x20),
    )

    @given(st.data(), st.sampled_from(headers), st.binary(max_size=20))
    def test_any_split(self, data: st.DataObject, header: bytes, behind: bytes) -> None:
        reader = ProxyHeaderReader()
        *before, last = filter(None, pieces(data, header))
        for piece in before:
            self.assertIsNone(reader.receive(piece))
        self.assertEqual(reader.receive(last + behind), read(header))
        self.assertEqual(reader.rest, behind)

    def test_none_at_all_is_seen_at_once(self) -> None:
        for data in (b"\0\0\0\x08", b"\x16", b"PROXX", b"\r\n\r\r", b"Q"):
            self.assertRaises(NoProxyHeader, read, data)

    def test_whether_there_may_be_one(self) -> None:
        for data in (*self.headers, V1[:4], b"\r\n\r\n"):
            self.assertTrue(begins_like_header(data))
        for data in (b"\0\0\0\x08", b"\x16\3\1\2", b"PROX\0", b"PROXIES", b"\r\n\r\n\r\n"):
            self.assertFalse(begins_like_header(data))

    @given(st.sampled_from(headers), st.binary(min_size=1), st.integers(0, 40))
    def test_garbage_is_refused_or_waited_for(self, header: bytes, garbage: bytes, at: int) -> None:
        reader = ProxyHeaderReader()
        try:
            reader.receive(header[:at] + garbage)
        except InvalidProxyHeader:
            return
        self.assertLess(len(reader.rest), 70_000)


class WritingTests(SynchronousTestCase):
    """What is written is read as it was."""

    def again(self, header: ProxyHeader) -> ProxyHeader:
        """With the checksum left out, which is verified on the way."""
        found = read(encode(header))
        assert found is not None
        self.assertEqual(found.tlvs[-1][0], TLV.CRC32C)
        return ProxyHeader(2, found.local, found.source, found.destination, found.tlvs[:-1])

    def test_every_family(self) -> None:
        for source, destination in (
            (CLIENT, SERVER),
            (ProxyAddress("2001:db8::7", 1), ProxyAddress("2001:db8::1", 65535)),
            (ProxyAddress("/run/a", None), ProxyAddress("", None)),
            (None, None),
        ):
            header = ProxyHeader(2, source=source, destination=destination, tlvs=((5, b"id"),))
            self.assertEqual(self.again(header), header)

    def test_mixed_families(self) -> None:
        header = ProxyHeader(2, source=CLIENT, destination=ProxyAddress("::1", 5432))
        self.assertEqual(self.again(header).source, ProxyAddress("::ffff:192.0.2.7", 56324))
        header = ProxyHeader(2, source=CLIENT, destination=ProxyAddress("/run/a", None))
        self.assertEqual(self.again(header), ProxyHeader(2))

    def test_addresses_as_sockets_have_them(self) -> None:
        """An IPv6 socket's IPv4 client, and one with a zone."""
        mapped, own = ProxyAddress("::ffff:192.0.2.7", 1), ProxyAddress("::ffff:192.0.2.1", 2)
        header = self.again(ProxyHeader(2, source=mapped, destination=own))
        self.assertEqual(header.source, ProxyAddress("192.0.2.7", 1))
        zone = ProxyAddress("fe80::1%eth0", 1)
        header = self.again(ProxyHeader(2, source=zone, destination=zone))
        self.assertEqual(header.source, ProxyAddress("fe80::1", 1))

    def test_local(self) -> None:
        self.assertEqual(encode(ProxyHeader(2, local=True)), LOCAL_HEADER)
        self.assertEqual(read(LOCAL_HEADER), ProxyHeader(2, local=True))

    def test_tls(self) -> None:
        tls = ProxiedTLS(7, 0, "TLSv1.3", "alice", "TLS_AES_256_GCM_SHA384", "RSA-SHA256", "EC256")
        fields = ((TLV.SSL, encode_tls(tls)),)
        self.assertEqual(self.again(ProxyHeader(2, tlvs=fields)).tls, tls)

    def test_names_that_are_too_long_are_left_out(self) -> None:
        self.assertEqual(encode_tls(ProxiedTLS(1, 1, common_name="x" * 257)), b"\1\0\0\0\1")

    def test_a_path_that_is_too_long_is_left_out(self) -> None:
        long = ProxyAddress("/" * 109, None)
        header = self.again(ProxyHeader(2, source=long, destination=long))
        self.assertEqual(header.source, ProxyAddress("", None))
