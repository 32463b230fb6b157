"""Which listeners have connections of ours, how long their queues are, and what stays Twisted's."""

from __future__ import annotations

import array
import errno
import os
import socket
import ssl
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from twisted.internet import tcp
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ServerEndpoint, serverFromString
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase

from pgtls.protocols.server_factory import PgTLSServerFactory
from pgtls.protocols.server_settings import ListenerSettings
from pgtls.protocols.server_tls import ServerTLS
from pgtls.protocols.strings import PgTLSServerEndpoint
from pgtls.tls.server_context import ServerTLSSettings
from pgtls.transport import listening
from pgtls.transport.listening import BATCH, LEAST_BACKLOG, Acceptor, backlog_for
from pgtls.transport.poller import poller
from pgtls.transport.shared_port import shared_endpoint
from tests.support.certificates import Files, localhost
from tests.support.processes import TIMEOUT, reactor
from tests.support.raw_client import startup_message
from tests.support.transports import OnTwistedsTransports, Transports

HEADER = b"PROXY TCP4 192.0.2.7 198.51.100.1 56324 5432\r\n"


class Session(Protocol):
    """Answers, once the session is open."""

    transport: Any

    def dataReceived(self, data: bytes) -> None:
        self.transport.write(b"open")

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.factory.ended.callback(self.transport)  # type: ignore[union-attr]


class ListenerCase(TestCase):
    timeout = TIMEOUT

    def setUp(self) -> None:
        certificate, key = Files(Path(self.mktemp())).pair("server", localhost())
        self.tls = ServerTLSSettings(ssl_cert_file=certificate, ssl_key_file=key)
        self.sessions = Factory.forProtocol(Session)
        self.sessions.ended = Deferred()  # type: ignore[attr-defined]

    def direct(self, port: int, ahead: bytes) -> bytes:
        """What a client hears that sends its ClientHello at once, behind something, in one
        segment."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        context.set_alpn_protocols(["postgresql"])
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = context.wrap_bio(incoming, outgoing)
        with socket.create_connection(("127.0.0.1", port), TIMEOUT) as peer:
            for step in (tls.do_handshake, lambda: tls.write(startup_message()), tls.read):
                while True:
                    try:
                        heard: Any = step()  # type: ignore[operator]
                    except ssl.SSLWantReadError:
                        peer.sendall(ahead + outgoing.read())
                        ahead = b""
                        incoming.write(peer.recv(65536))
                    else:
                        break
                peer.sendall(outgoing.read())
        return bytes(heard)


class FromTheStart(Transports, ListenerCase):
    """Of the library's listeners."""

    def setUp(self) -> None:
        Transports.setUp(self)
        ListenerCase.setUp(self)

    async def check(self, listening: str, ahead: bytes = b"") -> None:
        endpoint = PgTLSServerEndpoint(
            reactor, serverFromString(reactor, listening), ListenerSettings(tls=self.tls)
        )
        port: Any = await endpoint.listen(self.sessions)
        self.addCleanup(port.stopListening)
        heard = await deferToThread(self.direct, port.getHost().port, ahead)
        self.assertEqual(heard, b"open")
        await self.sessions.ended  # type: ignore[attr-defined]
        self.check_transports()

    async def test_tcp(self) -> None:
        await self.check("tcp:0:interface=127.0.0.1")

    async def test_a_proxys_header_and_a_client_hello_in_one_segment(self) -> None:
        await self.check("haproxy:tcp:0:interface=127.0.0.1", HEADER)


class FromTheStartOnTwisteds(OnTwistedsTransports, FromTheStart):
    """Where there are none."""


class OfAnApplication(ListenerCase):
    """A listener that an application has opened itself."""

    async def test_its_transports_and_its_reactor_stay_twisteds(self) -> None:
        iteration = reactor.doIteration
        factory = PgTLSServerFactory(
            self.sessions, ServerTLS(self.tls), ListenerSettings(tls=self.tls)
        )
        endpoint = TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1")
        port: Any = await endpoint.listen(factory)
        self.addCleanup(port.stopListening)
        self.assertIs(type(port), tcp.Port)
        self.assertEqual(await deferToThread(self.direct, port.getHost().port, b""), b"open")
        transport = await self.sessions.ended  # type: ignore[attr-defined]
        self.assertIs(type(transport), tcp.Server)
        self.assertNotIn(poller(reactor), reactor.getReaders())
        self.assertEqual(reactor.doIteration, iteration)


def backlog_of(listening: Any) -> int:
    """How many may wait: the kernel's tcpi_sacked of a listening socket, as ss shows it."""
    with socket.socket(fileno=os.dup(listening.fileno())) as opened:
        info = opened.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
    return array.array("I", info[8:])[5]


class Backlog(Transports, ListenerCase):
    def setUp(self) -> None:
        Transports.setUp(self)
        ListenerCase.setUp(self)

    async def backlog(self, description: str) -> int:
        """Of a ``pgtls:`` endpoint string for 700 connections."""
        port: Any = await serverFromString(
            reactor, f"pgtls:{description}:interface=127.0.0.1:ssl=off:max_connections=700"
        ).listen(self.sessions)
        self.addCleanup(port.stopListening)
        return backlog_of(port)

    async def test_twice_as_many_as_may_be_open(self) -> None:
        self.assertEqual(await self.backlog("tcp:0"), 1400)

    async def test_what_the_string_says(self) -> None:
        self.assertEqual(await self.backlog("tcp:0:backlog=7"), 7)
        self.assertEqual(await self.backlog("tcp:0:backlog=1000"), 1000)


