"""The status of a daemon: its numbers beside what was really done."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import ssl
import sys
import urllib.error
import urllib.request
from collections.abc import Sequence
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path

import psycopg
from prometheus_client.parser import text_string_to_metric_families

from tests.support import processes
from tests.support.gateway_daemon import Gateway, GatewayCase, wait_until
from tests.support.processes import TWISTD
from tests.support.servers import HOST, postgres

STATUS = f"tcp:0:interface={HOST}"

WATCHFUL = (
    sys.executable,
    "-c",
    "from pgtls.status import upstream_watch; upstream_watch.INTERVAL = 0.3; "
    "from twisted.scripts.twistd import run; run()",
    "-n",
)
"""``twistd`` that looks at its upstreams more often."""


class StatusSite:
    """The status of a gateway, over HTTP.

    :param gateway: the gateway.
    """

    def __init__(self, gateway: Gateway, scheme: str = "http") -> None:
        (line,) = gateway.wait_for_log(r"pgtls: status at \S+")
        self.place = line.split()[-1].removeprefix(f"{scheme}://").rstrip("/")
        self.url = f"{scheme}://{self.place}"

    def ask(self, path: str, context: ssl.SSLContext | None = None) -> tuple[int, str]:
        """Status code and body of an answer."""
        try:
            with urllib.request.urlopen(self.url + path, timeout=10, context=context) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def document(self) -> dict[str, object]:
        return json.loads(self.ask("/status.json")[1])  # type: ignore[no-any-return]

    def value(self, metric: str, /, **labels: str) -> float:
        """The sum of a metric's samples that have these labels."""
        return sum(
            sample.value
            for family in text_string_to_metric_families(self.ask("/metrics")[1])
            for sample in family.samples
            if sample.name == metric and labels.items() <= sample.labels.items()
        )

    def wait_until_ready(self) -> None:
        wait_until(lambda: self.ask("/readyz")[0] == 200, lambda: self.ask("/readyz")[1])


class StatusCase(GatewayCase):
    def started(
        self,
        *options: str,
        upstream: str | None = None,
        program: Sequence[str] = (*TWISTD, "-n"),
    ) -> tuple[Gateway, StatusSite]:
        upstream = upstream or postgres(17).conninfo(user=None, dbname=None, sslmode="disable")
        options = ("--upstream", upstream, "--status", STATUS, "--ssl", "on", *options)
        gateway = self.gateway(*options, program=program)
        site = StatusSite(gateway)
        site.wait_until_ready()
        return gateway, site


