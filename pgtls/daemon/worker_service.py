"""A worker: a process that serves the daemon's gateways, beside others that do the same."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING, cast

from twisted.application.service import MultiService
from twisted.internet.defer import Deferred
from twisted.logger import ILogObserver, LogEvent, eventAsJSON, globalLogBeginner
from zope.interface import implementer

from pgtls.daemon.cancel_requests import OtherProcess, cancel_answerers
from pgtls.daemon.gateway_loading import load_gateway
from pgtls.daemon.mistakes import Mistakes
from pgtls.daemon.monotonic_clock import use_monotonic_clock
from pgtls.daemon.pipe_requests import Answerer, PipeRequests
from pgtls.daemon.reactor_waiting import dedicate
from pgtls.daemon.route_tables import with_routes_read_again
from pgtls.daemon.shared_counters import ConnectionCounters
from pgtls.daemon.worker_pipe import LineReader, LineWriter, Task
from pgtls.errors import ConfigurationError
from pgtls.gateway.gateway import Gateway
from pgtls.gateway.gateway_configuration import GatewayConfiguration, LoadedGateway
from pgtls.gateway.key_holders import KeyHolders
from pgtls.transport.reactor import IReactor
from pgtls.transport.shared_port import shared_endpoint

if TYPE_CHECKING:
    from pgtls.gateway.process_activity import ProcessActivity


@implementer(ILogObserver)
class Reports:
    """What the worker tells the daemon: words, and its log, which this is an observer of.

    :param descriptor: the pipe to the daemon.
    :ivar send: sends a line as it is.
    """

    def __init__(self, descriptor: int) -> None:
        self._writer = LineWriter(descriptor)
        self.send = self._writer.write

    def say(self, word: str, value: object = None) -> None:
        """Send a word.

        :param word: one of :mod:`pgtls.daemon.worker_pipe`'s.
        :param value: goes behind it, in JSON.
        """
        self._writer.write(f"{word} {json.dumps(value)}")

    def __call__(self, event: LogEvent) -> None:
        """Send an event of the log.

        :param event: Twisted's.
        """
        self._writer.write(eventAsJSON(event))


class Worker(MultiService):
    """Serves the daemon's gateways, until it is told to stop or the daemon is gone.

    :param reactor: Twisted's reactor.
    :param task: what to serve.
    :param worker: this worker's number, from 0.
    :param control: the descriptor that the daemon's words come from.
    :param reports: takes the answers.
    :raises ConfigurationError: a file cannot be used.
    """

    def __init__(
        self, reactor: IReactor, task: Task, worker: int, control: int, reports: Reports
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._reactor = reactor
        self._task = task
        self._reports = reports
        own = KeyHolders(lambda: self._gateways)
        activity = _process_activity(reactor, task.metrics_directory)
        answerers: dict[str, Answerer] = {"alive": lambda _: True, **cancel_answerers(own)}
        if activity is not None:
            answerers["activity"] = lambda most: activity.report(cast(int, most))
        self._requests = PipeRequests(reactor, reports.send, answerers)
        self._gateways: list[Gateway] = []
        # The daemon asks its other workers, and may ask one before it that does the same.
        daemon = OtherProcess(self._requests, asks_others=2)
        elsewhere = KeyHolders(lambda: [*self._gateways, daemon])
        counters = ConnectionCounters(task.counters, len(task.gateways), task.workers)
        mistakes = Mistakes()
        for number, shared in enumerate(task.gateways):
            for loaded in self._load(shared.configuration, mistakes):
                surplus = counters.surplus(number, worker)
                endpoint = shared_endpoint(reactor, shared.descriptor, surplus)
                gateway = Gateway(
                    reactor,
                    loaded,
                    shutdown_timeout=task.shutdown_timeout,
                    endpoint=endpoint,
                    connections_everywhere=counters.everywhere(number, worker),
                    checks_upstream=False,
                    elsewhere=elsewhere,
                )
                if activity is not None:
                    activity.observe(gateway)
                gateway.setServiceParent(self)  # type: ignore[no-untyped-call]
                self._gateways.append(gateway)
        mistakes.check()
        reactor.addReader(LineReader(control, self._told, self.end))

    def _load(
        self,
        gateway: GatewayConfiguration,
        mistakes: Mistakes,
        before: LoadedGateway | None = None,
    ) -> list[LoadedGateway]:
        # What there is to warn of the daemon has warned of.
        return load_gateway(
            *(self._reactor, gateway, self._task.state_dir, mistakes), quiet=True, before=before
        )

    def _told(self, line: bytes) -> None:
        if self._requests.receive(line):
            return
        if line in (b"reload", b"files"):
            self._reports.say("reloaded", self._reload(routes=line == b"reload"))
        else:
            self.end()

    def _reload(self, *, routes: bool) -> list[str]:
        """:returns: the mistakes."""
        mistakes = Mistakes()
        renewed = [
            (gateway, loaded)
            for gateway in self._gateways
            for configuration in [gateway.loaded.configuration]
            for loaded in self._load(
                with_routes_read_again(configuration, mistakes, quiet=True)
                if routes
                else configuration,
                mistakes,
                gateway.loaded,
            )
        ]
        if not mistakes.found:
            for gateway, loaded in renewed:
                gateway.renew(loaded)
        return mistakes.found

    def end(self) -> None:
        """Let sessions finish for ``shutdown_timeout``, and end the process."""
        if self.running:
            self._reports.say("stopping")
            stopped: Deferred[object] = self.stopService()  # type: ignore[no-untyped-call]
            stopped.addCallback(lambda _: self._reactor.stop())


def _process_activity(reactor: IReactor, directory: str) -> ProcessActivity | None:
    """What counts for the status.

    :param directory: where; empty where there is no status.
    """
    if not directory:
        return None
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = directory  # before prometheus_client is imported
    from pgtls.gateway.process_activity import ProcessActivity  # noqa: PLC0415

    return ProcessActivity(reactor)


def run(worker: int, task_file: int, control: int, report: int) -> None:
    """Serve until the daemon says that it is enough, or is gone.

    :param worker: this worker's number, from 0.
    :param task_file: a descriptor of what to do, see :meth:`Task.read`.
    :param control: the descriptor that the daemon's words come from.
    :param report: the descriptor that takes the answers.
    """
    task = Task.read(task_file)
    if os.getcwd() != task.directory:
        os.chdir(task.directory)
    reports = Reports(report)
    from twisted.internet import reactor as installed  # noqa: PLC0415 - importing it installs it

    reactor = cast(IReactor, installed)
    dedicate(reactor)
    use_monotonic_clock(reactor)
    try:
        service = Worker(reactor, task, worker, control, reports)
    except ConfigurationError as error:
        reports.say("failed", error.mistakes)
        sys.exit(1)
    globalLogBeginner.beginLoggingTo([reports], discardBuffer=True, redirectStandardIO=False)
    service.startService()  # type: ignore[no-untyped-call]
    reports.say("ready")
    reactor.run(installSignalHandlers=False)  # type: ignore[call-arg] # every reactor takes it
