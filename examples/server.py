"""A server: lets every client in, and answers every query with the TLS that the client has.

python examples/server.py pgtls:tcp:5432:ssl_cert_file=server.crt:ssl_key_file=server.key
"""

import sys

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import ITCPTransport
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import react
from zope.interface import implementer

from pgtls import (
    CancelRequest,
    IPostgreSQLApplication,
    IReactor,
    NegotiatedTLS,
    StartupMessage,
)


def message(kind: bytes, body: bytes) -> bytes:
    return kind + (4 + len(body)).to_bytes(4, "big") + body


READY = message(b"Z", b"I")
ONE_COLUMN = message(b"T", b"\0\1tls\0" + bytes(6) + b"\0\0\0\x19\xff\xff" + b"\xff" * 4 + b"\0\0")


@implementer(IPostgreSQLApplication)
class Server(Protocol):
    transport: ITCPTransport

    def startup_received(self, startup: StartupMessage, tls: NegotiatedTLS | None) -> None:
        self.answer = (tls.version if tls else "no TLS").encode()
        self.transport.write(message(b"R", bytes(4)) + READY)  # AuthenticationOk

    def cancel_requested(self, request: CancelRequest, tls: NegotiatedTLS | None) -> None:
        self.transport.loseConnection()

    def dataReceived(self, data: bytes) -> None:  # short queries only: each comes in one piece
        if data[:1] == b"Q":
            row = message(b"D", b"\0\1" + len(self.answer).to_bytes(4, "big") + self.answer)
            self.transport.write(ONE_COLUMN + row + message(b"C", b"SELECT 1\0") + READY)
        elif data[:1] == b"X":
            self.transport.loseConnection()


async def main(reactor: IReactor, description: str) -> None:
    port = await serverFromString(reactor, description).listen(Factory.forProtocol(Server))
    print("listening on", port.getHost(), flush=True)
    await Deferred()


if __name__ == "__main__":
    react(lambda reactor, text: Deferred.fromCoroutine(main(reactor, text)), sys.argv[1:])
