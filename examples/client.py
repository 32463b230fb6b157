"""A client: connects as libpq would under a connection string, sends a query, prints the answer.

python examples/client.py "host=db.example.com user=alice dbname=postgres sslmode=verify-full"
"""

import os
import sys
from typing import cast

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import ITCPTransport
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import react
from twisted.python.failure import Failure

from pgtls import (
    ConnInfo,
    ErrorResponse,
    IReactor,
    PgTLSClientEndpoint,
    negotiated_tls,
    startup_message,
)

QUERY = b"Q\0\0\0\x0eSELECT 42\0"
TERMINATE = b"X\0\0\0\4"


class Session(Protocol):
    """Reads messages: one byte is the type, four are the length of themselves and the body."""

    transport: ITCPTransport

    def __init__(self) -> None:
        self.received = b""
        self.error = ""
        self.todo = [QUERY, TERMINATE]
        self.ended: Deferred[None] = Deferred()

    def dataReceived(self, data: bytes) -> None:
        self.received += data
        while len(self.received) > (end := int.from_bytes(self.received[1:5], "big")) > 3:
            kind, body = self.received[:1], self.received[5 : end + 1]
            self.received = self.received[end + 1 :]
            if kind == b"D":  # DataRow: how many columns, the length of the first, the first
                print(body[6:].decode(), flush=True)
            elif kind == b"E":
                self.error = ErrorResponse.parse(body, b"").message
            elif kind == b"Z":  # ReadyForQuery
                self.transport.write(self.todo.pop(0))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self.error:
            self.ended.errback(SystemExit(self.error))
        else:
            self.ended.callback(None)


async def main(reactor: IReactor, text: str) -> None:
    conninfo = ConnInfo.parse(text, os.environ)
    endpoint = PgTLSClientEndpoint(reactor, conninfo, startup=startup_message(conninfo))
    session = cast(Session, await endpoint.connect(Factory.forProtocol(Session)))
    print(negotiated_tls(session.transport), flush=True)
    await session.ended


if __name__ == "__main__":
    react(lambda reactor, text: Deferred.fromCoroutine(main(reactor, text)), sys.argv[1:])
