"""A PostgreSQL without database: ``python -m benchmarks.upstream PORT CERTIFICATE KEY``.

For thousands of connections, each of which would be a process of PostgreSQL's. It takes everyone,
with TLS or without, and answers each query with nothing. It is made of this library.
"""

from __future__ import annotations

import struct
import sys
from typing import Any, cast

from twisted.internet import reactor as _reactor
from twisted.internet.protocol import Factory, Protocol
from zope.interface import implementer

from pgtls import (
    SSL,
    CancelRequest,
    IPostgreSQLApplication,
    ListenerSettings,
    NegotiatedTLS,
    PgTLSServerFactory,
    ServerTLS,
    ServerTLSSettings,
    StartupMessage,
)
from tests.support.servers import HOST

BACKLOG = 1024


def message(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("!I", len(body) + 4) + body


READY = message(b"Z", b"I")
WELCOME = b"".join(
    [
        message(b"R", struct.pack("!I", 0)),
        message(b"S", b"server_version\x0017.0\0"),
        message(b"S", b"client_encoding\0UTF8\0"),
        message(b"K", struct.pack("!II", 1, 1)),
        READY,
    ]
)
ANSWER = message(b"C", b"SELECT 0\0") + READY


@implementer(IPostgreSQLApplication)
class Backend(Protocol):
    """Answers every query. It relies on a query's coming in one piece, as small ones do."""

    transport: Any

    def startup_received(self, startup: StartupMessage, tls: NegotiatedTLS | None) -> None:
        self.transport.write(WELCOME)

    def cancel_requested(self, request: CancelRequest, tls: NegotiatedTLS | None) -> None:
        self.transport.loseConnection()

    def dataReceived(self, data: bytes) -> None:
        if data.startswith(b"Q"):
            self.transport.write(ANSWER)
        elif data.startswith(b"X"):
            self.transport.loseConnection()


def main(port: str, certificate: str, key: str) -> None:
    """Listen until told to stop."""
    reactor = cast(Any, _reactor)
    tls = ServerTLS(ServerTLSSettings(ssl_cert_file=certificate, ssl_key_file=key))
    settings = ListenerSettings(ssl=SSL.ON, max_connections=100_000)
    factory = PgTLSServerFactory(Factory.forProtocol(Backend), tls, settings)
    reactor.listenTCP(int(port), factory, backlog=BACKLOG, interface=HOST)
    reactor.run()


if __name__ == "__main__":
    main(*sys.argv[1:])
