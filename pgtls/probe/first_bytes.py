"""Connections on which a server is asked for its first bytes."""

from __future__ import annotations

from typing import cast

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime, ITransport
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure

from pgtls.protocols.connection_info import CLOSE_TIMEOUT
from pgtls.protocols.endpoint import PgTLSClientEndpoint

#: Bytes of an answer that are read at most.
_LIMIT = 30000


class Asking(Protocol):
    """One connection: sends its request, and collects what the server says first.

    :param request: bytes to send; may be empty.
    :ivar received: the bytes so far.
    :ivar closed: fires when the connection is closed.
    """

    transport: ITransport

    def __init__(self, request: bytes = b"") -> None:
        self.received = b""
        self.closed: Deferred[None] = Deferred()
        self._request = request
        self._answered: Deferred[None] = Deferred()

    def connectionMade(self) -> None:
        """Send the request."""
        if self._request:
            self.transport.write(self._request)

    def dataReceived(self, data: bytes) -> None:
        """A part of the answer."""
        if len(self.received) < _LIMIT:
            self.received += data
        self._done()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The server is gone, or we closed."""
        self._done()
        self.closed.callback(None)

    def _done(self) -> None:
        if not self._answered.called:
            self._answered.callback(None)

    async def answer(self, timeout: float, clock: IReactorTime) -> bytes:
        """Wait for the server.

        :param timeout: seconds.
        :param clock: measures them.
        :returns: its first bytes; empty where it closed, or said nothing in that time.
        """
        self._answered.addTimeout(timeout, clock, onTimeoutCancel=lambda *_: None)
        await self._answered
        return self.received

    async def close(self, clock: IReactorTime) -> None:
        """Close, and wait until that is done: a server may take one connection at a time.

        :param clock: limits the wait to CLOSE_TIMEOUT seconds.
        """
        if not self.closed.called:
            self.transport.loseConnection()
            await self.closed.addTimeout(CLOSE_TIMEOUT, clock, onTimeoutCancel=lambda *_: None)


async def connect(endpoint: PgTLSClientEndpoint, request: bytes = b"") -> Asking:
    """Connect, and send a request.

    :param endpoint: where to, and how.
    :param request: bytes to send; may be empty.
    :returns: the connection.
    :raises PgTLSError: there is none.
    """
    factory = Factory.forProtocol(lambda: Asking(request))
    factory.noisy = False
    return cast(Asking, await endpoint.connect(factory))
