r"""Which upstream a session goes to: by the host name that the client asked for, database and role.

The ``[[gateway.route]]`` tables in their order; the first that matches counts. However many there
are, a session costs a few lookups in dictionaries.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
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

    def mismatch(self, sni: str | None, database: bytes, user: bytes) -> str | None:
        """Why a session does not take this route.

        :param sni: the host name that the client asks for; None for none.
        :param database: the database asked for.
        :param user: the role asked for.
        :returns: the first criterion that does not match; None where all do.
        """
        if self.sni and not {name.lower() for name in self.sni} & set(_names(sni)[1]):
            return "sni"
        if self.database and database not in self.database:
            return "database"
        return "user" if self.user and user not in self.user else None


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


class Undecided(Enum):
    """A host name does not say which route it is."""

    UNDECIDED = "undecided"


UNDECIDED = Undecided.UNDECIDED

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
        self._first: dict[str, int] = {}  # by host name alone
        for number, route in enumerate(self._routes):
            for key in _keys(route):
                self._numbers.setdefault(key, number)
                self._first.setdefault(key[0], number)

    def find(self, sni: str | None, database: bytes, user: bytes) -> Match[T] | None:
        """The first route that matches.

        :param sni: the host name that the client asked for in its ClientHello; None for none.
        :param database: the database asked for.
        :param user: the role asked for.
        :returns: the route; None where none matches.
        """
        label, names = _names(sni)
        found: tuple[int, str] | None = None
        for key in product(names, (None, database), (None, user)):
            number = self._numbers.get(key)
            if number is not None and (found is None or number < found[0]):
                found = number, label if key[0].startswith(_WILDCARD) else ""
        if found is None:
            return None
        return Match(found[0] + 1, self._routes[found[0]], found[1])

    def find_by_name(self, sni: str | None) -> Match[T] | Undecided | None:
        """The route of every session with a host name, whatever its database and role.

        :param sni: the host name; None for none.
        :returns: the route; ``UNDECIDED`` where it depends on database or role as well; None where
            no route is for such a session.
        """
        label, names = _names(sni)
        found = min(
            ((self._first[name], name) for name in names if name in self._first),
            key=lambda first: first[0],  # of two names of one route the exact one, as above
            default=None,
        )
        if found is None:
            return None
        number, name = found
        if self._numbers.get((name, None, None)) != number:
            return UNDECIDED
        label = label if name.startswith(_WILDCARD) else ""
        return Match(number + 1, self._routes[number], label)


def _names(sni: str | None) -> tuple[str, list[str]]:
    """What ``*`` would stand for, and the names by which a host name can be found."""
    name = (sni or "").lower()
    label, dot, parent = name.partition(".")
    return label, [
        "",
        *([name] if name else []),
        *([_WILDCARD + parent] if label and dot else []),
    ]


def _keys(route: Route[T]) -> Iterable[_Key]:
    """Every combination that the route matches."""
    return product(
        [name.lower() for name in route.sni] or [""],
        route.database or [None],
        route.user or [None],
    )
