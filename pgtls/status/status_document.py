"""The status as one document: it is ``/status.json``, and what the page and ``pgtls top`` show."""

from __future__ import annotations

from typing import TypedDict

from pgtls.gateway.activity import OpenSession
from pgtls.gateway.plaintext_clients import PlaintextClient
from pgtls.status.expiry_table import ExpiryStatus
from pgtls.status.history import History

#: Sessions that each process lists.
MOST_SESSIONS = 500


class UpstreamStatus(TypedDict):
    """An upstream.

    :ivar name: ``default``, or the number of the route.
    :ivar hosts: where it is.
    :ivar upstream_via: the SSH server that it is reached through; empty for none.
    :ivar reached: whether it was reached at the last look; None before there was one.
    :ivar checked: when that was, in seconds since 1970.
    :ivar error: why it was not reached; empty where it was.
    """

    name: str
    hosts: str
    upstream_via: str
    reached: bool | None
    checked: float | None
    error: str


class GatewayStatus(TypedDict):
    """A gateway. One that a reload has removed is there as long as it has sessions.

    :ivar gateway: where it listens.
    :ivar ssl: its setting.
    :ivar listening: whether its port is open.
    :ivar open: open sessions, by route.
    :ivar connections: open connections of clients, with a session or not.
    :ivar max_connections: its setting; 0 where it has been removed.
    :ivar upstreams: where sessions go.
    """

    gateway: str
    ssl: str
    listening: bool
    open: dict[str, int]
    connections: int
    max_connections: int
    upstreams: list[UpstreamStatus]


class RefusalStatus(TypedDict):
    """Clients that were refused for one reason.

    :ivar gateway: where.
    :ivar reason: why.
    :ivar sqlstate: what the clients got to read; empty for nothing.
    :ivar count: how many.
    :ivar last_seen: when the last one came, in seconds since 1970; None where that is not known.
    :ivar address: the last one's.
    :ivar detail: what the log says of it.
    """

    gateway: str
    reason: str
    sqlstate: str
    count: int
    last_seen: float | None
    address: str
    detail: str


class ReloadStatus(TypedDict):
    """Reloads: how many, when the last one was, and what was wrong with it."""

    succeeded: int
    failed: int
    last: float | None
    mistakes: list[str]


class WorkerStatus(TypedDict):
    """Processes that serve: how many there are to be, and are; how many have died."""

    wanted: int
    ready: int
    replaced: int


class StatusDocument(TypedDict):
    """All of it. Times are in seconds since 1970.

    :ivar version: of pgtls.
    :ivar pid: the daemon's process.
    :ivar started: when it was started.
    :ivar time: now.
    :ivar state: ``serving`` or ``draining``.
    :ivar ready: what ``/readyz`` says.
    :ivar problems: why it is not ready, a sentence each.
    :ivar open_sessions: how many there are; ``sessions`` may list fewer.
    :ivar totals: what has been counted since the start.
    """

    version: str
    pid: int
    started: float
    time: float
    state: str
    ready: bool
    problems: list[str]
    gateways: list[GatewayStatus]
    open_sessions: int
    sessions: list[OpenSession]
    totals: dict[str, int]
    tls_versions: dict[str, int]
    refusals: list[RefusalStatus]
    plaintext: list[PlaintextClient]
    certificates: list[ExpiryStatus]
    reloads: ReloadStatus
    workers: WorkerStatus
    history: History
