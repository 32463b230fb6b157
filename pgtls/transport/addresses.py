"""Addresses of sockets as Twisted has them."""

from __future__ import annotations

import socket
from functools import lru_cache
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.interfaces import IAddress


def socket_address(family: int, address: Any) -> IAddress:
    """An address.

    :param family: of the socket.
    :param address: what ``accept``, ``getsockname`` and so on give, of which the family decides.
    :returns: Twisted's IPv4Address, IPv6Address or UNIXAddress.
    """
    if family == socket.AF_INET:
        return IPv4Address("TCP", *address)
    if family == socket.AF_UNIX:
        return UNIXAddress(address)
    # With the name of the interface that a link-local address belongs to.
    flags = socket.NI_NUMERICHOST | socket.NI_NUMERICSERV
    return IPv6Address("TCP", socket.getnameinfo(address, flags)[0], *address[1:])


#: The same for servers, which are few.
server_address = lru_cache(maxsize=64)(socket_address)
