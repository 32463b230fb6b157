"""What is counted of sessions, and listed."""

from __future__ import annotations

from typing import Any

import attrs
from prometheus_client import CollectorRegistry, Histogram, generate_latest
from twisted.internet.address import IPv4Address, UNIXAddress
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from pgtls import Client, ISession, Refused
from pgtls.conninfo.hosts import Host
from pgtls.gateway.activity import FLUSH, ActivityObserver, GatewayActivity
from pgtls.gateway.plaintext_clients import MOST_OFTEN, MOST_ONCE
from pgtls.gateway.session_metrics import MAX_SQLSTATES, SessionMetrics, Tally
from pgtls.protocols.stages import Stage
from pgtls.tls.tls_info import NegotiatedTLS
from pgtls.transport.traffic import Traffic
from pgtls.wire.messages import ErrorResponse, StartupMessage

TLS = NegotiatedTLS("TLSv1.3", "TLS_AES_256_GCM_SHA384", 256, "X25519MLKEM768", None, True, None)
GATEWAY = "127.0.0.1:6432"


def client(user: str = "alice", address: str = "192.0.2.7", tls: Any = TLS) -> Client:
    startup = StartupMessage.build({b"user": user.encode(), b"database": b"shop"})
    return Client(startup, IPv4Address("TCP", address, 1234), tls, "db.example.com", accepted=10.0)


@implementer(ISession)
class OpenSession:
    """A session of which the test says how far it has come."""

    host: Host | None = Host("db", "192.0.2.1", 5432)
    route = ""
    seconds = 0.25
    bytes_from_client = bytes_from_server = None
    server_error: ErrorResponse | None = None
    counted: Traffic | None = Traffic(0, 0)

    def __init__(self, client: Client) -> None:
        self.client = client

    def traffic(self) -> Traffic | None:
        return self.counted


class ActivityCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.registry = CollectorRegistry()
        self.clock = Clock()
        self.clock.advance(10.5)
        metrics = SessionMetrics(self.registry)
        self.observer = ActivityObserver(lambda: GATEWAY, metrics, self.clock)

    def value(self, name: str, **labels: str) -> float:
        """The sum of the samples that have these labels."""
        self.observer.flush()
        return sum(
            sample.value
            for family in self.registry.collect()
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )

    def connect(self, of: Client | None = None) -> OpenSession:
        session = OpenSession(of or client())
        self.observer.negotiated(session.client)
        self.observer.connected(session)
        return session

    def activity(self, most: int = 100) -> GatewayActivity:
        return self.observer.activity(0, most)


