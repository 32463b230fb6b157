"""PROXY headers of version 2 as they are written. Sans-I/O.

Source: "The PROXY protocol, Versions 1 & 2", ``doc/proxy-protocol.txt`` of HAProxy, sections 2.2.1
to 2.2.7.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address, ip_address

from pgtls.wire.proxy_header import (
    INET,
    INET6,
    SIGNATURE,
    TLV,
    UNIX,
    ProxiedTLS,
    ProxyAddress,
    ProxyHeader,
    crc32c,
)

_UNSPEC = 0x00
_LOCAL, _PROXY = 0x20, 0x21

#: Bytes of a path in an address of a Unix socket.
_PATH = 108

#: The longest text in an SSL field: a common name has 64 characters at most (ub-common-name of RFC
#: 5280), other names are shorter.
_MAX_TEXT = 256

#: What a proxy sends on a connection of its own, such as a health check.
LOCAL_HEADER = SIGNATURE + struct.pack("!BBH", _LOCAL, _UNSPEC, 0)


def encode(header: ProxyHeader) -> bytes:
    """Write a header of version 2, with a checksum behind its fields.

    :param header: ``tlvs`` are fields as they are wanted, without a checksum. Where one of
        ``source`` and ``destination`` is missing, or only one is a Unix socket's, the family is
        unspecified.
    :returns: the bytes.
    """
    if header.local:
        return LOCAL_HEADER
    family, addresses = _addresses(header.source, header.destination)
    body = addresses + b"".join(tlv(kind, value) for kind, value in header.tlvs)
    checksum = tlv(TLV.CRC32C, bytes(4))
    length = len(body) + len(checksum)
    start = SIGNATURE + struct.pack("!BBH", _PROXY, family, length) + body
    return start + tlv(TLV.CRC32C, crc32c(start + checksum).to_bytes(4, "big"))


def tlv(kind: int, value: bytes) -> bytes:
    """Write a field.

    :param kind: its type, 0 to 255.
    :param value: at most 65,535 bytes.
    :returns: the bytes.
    """
    return struct.pack("!BH", kind, len(value)) + value


def encode_tls(tls: ProxiedTLS) -> bytes:
    """Write the value of an SSL field.

    :param tls: the TLS between the client and the proxy.
    :returns: the value; what is None, or too long to be a name, is left out.
    """
    named: Iterable[tuple[TLV, str | None]] = (
        (TLV.SSL_VERSION, tls.version),
        (TLV.SSL_CN, tls.common_name),
        (TLV.SSL_CIPHER, tls.cipher),
        (TLV.SSL_SIG_ALG, tls.signature),
        (TLV.SSL_KEY_ALG, tls.key),
    )
    value = struct.pack("!BI", tls.client, tls.verify)
    for kind, text in named:
        octets = text.encode("utf-8", "surrogateescape") if text is not None else b""
        if octets and len(octets) <= _MAX_TEXT:
            value += tlv(kind, octets)
    return value


def _addresses(source: ProxyAddress | None, destination: ProxyAddress | None) -> tuple[int, bytes]:
    """Family and protocol, and the pair of addresses."""
    if source is None or destination is None:
        return _UNSPEC, b""
    if source.port is None or destination.port is None:
        if source.port is not None or destination.port is not None:
            return _UNSPEC, b""
        return UNIX, _path(source.host) + _path(destination.host)
    pair = _ip(source), _ip(destination)
    ports = struct.pack("!HH", source.port, destination.port)
    if all(isinstance(each, IPv4Address) for each in pair):
        return INET, b"".join(each.packed for each in pair) + ports
    return INET6, b"".join(_as_ipv6(each).packed for each in pair) + ports


def _ip(address: ProxyAddress) -> IPv4Address | IPv6Address:
    """An IPv6 socket shows IPv4 clients as ``::ffff:192.0.2.1``; a header has no zones."""
    found = ip_address(address.host.partition("%")[0])
    mapped = found.ipv4_mapped if isinstance(found, IPv6Address) else None
    return mapped or found


def _as_ipv6(address: IPv4Address | IPv6Address) -> IPv6Address:
    if isinstance(address, IPv6Address):
        return address
    return IPv6Address(bytes(10) + b"\xff\xff" + address.packed)


def _path(path: str) -> bytes:
    """A path that is too long is not cut, which would make it another one."""
    octets = path.encode("utf-8", "surrogateescape")
    return (octets if len(octets) <= _PATH else b"").ljust(_PATH, b"\0")
