"""What a gateway says of certificates, authorities and CRLs that end: when, and how often."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from twisted.internet.task import Clock
from twisted.logger import LogEvent, formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from pgtls.conninfo.hosts import Host
from pgtls.gateway.expiry_watch import DAY, Expiry, ExpiryWatch
from pgtls.gateway.gateway_configuration import (
    GatewayConfiguration,
    GatewaySettings,
    LoadedGateway,
)
from pgtls.protocols.admission import Admission
from pgtls.protocols.server_settings import ListenerSettings
from pgtls.tls.certificate import Certificate
from pgtls.tls.validity import Kind, Validity
from tests.support.certificates import Authority, days

LISTEN = "tcp:6432"


def validity(name: str, left: timedelta, kind: Kind = Kind.CERTIFICATE) -> Validity:
    """What ends when so much time is over."""
    now = datetime.now(UTC)
    what = f'certificate "{name}"'
    return Validity(what, f"{name}.crt", now - timedelta(days=90), now + left, "x", kind, name)


class ExpiryWatchTests(SynchronousTestCase):
    """The watch of one gateway."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.looks = 0
        self.watch = ExpiryWatch(self.clock, timedelta(days=30), lambda: self.loaded, self.look)
        self.events: list[LogEvent] = []
        globalLogPublisher.addObserver(self.events.append)
        self.addCleanup(globalLogPublisher.removeObserver, self.events.append)
        self.load()

    def load(self, *validities: Validity) -> None:
        configuration = GatewayConfiguration(GatewaySettings(listen=LISTEN), "gateway 1: ")
        self.loaded = LoadedGateway(
            configuration, None, Admission(ListenerSettings()), None, validities=validities
        )

    def look(self) -> None:
        self.looks += 1

    def said(self) -> list[str]:
        texts = [formatEvent(event) for event in self.events if "not_after" in event]
        self.events.clear()
        return texts

    def test_at_the_start_and_once_a_day(self) -> None:
        self.load(
            validity("CN=soon", timedelta(days=29)),
            validity("CN=over", timedelta(days=-1)),
            validity("CN=later", timedelta(days=31)),
        )
        self.watch.start()
        for _ in range(3):
            soon, over = self.said()
            self.assertRegex(
                soon, r'^gateway 1: certificate "CN=soon" expires at .* \(in "CN=soon.crt"\)'
            )
            self.assertRegex(over, r'^gateway 1: certificate "CN=over" has expired at .* UTC ')
            self.clock.advance(DAY - 1)
            self.assertEqual(self.said(), [])
            self.clock.advance(1)
        self.assertEqual(self.looks, 3)
        self.watch.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_at_a_reload(self) -> None:
        self.watch.start()
        self.assertEqual(self.said(), [])
        self.load(validity("CN=soon", timedelta(days=2)))
        self.watch.renewed()
        self.assertEqual(len(self.said()), 1)
        self.watch.stop()

    def test_what_two_settings_name_is_said_once(self) -> None:
        each = validity("CN=soon", timedelta(days=2))
        self.load(each, each)
        self.watch.start()
        self.assertEqual(len(self.said()), 1)
        self.watch.stop()

    def certificate(self, left: int) -> Certificate:
        issued = Authority("root").issue(cn="db", not_before=days(-9), not_after=days(left))
        return issued.shown

    def test_what_an_upstream_shows(self) -> None:
        self.watch.shown("", Host("db.example.com", "", 5432), self.certificate(90))
        self.assertEqual(self.said(), [])
        self.watch.shown("2", Host("::1", "", 5432), self.certificate(-1))
        self.assertRegex(
            self.said()[0],
            r'^gateway 1: route 2: upstream \[::1\]:5432: certificate "CN=db" has expired at .* '
            r"\(shown by the server\): connections that verify it fail$",
        )

    def test_what_an_upstream_shows_is_said_once_a_day_too(self) -> None:
        self.watch.start()
        host, certificate = Host("db", "", 5432), self.certificate(1)
        for _ in range(2):
            self.watch.shown("", host, certificate)
        self.assertEqual(len(self.said()), 1)
        self.clock.advance(DAY)
        self.watch.shown("", host, certificate)
        self.assertEqual(len(self.said()), 1)
        self.watch.shown("", host, self.certificate(2))
        self.assertEqual(len(self.said()), 1)
        self.watch.stop()

    def test_all_that_ends(self) -> None:
        self.load(
            validity("CN=db", timedelta(days=200)), validity("CN=ca", timedelta(days=2), Kind.CA)
        )
        certificate = self.certificate(90)
        self.watch.shown("", Host("db", "", 5432), certificate)
        ends = [each.not_after for each in self.loaded.validities]
        assert ends[0]
        assert ends[1]
        self.assertEqual(
            self.watch.expiries(),
            [
                Expiry("certificate", "CN=db", "CN=db.crt", LISTEN, "", ends[0].timestamp()),
                Expiry("ca", "CN=ca", "CN=ca.crt", LISTEN, "", ends[1].timestamp()),
                Expiry(
                    *("upstream_certificate", "CN=db", "", LISTEN, "db:5432"),
                    certificate.not_after.timestamp(),
                ),
            ],
        )
        self.watch.renewed()
        self.assertEqual(len(self.watch.expiries()), 2)