class CountingTests(ActivityCase):
    """Counters and histograms."""

    def test_a_session(self) -> None:
        session = self.connect()
        session.counted = Traffic(100, 5000)
        self.observer.ended(session)
        self.assertEqual(
            self.value(
                "pgtls_sessions_total",
                gateway=GATEWAY,
                outcome="connected",
                tls_version="TLSv1.3",
                group="X25519MLKEM768",
                authentication="trust",
            ),
            1,
        )
        self.assertEqual(self.value("pgtls_bytes_total", direction="from_client"), 100)
        self.assertEqual(self.value("pgtls_bytes_total", direction="to_client"), 5000)
        self.assertEqual(self.value("pgtls_handshake_seconds_sum"), 0.5)
        self.assertEqual(self.value("pgtls_connect_seconds_sum"), 0.25)
        self.assertEqual(self.value("pgtls_session_seconds_count"), 1)
        self.assertEqual(self.value("pgtls_server_refusals_total"), 0)

    def test_bytes_of_an_open_session_are_counted_once(self) -> None:
        session = self.connect()
        session.counted = Traffic(100, 5000)
        self.activity()
        session.counted = Traffic(150, 5001)
        self.activity()
        self.observer.ended(session)
        self.assertEqual(self.value("pgtls_bytes_total", direction="from_client"), 150)
        self.assertEqual(self.value("pgtls_bytes_total", direction="to_client"), 5001)

    def test_what_has_been_counted_is_soon_in_the_metrics(self) -> None:
        """A process may be killed at any moment: what is not there by then is lost."""
        session = self.connect()
        session.counted = Traffic(100, 5000)
        self.observer.ended(session)
        self.clock.advance(FLUSH)
        found = {
            (sample.name, sample.labels.get("direction")): sample.value
            for family in self.registry.collect()
            for sample in family.samples
        }
        self.assertEqual(found["pgtls_bytes_total", "from_client"], 100)
        for name in ("handshake", "connect", "session"):
            self.assertEqual(found[f"pgtls_{name}_seconds_count", None], 1)
        self.assertEqual(found["pgtls_handshake_seconds_sum", None], 0.5)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_buckets(self) -> None:
        """As prometheus_client would have counted."""
        registry = CollectorRegistry()
        histogram = Histogram("x", "x", buckets=(0.1, 1, 10), registry=registry)
        other = Histogram("y", "y", buckets=(0.1, 1, 10), registry=registry)
        tally = Tally(histogram)
        for value in (0, 0.05, 0.1, 0.5, 1, 3, 10, 11, 1e9, -1):
            tally.observe(value)
            other.observe(value)
        tally.flush()
        tally.flush()
        (found, expected) = (
            [
                (sample.labels, sample.value)
                for sample in family.samples
                if "_created" not in sample.name
            ]
            for family in registry.collect()
        )
        self.assertEqual(found, expected)

    def test_plaintext_is_a_version_of_TLS(self) -> None:
        self.connect(client(tls=None))
        self.assertEqual(self.value("pgtls_sessions_total", tls_version="plaintext", group=""), 1)

    def test_what_the_server_refuses_is_not_the_gateways(self) -> None:
        session = self.connect()
        session.server_error = ErrorResponse.fatal("3D000", 'database "x" does not exist')
        self.observer.ended(session)
        body = b"SFATAL\0C28000\0Mno\0\0"
        early = ErrorResponse.parse(body, b"E" + (4 + len(body)).to_bytes(4) + body)
        self.observer.refused(Refused(Stage.UPSTREAM, None, "no", early, client()))
        self.assertEqual(self.value("pgtls_sessions_total", outcome="refused"), 0)
        self.assertEqual(self.value("pgtls_server_refusals_total", sqlstate="3D000"), 1)
        self.assertEqual(self.value("pgtls_server_refusals_total", sqlstate="28000"), 1)
        self.assertEqual(self.activity()["refusals"], [])

    def test_a_session_that_never_got_its_server(self) -> None:
        session = OpenSession(client())
        session.host = None
        response = ErrorResponse.fatal("08006", "could not connect to the upstream server: x")
        self.observer.refused(Refused(Stage.UPSTREAM, None, "x", response, session.client))
        self.observer.ended(session)
        self.assertEqual(
            self.value(
                "pgtls_sessions_total",
                outcome="refused",
                reason="upstream not reachable",
                authentication="trust",
            ),
            1,
        )
        self.assertEqual(self.value("pgtls_sessions_total"), 1)
        self.assertEqual(self.value("pgtls_session_seconds_count"), 0)

    def test_cancel_requests_and_TLS_errors(self) -> None:
        self.observer.cancel_requested(None, None, True)
        self.observer.cancel_requested(None, None, False)
        self.observer.tls_failed(None, "SSL error: decryption failed or bad record mac")
        self.assertEqual(self.value("pgtls_cancel_requests_total", outcome="accepted"), 1)
        self.assertEqual(self.value("pgtls_cancel_requests_total", outcome="dropped"), 1)
        self.assertEqual(self.value("pgtls_tls_errors_total"), 1)

    def test_who_is_not_let_in_has_not_been_authenticated(self) -> None:
        response = ErrorResponse.fatal("28P01", 'password authentication failed for user "a"')
        self.observer.refused(Refused(Stage.POLICY, None, "no", response, client()))
        for authentication, count in (("", 1), ("trust", 0)):
            refused = {"outcome": "refused", "authentication": authentication}
            self.assertEqual(self.value("pgtls_sessions_total", **refused), count)

    def test_peers_cannot_make_up_label_values(self) -> None:
        for number in range(2000):
            self.connect(client(f"user{number}", f"192.0.{number % 256}.1"))
            response = ErrorResponse.fatal(f"X{number:04}", f"no {number}")
            refused = Refused(Stage.POLICY, None, f"no {number}", response, client(str(number)))
            self.observer.refused(refused)
        self.observer.flush()
        text = generate_latest(self.registry).decode()
        self.assertNotIn("user1", text)
        self.assertLess(text.count("pgtls_sessions_total{"), MAX_SQLSTATES + 10)
        self.assertIn('sqlstate="other"', text)
        self.assertLess(len(self.activity()["refusals"]), MAX_SQLSTATES + 10)


