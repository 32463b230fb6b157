"""What a listener does to a client's socket, on every kind of listener."""

from __future__ import annotations

import socket
import tempfile
from pathlib import Path

from twisted.internet.endpoints import serverFromString
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from pgtls.protocols.server_factory import PgTLSServerFactory
from pgtls.protocols.server_settings import ListenerSettings
from pgtls.transport.listening import listen as listen_at
from pgtls.wire.server_negotiation import SSL
from tests.support.processes import TIMEOUT, reactor
from tests.support.raw_client import startup_message
from tests.support.transports import OnTwistedsTransports, Transports

HEADER = b"PROXY TCP4 192.0.2.7 198.51.100.1 56324 5432\r\n"


class Session(Protocol):
    """Says what the options of its socket are."""

    def connectionMade(self) -> None:
        assert self.transport is not None
        connection = self.transport.getHandle()
        self.factory.seen.append(  # type: ignore[union-attr]
            [
                connection.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE),
                *(
                    connection.getsockopt(socket.IPPROTO_TCP, getattr(socket, f"TCP_{name}"))
                    for name in ("NODELAY", "KEEPIDLE", "KEEPINTVL", "KEEPCNT", "USER_TIMEOUT")
                ),
            ]
            if connection.family != socket.AF_UNIX
            else None
        )
        self.transport.loseConnection()


class SocketOptions(Transports, TestCase):
    timeout = TIMEOUT

    async def options(self, listen: str, header: bytes = b"") -> list[int] | None:
        """Those of a client of this listener."""
        sessions = Factory.forProtocol(Session)
        sessions.seen = []  # type: ignore[attr-defined]
        settings = ListenerSettings(
            ssl=SSL.OFF,
            tcp_keepalives_idle=11,
            tcp_keepalives_interval=12,
            tcp_keepalives_count=13,
            tcp_user_timeout=14000,
        )
        factory = PgTLSServerFactory(sessions, None, settings)
        port = await listen_at(serverFromString(reactor, listen), factory, reactor)
        self.addCleanup(port.stopListening)
        address = port.getHost()
        family = socket.AF_UNIX if hasattr(address, "name") else socket.AF_INET

        def client() -> None:
            with socket.socket(family) as connection:
                connection.settimeout(TIMEOUT)
                connection.connect(
                    address.name if family is socket.AF_UNIX else (address.host, address.port)
                )
                connection.sendall(header + startup_message())
                self.assertEqual(connection.recv(1), b"")

        await deferToThread(client)
        [seen] = sessions.seen  # type: ignore[attr-defined]
        return seen  # type: ignore[no-any-return]

    async def test_tcp(self) -> None:
        options = await self.options("tcp:0:interface=127.0.0.1")
        self.assertEqual(options, [1, 1, 11, 12, 13, 14000])

    async def test_behind_a_proxy(self) -> None:
        options = await self.options("haproxy:tcp:0:interface=127.0.0.1", HEADER)
        self.assertEqual(options, [1, 1, 11, 12, 13, 14000])

    async def test_a_unix_socket_has_none(self) -> None:
        directory = self.enterContext(tempfile.TemporaryDirectory(dir="/tmp"))
        self.assertIsNone(await self.options(f"unix:{Path(directory) / 's'}"))


class SocketOptionsOnTwisteds(OnTwistedsTransports, SocketOptions):
    """On Twisted's own."""