class BacklogOnTwisteds(OnTwistedsTransports, Backlog):
    """Twisted's own ports too."""


class BacklogFor(SynchronousTestCase):
    def test_it_is_named(self) -> None:
        for description, backlog in {
            "tcp:5432": 2000,
            "haproxy:tcp:5432": 2000,
            "unix:/tmp/s": 2000,
            "tcp:5432:backlog=3": None,
            "haproxy:tcp:5432:backlog=3:interface=::1": None,
            "unix:/tmp/a\\:backlog=3": 2000,
            "systemd:domain=INET:index=0": None,
            "haproxy:systemd:domain=INET:index=0": None,
        }.items():
            self.assertEqual(backlog_for(description, 1000), backlog, description)

    def test_few_sessions_do_not_mean_few_clients(self) -> None:
        self.assertEqual(backlog_for("tcp:5432", 2), LEAST_BACKLOG)


class Shared(Transports, TestCase):
    """A process's share of a socket."""

    timeout = TIMEOUT

    async def accepted(self, waiting: int, lead: int) -> int:
        """How many of those that wait are accepted in one turn of the reactor."""
        made: list[Protocol] = []

        class Counted(Protocol):
            transport: Any

            def connectionMade(self) -> None:
                made.append(self)

        with socket.create_server(("127.0.0.1", 0), backlog=waiting) as opened:
            opened.setblocking(False)
            clients = [socket.create_connection(opened.getsockname()) for _ in range(waiting)]
            endpoint = shared_endpoint(reactor, os.dup(opened.fileno()), lambda: lead + len(made))
            port: Any = await endpoint.listen(Factory.forProtocol(Counted))
            counted = Deferred[int]()
            reactor.callLater(0, lambda: reactor.callLater(0, lambda: counted.callback(len(made))))
            count = await counted
            await port.stopListening()
        for each in made:
            each.transport.abortConnection()  # type: ignore[union-attr]
        for client in clients:
            client.close()
        return count

    async def test_as_many_as_wait_until_it_is_ahead(self) -> None:
        self.assertEqual(await self.accepted(20, lead=-10), 13)

    async def test_no_more_than_a_batch_at_a_time(self) -> None:
        count = await self.accepted(3 * BATCH, lead=-1000)
        self.assertLessEqual(count, 2 * BATCH)
        self.assertGreaterEqual(count, BATCH)

    async def test_what_it_may_have_been_woken_for_is_accepted_at_the_end(self) -> None:
        """No other process knows of it, whatever this one has that others have not."""
        made: list[Protocol] = []

        class Made(Protocol):
            def connectionMade(self) -> None:
                made.append(self)

        lead = 0
        with socket.create_server(("127.0.0.1", 0)) as opened, ExitStack() as clients:
            opened.setblocking(False)
            endpoint = shared_endpoint(reactor, os.dup(opened.fileno()), lambda: lead)
            port: Any = await endpoint.listen(Factory.forProtocol(Made))
            for _ in range(3):
                clients.enter_context(socket.create_connection(opened.getsockname()))
            lead = 10
            await port.stopListening()
        self.assertEqual(len(made), 3)
        for each in made:
            each.transport.abortConnection()  # type: ignore[union-attr]

    async def test_nothing_is_left_of_one_that_is_closed_without_descriptors(self) -> None:
        def accept(*_: object) -> None:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

        with socket.create_server(("127.0.0.1", 0)) as opened:
            opened.setblocking(False)
            endpoint = shared_endpoint(reactor, os.dup(opened.fileno()), lambda: 0)
            port: Any = await endpoint.listen(Factory())
            self.patch(listening, "accept", accept)
            await port.stopListening()
        self.assertEqual((port.fileno(), reactor.getDelayedCalls()), (-1, []))

    async def test_a_socket_that_another_process_has_shut_down(self) -> None:
        """It would be ready for ever."""
        with socket.create_server(("127.0.0.1", 0)) as opened:
            opened.setblocking(False)
            endpoint = shared_endpoint(reactor, os.dup(opened.fileno()), lambda: 0)
            port: Any = await endpoint.listen(Factory.forProtocol(Protocol))
            opened.shutdown(socket.SHUT_RDWR)
            accept = self.patch_accept(port)
            for _ in range(5):
                await deferLater(reactor, 0.01)
            await port.stopListening()
        self.assertEqual(len(accept), 1)

    def patch_accept(self, port: Any) -> list[None]:
        """One for each time that a port asks for a connection."""
        asked: list[None] = []
        accept = port._acceptor.accept

        def counted() -> bool:
            asked.append(None)
            return bool(accept())

        self.patch(port._acceptor, "accept", counted)
        return asked


class Accepting(SynchronousTestCase):
    """What accept(2) may say."""

    def acceptor(self, number: int) -> Acceptor:
        class Listening:
            family = socket.AF_INET

            def setsockopt(self, *_: int) -> None:
                pass

            def accept(self) -> None:  # as a Python has it whose private names are others
                raise OSError(number, os.strerror(number))

        return Acceptor(Listening(), Factory(), reactor)  # type: ignore[arg-type]

    def test_an_error_of_one_connection_is_not_the_ports(self) -> None:
        for number in (errno.ECONNABORTED, errno.EPERM, errno.EPROTO, errno.ENETUNREACH):
            self.assertTrue(self.acceptor(number).accept(), number)

    def test_nothing_there(self) -> None:
        self.assertFalse(self.acceptor(errno.EAGAIN).accept())

    def test_an_error_of_the_port(self) -> None:
        for number in (errno.EMFILE, errno.EINVAL):
            self.assertRaises(OSError, self.acceptor(number).accept)
