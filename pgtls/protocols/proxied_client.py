"""The PROXY header in front of a client's connection: read before everything else, by the listener
itself or, behind Twisted's own ``haproxy`` wrapper, in its place.

Twisted's reader closes the connection without a word where a header is missing or wrong, or where
its first piece is short; it refuses ``PROXY UNKNOWN`` without addresses; and it writes IPv6
addresses out.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import attrs
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.interfaces import IAddress, ITransport
from twisted.protocols.haproxy._info import ProxyInfo
from twisted.protocols.haproxy._wrapper import HAProxyProtocolWrapper

from pgtls.errors import ConfigurationError
from pgtls.policy.trusted_proxies import ANYWHERE, TrustedProxies
from pgtls.protocols.connection_info import OVER_TCP
from pgtls.protocols.server_settings import ListenerSettings
from pgtls.transport.relay_transport import speak_for
from pgtls.wire.proxy_header import (
    InvalidProxyHeader,
    NoProxyHeader,
    ProxyAddress,
    ProxyHeader,
    ProxyProtocol,
)
from pgtls.wire.proxy_header_reader import ProxyHeaderReader


@attrs.frozen
class Proxies:
    """What a listener knows of the proxies before it.

    :ivar required: whether each connection must begin with a header.
    :ivar trusted: which proxies are believed.
    """

    required: bool
    trusted: TrustedProxies

    @classmethod
    def of(cls, settings: ListenerSettings) -> Proxies | None:
        """Make it of ``proxy_protocol`` and ``proxy_protocol_from``.

        :param settings: the listener's.
        :returns: it; None where no headers are taken.
        :raises ConfigurationError: ``proxy_protocol_from`` has something else than networks.
        """
        if settings.proxy_protocol is ProxyProtocol.OFF:
            return None
        try:
            trusted = TrustedProxies(settings.proxy_protocol_from)
        except ValueError as error:
            raise ConfigurationError(f"proxy_protocol_from must be {error}") from None
        return cls(settings.proxy_protocol is ProxyProtocol.REQUIRE, trusted)


#: Why a connection is closed that ends, or waits for too long, before its header is complete.
INCOMPLETE_HEADER = "PROXY header refused: it is not complete"

_BEHIND_TWISTEDS = Proxies(True, TrustedProxies(ANYWHERE))


class ProxiedClient:
    """Reads the header of one connection. It can stand in for the parser of Twisted's wrapper.

    :param transport: the connection; nothing has been read from it yet.
    :param proxies: what the listener knows of proxies.
    :param refused: is told why a header is refused; it closes the connection.
    :ivar header: None until it is there.
    :ivar proxy: the address of the connection's other end, which may be a proxy.
    :ivar wrapped: whether Twisted's wrapper asks it; else it is :meth:`receive`'s caller who does.
    """

    def __init__(
        self, transport: ITransport, proxies: Proxies, refused: Callable[[str], None]
    ) -> None:
        self.header: ProxyHeader | None = None
        self.proxy: IAddress = transport.getPeer()
        self.wrapped = False
        self._transport = transport
        self._proxies = proxies
        self._reader: ProxyHeaderReader | None = ProxyHeaderReader()  # None when it is over
        self._refused = refused

    @property
    def interrupted(self) -> bool:
        """Whether a header has begun that is not complete."""
        return self._reader is not None and bool(self._reader.rest)

    @property
    def waiting(self) -> bool:
        """Whether a header has to come, or has begun, and is not complete."""
        return self._reader is not None and (self._proxies.required or bool(self._reader.rest))

    def receive(self, data: bytes) -> bytes | None:
        """Take more bytes; with the header, the connection becomes the client's.

        :param data: from the proxy, or from a client without one.
        :returns: what the client itself has sent; None while that has not begun, and where the
            header is refused.
        """
        reader = self._reader
        if reader is None:
            return None  # the connection is being closed
        if not self._is_trusted():
            self._refuse(f"{_host(self.proxy)} is not in proxy_protocol_from")
            return None
        try:
            header = reader.receive(data)
        except NoProxyHeader as error:
            if not self._proxies.required:
                self._reader = None
                return reader.rest
            self._refuse(str(error))
        except InvalidProxyHeader as error:
            self._refuse(str(error))
        else:
            if header is not None:
                self._reader = None
                self.header = header
                self._take_addresses(header)
                return reader.rest
        return None

    def feed(self, data: bytes) -> tuple[ProxyInfo, bytes] | tuple[None, None]:
        """The same, as Twisted's parsers do it.

        :param data: from the proxy.
        :returns: the addresses and what stands behind the header; None and None before.
        """
        rest = self.receive(data)
        if rest is None:
            return None, None
        header = self.header or ProxyHeader(1)
        return ProxyInfo(b"", _address(header.source), _address(header.destination)), rest

    def _is_trusted(self) -> bool:
        host = _host(self.proxy)
        return host is None or self._proxies.trusted.trusts(host)

    def _refuse(self, reason: str) -> None:
        self._reader = None
        self._refused(f"PROXY header refused: {reason}")

    def _take_addresses(self, header: ProxyHeader) -> None:
        if not self.wrapped:  # Twisted's wrapper takes them itself
            speak_for(self._transport, _address(header.source), _server(header.destination))


def proxied_client(
    transport: ITransport, proxies: Proxies | None, refused: Callable[[str], None]
) -> ProxiedClient | None:
    """What reads the header of a connection.

    :param transport: a connection from which nothing has been read yet.
    :param proxies: what the listener knows of proxies; None where it takes no headers.
    :param refused: is told why a header is refused; it closes the connection.
    :returns: None where no header is taken from this address.
    """
    if isinstance(transport, HAProxyProtocolWrapper):
        client = ProxiedClient(transport, proxies or _BEHIND_TWISTEDS, refused)
        client.wrapped = True
        transport._parser = client  # type: ignore[assignment]
        return client
    if proxies is None:
        return None
    host = _host(transport.getPeer())
    if not proxies.required and host is not None and not proxies.trusted.trusts(host):
        return None  # where it begins with a header all the same, the negotiation says so
    return ProxiedClient(transport, proxies, refused)


def _host(address: object) -> str | None:
    """None for a Unix socket's."""
    return address.host if isinstance(address, OVER_TCP) else None


def _address(address: ProxyAddress | None) -> IAddress | None:
    if address is None:
        return None
    if address.port is None:
        return UNIXAddress(address.host.encode("utf-8", "surrogateescape"))
    kind = IPv6Address if address.is_ipv6 else IPv4Address
    return kind("TCP", address.host, address.port)


_server = lru_cache(maxsize=64)(_address)  # where clients connect to, which are few places
