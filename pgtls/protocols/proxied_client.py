"""The PROXY header of a client behind Twisted's ``haproxy:``, read by our own reader.

Twisted's closes the connection without a word where a header is missing or wrong, or where its
first piece is short; it refuses ``PROXY UNKNOWN`` without addresses; and it writes IPv6 addresses
out. Its wrapper stays: to the protocol above it, ``getPeer`` is the client.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.interfaces import IAddress, ITransport
from twisted.protocols.haproxy._info import ProxyInfo
from twisted.protocols.haproxy._wrapper import HAProxyProtocolWrapper

from pgtls.wire.proxy_header import (
    InvalidProxyHeader,
    ProxyAddress,
    ProxyHeader,
    ProxyHeaderReader,
)


class ProxiedClient:
    """What Twisted's wrapper takes for its parser.

    :param refused: is told why a header is refused; it closes the connection.
    :ivar header: None until it is there.
    """

    def __init__(self, refused: Callable[[str], None]) -> None:
        self.header: ProxyHeader | None = None
        self._reader = ProxyHeaderReader()
        self._refused: Callable[[str], None] | None = refused

    @property
    def interrupted(self) -> bool:
        """Whether a header has begun that is not complete."""
        return self.header is None and self._refused is not None and bool(self._reader.rest)

    def feed(self, data: bytes) -> tuple[ProxyInfo, bytes] | tuple[None, None]:
        """Take more bytes, as Twisted's parsers do.

        :param data: from the proxy.
        :returns: the addresses and what stands behind the header; None and None before.
        """
        if self._refused is None:
            return None, None  # the connection is being closed
        try:
            self.header = header = self._reader.receive(data)
        except InvalidProxyHeader as error:
            refused, self._refused = self._refused, None
            refused(f"PROXY header refused: {error}")
            return None, None
        if header is None:
            return None, None
        rest, self._reader.rest = self._reader.rest, b""
        return ProxyInfo(b"", _address(header.source), _address(header.destination)), rest


def proxied_client(transport: ITransport, refused: Callable[[str], None]) -> ProxiedClient | None:
    """Read a client's PROXY header with our own reader.

    :param transport: a connection from which nothing has been read yet.
    :param refused: is told why a header is refused; it closes the connection.
    :returns: None where the transport expects no header.
    """
    if not isinstance(transport, HAProxyProtocolWrapper):
        return None
    client = ProxiedClient(refused)
    transport._parser = client  # type: ignore[assignment]
    return client


def _address(address: ProxyAddress | None) -> IAddress | None:
    if address is None:
        return None
    if address.port is None:
        return UNIXAddress(address.host.encode())
    kind = IPv6Address if address.is_ipv6 else IPv4Address
    return kind("TCP", address.host, address.port)
