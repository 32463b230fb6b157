"""A proxy: TLS towards the clients, whatever a connection string says towards the server.

python examples/proxy.py pgtls:tcp:6432:ssl_cert_file=server.crt:ssl_key_file=server.key \
    "host=db.example.com sslmode=verify-full"
"""

import sys
from functools import partial
from typing import Any, cast

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IProtocol
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import react
from twisted.python.failure import Failure
from zope.interface import implementer

import pgtls


class Side(Protocol):
    """One side of a session: what comes in here goes out there, no faster than it is taken."""

    transport: Any  # ITCPTransport, IConsumer and IPushProducer
    other: "Side | None" = None

    def join(self, other: "Side") -> None:
        for one, two in ((self, other), (other, self)):
            one.other = two
            one.transport.registerProducer(two.transport, True)

    def dataReceived(self, data: bytes) -> None:
        if self.other:
            self.other.transport.write(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self.other:
            self.other.transport.loseConnection()


@implementer(pgtls.IPostgreSQLApplication)
class Client(Side):
    """The client's side, which makes the other one."""

    def __init__(self, reactor: pgtls.IReactor, upstream: str) -> None:
        self.endpoint = partial(pgtls.PgTLSClientEndpoint, reactor, upstream)
        self.attempt: Deferred[IProtocol] = Deferred()

    def startup_received(
        self, startup: pgtls.StartupMessage, tls: pgtls.NegotiatedTLS | None
    ) -> None:
        Deferred.fromCoroutine(self.connect(startup))

    def cancel_requested(
        self, request: pgtls.CancelRequest, tls: pgtls.NegotiatedTLS | None
    ) -> None:
        Deferred.fromCoroutine(self.connect(None, request.raw))

    async def connect(self, startup: pgtls.StartupMessage | None, first: bytes = b"") -> None:
        self.transport.pauseProducing()
        self.attempt = self.endpoint(startup=startup).connect(Factory.forProtocol(Side))
        try:
            server = cast(Side, await self.attempt)
        except CancelledError:
            return
        except pgtls.PgTLSError as error:
            self.transport.write(pgtls.ErrorResponse.fatal("08006", str(error)).encode())
            self.transport.loseConnection()
            return
        server.transport.write(first)
        self.join(server)
        self.transport.resumeProducing()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.attempt.cancel()
        super().connectionLost(reason)


async def main(reactor: pgtls.IReactor, listen: str, upstream: str) -> None:
    factory = Factory.forProtocol(partial(Client, reactor, upstream))
    port = await serverFromString(reactor, listen).listen(factory)
    print("listening on", port.getHost(), flush=True)
    await Deferred()


if __name__ == "__main__":
    react(lambda *arguments: Deferred.fromCoroutine(main(*arguments)), sys.argv[1:])
