"""How many clients a listener takes: sessions, clients that are refused, cancel requests.

PostgreSQL's ``canAcceptConnections()`` in ``src/backend/postmaster/postmaster.c`` and what
``ProcessStartupPacket()`` makes of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from enum import Enum, auto
from typing import Generic, Protocol, TypeVar

from pgtls.wire.messages import ErrorResponse

C = TypeVar("C")

TOO_MANY_CLIENTS = ErrorResponse.fatal("53300", "sorry, too many clients already")
SHUTTING_DOWN = ErrorResponse.fatal("57P03", "the database system is shutting down")

#: Connections without a place that are kept until they have been refused, at least; as many as
#: ``max_connections`` where that is more. A new one beyond them ends the oldest.
REFUSED_AT_ONCE = 128

#: TLS handshakes at a time that serve only to refuse a session inside them (or to hear a cancel
#: request). Beyond them an SSLRequest is answered with the error itself.
REFUSING_HANDSHAKES = 64

#: Connections at a time on which cancel requests are passed on; those beyond are dropped.
CANCELS_AT_ONCE = 200

#: Clients at a time that have sent a cancel request: more, since it takes a moment to find
#: out from other processes that no session has its key.
CANCEL_CLIENTS_AT_ONCE = 1000


def descriptors(max_connections: int, *, through_ssh: bool) -> int:
    """The file descriptors that a gateway's listener may need, its upstream connections included.

    :param max_connections: the setting.
    :param through_ssh: whether its upstreams are behind an SSH server.
    :returns: one for each client that has a session, asks to cancel or is refused; and for each
        session and each cancel request that is passed on one more, or a pair of sockets for SSH.
    """
    upstream = 2 if through_ssh else 1
    sessions = (1 + upstream) * max_connections
    cancels = CANCEL_CLIENTS_AT_ONCE + upstream * CANCELS_AT_ONCE
    return sessions + cancels + max(max_connections, REFUSED_AT_ONCE)


class Place(Enum):
    """What a connection counts as."""

    SESSION = auto()  # it has one of max_connections
    REFUSED = auto()  # it is there to be refused, or to send a cancel request
    CANCEL = auto()  # it has sent a cancel request


# In Python 3.11 each look at an enumeration's member by its class is a call.
SESSION, REFUSED, CANCEL = Place


class ISharedPlaces(Protocol):
    """Counts the sessions of a listener that several processes serve."""

    def take(self, limit: int) -> bool:
        """Count a session of this process, unless there are too many already.

        :param limit: how many there may be in all processes.
        :returns: whether it has been counted.
        """

    def give_back(self) -> None:
        """A session of this process is over."""


class Places(Generic[C]):
    """Counts a listener's connections, and says which of them may have a session.

    :param limit: ``max_connections``.
    :param evict: ends a connection, the oldest of those that are refused, at once.
    :ivar sessions: connections that have a place, from their first moment on.
    :ivar cancels: connections that have sent a cancel request.
    :ivar refusal: where set, no session begins any more, and this is why; cancel requests go on.
    :ivar shared: counts for all processes that share the listener; None where this is the only one.
    """

    def __init__(self, limit: int, evict: Callable[[C], None]) -> None:
        self.limit = limit
        self.sessions: set[C] = set()
        self.cancels: set[C] = set()
        self.refusal: ErrorResponse | None = None
        self.shared: ISharedPlaces | None = None
        self._evict = evict
        self._refused: dict[C, None] = {}  # the oldest first
        self._handshakes: set[C] = set()  # of those that are refused

    def enter(self, connection: C) -> Place:
        """A connection is open.

        :param connection: the connection.
        :returns: SESSION, or REFUSED where there is no place for it.
        """
        if self.refusal is None and self._take():
            self.sessions.add(connection)
            return SESSION
        if len(self._refused) >= max(self.limit, REFUSED_AT_ONCE):
            oldest = next(iter(self._refused))
            self.leave(oldest)
            self._evict(oldest)
        self._refused[connection] = None
        return REFUSED

    def _take(self) -> bool:
        if self.shared is None:
            return len(self.sessions) < self.limit
        return self.shared.take(self.limit)

    def refuse(self, response: ErrorResponse, waiting: Iterable[C]) -> None:
        """Begin no session any more.

        :param response: why.
        :param waiting: those of :attr:`sessions` that have not begun theirs: they lose their place.
        """
        self.refusal = response
        for connection in waiting:
            self.leave(connection)
            self._refused[connection] = None

    def leave(self, connection: C) -> None:
        """A connection is closed.

        :param connection: the connection, in whatever place it was.
        """
        if connection in self.sessions:
            self.sessions.discard(connection)
            if self.shared is not None:
                self.shared.give_back()
            return
        self.cancels.discard(connection)
        self._refused.pop(connection, None)
        self._handshakes.discard(connection)

    def cancel(self, connection: C) -> bool:
        """A connection has sent a cancel request: it needs no place for a session.

        :param connection: the connection.
        :returns: whether the request is taken; beyond :data:`CANCEL_CLIENTS_AT_ONCE` it is not.
        """
        if len(self.cancels) >= CANCEL_CLIENTS_AT_ONCE:
            return False
        self.leave(connection)
        self.cancels.add(connection)
        return True

    def session_refusal(self, connection: C) -> ErrorResponse | None:
        """Decide about a session.

        :param connection: the connection that asks for one.
        :returns: why it gets none; None where it gets one.
        """
        if self.refusal is not None:
            return self.refusal
        return None if connection in self.sessions else TOO_MANY_CLIENTS

    def handshake_refusal(self, connection: C) -> ErrorResponse | None:
        """Decide about a TLS handshake, and count it.

        :param connection: the connection that asks for one.
        :returns: why it gets none; None where it gets one.
        """
        if connection in self.sessions:
            return None
        if len(self._handshakes) >= REFUSING_HANDSHAKES:
            return self.refusal or TOO_MANY_CLIENTS
        self._handshakes.add(connection)
        return None

    @property
    def refused(self) -> list[C]:
        """The connections without a place, the oldest first."""
        return list(self._refused)
