"""Which gateway of a configuration is which of another one: where it listens says so."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from pgtls.daemon.mistakes import Mistakes
from pgtls.gateway.gateway_configuration import GatewayConfiguration
from pgtls.transport.listening_sockets import Address, listening_address

#: IPv4's address that stands for each of the machine's.
_EVERY = "0.0.0.0"  # noqa: S104


class ListenerKey(NamedTuple):
    """What identifies a gateway.

    :ivar address: where it listens; the endpoint string where that does not say so.
    :ivar occurrence: which of those with the same address it is, from 1: there can be several where
        the system chooses the port.
    """

    address: Address | str
    occurrence: int


def listener_keys(gateways: Sequence[GatewayConfiguration]) -> list[ListenerKey]:
    """Identify the gateways of a configuration.

    :param gateways: all of them.
    :returns: the key of each.
    """
    seen: Counter[Address | str] = Counter()
    keys = []
    for gateway in gateways:
        listen = gateway.settings.listen
        address = listening_address(listen) or listen
        seen[address] += 1
        keys.append(ListenerKey(address, seen[address]))
    return keys


def check_addresses(gateways: Sequence[GatewayConfiguration], mistakes: Mistakes) -> None:
    """See that no two gateways listen at the same address.

    :param gateways: all of them.
    :param mistakes: takes those that are found.
    """
    seen: list[tuple[Address, GatewayConfiguration]] = []
    for gateway in gateways:
        address = listening_address(gateway.settings.listen)
        if address is None or mistakes.has(gateway.location, "listen"):
            continue
        for other, first in seen:
            if is_same(address, other):
                mistakes.add(
                    f'{gateway.location}listen: "{gateway.settings.listen}" is where gateway '
                    f'{first.number} listens already ("{first.settings.listen}")'
                )
                break
        seen.append((address, gateway))


def is_same(one: Address, other: Address) -> bool:
    """Whether only one of two sockets can listen.

    :param one: where the first one does.
    :param other: where the second one does.
    :returns: False where both can, and where the system chooses their ports.
    """
    if not one.is_one_socket or one.unix_socket != other.unix_socket or one.port != other.port:
        return False
    every = one.port > 0 and _EVERY in (one.name, other.name)
    return one.name == other.name or (every and ":" not in one.name + other.name)
