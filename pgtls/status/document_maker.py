"""Makes the status document, from what the daemon and its processes know."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from time import time

from pgtls.gateway.gateway import Gateway
from pgtls.gateway.metric_table import SESSIONS
from pgtls.status.activity_sum import ActivitySum
from pgtls.status.counted import Counted
from pgtls.status.daemon_view import DaemonView, Reloads
from pgtls.status.expiry_table import expiry_table
from pgtls.status.history import History
from pgtls.status.status_document import (
    GatewayStatus,
    RefusalStatus,
    ReloadStatus,
    StatusDocument,
    UpstreamStatus,
    WorkerStatus,
)
from pgtls.status.upstream_watch import UpstreamState, UpstreamWatch

#: Seconds after which nobody knows any more whether an upstream can be reached.
_LATELY = 30.0


class DocumentMaker:
    """Makes it.

    :param daemon: the daemon.
    :param watch: knows the upstreams.
    """

    def __init__(self, daemon: DaemonView, watch: UpstreamWatch) -> None:
        self._daemon = daemon
        self._watch = watch
        self._version = _own_version()
        self._started = time()

    def problems(self) -> list[str]:
        """Why no new session should be sent here.

        :returns: a sentence each; none where there is no reason.
        """
        daemon, found = self._daemon, []
        if daemon.draining:
            found.append("it is being stopped")
        found += [f"{each.label} is not open" for each in daemon.gateways if not each.is_open]
        if not daemon.workers.ready:
            found.append("no worker is ready")
        for state in self._watch.states():
            if state.reached is None:
                found.append(f"{_where(state)} has not been looked at yet")
            elif not state.reached:
                found.append(f"{_where(state)} is not reachable: {state.error}")
            elif state.checked is not None and time() - state.checked > _LATELY:
                found.append(f"{_where(state)} has not been looked at lately")
        return found

    def document(self, activity: ActivitySum, counted: Counted, history: History) -> StatusDocument:
        """Make it.

        :param activity: what all processes know of their sessions.
        :param counted: what they have counted.
        :param history: the last minutes.
        :returns: the document.
        """
        daemon, problems, states = self._daemon, self.problems(), self._watch.states()
        return StatusDocument(
            version=self._version,
            pid=os.getpid(),
            started=self._started,
            time=time(),
            state="draining" if daemon.draining else "serving",
            ready=not problems,
            problems=problems,
            gateways=[
                *(_gateway(each, activity, states) for each in daemon.gateways),
                *_removed(activity, {each.label for each in daemon.gateways}),
            ],
            open_sessions=sum(activity.open.values()),
            sessions=activity.sessions,
            totals=counted.totals(),
            tls_versions=_tls_versions(counted),
            refusals=_refusals(activity, counted),
            plaintext=activity.plaintext,
            certificates=expiry_table(daemon.gateways, states),
            reloads=_reloads(daemon.reloads),
            workers=WorkerStatus(
                wanted=daemon.workers.wanted,
                ready=daemon.workers.ready,
                replaced=daemon.workers.replaced,
            ),
            history=history,
        )


def _own_version() -> str:
    try:
        return version("pgtls")
    except PackageNotFoundError:
        return "not installed"


def _reloads(reloads: Reloads) -> ReloadStatus:
    return ReloadStatus(
        succeeded=reloads.succeeded,
        failed=reloads.failed,
        last=reloads.last,
        mistakes=list(reloads.mistakes),
    )


def _where(state: UpstreamState) -> str:
    route = "" if state.name == "default" else f" of route {state.name}"
    via = f" through {state.upstream_via}" if state.upstream_via else ""
    return f"the upstream{route} of {state.gateway} ({state.hosts}{via})"


def _gateway(
    gateway: Gateway, activity: ActivitySum, states: Sequence[UpstreamState]
) -> GatewayStatus:
    listener, label = gateway.loaded.configuration.settings.listener, gateway.label
    return GatewayStatus(
        gateway=label,
        ssl=str(listener.ssl),
        listening=gateway.is_open,
        open={route: count for (name, route), count in activity.open.items() if name == label},
        connections=activity.connections.get(label, 0),
        max_connections=listener.max_connections,
        upstreams=[
            UpstreamStatus(
                name=state.name,
                hosts=state.hosts,
                upstream_via=state.upstream_via,
                reached=state.reached,
                checked=state.checked,
                error=state.error,
            )
            for state in states
            if state.gateway == label
        ],
    )


def _removed(activity: ActivitySum, labels: Collection[str]) -> Iterator[GatewayStatus]:
    """Gateways that a reload has removed, as long as they have sessions.

    :param labels: those that are there.
    """
    for label in sorted({gateway for gateway, _ in activity.open} - set(labels)):
        yield GatewayStatus(
            gateway=label,
            ssl="",
            listening=False,
            open={route: count for (name, route), count in activity.open.items() if name == label},
            connections=activity.connections.get(label, 0),
            max_connections=0,
            upstreams=[],
        )


def _tls_versions(counted: Counted) -> dict[str, int]:
    found: dict[str, int] = {}
    for labels, value in counted.each(SESSIONS):
        if labels["outcome"] == "connected":
            found[labels["tls_version"]] = found.get(labels["tls_version"], 0) + value
    return found


def _refusals(activity: ActivitySum, counted: Counted) -> list[RefusalStatus]:
    """By reason, the most frequent first."""
    counts: dict[tuple[str, str, str], int] = {}
    for labels, value in counted.each(SESSIONS):
        if labels["outcome"] == "refused":
            key = labels["gateway"], labels["reason"], labels["sqlstate"]
            counts[key] = counts.get(key, 0) + value
    last = activity.refusals
    found = []
    for (gateway, reason, sqlstate), count in counts.items():
        latest = last.get((gateway, reason, sqlstate))
        found.append(
            RefusalStatus(
                gateway=gateway,
                reason=reason,
                sqlstate=sqlstate,
                count=count,
                last_seen=latest["last_seen"] if latest is not None else None,
                address=latest["address"] if latest is not None else "",
                detail=latest["detail"] if latest is not None else "",
            )
        )
    return sorted(found, key=lambda each: -each["count"])
