"""PROXY headers as they are read, in any pieces. Sans-I/O.

Source: "The PROXY protocol, Versions 1 & 2", ``doc/proxy-protocol.txt`` of HAProxy.
"""

from __future__ import annotations

import struct
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address

from pgtls.wire.proxy_header import (
    INET,
    INET6,
    MAX_UNIQUE_ID,
    SIGNATURE,
    TLV,
    UNIX,
    VERSION_1,
    InvalidProxyHeader,
    NoProxyHeader,
    ProxyAddress,
    ProxyHeader,
    crc32c,
    fields,
    proxied_tls,
)

#: Bytes of a header of version 1, the line's end included; and before the addresses of version 2.
_MAX_V1 = 107
_V2_FIXED = 16

#: Version 1's families, and the version of their addresses.
_VERSIONS = {b"TCP4": 4, b"TCP6": 6}

#: Greater than any port.
_NO_PORT = 65536

#: How long a pair of addresses of version 2's families is.
_LENGTHS = {INET: 12, INET6: 36, UNIX: 216}

#: Families and protocols that may stand there, but tell nothing about a stream: unspecified ones,
#: and datagrams.
_WITHOUT_ADDRESSES = frozenset((0x00, 0x01, 0x02, 0x10, 0x12, 0x20, 0x22, 0x30, 0x32))


#: Addresses that are remembered with their text; clients come again.
_REMEMBERED = 1024


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
        :raises NoProxyHeader: as soon as it is clear that there is none.
        :raises InvalidProxyHeader: as soon as it is clear that it is wrong.
        """
        self.rest += data
        if self.rest.startswith(VERSION_1):
            return self._version_1()
        if self.rest.startswith(SIGNATURE):
            return self._version_2()
        if not VERSION_1.startswith(self.rest) and not SIGNATURE.startswith(self.rest):
            raise NoProxyHeader("the connection does not begin with one")
        return None

    def _version_1(self) -> ProxyHeader | None:
        end = self.rest.find(b"\r\n", 0, _MAX_V1)
        if end < 0:
            if len(self.rest) >= _MAX_V1:
                raise InvalidProxyHeader(f"no end of line within {_MAX_V1} bytes")
            return None
        line, self.rest = self.rest[:end], self.rest[end + 2 :]
        fields = line.split(b" ")
        family = fields[1]
        if family == b"UNKNOWN":
            return ProxyHeader(1)
        if family not in _VERSIONS or len(fields) != 6:
            raise InvalidProxyHeader('neither "UNKNOWN" nor "TCP4" or "TCP6" and four fields')
        version = _VERSIONS[family]
        hosts = _host(fields[2], version), _host(fields[3], version)
        source = ProxyAddress(hosts[0], _port(fields[4]))
        return ProxyHeader(1, False, source, ProxyAddress(hosts[1], _port(fields[5])))

    def _version_2(self) -> ProxyHeader | None:
        if len(self.rest) < _V2_FIXED:
            return None
        command, family, length = struct.unpack_from("!BBH", self.rest, len(SIGNATURE))
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


@lru_cache(maxsize=_REMEMBERED)
def _host(field: bytes, version: int) -> str:
    """:raises InvalidProxyHeader: it is no address of that version."""
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
    port = int(field) if field.isdigit() and len(field) <= 5 else _NO_PORT
    if port >= _NO_PORT:
        raise InvalidProxyHeader("no port where one should be")
    return port


@lru_cache(maxsize=_REMEMBERED)
def _packed_host(packed: bytes) -> str:
    """Of 4 or 16 bytes."""
    return _text(ip_address(packed))


def _ipv4(data: bytes) -> tuple[ProxyAddress, ProxyAddress]:
    source, destination, *ports = struct.unpack("!4s4sHH", data)
    return (
        ProxyAddress(_packed_host(source), ports[0]),
        ProxyAddress(_packed_host(destination), ports[1]),
    )


def _ipv6(data: bytes) -> tuple[ProxyAddress, ProxyAddress]:
    source, destination, *ports = struct.unpack("!16s16sHH", data)
    return (
        ProxyAddress(_packed_host(source), ports[0]),
        ProxyAddress(_packed_host(destination), ports[1]),
    )


def _unix(data: bytes) -> tuple[ProxyAddress, ProxyAddress]:
    source, destination = (
        ProxyAddress(path.rstrip(b"\0").decode("utf-8", "backslashreplace"), None)
        for path in (data[:108], data[108:])
    )
    return source, destination


_ADDRESSES = {INET: _ipv4, INET6: _ipv6, UNIX: _unix}


def _tlvs(header: bytes, at: int) -> tuple[tuple[int, bytes], ...]:
    """Read the fields behind the addresses.

    :raises InvalidProxyHeader: one is longer than the header, or one of those known here is wrong.
    """
    tlvs = []
    checksum: int | None = None
    for kind, start, end in fields(header, at):
        value = header[start:end]
        if kind == TLV.CRC32C:
            if checksum is not None or len(value) != 4:  # each that is computed takes time
                raise InvalidProxyHeader("wrong checksum")
            checksum = start
        elif kind == TLV.UNIQUE_ID and len(value) > MAX_UNIQUE_ID:
            raise InvalidProxyHeader(f"a unique ID of more than {MAX_UNIQUE_ID} bytes")
        elif kind == TLV.SSL:
            proxied_tls(value)
        tlvs.append((kind, value))
    if checksum is not None:
        zeroed = header[:checksum] + bytes(4) + header[checksum + 4 :]
        if header[checksum : checksum + 4] != crc32c(zeroed).to_bytes(4, "big"):
            raise InvalidProxyHeader("wrong checksum")
    return tuple(tlvs)