class NumberTests(StatusCase):
    """Numbers."""

    def do_some_things(self, gateway: Gateway) -> list[psycopg.Connection]:
        """20 sessions with 100 kB each, three in plaintext, one that the server refuses; two stay
        open."""
        for _ in range(20):
            with psycopg.connect(gateway.conninfo()) as session:
                session.execute("SELECT repeat('x', 100000)").fetchone()
        for _ in range(3):
            psycopg.connect(gateway.conninfo(sslmode="disable", sslrootcert=None)).close()
        with self.assertRaises(psycopg.OperationalError):
            psycopg.connect(gateway.conninfo(dbname="nowhere"))
        held = [psycopg.connect(gateway.conninfo()) for _ in range(2)]
        for session in held:
            self.addCleanup(session.close)
        for _ in range(3):  # health checks
            socket.create_connection(gateway.address).close()
        return held

    def check(self, site: StatusSite) -> None:
        connected = {"outcome": "connected"}
        self.assertEqual(site.value("pgtls_sessions_total", **connected), 26)
        self.assertEqual(site.value("pgtls_sessions_total", **connected, tls_version="TLSv1.3"), 23)
        self.assertEqual(
            site.value("pgtls_sessions_total", **connected, tls_version="plaintext"), 3
        )
        self.assertEqual(site.value("pgtls_sessions_total", outcome="refused"), 0)
        self.assertEqual(site.value("pgtls_server_refusals_total", sqlstate="3D000"), 1)
        for name in ("handshake", "connect"):
            self.assertEqual(site.value(f"pgtls_{name}_seconds_count"), 26)
        sent = site.value("pgtls_bytes_total", direction="to_client")
        self.assertGreater(sent, 2_000_000)
        self.assertLess(sent, 2_200_000)
        self.assertGreater(site.value("pgtls_bytes_total", direction="from_client"), 26 * 100)
        (client,) = site.document()["plaintext"]  # type: ignore[misc]
        self.assertEqual(
            (client["address"], client["user"], client["database"], client["count"]),  # type: ignore[index]
            (HOST, "postgres", "postgres", 3),
        )

    def test_one_process(self) -> None:
        gateway, site = self.started()
        held = self.do_some_things(gateway)
        wait_until(lambda: site.value("pgtls_session_seconds_count") == 24, gateway.log)
        self.check(site)
        self.assertEqual(site.value("pgtls_open_sessions"), 2)
        self.assertEqual(len(site.document()["sessions"]), 2)  # type: ignore[arg-type]
        (each, _) = site.document()["sessions"]  # type: ignore[misc]
        self.assertEqual((each["user"], each["tls_version"]), ("postgres", "TLSv1.3"))  # type: ignore[index]
        held[0].close()
        wait_until(lambda: site.value("pgtls_open_sessions") == 1, gateway.log)
        expiry = site.value("pgtls_certificate_expiry_timestamp_seconds", name="CN=localhost")
        self.assertGreater(expiry, 1_800_000_000)
        self.assertEqual(site.value("pgtls_build_info"), 1)
        self.half_open_requests_hold_up_nobody(gateway, site)
        self.a_name_of_somebody_elses(site)
        gateway.signal(signal.SIGTERM)
        gateway.wait_for_log("have 10 s to finish")
        self.assertEqual(site.ask("/readyz"), (503, "it is being stopped\n"))
        self.assertEqual(site.ask("/healthz")[0], 200)
        self.assertEqual(site.document()["state"], "draining")
        held[1].execute("SELECT 1")
        held[1].close()
        gateway.wait()

    def half_open_requests_hold_up_nobody(self, gateway: Gateway, site: StatusSite) -> None:
        host, _, port = site.place.rpartition(":")
        half_open = []
        try:
            for _ in range(300):
                client = socket.create_connection((host, int(port)))
                half_open.append(client)
                with contextlib.suppress(OSError):
                    client.sendall(b"GET / HTTP/1.1\r\nHost:")
            with psycopg.connect(gateway.conninfo()) as session:
                session.execute("SELECT 1")
            self.assertEqual(site.ask("/healthz")[0], 200)
            self.assertLess(gateway.open_files(), 200)
        finally:
            for client in half_open:
                client.close()

    def a_name_of_somebody_elses(self, site: StatusSite) -> None:
        with closing(HTTPConnection(site.place)) as client:
            client.request("GET", "/status.json", headers={"Host": "evil.example"})
            self.assertEqual(client.getresponse().status, 421)

    def test_workers_one_of_which_dies(self) -> None:
        gateway, site = self.started("--workers", "2")
        self.do_some_things(gateway)
        wait_until(lambda: site.value("pgtls_session_seconds_count") == 24, gateway.log)
        self.check(site)
        self.assertEqual(site.value("pgtls_open_sessions"), 2)
        directory = self.metrics_directory(gateway)
        victim = processes.children(gateway.pid)[0]
        os.kill(victim, signal.SIGKILL)
        gateway.wait_for_log("is ready", 3)
        self.check(site)
        self.assertEqual(site.value("pgtls_workers_replaced_total"), 1)
        self.assertEqual(site.value("pgtls_workers"), 2)
        os.kill(processes.children(gateway.pid)[0], signal.SIGKILL)
        gateway.wait_for_log("is ready", 4)
        self.check(site)
        self.assertEqual(site.value("pgtls_open_sessions"), 0)
        gateway.stop()
        self.assertFalse(directory.exists())

    def metrics_directory(self, gateway: Gateway) -> Path:
        maps = Path(f"/proc/{processes.children(gateway.pid)[0]}/maps").read_text()
        found = re.search(r"(/\S*pgtls-metrics-\w+)/", maps)
        assert found, maps
        return Path(found[1])


class HealthTests(StatusCase):
    """``/healthz`` and ``/readyz``."""

    def test_an_upstream_that_goes_and_comes(self) -> None:
        with closing(socket.create_server((HOST, 0))) as server:
            port = server.getsockname()[1]
            upstream = f"host={HOST} port={port} sslmode=disable"
            gateway, site = self.started(upstream=upstream, program=WATCHFUL)
        wait_until(lambda: site.ask("/readyz")[0] == 503, gateway.log)
        self.assertIn(f"({HOST}:{port}) is not reachable", site.ask("/readyz")[1])
        self.assertEqual(site.ask("/healthz"), (200, "ok\n"))
        self.assertEqual(site.value("pgtls_upstream_reachable"), 0)
        with closing(socket.create_server((HOST, port))):
            site.wait_until_ready()
        self.assertIn("ready", site.ask("/readyz")[1])


class TLSTests(StatusCase):
    """``status_ssl``."""

    def test_in_TLS_with_the_gateways_certificate(self) -> None:
        upstream = postgres(17).conninfo(user=None, dbname=None, sslmode="disable")
        options = ("--upstream", upstream, "--status", "tcp:0", "--status-ssl", "on")
        gateway = self.gateway(*options)
        site = StatusSite(gateway, "https")
        site.url = f"https://localhost:{site.place.rpartition(':')[2]}"
        context = ssl.create_default_context(cafile=gateway.root_crt)
        context.set_alpn_protocols(["h2", "http/1.1"])
        self.assertEqual(site.ask("/healthz", context), (200, "ok\n"))
