"""Which proxies are believed when they say whose connection they pass on.

What HAProxy's documentation calls ``src`` of ``expect-proxy``, nginx ``set_real_ip_from``, Percona
Server ``proxy_protocol_networks``.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

#: Where nothing is said: proxies on the same machine.
LOOPBACK = ("127.0.0.0/8", "::1")

#: Every proxy.
ANYWHERE = ("0.0.0.0/0", "::/0")

#: Addresses that are remembered with what was found about them; proxies are few.
_REMEMBERED = 1024


def parse_network(text: str) -> IPv4Network | IPv6Network:
    """Read one of the values of ``proxy_protocol_from``.

    :param text: an address, or a network in CIDR notation. Bits behind the mask do not count, as in
        ``pg_hba.conf``.
    :returns: the network; of one address for an address.
    :raises ValueError: it is neither. The text says what would be right.
    """
    try:
        return ip_network(text, strict=False)
    except ValueError:
        raise ValueError('addresses or networks such as "10.0.0.7" or "10.0.0.0/24"') from None


class TrustedProxies:
    """The proxies that are believed. Those that connect over a Unix socket always are: who may do
    that, the permissions of its file say.

    :param networks: see :func:`parse_network`; none for :data:`LOOPBACK`.
    :raises ValueError: one of them is neither an address nor a network.
    """

    def __init__(self, networks: Iterable[str]) -> None:
        self._networks = [parse_network(text) for text in tuple(networks) or LOOPBACK]
        self._found: dict[str, bool] = {}

    def trusts(self, host: str) -> bool:
        """Decide about a proxy.

        :param host: its address, IPv6 with a zone or without.
        :returns: whether it is believed.
        """
        found = self._found.get(host)
        if found is None:
            if len(self._found) >= _REMEMBERED:
                self._found.clear()
            found = self._found[host] = self._is_in_a_network(host)
        return found

    def _is_in_a_network(self, host: str) -> bool:
        address = ip_address(host.partition("%")[0])
        if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped  # as a socket for both families shows IPv4
        return any(address in network for network in self._networks)
