"""What all processes know of their sessions, put together, with what those knew that are gone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from pgtls.gateway.activity import GatewayActivity, LastRefusal, OpenSession
from pgtls.gateway.plaintext_clients import MOST_OFTEN, PlaintextClient

_ClientKey = tuple[str, str, str, str]
_RefusalKey = tuple[str, str, str]


class ActivitySum:
    """The sum.

    :ivar open: open sessions by gateway and route.
    :ivar connections: open connections of clients, by gateway.
    :ivar sessions: those that are listed, the oldest first.
    """

    def __init__(self) -> None:
        self._latest: dict[str, Sequence[GatewayActivity]] = {}
        self._plaintext: dict[_ClientKey, PlaintextClient] = {}  # of processes that are gone
        self._refusals: dict[_RefusalKey, LastRefusal] = {}

    def update(
        self, answers: Mapping[str, Sequence[GatewayActivity]], processes: Iterable[str]
    ) -> None:
        """Take in what processes say.

        :param answers: by the processes' names.
        :param processes: all that there are now.
        """
        self._latest.update(answers)
        for gone in self._latest.keys() - set(processes):
            activities = self._latest.pop(gone)
            self._plaintext = _sum_of_clients([*self._plaintext.values(), *_plaintext(activities)])
            self._refusals = _last_of([*self._refusals.values(), *_refusals(activities)])

    @property
    def _activities(self) -> list[GatewayActivity]:
        return [each for activities in self._latest.values() for each in activities]

    @property
    def open(self) -> dict[tuple[str, str], int]:
        """Open sessions by gateway and route."""
        found: dict[tuple[str, str], int] = {}
        for activity in self._activities:
            for route, count in activity["open"].items():
                key = activity["gateway"], route
                found[key] = found.get(key, 0) + count
        return found

    @property
    def connections(self) -> dict[str, int]:
        """Open connections of clients, by gateway."""
        found: dict[str, int] = {}
        for activity in self._activities:
            gateway = activity["gateway"]
            found[gateway] = found.get(gateway, 0) + activity["connections"]
        return found

    @property
    def sessions(self) -> list[OpenSession]:
        """Those that are listed, the oldest first."""
        every = [each for activity in self._activities for each in activity["sessions"]]
        return sorted(every, key=lambda session: session["since"])

    @property
    def plaintext(self) -> list[PlaintextClient]:
        """Who has come in plaintext, the last one first."""
        summed = _sum_of_clients([*self._plaintext.values(), *_plaintext(self._activities)])
        return list(summed.values())

    @property
    def refusals(self) -> dict[_RefusalKey, LastRefusal]:
        """The last refusal by gateway, reason and SQLSTATE."""
        return _last_of([*self._refusals.values(), *_refusals(self._activities)])


def _plaintext(activities: Iterable[GatewayActivity]) -> list[PlaintextClient]:
    return [client for activity in activities for client in activity["plaintext"]]


def _refusals(activities: Iterable[GatewayActivity]) -> list[LastRefusal]:
    return [refusal for activity in activities for refusal in activity["refusals"]]


def _sum_of_clients(clients: Iterable[PlaintextClient]) -> dict[_ClientKey, PlaintextClient]:
    found: dict[_ClientKey, PlaintextClient] = {}
    for client in clients:
        key = (client["gateway"], client["address"], client["user"], client["database"])
        same = found.get(key)
        found[key] = PlaintextClient(
            gateway=client["gateway"],
            address=client["address"],
            user=client["user"],
            database=client["database"],
            count=client["count"] + (same["count"] if same is not None else 0),
            last_seen=max(client["last_seen"], same["last_seen"] if same is not None else 0),
        )
    latest = sorted(found.items(), key=lambda item: -item[1]["last_seen"])
    return dict(latest[:MOST_OFTEN])


def _last_of(refusals: Iterable[LastRefusal]) -> dict[_RefusalKey, LastRefusal]:
    found: dict[_RefusalKey, LastRefusal] = {}
    for refusal in sorted(refusals, key=lambda each: each["last_seen"]):
        found[refusal["gateway"], refusal["reason"], refusal["sqlstate"]] = refusal
    return found
