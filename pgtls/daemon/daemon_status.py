"""The status of the daemon: what it shows of its processes, and where they count."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from time import time
from typing import cast

from prometheus_client import CollectorRegistry
from prometheus_client.multiprocess import MultiProcessCollector
from twisted.internet.defer import Deferred, succeed
from twisted.python.failure import Failure

from pgtls.daemon.configuration import DaemonSettings
from pgtls.daemon.mistakes import Mistakes
from pgtls.daemon.port_check import why_not_opened
from pgtls.daemon.workers import Workers
from pgtls.gateway.activity import GatewayActivity
from pgtls.gateway.gateway import Gateway
from pgtls.gateway.process_activity import ProcessActivity
from pgtls.status.daemon_view import Reloads, WorkersState
from pgtls.status.dead_workers import merge_dead_workers
from pgtls.status.status_service import StatusService
from pgtls.transport.reactor import IReactor

#: What workers know the request for their activity by, and the seconds that they have for it.
ACTIVITY = "activity"
ANSWER_TIMEOUT = 2.0

#: The name of the only process that serves.
_ONLY = "daemon"


class DaemonStatus:
    """The status of a daemon whose setting ``status`` names an endpoint.

    :param reactor: Twisted's reactor.
    :param settings: the daemon's.
    :param gateways: gives its gateways.
    :ivar draining: whether the daemon is being stopped.
    :ivar reloads: what there was to reload.
    :ivar workers_process: the workers; None where there are none.
    :ivar directory: where workers count; empty where the daemon itself serves.
    """

    def __init__(
        self,
        reactor: IReactor,
        settings: DaemonSettings,
        gateways: Callable[[], Sequence[Gateway]],
    ) -> None:
        self._reactor = reactor
        self._settings = settings
        self._gateways = gateways
        self.draining = False
        self.reloads = Reloads()
        self.workers_process: Workers | None = None
        self._replaced = 0
        self.directory = ""
        self._activity = ProcessActivity(reactor) if settings.workers == 1 else None
        self._service: StatusService | None = None

    def observe(self, gateway: Gateway) -> None:
        """Count what a gateway of this process does.

        :param gateway: its port is not open yet.
        """
        if self._activity is not None:
            self._activity.observe(gateway)

    def open_port(self, mistakes: Mistakes) -> Deferred[None]:
        """Open the port.

        :param mistakes: takes why it cannot be opened.
        :returns: fires when that is done; never fails.
        """
        self.draining = False
        registry = self._counters()
        tls = (lambda: self._gateways()[0].loaded.tls) if self._settings.status_ssl else None
        self._service = StatusService(self._reactor, self, registry, self._settings.status, tls)

        def not_opened(failure: Failure) -> None:
            mistakes.add(f"status: {self._settings.status}: {why_not_opened(failure.value)}")

        return self._service.open_port().addErrback(not_opened)

    def _counters(self) -> CollectorRegistry:
        if self._activity is not None:
            return self._activity.registry
        self.directory = tempfile.mkdtemp(prefix="pgtls-metrics-")
        registry = CollectorRegistry()
        MultiProcessCollector(registry, self.directory)  # type: ignore[no-untyped-call]
        return registry

    def start(self) -> str:
        """The daemon serves.

        :returns: where the status is.
        """
        if self._service is None:
            return ""
        self._service.start()
        return self._service.address

    def leave(self) -> None:
        """Another process shows its status from now on: close the port."""
        service, self._service = self._service, None
        if service is not None:
            service.stop()

    def stop(self) -> Deferred[None]:
        """Close the port; nothing is counted any more.

        :returns: fires when that is done.
        """
        service, self._service = self._service, None
        stopped = service.stop() if service is not None else succeed(None)
        return stopped.addBoth(self._stopped)

    def _stopped(self, _: object) -> None:
        if self.directory:
            shutil.rmtree(self.directory, ignore_errors=True)
            self.directory = ""

    def reloaded(self, mistakes: Sequence[object]) -> None:
        """A reload is over.

        :param mistakes: what was wrong.
        """
        if mistakes:
            self.reloads.failed += 1
        else:
            self.reloads.succeeded += 1
        self.reloads.last = time()
        self.reloads.mistakes = [str(each) for each in mistakes]

    # What the status has to know: see DaemonView.

    @property
    def gateways(self) -> Sequence[Gateway]:
        """The daemon's gateways."""
        return self._gateways()

    @property
    def workers(self) -> WorkersState:
        """The processes that serve."""
        if self.workers_process is None:
            return WorkersState()
        ready, replaced = self.workers_process.ready, self.workers_process.replaced
        return WorkersState(self._settings.workers, ready, replaced)

    def activities(self, most: int) -> Deferred[Mapping[str, Sequence[GatewayActivity]]]:
        """Ask the processes that serve what they know.

        :param most: how many sessions each may list.
        :returns: what each of them says, by its name.
        """
        if self._activity is not None:
            return succeed({_ONLY: self._activity.report(most)})
        if self.workers_process is None:
            return succeed({})
        if self.workers_process.replaced != self._replaced:
            self._replaced = self.workers_process.replaced
            with suppress(OSError):  # no room for it: then there are more files
                merge_dead_workers(self.directory, self.workers_process.pids)
        asked = self.workers_process.ask_all(ACTIVITY, most, ANSWER_TIMEOUT)
        return cast("Deferred[Mapping[str, Sequence[GatewayActivity]]]", asked)

    def processes(self) -> Sequence[str]:
        """The names of the processes that serve."""
        if self._activity is not None:
            return [_ONLY]
        return self.workers_process.names if self.workers_process is not None else []
