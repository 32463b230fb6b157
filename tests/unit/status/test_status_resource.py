"""What the site answers, to whom, and what it does with those that take their time."""

from __future__ import annotations

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase

from pgtls.status.bounded_site import (
    CONNECTION_COST,
    DEADLINE,
    MAX_CONNECTIONS,
    REST,
    BoundedFactory,
    QuietSite,
)
from pgtls.status.status_resource import Answer, StatusResource, ready_answer

PEER = IPv4Address("TCP", "127.0.0.1", 50000)


class Transport(StringTransport):
    """Notes how it was ended."""

    aborted = False

    def abortConnection(self) -> None:
        self.aborted = True
        self.loseConnection()


class SiteCase(SynchronousTestCase):
    """A site with three paths."""

    any_host = False

    def setUp(self) -> None:
        self.clock = Clock()
        self.later: Deferred[Answer] = Deferred()
        self.cancelled = False
        resource = StatusResource(
            {
                "/": lambda: Answer("secret"),
                "/readyz": lambda: ready_answer(["the upstream is not reachable"]),
                "/later": lambda: self.later,
            },
            any_host=self.any_host,
        )
        self.site = QuietSite(resource)
        self.site.reactor = self.clock
        self.factory = BoundedFactory(self.site, self.clock)

    def connect(self) -> tuple[Transport, object]:
        transport = Transport(peerAddress=PEER)
        protocol = self.factory.buildProtocol(PEER)
        assert protocol is not None
        protocol.makeConnection(transport)
        return transport, protocol

    def ask(self, path: str, host: str | None = "localhost:9187", method: str = "GET") -> bytes:
        transport, protocol = self.connect()
        header = f"Host: {host}\r\n" if host is not None else ""
        protocol.dataReceived(f"{method} {path} HTTP/1.1\r\n{header}\r\n".encode())  # type: ignore[attr-defined]
        return transport.value()


class AnswerTests(SiteCase):
    """Answers."""

    def test_headers(self) -> None:
        answer = self.ask("/")
        self.assertTrue(answer.startswith(b"HTTP/1.1 200 OK\r\n"), answer)
        self.assertTrue(answer.endswith(b"\r\n\r\nsecret"), answer)
        for header in (
            b"cache-control: no-store",
            b"content-security-policy: default-src 'none';",
            b"x-content-type-options: nosniff",
            b"connection: close",
        ):
            self.assertIn(header, answer.lower())
        self.assertNotIn(b"unsafe", answer)

    def test_a_connection_is_for_one_request(self) -> None:
        transport, protocol = self.connect()
        request = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
        protocol.dataReceived(request + request)  # type: ignore[attr-defined]
        self.assertTrue(transport.disconnecting)
        self.assertEqual(transport.value().count(b" 200 "), 1)
        self.assertEqual(transport.value().lower().count(b"connection: close"), 1)

    def test_HEAD_has_no_body(self) -> None:
        answer = self.ask("/", method="HEAD")
        self.assertIn(b"content-length: 6", answer.lower())
        self.assertTrue(answer.endswith(b"\r\n\r\n"), answer)

    def test_other_methods_are_refused(self) -> None:
        for method in ("POST", "PUT", "DELETE", "OPTIONS", "TRACE", "BREW"):
            answer = self.ask("/", method=method)
            self.assertIn(b" 405 ", answer.partition(b"\r\n")[0])
            self.assertIn(b"allow: GET, HEAD".lower(), answer.lower())

    def test_other_paths_are_not_there(self) -> None:
        for path in ("/x", "/..%2f..%2fetc/passwd", "//"):
            self.assertIn(b" 404 ", self.ask(path).partition(b"\r\n")[0], path)

    def test_not_ready(self) -> None:
        answer = self.ask("/readyz")
        self.assertIn(b" 503 ", answer.partition(b"\r\n")[0])
        self.assertIn(b"the upstream is not reachable", answer)

    def test_an_answer_that_takes_its_time(self) -> None:
        transport, protocol = self.connect()
        protocol.dataReceived(b"GET /later HTTP/1.0\r\n\r\n")  # type: ignore[attr-defined]
        self.assertEqual(transport.value(), b"")
        self.later.callback(Answer("now"))
        self.assertIn(b"now", transport.value())

    def test_nobody_waits_for_it_any_more(self) -> None:
        _, protocol = self.connect()
        protocol.dataReceived(b"GET /later HTTP/1.0\r\n\r\n")  # type: ignore[attr-defined]
        self.later._canceller = lambda _: setattr(self, "cancelled", True)
        protocol.connectionLost()  # type: ignore[attr-defined]
        self.assertTrue(self.cancelled)

    def test_an_error_shows_nothing_of_itself(self) -> None:
        transport, protocol = self.connect()
        protocol.dataReceived(b"GET /later HTTP/1.0\r\n\r\n")  # type: ignore[attr-defined]
        self.later.errback(RuntimeError("what is inside"))
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        self.assertIn(b" 500 ", transport.value())
        self.assertNotIn(b"inside", transport.value())


class HostTests(SiteCase):
    """DNS rebinding: a name of somebody else's that leads here."""

    def test_names_of_this_machine(self) -> None:
        for host in (
            "localhost",
            "LOCALHOST:9187",
            "127.0.0.1:9187",
            "[::1]:9187",
            "10.0.0.7",
            None,
        ):
            self.assertIn(b" 200 ", self.ask("/", host).partition(b"\r\n")[0], host)

    def test_other_names(self) -> None:
        for host in ("evil.example", "localhost.evil.example:9187", "127.0.0.1.evil.example", "x"):
            answer = self.ask("/", host)
            self.assertIn(b" 421 ", answer.partition(b"\r\n")[0], host)
            self.assertNotIn(b"secret", answer)

    def test_load_balancers_may_ask_by_any_name(self) -> None:
        self.assertIn(b" 503 ", self.ask("/readyz", "db.example.com"))


class AnyHostTests(SiteCase):
    """In TLS and on Unix sockets."""

    any_host = True

    def test_any_name(self) -> None:
        self.assertIn(b" 200 ", self.ask("/", "status.example.com"))


class BoundTests(SiteCase):
    """Bounds."""

    def test_a_connection_has_a_deadline_whatever_it_sends(self) -> None:
        transport, protocol = self.connect()
        for _ in range(int(DEADLINE)):
            self.assertFalse(transport.aborted)
            protocol.dataReceived(b"G")  # type: ignore[attr-defined]
            self.clock.advance(1)
        self.assertTrue(transport.aborted)

    def test_the_oldest_gives_way(self) -> None:
        open_ones = [self.connect()[0] for _ in range(MAX_CONNECTIONS)]
        self.assertFalse(any(each.aborted for each in open_ones))
        self.assertIn(b" 200 ", self.ask("/"))
        self.assertEqual(
            [each.aborted for each in open_ones], [True] + [False] * (MAX_CONNECTIONS - 1)
        )

    def test_it_rests_longer_than_it_works(self) -> None:
        pauses: list[float] = []
        self.factory.pause = pauses.append
        for _ in range(MAX_CONNECTIONS):
            _, protocol = self.connect()
            protocol.connectionLost()  # type: ignore[attr-defined]
        self.assertGreater(sum(pauses), 0.7 * REST * CONNECTION_COST * MAX_CONNECTIONS)
        self.assertLess(max(pauses), 0.1)

    def test_nothing_is_left_of_closed_ones(self) -> None:
        for _ in range(3 * MAX_CONNECTIONS):
            _, protocol = self.connect()
            protocol.connectionLost()  # type: ignore[attr-defined]
        self.assertEqual(self.clock.getDelayedCalls(), [])