class ListTests(ActivityCase):
    """Open sessions, who is in plaintext, the last refusals."""

    def test_open_sessions(self) -> None:
        first, second = self.connect(), self.connect(client("bob"))
        second.counted = Traffic(7, 8)
        found = self.activity()
        self.assertEqual(found["open"], {"": 2})
        self.assertEqual([each["user"] for each in found["sessions"]], ["alice", "bob"])
        shown = found["sessions"][1]
        self.assertEqual(
            (shown["address"], shown["database"], shown["tls_version"], shown["server"]),
            ("192.0.2.7(1234)", "shop", "TLSv1.3", "db:5432"),
        )
        self.assertEqual((shown["bytes_from_client"], shown["bytes_to_client"]), (7, 8))
        self.observer.ended(first)
        self.assertEqual(len(self.activity()["sessions"]), 1)

    def test_not_more_are_listed_than_asked_for(self) -> None:
        for _ in range(5):
            self.connect()
        found = self.activity(2)
        self.assertEqual((found["open"], len(found["sessions"])), ({"": 5}, 2))

    def test_names_that_cannot_be_printed(self) -> None:
        startup = StartupMessage.build({b"user": b"a\x1b[2J\xff<b>", b"database": b"d" * 5000})
        self.connect(attrs.evolve(client(), startup=startup))
        shown = self.activity()["sessions"][0]
        self.assertEqual(shown["user"], "a\\x1b[2J\\udcff<b>")
        self.assertEqual(shown["database"], "d" * 100 + "...")

    def test_who_is_in_plaintext(self) -> None:
        for _ in range(3):
            self.connect(client(tls=None))
        self.connect(client("bob", tls=None))
        self.connect(client("carol"))
        unix = attrs.evolve(client(tls=None), address=UNIXAddress("/run/x"))
        self.connect(unix)
        found = [(e["user"], e["address"], e["count"]) for e in self.activity()["plaintext"]]
        self.assertEqual(found, [("bob", "192.0.2.7", 1), ("alice", "192.0.2.7", 3)])

    def test_invented_names_do_not_drive_out_those_that_come_again(self) -> None:
        for _ in range(2):
            self.observer.negotiated(client("alice", tls=None))
        for number in range(3 * (MOST_ONCE + MOST_OFTEN)):
            self.observer.negotiated(client(f"user{number}", tls=None))
        found = self.activity()["plaintext"]
        self.assertEqual(len(found), MOST_ONCE + 1)
        self.assertIn(("alice", 2), [(each["user"], each["count"]) for each in found])

    def test_the_last_refusal_of_each_kind(self) -> None:
        for name in ("alice", "bob"):
            response = ErrorResponse.fatal("28000", f'no pg_hba.conf entry for user "{name}"')
            refused = Refused(Stage.POLICY, client().address, response.message, response, client())
            self.observer.refused(refused)
        (found,) = self.activity()["refusals"]
        self.assertEqual(
            (found["reason"], found["sqlstate"], found["detail"]),
            ("no pg_hba.conf entry", "28000", 'no pg_hba.conf entry for user "bob"'),
        )
