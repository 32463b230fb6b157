r"""Which upstream a session goes to: by the host name that the client asked for, database and role.

The ``[[gateway.route]]`` tables in their order; the first that matches counts. However many there
are, a session costs a few lookups in dictionaries.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Generic, TypeVar

T = TypeVar("T")

_WILDCARD = "*."


@dataclass(frozen=True, slots=True)
class Route(Generic[T]):
    """One table.

    :ivar sni: host names, without regard to case; ``*.example.com`` stands for one label in front
        of ``.example.com``. Empty: any client, one without a name included.
    :ivar database: databases; empty: any.
    :ivar user: roles; empty: any.
    :ivar upstream: where it leads.
    """

    sni: tuple[str, ...]
    database: tuple[bytes, ...]
    user: tuple[bytes, ...]
    upstream: T


@dataclass(frozen=True, slots=True)
class Match(Generic[T]):
    """The route of a session.

    :ivar number: the route's, from 1.
    :ivar route: the route.
    :ivar label: what ``*`` stood for, in lower case; empty where the name was matched exactly.
    """

    number: int
    route: Route[T]
    label: str


#: A combination of criteria: a host name ("" for none needed, "*.x" for a wildcard), a database and
#: a role (None: any).
_Key = tuple[str, bytes | None, bytes | None]


class RouteTable(Generic[T]):
    """All routes of a gateway.

    :param routes: in their order.
    """

    def __init__(self, routes: Sequence[Route[T]]) -> None:
        self._routes = tuple(routes)
        self._numbers: dict[_Key, int] = {}
        for number, route in enumerate(self._routes):
            for key in _keys(route):
                self._numbers.setdefault(key, number)

    def find(self, sni: str | None, database: bytes, user: bytes) -> Match[T] | None:
        """The first route that matches.

        :param sni: the host name that the client asked for in its ClientHello; None for none.
        :param database: the database asked for.
        :param user: the role asked for.
        :returns: the route; None where none matches.
        """
        name = (sni or "").lower()
        label, dot, parent = name.partition(".")
        names = ["", *([name] if name else []), *([_WILDCARD + parent] if label and dot else [])]
        found: tuple[int, str] | None = None
        for key in product(names, (None, database), (None, user)):
            number = self._numbers.get(key)
            if number is not None and (found is None or number < found[0]):
                found = number, label if key[0].startswith(_WILDCARD) else ""
        if found is None:
            return None
        return Match(found[0] + 1, self._routes[found[0]], found[1])


def _keys(route: Route[T]) -> Iterable[_Key]:
    """Every combination that the route matches."""
    return product(
        [name.lower() for name in route.sni] or [""],
        route.database or [None],
        route.user or [None],
    )
