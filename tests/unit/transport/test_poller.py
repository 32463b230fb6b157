"""A reactor that waits in our epoll does all that it did in its own."""

from __future__ import annotations

import socket
from threading import Thread
from typing import Any

from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.epollreactor import EPollReactor
from twisted.internet.error import ConnectionLost
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.selectreactor import SelectReactor
from twisted.internet.threads import blockingCallFromThread
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from pgtls.daemon.reactor_waiting import dedicate
from pgtls.transport.listening import listen


class Echo(Protocol):
    """Says what it hears, on a fast transport; later, if it is asked to; or stops the reactor."""

    transport: Any
    reason: Failure | None = None

    def dataReceived(self, data: bytes) -> None:
        if data == b"stop":
            self.transport.reactor.stop()
        elif data == b"later":
            self.transport.reactor.callLater(0.01, self.transport.write, data)
        else:
            self.transport.write(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.reason = reason


class Dedicated(SynchronousTestCase):
    """On a reactor of its own, run to its end."""

    def setUp(self) -> None:
        self.reactor: Any = EPollReactor()
        self.connections: list[Echo] = []
        self.problems: list[BaseException] = []

    def serve(self) -> int:
        factory = Factory()
        factory.buildProtocol = self.build  # type: ignore[method-assign]
        endpoint = TCP4ServerEndpoint(self.reactor, 0, interface="127.0.0.1")
        ports: list[Any] = []
        listen(endpoint, factory, self.reactor).addCallback(ports.append)
        port: int = ports[0].getHost().port
        return port

    def build(self, _: object) -> Echo:
        self.connections.append(Echo())
        return self.connections[-1]

    def run_with(self, clients: Any) -> None:
        """Run the reactor; ``clients`` are another thread's. If they don't stop it, it is stopped
        then."""

        def elsewhere() -> None:
            try:
                clients()
            except BaseException as error:
                self.problems.append(error)
            if self.reactor.running:
                self.reactor.callFromThread(self.reactor.stop)

        thread = Thread(target=elsewhere)
        self.reactor.callWhenRunning(thread.start)
        self.reactor.run(installSignalHandlers=False)
        thread.join()
        self.assertEqual(self.problems, [])

    def talk(self, client: socket.socket, words: bytes) -> None:
        """Say them, and hear them back."""
        client.sendall(words)
        self.assertEqual(client.recv(100), words)

    def test_connections_timers_and_threads_have_their_turn(self) -> None:
        dedicate(self.reactor)
        port = self.serve()
        done: list[str] = []

        def clients() -> None:
            with (
                socket.create_connection(("127.0.0.1", port), 10) as one,
                socket.create_connection(("127.0.0.1", port), 10) as two,
            ):
                for client, words in ((one, b"one"), (two, b"two"), (one, b"one again")):
                    self.talk(client, words)
                self.reactor.callFromThread(self.reactor.callLater, 0.01, done.append, "timer")
                self.reactor.callFromThread(done.append, "thread")
                while len(done) < 2:
                    self.talk(one, b"busy")

        self.run_with(clients)
        self.assertEqual(done, ["thread", "timer"])
        self.assertEqual(len(self.connections), 2)

    def test_what_was_watched_before_goes_on(self) -> None:
        """An embedding program may have begun to serve already."""
        port = self.serve()

        def clients() -> None:
            with socket.create_connection(("127.0.0.1", port), 10) as client:
                self.talk(client, b"before")
                blockingCallFromThread(self.reactor, dedicate, self.reactor)
                self.talk(client, b"after")

        self.run_with(clients)

    def test_two_services_in_one_process_may_ask_for_it(self) -> None:
        dedicate(self.reactor)
        dedicate(self.reactor)
        port = self.serve()

        def clients() -> None:
            with socket.create_connection(("127.0.0.1", port), 10) as client:
                self.talk(client, b"hello")

        self.run_with(clients)

    def test_what_an_event_asks_for_is_done_without_another_one(self) -> None:
        """A timer, and the end of the reactor."""
        dedicate(self.reactor)
        port = self.serve()

        def clients() -> None:
            with socket.create_connection(("127.0.0.1", port), 10) as client:
                self.talk(client, b"later")
                client.sendall(b"stop")
                self.assertEqual(client.recv(100), b"")

        self.run_with(clients)

    def test_connections_end_with_the_reactor(self) -> None:
        dedicate(self.reactor)
        port = self.serve()
        client = socket.create_connection(("127.0.0.1", port), 10)
        self.addCleanup(client.close)

        self.run_with(lambda: self.talk(client, b"hello"))
        [connection] = self.connections
        assert connection.reason is not None
        self.assertIsInstance(connection.reason.value, ConnectionLost)
        self.assertEqual(client.recv(100), b"")

    def test_other_reactors_stay_as_they_are(self) -> None:
        self.reactor = SelectReactor()
        dedicate(self.reactor)
        port = self.serve()

        def clients() -> None:
            with socket.create_connection(("127.0.0.1", port), 10) as client:
                self.talk(client, b"hello")

        self.run_with(clients)
