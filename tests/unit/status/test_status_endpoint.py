"""Where the status may be listened for."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from pgtls.errors import ConfigurationError
from pgtls.status.status_endpoint import check_status_endpoint


class EndpointTests(SynchronousTestCase):
    """What is allowed with TLS and without."""

    def test_loopback_and_unix_sockets_need_no_TLS(self) -> None:
        for description in (
            "tcp:9187:interface=127.0.0.1",
            "tcp:9187:interface=127.1.2.3",
            "tcp:9187:interface=localhost",
            r"tcp6:9187:interface=\:\:1",
            r"tcp:9187:interface=\:\:ffff\:127.0.0.1",
            "unix:/run/pgtls/status:mode=660",
        ):
            check_status_endpoint(description, tls=False)

    def test_what_others_can_reach_needs_TLS(self) -> None:
        for description in (
            "tcp:9187",
            "tcp:9187:interface=192.0.2.1",
            r"tcp6:9187:interface=\:\:",
            "tcp:9187:interface=127.0.0.1.example.com",
        ):
            check_status_endpoint(description, tls=True)
            error = self.assertRaises(
                ConfigurationError, check_status_endpoint, description, tls=False
            )
            self.assertIn("status_ssl = true", str(error))
            self.assertIn(description, str(error))

    def test_what_is_no_endpoint(self) -> None:
        for description in ("9187", "http://localhost:9187", "tcp:x", "tcp:"):
            error = self.assertRaises(
                ConfigurationError, check_status_endpoint, description, tls=True
            )
            self.assertIn("is not a Twisted endpoint string", str(error))
