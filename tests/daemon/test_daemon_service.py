"""The daemon as a Twisted service, in a process that it does not own."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.endpoints import HostnameEndpoint, TCP4ServerEndpoint
from twisted.internet.error import ConnectionRefusedError
from twisted.internet.interfaces import IListeningPort
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from pgtls.daemon.cannot_start import CannotStart
from pgtls.daemon.configuration import Configuration, DaemonSettings
from pgtls.daemon.daemon_service import Daemon
from pgtls.gateway.gateway_configuration import GatewayConfiguration, GatewaySettings
from pgtls.protocols.server_settings import ListenerSettings
from pgtls.transport.poller import poller
from pgtls.wire.server_negotiation import SSL
from tests.support.raw_client import SSL_REQUEST
from tests.support.servers import HOST, free_port


class Answer(Protocol):
    """Sends an SSLRequest, and takes the first answer."""

    def __init__(self) -> None:
        self.answer: Deferred[bytes] = Deferred()

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.write(SSL_REQUEST)

    def dataReceived(self, data: bytes) -> None:
        assert self.transport is not None
        self.transport.abortConnection()  # type: ignore[attr-defined]
        self.answer.callback(data)


def answer(port: int) -> Deferred[bytes]:
    """What the gateway at a port says to an SSLRequest."""
    protocol = Answer()
    connected = HostnameEndpoint(reactor, HOST, port).connect(Factory.forProtocol(lambda: protocol))
    return connected.addCallback(lambda _: protocol.answer)


def open_files() -> set[str]:
    """What the descriptors of this process are."""
    found = set()
    for name in os.listdir("/proc/self/fd"):
        try:
            found.add(os.readlink(f"/proc/self/fd/{name}"))
        except FileNotFoundError:
            continue
    return found


class StartAndStop(TestCase):
    @inlineCallbacks
    def setUp(self) -> Any:
        self.ports = [free_port(), free_port()]
        upstream = Factory.forProtocol(Protocol)
        self.upstream: IListeningPort = yield TCP4ServerEndpoint(reactor, 0, interface=HOST).listen(
            upstream
        )
        self.addCleanup(self.upstream.stopListening)
        yield deferLater(reactor, 0)  # the reactor runs, and has opened what it needs for that
        poller(reactor)  # so has pgtls

    def daemon(self, *listen: str, **settings: Any) -> Daemon:
        """A daemon with a gateway at each of the endpoints, none of them with TLS."""
        server = f"host={HOST} port={self.upstream.getHost().port} sslmode=disable"  # type: ignore[attr-defined]
        return Daemon(
            reactor,
            Configuration(
                DaemonSettings(state_dir=self.mktemp(), **settings),
                tuple(
                    GatewayConfiguration(
                        GatewaySettings(
                            listen=each, upstream=server, listener=ListenerSettings(ssl=SSL.OFF)
                        )
                    )
                    for each in listen
                ),
            ),
        )

    def at_ports(self) -> list[str]:
        return [f"tcp:{port}:interface={HOST}" for port in self.ports]

    @inlineCallbacks
    def test_it_can_be_started_again(self) -> Any:
        daemon = self.daemon(*self.at_ports())
        daemon.startService()
        yield answer(self.ports[0])
        yield daemon.stopService()
        before, handlers = open_files(), [signal.getsignal(n) for n in range(1, 32)]
        for _ in range(2):
            daemon.startService()
            self.assertEqual((yield answer(self.ports[0])), b"N")
            self.assertEqual((yield answer(self.ports[1])), b"N")
            yield daemon.stopService()
            for port in self.ports:
                yield self.assertFailure(answer(port), ConnectionRefusedError)
        self.assertEqual(open_files() - before, set())
        self.assertEqual([signal.getsignal(n) for n in range(1, 32)], handlers)

    @inlineCallbacks
    def test_with_workers_too(self) -> Any:
        daemon = self.daemon(*self.at_ports(), workers=2)
        before = open_files()
        for _ in range(2):  # each time with processes of its own
            daemon.startService()
            self.assertEqual((yield answer(self.ports[0])), b"N")
            yield daemon.stopService()
            for port in self.ports:
                yield self.assertFailure(answer(port), ConnectionRefusedError)
        self.assertEqual(open_files() - before, set())

    @inlineCallbacks
    def test_each_gateway_can_be_stopped_and_started_alone(self) -> Any:
        daemon = self.daemon(*self.at_ports())
        daemon.startService()
        first, second = daemon.gateways
        yield first.stopService()
        yield self.assertFailure(answer(self.ports[0]), ConnectionRefusedError)
        self.assertEqual((yield answer(self.ports[1])), b"N")
        first.startService()
        self.assertEqual((yield answer(self.ports[0])), b"N")
        self.assertTrue(second.running)
        yield daemon.stopService()

    @inlineCallbacks
    def test_where_a_port_cannot_be_opened_none_stays_open(self) -> Any:
        socket = Path(self.mktemp()).absolute() / "nowhere" / "socket"
        daemon = self.daemon(self.at_ports()[0], f"unix:{socket}")
        before = open_files()
        error = self.assertRaises(CannotStart, daemon.startService)
        self.assertIn("No such file or directory", str(error))
        yield self.assertFailure(answer(self.ports[0]), ConnectionRefusedError)
        self.assertEqual(open_files() - before, set())
        self.assertFalse(daemon.running)
