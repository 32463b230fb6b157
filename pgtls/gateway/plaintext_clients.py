"""Which clients still come in plaintext: for whoever wants them to move to TLS."""

from __future__ import annotations

from collections import OrderedDict
from time import time
from typing import TypedDict

from twisted.internet.interfaces import IAddress

from pgtls.protocols.connection_info import OVER_TCP
from pgtls.protocols.stages import Client
from pgtls.text import printable

#: Clients that are remembered: those that came once, and those that came more than once. A stranger
#: can invent names, and they take the place of the oldest of the first kind only.
MOST_ONCE = 500
MOST_OFTEN = 1000

#: Characters of a name that are shown.
_MOST_OF_NAME = 100


class PlaintextClient(TypedDict):
    """One of them.

    :ivar gateway: where it came.
    :ivar address: its address, without the port.
    :ivar user: its role.
    :ivar database: its database.
    :ivar count: how many times it came.
    :ivar last_seen: when, in seconds since 1970.
    """

    gateway: str
    address: str
    user: str
    database: str
    count: int
    last_seen: float


_Key = tuple[str, bytes, bytes]


class PlaintextClients:
    """Those of one gateway."""

    def __init__(self) -> None:
        self._once: OrderedDict[_Key, float] = OrderedDict()
        self._often: OrderedDict[_Key, tuple[int, float]] = OrderedDict()

    def came(self, client: Client) -> None:
        """A client has sent its StartupMessage in plaintext.

        :param client: the client. Of those of a Unix socket nobody expects TLS.
        """
        address: IAddress | None = client.address
        if not isinstance(address, OVER_TCP):
            return
        key = (address.host, client.startup.user[:400], client.startup.database[:400])
        now = time()
        if (seen := self._often.pop(key, None)) is not None:
            self._often[key] = seen[0] + 1, now
        elif self._once.pop(key, None) is not None:
            if len(self._often) >= MOST_OFTEN:
                self._often.popitem(last=False)
            self._often[key] = 2, now
        else:
            if len(self._once) >= MOST_ONCE:
                self._once.popitem(last=False)
            self._once[key] = now

    def listed(self, gateway: str) -> list[PlaintextClient]:
        """All that are remembered.

        :param gateway: the gateway's name.
        :returns: the one that came last first.
        """
        every = [(key, 1, seen) for key, seen in self._once.items()]
        every += [(key, count, seen) for key, (count, seen) in self._often.items()]
        every.sort(key=lambda each: -each[2])
        return [
            PlaintextClient(
                gateway=gateway,
                address=address,
                user=shown_name(user),
                database=shown_name(database),
                count=count,
                last_seen=seen,
            )
            for (address, user, database), count, seen in every
        ]


def shown_name(octets: bytes) -> str:
    """A role or a database for a person.

    :param octets: as the client has sent it.
    :returns: all that can be printed as it is; not escaped for HTML.
    """
    return printable(octets.decode("utf-8", "surrogateescape"), _MOST_OF_NAME)
