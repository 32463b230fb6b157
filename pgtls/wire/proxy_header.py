"""The header of the PROXY protocol: whose connection a proxy passes on. Sans-I/O.

Source: "The PROXY protocol, Versions 1 & 2", ``doc/proxy-protocol.txt`` of HAProxy. Here is what a
header says; :mod:`pgtls.wire.proxy_header_reader` reads them, and
:mod:`pgtls.wire.proxy_header_writer` writes them.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import NamedTuple

import attrs

#: What headers of version 1 and 2 begin with.
VERSION_1 = b"PROXY "
SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"

#: Version 2's address families for streams.
INET, INET6, UNIX = 0x11, 0x21, 0x31

#: The longest value that the document allows for :attr:`TLV.UNIQUE_ID`.
MAX_UNIQUE_ID = 128


class ProxyProtocol(StrEnum):
    """The ``proxy_protocol`` setting: whether connections begin with a header."""

    OFF = "off"
    ALLOW = "allow"
    REQUIRE = "require"


class TLV(IntEnum):
    """The fields of version 2 that are known here: PP2_TYPE_ and PP2_SUBTYPE_SSL_ in the
    document."""

    ALPN = 0x01
    AUTHORITY = 0x02
    CRC32C = 0x03
    UNIQUE_ID = 0x05
    SSL = 0x20
    SSL_VERSION = 0x21
    SSL_CN = 0x22
    SSL_CIPHER = 0x23
    SSL_SIG_ALG = 0x24
    SSL_KEY_ALG = 0x25


#: What :attr:`ProxiedTLS.client` consists of: the client came by TLS; it has shown a certificate on
#: this connection, or in this TLS session.
CLIENT_SSL, CLIENT_CERT_CONN, CLIENT_CERT_SESS = 1, 2, 4


class InvalidProxyHeader(ValueError):
    """What came is a wrong PROXY header, or none. The text says why."""


class NoProxyHeader(InvalidProxyHeader):
    """What came is no PROXY header."""


@dataclass(frozen=True, slots=True)
class ProxiedTLS:
    """The SSL field: the TLS between the client and the proxy, which is the proxy's word for it.

    :ivar client: bits, :data:`CLIENT_SSL` and the others.
    :ivar verify: 0 where the client has shown a certificate and the proxy has verified it.
    :ivar version: ``TLSv1.3``; None where the proxy does not say, as with all below.
    :ivar common_name: the subject's in the client's certificate.
    :ivar cipher: the cipher suite.
    :ivar signature: the algorithm that the proxy's certificate is signed with.
    :ivar key: the algorithm of the proxy's key, with its length: ``RSA2048``.
    """

    client: int
    verify: int
    version: str | None = None
    common_name: str | None = None
    cipher: str | None = None
    signature: str | None = None
    key: str | None = None

    @property
    def verified(self) -> bool:
        """Whether the proxy says that it has verified a certificate of the client's."""
        return bool(self.client & (CLIENT_CERT_CONN | CLIENT_CERT_SESS)) and not self.verify


class ProxyAddress(NamedTuple):
    """One end of the connection that is passed on.

    :ivar host: an address, IPv6 in its compressed form; the path of a Unix socket.
    :ivar port: 0 to 65535; None for a Unix socket.
    """

    host: str
    port: int | None

    @property
    def is_ipv6(self) -> bool:
        """Whether it is an IPv6 address."""
        return self.port is not None and ":" in self.host


@attrs.frozen
class ProxyHeader:
    """A whole header.

    :ivar version: 1 or 2.
    :ivar local: version 2's LOCAL: the proxy speaks for itself, as in a health check.
    :ivar source: the client; None where the proxy does not say (LOCAL, UNKNOWN, unspecified): then
        the connection's own addresses count.
    :ivar destination: where the client connected to; None as ``source`` is.
    :ivar tlvs: type and value of each further field of version 2, in their order.
    """

    version: int
    local: bool = False
    source: ProxyAddress | None = None
    destination: ProxyAddress | None = None
    tlvs: tuple[tuple[int, bytes], ...] = ()

    def value(self, kind: TLV) -> bytes | None:
        """Find a field.

        :param kind: its type.
        :returns: the value of the first one; None where there is none.
        """
        return next((value for type_, value in self.tlvs if type_ == kind), None)

    @property
    def authority(self) -> str | None:
        """The host name that the client asked the proxy for (SNI)."""
        return _legible(self.value(TLV.AUTHORITY))

    @property
    def unique_id(self) -> str | None:
        """What the proxy calls the connection."""
        return _legible(self.value(TLV.UNIQUE_ID))

    @property
    def tls(self) -> ProxiedTLS | None:
        """The TLS between the client and the proxy; None where the proxy does not say."""
        value = self.value(TLV.SSL)
        return proxied_tls(value) if value is not None else None


def begins_like_header(data: bytes) -> bool:
    """Whether bytes can be the beginning of a header.

    :param data: what came first on a connection, at least 4 bytes.
    :returns: whether they can. Nothing that PostgreSQL's or TLS's protocol begins with can.
    """
    return VERSION_1.startswith(data[: len(VERSION_1)]) or SIGNATURE.startswith(
        data[: len(SIGNATURE)]
    )


def fields(data: bytes, at: int) -> Iterator[tuple[int, int, int]]:
    """Find the fields (TLVs) in a header, or inside another field.

    :param data: what they stand in, to its end.
    :param at: where they begin.
    :returns: type, begin and end of the value of each.
    :raises InvalidProxyHeader: one is longer than what it stands in.
    """
    while at < len(data):
        if at + 3 > len(data):
            raise InvalidProxyHeader("a field is longer than the header")
        kind, length = struct.unpack_from("!BH", data, at)
        at += 3
        if at + length > len(data):
            raise InvalidProxyHeader("a field is longer than the header")
        yield kind, at, at + length
        at += length


def proxied_tls(value: bytes) -> ProxiedTLS:
    """Read the value of an SSL field.

    :param value: the value.
    :returns: what it says; fields inside it that are not known are skipped.
    :raises InvalidProxyHeader: it is none.
    """
    if len(value) < 5:
        raise InvalidProxyHeader("an SSL field of less than 5 bytes")
    client, verify = struct.unpack_from("!BI", value)
    found = {kind: value[start:end] for kind, start, end in fields(value, 5)}
    return ProxiedTLS(
        client,
        verify,
        version=_legible(found.get(TLV.SSL_VERSION)),
        common_name=_legible(found.get(TLV.SSL_CN)),
        cipher=_legible(found.get(TLV.SSL_CIPHER)),
        signature=_legible(found.get(TLV.SSL_SIG_ALG)),
        key=_legible(found.get(TLV.SSL_KEY_ALG)),
    )


def _legible(value: bytes | None) -> str | None:
    return value.decode("utf-8", "backslashreplace") if value is not None else None


def _crc_of_byte(byte: int) -> int:
    for _ in range(8):
        byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
    return byte


_CRC_TABLE = [_crc_of_byte(byte) for byte in range(256)]


def crc32c(data: bytes) -> int:
    """Compute the Castagnoli checksum (RFC 4960, appendix B).

    :param data: any bytes.
    :returns: 32 bits.
    """
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ _CRC_TABLE[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF
