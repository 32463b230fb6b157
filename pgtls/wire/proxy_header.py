"""The header of the PROXY protocol: whose connection a proxy passes on. Sans-I/O.

Source: "The PROXY protocol, Versions 1 & 2", ``doc/proxy-protocol.txt`` of HAProxy.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address

_V1 = b"PROXY "
_V2 = b"\r\n\r\n\0\r\nQUIT\n"

#: Bytes of a header of version 1, the line's end included; and before the addresses of version 2.
_MAX_V1 = 107
_V2_FIXED = 16

#: Version 2's address families for streams: how long a pair of addresses is.
_INET, _INET6, _UNIX = 0x11, 0x21, 0x31
_LENGTHS = {_INET: 12, _INET6: 36, _UNIX: 216}

#: Families and protocols that may stand there, but tell nothing about a stream: unspecified ones,
#: and datagrams.
_WITHOUT_ADDRESSES = frozenset((0x00, 0x01, 0x02, 0x10, 0x12, 0x20, 0x22, 0x30, 0x32))

#: TLV types: the checksum of the header.
_CRC32C = 0x03


class InvalidProxyHeader(ValueError):
    """What came is no PROXY header, or a wrong one. The text says why."""


@dataclass(frozen=True, slots=True)
class ProxyAddress:
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


@dataclass(frozen=True, slots=True)
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


class ProxyHeaderReader:
    """Collects bytes until the header is there.

    :ivar rest: what came behind the header, once it is there; before, what has come of it.
    """

    def __init__(self) -> None:
        self.rest = b""

    def receive(self, data: bytes) -> ProxyHeader | None:
        """Take more bytes. At most 65,551 and one chunk are ever held.

        :param data: from the proxy, in any pieces.
        :returns: the header; None while it is incomplete.
        :raises InvalidProxyHeader: as soon as it is clear that there is none, or a wrong one.
        """
        self.rest += data
        if self.rest.startswith(_V1):
            return self._version_1()
        if self.rest.startswith(_V2):
            return self._version_2()
        if not _V1.startswith(self.rest) and not _V2.startswith(self.rest):
            raise InvalidProxyHeader("the connection does not begin with one")
        return None

    def _version_1(self) -> ProxyHeader | None:
        end = self.rest.find(b"\r\n", 0, _MAX_V1)
        if end < 0:
            if len(self.rest) >= _MAX_V1:
                raise InvalidProxyHeader(f"no end of line within {_MAX_V1} bytes")
            return None
        line, self.rest = self.rest[:end], self.rest[end + 2 :]
        _, family, *fields = line.split(b" ")
        if family == b"UNKNOWN":
            return ProxyHeader(1)
        if family not in (b"TCP4", b"TCP6") or len(fields) != 4:
            raise InvalidProxyHeader('neither "UNKNOWN" nor "TCP4" or "TCP6" and four fields')
        hosts = [_host(field, 4 if family == b"TCP4" else 6) for field in fields[:2]]
        ports = [_port(field) for field in fields[2:]]
        source, destination = map(ProxyAddress, hosts, ports)
        return ProxyHeader(1, source=source, destination=destination)

    def _version_2(self) -> ProxyHeader | None:
        if len(self.rest) < _V2_FIXED:
            return None
        command, family, length = struct.unpack_from("!BBH", self.rest, len(_V2))
        if command not in (0x20, 0x21):
            raise InvalidProxyHeader(f"version and command 0x{command:02x} are not known")
        if len(self.rest) < _V2_FIXED + length:
            return None
        whole, self.rest = self.rest[: _V2_FIXED + length], self.rest[_V2_FIXED + length :]
        if command == 0x20:
            return ProxyHeader(2, local=True)  # whatever else stands there is to be ignored
        size = _LENGTHS.get(family, 0)
        if not size and family not in _WITHOUT_ADDRESSES:
            raise InvalidProxyHeader(f"family and protocol 0x{family:02x} are not known")
        if size > length:
            raise InvalidProxyHeader("too short for its addresses")
        addresses = whole[_V2_FIXED : _V2_FIXED + size]
        # Datagrams and the like have addresses of their own lengths: fields are not looked for.
        tlvs = _tlvs(whole, _V2_FIXED + size) if size or family == 0 else ()
        source, destination = _ADDRESSES[family](addresses) if size else (None, None)
        return ProxyHeader(2, source=source, destination=destination, tlvs=tlvs)


def _host(field: bytes, version: int) -> str:
    try:
        address = ip_address(field.decode("ascii"))
    except ValueError:
        raise InvalidProxyHeader(f"no IPv{version} address where one should be") from None
    if address.version != version or "%" in str(address):
        raise InvalidProxyHeader(f"no IPv{version} address where one should be")
    return _text(address)


def _text(address: IPv4Address | IPv6Address) -> str:
    """As PostgreSQL prints it: compressed, and IPv4 inside IPv6 with dots."""
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return str(address) if mapped is None else f"::ffff:{mapped}"


def _port(field: bytes) -> int:
    if not field.isdigit() or len(field) > 5 or int(field) > 65535:
        raise InvalidProxyHeader("no port where one should be")
    return int(field)


def _ipv4(data: bytes) -> tuple[ProxyAddress, ProxyAddress]:
    source, destination, *ports = struct.unpack("!4s4sHH", data)
    return (
        ProxyAddress(str(IPv4Address(source)), ports[0]),
        ProxyAddress(str(IPv4Address(destination)), ports[1]),
    )


def _ipv6(data: bytes) -> tuple[ProxyAddress, ProxyAddress]:
    source, destination, *ports = struct.unpack("!16s16sHH", data)
    return (
        ProxyAddress(_text(IPv6Address(source)), ports[0]),
        ProxyAddress(_text(IPv6Address(destination)), ports[1]),
    )


def _unix(data: bytes) -> tuple[ProxyAddress, ProxyAddress]:
    source, destination = (
        ProxyAddress(path.rstrip(b"\0").decode("utf-8", "backslashreplace"), None)
        for path in (data[:108], data[108:])
    )
    return source, destination


_ADDRESSES = {_INET: _ipv4, _INET6: _ipv6, _UNIX: _unix}


def _tlvs(header: bytes, at: int) -> tuple[tuple[int, bytes], ...]:
    """Read the fields behind the addresses.

    :raises InvalidProxyHeader: one is longer than the header, or the checksum is wrong.
    """
    tlvs = []
    while at < len(header):
        if at + 3 > len(header):
            raise InvalidProxyHeader("a field is longer than the header")
        kind, length = struct.unpack_from("!BH", header, at)
        at += 3
        if at + length > len(header):
            raise InvalidProxyHeader("a field is longer than the header")
        value = header[at : at + length]
        if kind == _CRC32C:
            zeroed = header[:at] + bytes(length) + header[at + length :]
            if value != crc32c(zeroed).to_bytes(4, "big"):
                raise InvalidProxyHeader("wrong checksum")
        tlvs.append((kind, value))
        at += length
    return tuple(tlvs)


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
