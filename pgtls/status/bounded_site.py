"""A web site with bounds: on connections, on the time that each may take, on what it is asked for.

Each connection is for one request. What is half open stays for some seconds, and gives way to what
comes later.
"""

from __future__ import annotations

from collections import OrderedDict

from twisted.internet.interfaces import IDelayedCall, IProtocolFactory, IReactorTime
from twisted.internet.protocol import connectionDone
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import Site

#: Connections at a time. One more ends the one that has been there the longest.
MAX_CONNECTIONS = 100

#: Seconds that a connection may take, from its first moment to the end of the answer.
DEADLINE = 20.0


class QuietSite(Site):
    """A site that logs no requests, and keeps no connection for another one.

    :param resource: the only one.
    """

    noisy = False

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
    """

    protocol = _BoundedConnection
    noisy = False

    def __init__(self, wrapped: IProtocolFactory, clock: IReactorTime) -> None:
        super().__init__(wrapped)  # type: ignore[no-untyped-call]
        self._clock = clock
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
