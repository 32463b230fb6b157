"""Metrics as a table: each has a name, a kind, labels and one line of help, in one place.

What Prometheus reads and the documentation's table come from it.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric.

    :ivar name: its name, without the ``_total`` of a counter.
    :ivar kind: ``counter``, ``gauge`` or ``histogram``.
    :ivar help: what it says.
    :ivar labels: the names of its labels.
    """

    name: str
    kind: str
    help: str
    labels: tuple[str, ...] = ()

    @property
    def shown(self) -> str:
        """The name as Prometheus has it."""
        return f"{self.name}_total" if self.kind == "counter" else self.name


SESSIONS = Metric(
    "pgtls_sessions",
    "counter",
    "Sessions: connected to their server, or refused by the gateway and why.",
    ("gateway", "route", "outcome", "reason", "sqlstate", "tls_version", "group", "authentication"),
)
SERVER_REFUSALS = Metric(
    "pgtls_server_refusals",
    "counter",
    "Sessions that the server itself has refused: an unknown database, a wrong password.",
    ("gateway", "route", "sqlstate"),
)
BYTES = Metric(
    "pgtls_bytes",
    "counter",
    "Bytes on the clients' connections, those of TLS included; direction is from_client or "
    "to_client.",
    ("gateway", "direction"),
)
CANCEL_REQUESTS = Metric(
    "pgtls_cancel_requests",
    "counter",
    "Cancel requests; outcome is accepted, or dropped where too many came at a time.",
    ("gateway", "outcome"),
)
TLS_ERRORS = Metric(
    "pgtls_tls_errors",
    "counter",
    "Clients' connections that ended with a TLS error after the handshake.",
    ("gateway",),
)
HANDSHAKE_SECONDS = Metric(
    "pgtls_handshake_seconds",
    "histogram",
    "From accepting a connection to its StartupMessage, the TLS handshake included.",
    ("gateway",),
)
CONNECT_SECONDS = Metric(
    "pgtls_connect_seconds",
    "histogram",
    "From the StartupMessage to the server's first answer, its TLS handshake included.",
    ("gateway",),
)
SESSION_SECONDS = Metric(
    "pgtls_session_seconds",
    "histogram",
    "How long sessions last.",
    ("gateway",),
)

#: What a gateway counts, in each process that serves it.
COUNTED: tuple[Metric, ...] = (
    SESSIONS,
    SERVER_REFUSALS,
    BYTES,
    CANCEL_REQUESTS,
    TLS_ERRORS,
    HANDSHAKE_SECONDS,
    CONNECT_SECONDS,
    SESSION_SECONDS,
)
