"""The connection that carries a CancelRequest to a server, or to another gateway."""

from __future__ import annotations

from twisted.internet import protocol
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import ITCPTransport
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure

from pgtls.protocols.endpoint import PgTLSClientEndpoint
from pgtls.transport.dial import OneProtocol

#: Seconds for the whole of a forwarded CancelRequest.
CANCEL_TIMEOUT = 10.0


class CancelConnection(protocol.Protocol):
    """Sends a request and waits until the other end has closed: only then is it carried out.

    :param packet: the request.
    :ivar done: fires when the connection is closed; cancelling it closes it.
    """

    transport: ITCPTransport

    def __init__(self, packet: bytes) -> None:
        self._packet = packet
        self.done: Deferred[None] = Deferred(lambda _: self.transport.abortConnection())

    def connectionMade(self) -> None:
        """Send it."""
        self.transport.write(self._packet)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The other end has closed."""
        if not self.done.called:
            self.done.callback(None)


async def send_cancel(endpoint: PgTLSClientEndpoint, packet: bytes) -> None:
    """Send a request to a server.

    :param endpoint: connects to it.
    :param packet: the request.
    :raises PgTLSError: there is no such connection as the connection string asks for.
    """
    connection = CancelConnection(packet)
    await endpoint.connect(OneProtocol.forProtocol(lambda: connection))
    await connection.done
