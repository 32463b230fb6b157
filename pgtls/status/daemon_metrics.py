"""The gauges of the daemon, from the status document."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from importlib.metadata import version

from OpenSSL import SSL
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric as Family

from pgtls.gateway.metric_table import Metric
from pgtls.status.status_document import StatusDocument
from pgtls.tls.validity import Kind

OPEN_SESSIONS = Metric(
    "pgtls_open_sessions", "gauge", "Sessions that are open.", ("gateway", "route")
)
CONNECTIONS = Metric(
    "pgtls_connections",
    "gauge",
    "Open connections of clients, with a session or not: what max_connections limits.",
    ("gateway",),
)
MAX_CONNECTIONS = Metric(
    "pgtls_max_connections", "gauge", "The setting max_connections.", ("gateway",)
)
LISTENING = Metric("pgtls_listening", "gauge", "Whether the gateway's port is open.", ("gateway",))
UPSTREAM_REACHABLE = Metric(
    "pgtls_upstream_reachable",
    "gauge",
    "Whether the upstream was reached at the last look, some seconds ago at most; upstream is "
    "default or the route's number.",
    ("gateway", "upstream", "hosts"),
)
CERTIFICATE_EXPIRY = Metric(
    "pgtls_certificate_expiry_timestamp_seconds",
    "gauge",
    "When a certificate is over, as a Unix timestamp; kind is certificate or ca for what is used "
    "towards clients, and begins with upstream for what is used towards servers; "
    "upstream_certificate is what a server has shown.",
    ("gateway", "kind", "name", "file", "upstream"),
)
CRL_EXPIRY = Metric(
    "pgtls_crl_expiry_timestamp_seconds",
    "gauge",
    "When the next update of a CRL is due, as a Unix timestamp; after that no certificate of its "
    "issuer is accepted.",
    ("gateway", "kind", "name", "file", "upstream"),
)
RELOADS = Metric(
    "pgtls_reloads",
    "counter",
    "Reloads; outcome is ok, or failed where a mistake was found and nothing was changed.",
    ("outcome",),
)
RELOAD_OK = Metric(
    "pgtls_last_reload_ok", "gauge", "Whether the last reload went well; 1 before the first."
)
WORKERS = Metric("pgtls_workers", "gauge", "Processes that serve clients.")
WORKERS_WANTED = Metric("pgtls_workers_wanted", "gauge", "The setting workers.")
WORKERS_REPLACED = Metric("pgtls_workers_replaced", "counter", "Workers that have died.")
READY = Metric("pgtls_ready", "gauge", "Whether /readyz answers 200.")
DRAINING = Metric("pgtls_draining", "gauge", "Whether the daemon is being stopped.")
START_TIME = Metric(
    "pgtls_start_time_seconds", "gauge", "When the daemon was started, as a Unix timestamp."
)
BUILD = Metric(
    "pgtls_build_info",
    "gauge",
    "Always 1; the labels say what runs.",
    ("version", "python", "twisted", "openssl"),
)

#: What the daemon itself knows.
GAUGES: tuple[Metric, ...] = (
    OPEN_SESSIONS,
    CONNECTIONS,
    MAX_CONNECTIONS,
    LISTENING,
    UPSTREAM_REACHABLE,
    CERTIFICATE_EXPIRY,
    CRL_EXPIRY,
    RELOADS,
    RELOAD_OK,
    WORKERS,
    WORKERS_WANTED,
    WORKERS_REPLACED,
    READY,
    DRAINING,
    START_TIME,
    BUILD,
)

_CRLS = (Kind.CRL, Kind.UPSTREAM_CRL)

Values = Iterator[tuple[Metric, tuple[str, ...], float]]


def daemon_families(document: StatusDocument) -> list[Family]:
    """The gauges, as prometheus_client has them.

    :param document: the status.
    :returns: one family for each of :data:`GAUGES`.
    """
    families: dict[Metric, GaugeMetricFamily | CounterMetricFamily] = {
        metric: (CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily)(
            metric.name, metric.help, labels=metric.labels
        )
        for metric in GAUGES
    }
    for values in (_of_gateways(document), _of_expiry(document), _of_daemon(document)):
        for metric, labels, value in values:
            families[metric].add_metric(labels, value)
    return list(families.values())


def _of_gateways(document: StatusDocument) -> Values:
    for gateway in document["gateways"]:
        label = gateway["gateway"]
        # A gateway without routes always has a value: Prometheus cannot alert on what is not there.
        for route, count in (gateway["open"] or {"": 0}).items():
            yield OPEN_SESSIONS, (label, route), count
        yield CONNECTIONS, (label,), gateway["connections"]
        if gateway["max_connections"]:  # else it has been removed, and nothing can be full
            yield MAX_CONNECTIONS, (label,), gateway["max_connections"]
        yield LISTENING, (label,), gateway["listening"]
        for upstream in gateway["upstreams"]:
            labels = label, upstream["name"], upstream["hosts"]
            yield UPSTREAM_REACHABLE, labels, bool(upstream["reached"])


def _of_expiry(document: StatusDocument) -> Values:
    for each in document["certificates"]:
        metric = CRL_EXPIRY if each["kind"] in _CRLS else CERTIFICATE_EXPIRY
        labels = each["gateway"], each["kind"], each["name"], each["file"], each["upstream"]
        yield metric, labels, each["expires"]


def _of_daemon(document: StatusDocument) -> Values:
    reloads, workers = document["reloads"], document["workers"]
    yield RELOADS, ("ok",), reloads["succeeded"]
    yield RELOADS, ("failed",), reloads["failed"]
    yield RELOAD_OK, (), not reloads["mistakes"]
    yield WORKERS, (), workers["ready"]
    yield WORKERS_WANTED, (), workers["wanted"]
    yield WORKERS_REPLACED, (), workers["replaced"]
    yield READY, (), document["ready"]
    yield DRAINING, (), document["state"] == "draining"
    yield START_TIME, (), document["started"]
    openssl = SSL.SSLeay_version(SSL.SSLEAY_VERSION).decode("ascii", "replace")
    build = document["version"], platform.python_version(), version("twisted"), openssl
    yield BUILD, build, 1
