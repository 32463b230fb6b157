"""No TLS record carries more than 8,192 bytes of plaintext, over whatever transport it is sent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, serverFromString
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from pgtls.protocols.endpoint import PgTLSClientEndpoint
from pgtls.protocols.server_settings import ListenerSettings
from pgtls.protocols.strings import PgTLSServerEndpoint
from pgtls.tls.server_context import ServerTLSSettings
from tests.support.certificates import Files, localhost
from tests.support.processes import reactor
from tests.support.raw_client import startup_message
from tests.support.transports import OnTwistedsTransports, Transports

BIG = 1_000_000

#: Of a record with 8,192 bytes on the wire, behind its header: TLS 1.2 with AES-GCM adds 24 bytes.
LIMIT = 8192 + 24

APPLICATION_DATA = 23


class Records:
    """The TLS records in one direction.

    :param ahead: bytes in front of the first one.
    :ivar sizes: of those with application data, without their headers.
    """

    def __init__(self, ahead: int) -> None:
        self._ahead = ahead
        self._buffer = b""
        self.sizes: list[int] = []

    def feed(self, data: bytes) -> None:
        self._buffer += data[self._ahead :]
        self._ahead -= min(self._ahead, len(data))
        while len(self._buffer) >= (end := 5 + int.from_bytes(self._buffer[3:5], "big")) > 5:
            if self._buffer[0] == APPLICATION_DATA:
                self.sizes.append(end - 5)
            self._buffer = self._buffer[end:]


class Recorder(Protocol):
    """One direction of a connection that passes through here."""

    transport: Any
    other: Recorder

    def __init__(self, records: Records) -> None:
        self._records = records
        self.gone: Deferred[None] = Deferred()

    def dataReceived(self, data: bytes) -> None:
        self._records.feed(data)
        self.other.transport.write(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.gone.callback(None)
        self.other.transport.loseConnection()


class Accepting(Recorder):
    """The client's side of it."""

    def __init__(self, records: Records, target: TCP4ClientEndpoint, other: Recorder) -> None:
        super().__init__(records)
        self._target = target
        self.other = other
        other.other = self

    def connectionMade(self) -> None:
        self.transport.pauseProducing()
        connecting = self._target.connect(Factory.forProtocol(lambda: self.other))
        connecting.addCallback(lambda _: self.transport.resumeProducing())


class Application(Protocol):
    """Sends much when it may, and reads as much."""

    transport: Any

    def __init__(self) -> None:
        self._missing = BIG
        self.read_all: Deferred[None] = Deferred()
        self.gone: Deferred[None] = Deferred()

    def dataReceived(self, data: bytes) -> None:
        self._missing -= len(data)
        if self._missing <= 0 and not self.read_all.called:
            self.read_all.callback(None)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.gone.callback(None)


class Answering(Application):
    """The server's: begins with the StartupMessage."""

    def __init__(self) -> None:
        super().__init__()
        self._missing += len(startup_message())

    def dataReceived(self, data: bytes) -> None:
        if self._missing > BIG:
            self.transport.write(bytes(BIG))
        super().dataReceived(data)


class RecordSizeTests(Transports, TestCase):
    """Between a client endpoint and a server endpoint of ours."""

    timeout = 60
    listen = "tcp:0:interface=127.0.0.1"

    def header(self) -> bytes:
        """What a proxy in front puts before the client's bytes."""
        return b""

    async def sizes(self, **parameters: str) -> tuple[list[int], list[int]]:
        """Of the records from the client, and of those from the server."""
        certificate, key = Files(Path(self.mktemp())).pair("server", localhost())
        settings = ListenerSettings(
            tls=ServerTLSSettings(ssl_cert_file=certificate, ssl_key_file=key)
        )
        server = Answering()
        listener = PgTLSServerEndpoint(reactor, serverFromString(reactor, self.listen), settings)
        port = await listener.listen(Factory.forProtocol(lambda: server))
        self.addCleanup(port.stopListening)
        direct = parameters.get("sslnegotiation") == "direct"
        there, back = Records(0 if direct else 8), Records(0 if direct else 1)
        inside = _WithHeader(back, self.header())
        outside = Accepting(
            there, TCP4ClientEndpoint(reactor, "127.0.0.1", port.getHost().port), inside
        )
        recording = await serverFromString(reactor, "tcp:0:interface=127.0.0.1").listen(
            Factory.forProtocol(lambda: outside)
        )
        self.addCleanup(recording.stopListening)
        conninfo = f"host=127.0.0.1 port={recording.getHost().port} sslmode=require "
        conninfo += " ".join(f"{name}={value}" for name, value in parameters.items())
        client: Any = await PgTLSClientEndpoint(reactor, conninfo).connect(
            Factory.forProtocol(Application)
        )
        client.transport.write(startup_message() + bytes(BIG))
        await client.read_all
        await server.read_all
        client.transport.abortConnection()
        for end in (client, server, inside, outside):
            await end.gone
        self.check_transports()
        return there.sizes, back.sizes

    def check(self, sizes: list[int]) -> None:
        """Whole records, as few as there can be."""
        self.assertGreater(sum(sizes), BIG)
        self.assertLessEqual(max(sizes), LIMIT)
        self.assertLess(len(sizes), 2 * BIG // 8192)

    async def test_tls_1_3(self) -> None:
        for sizes in await self.sizes(ssl_min_protocol_version="TLSv1.3"):
            self.check(sizes)

    async def test_tls_1_2(self) -> None:
        for sizes in await self.sizes(ssl_max_protocol_version="TLSv1.2"):
            self.check(sizes)

    async def test_direct(self) -> None:
        for sizes in await self.sizes(sslnegotiation="direct"):
            self.check(sizes)


class RecordSizeOnTwisteds(OnTwistedsTransports, RecordSizeTests):
    pass


class RecordSizeBehindHAProxy(RecordSizeTests):
    listen = "haproxy:tcp:0:interface=127.0.0.1"

    def header(self) -> bytes:
        return b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n"


class RecordSizeBehindHAProxyOnTwisteds(OnTwistedsTransports, RecordSizeBehindHAProxy):
    pass


class _WithHeader(Recorder):
    """The server's side of a recorder, which begins as a proxy does."""

    def __init__(self, records: Records, header: bytes) -> None:
        super().__init__(records)
        self._header = header

    def connectionMade(self) -> None:
        self.transport.write(self._header)
