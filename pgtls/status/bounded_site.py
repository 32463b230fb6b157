"""A web site with bounds: on connections, on the time that each may take, on what it is asked for.

Each connection is for one request. What is half open stays for some seconds, and gives way to what
comes later.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from time import perf_counter

from twisted.internet.interfaces import IDelayedCall, IProtocolFactory, IReactorTime
from twisted.internet.protocol import connectionDone
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel, Request
from twisted.web.resource import Resource
from twisted.web.server import Site

#: Connections at a time. One more ends the one that has been there the longest.
MAX_CONNECTIONS = 100

#: Seconds that a connection may take, from its first moment to the end of the answer.
DEADLINE = 20.0

#: How much longer the site rests than it works, and the seconds of work that it counts a
#: connection as: whatever comes, sessions have most of the time.
REST = 3.0
CONNECTION_COST = 0.001

#: Seconds of rest that have to come together before there is a pause.
_SHORTEST_PAUSE = 0.05


class _OneRequest(HTTPChannel):
    """A connection for one request."""

    def checkPersistence(self, request: Request, version: bytes) -> bool:
        """Whether another request may come."""
        request.responseHeaders.setRawHeaders(b"connection", [b"close"])
        return False


class QuietSite(Site):
    """A site that logs no requests, and keeps no connection for another one.

    :param resource: the only one.
    """

    noisy = False
    protocol = _OneRequest  # type: ignore[assignment] # without HTTP/2

    def __init__(self, resource: Resource) -> None:
        super().__init__(resource, timeout=int(DEADLINE))  # type: ignore[no-untyped-call]
        self.displayTracebacks = False

    def log(self, request: object) -> None:
        """Log nothing: there is a request every few seconds.

        :param request: Twisted's.
        """


class _BoundedConnection(ProtocolWrapper):
    """A connection, until its deadline."""

    factory: BoundedFactory

    def connectionMade(self) -> None:
        self.factory.opened(self)
        super().connectionMade()  # type: ignore[no-untyped-call]

    def dataReceived(self, data: bytes) -> None:
        began = perf_counter()
        super().dataReceived(data)  # type: ignore[no-untyped-call]
        self.factory.worked(perf_counter() - began)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.factory.closed(self)
        super().connectionLost(reason)  # type: ignore[no-untyped-call]

    def abort(self) -> None:
        """End it at once."""
        self.abortConnection()


class BoundedFactory(WrappingFactory):
    """Bounds the connections of another factory.

    :param wrapped: the other one.
    :param clock: the reactor.
    :ivar pause: has nothing accepted for so many seconds.
    """

    protocol = _BoundedConnection
    noisy = False

    def __init__(self, wrapped: IProtocolFactory, clock: IReactorTime) -> None:
        super().__init__(wrapped)  # type: ignore[no-untyped-call]
        self.pause: Callable[[float], None] = lambda seconds: None
        self._clock = clock
        self._rest = 0.0
        self._open: OrderedDict[_BoundedConnection, IDelayedCall] = OrderedDict()

    def opened(self, connection: _BoundedConnection) -> None:
        """A connection is there; where there are too many, the oldest goes.

        :param connection: one of those that this has made.
        """
        if len(self._open) >= MAX_CONNECTIONS:
            oldest, timer = self._open.popitem(last=False)
            timer.cancel()
            oldest.abort()
        self._open[connection] = self._clock.callLater(DEADLINE, self._too_late, connection)
        self.worked(CONNECTION_COST)

    def worked(self, seconds: float) -> None:
        """The site has taken time that sessions might have had.

        :param seconds: how much.
        """
        self._rest += REST * seconds
        if self._rest >= _SHORTEST_PAUSE:
            rest, self._rest = self._rest, 0.0
            self.pause(rest)

    def _too_late(self, connection: _BoundedConnection) -> None:
        self._open.pop(connection, None)
        connection.abort()

    def closed(self, connection: _BoundedConnection) -> None:
        """A connection is gone.

        :param connection: one of those that this has made.
        """
        timer = self._open.pop(connection, None)
        if timer is not None:
            timer.cancel()

    def close_all(self) -> None:
        """End every connection."""
        for connection in list(self._open):
            connection.abort()
