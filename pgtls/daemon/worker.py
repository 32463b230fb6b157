"""A worker: a process that serves the daemon's gateways, beside others that do the same."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Generator
from typing import Any

from twisted.application.service import MultiService
from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.logger import ILogObserver, LogEvent, eventAsJSON, globalLogBeginner
from zope.interface import implementer

from pgtls.daemon.gateway_loading import load
from pgtls.daemon.reactor_waiting import dedicate
from pgtls.daemon.shared_counters import ConnectionCounters
from pgtls.daemon.worker_pipe import LineReader, LineWriter, Task
from pgtls.errors import ConfigurationError
from pgtls.gateway.gateway import Gateway
from pgtls.gateway.gateway_configuration import LoadedGateway
from pgtls.transport.shared_port import shared_endpoint

#: The daemon's: a terminal or systemd send them to its workers as well, which are to wait for it.
SIGNALS = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)


@implementer(ILogObserver)
class Reports:
    """What the worker tells the daemon: words, and its log, which this is an observer of."""

    def __init__(self, descriptor: int) -> None:
        self._writer = LineWriter(descriptor)

    def say(self, word: str, value: object = None) -> None:
        """A word, and a value for JSON."""
        self._writer.write(f"{word} {json.dumps(value)}")

    def __call__(self, event: LogEvent) -> None:
        """Something was logged."""
        self._writer.write(eventAsJSON(event))


class Worker(MultiService):
    """Serves the daemon's gateways, until it is told to stop or the daemon is gone.

    :param reactor: Twisted's reactor.
    :param task: what to serve.
    :param control: the descriptor that the task came from.
    :param reports: takes the answers.
    :raises ConfigurationError: a file cannot be used.
    """

    def __init__(self, reactor: Any, task: Task, control: int, reports: Reports) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._reactor = reactor
        self._task = task
        self._reports = reports
        counters = ConnectionCounters(task.counters, len(task.gateways), task.workers)
        self._gateways = []
        for number, (shared, loaded) in enumerate(zip(task.gateways, self._load(), strict=True)):
            endpoint = shared_endpoint(
                reactor,
                shared.descriptor,
                shared.configuration.settings.listen,
                counters.lead(number, task.worker),
            )
            gateway = Gateway(
                reactor,
                loaded,
                shutdown_timeout=task.shutdown_timeout,
                endpoint=endpoint,
                connections_everywhere=counters.everywhere(number, task.worker),
                checks_upstream=False,
            )
            gateway.setServiceParent(self)  # type: ignore[no-untyped-call]
            self._gateways.append(gateway)
        reactor.addReader(LineReader(control, self._told, self.end))

    def _load(self) -> list[LoadedGateway]:
        # What there is to warn of the daemon has warned of.
        task = self._task
        gateways = [shared.configuration for shared in task.gateways]
        return load(self._reactor, gateways, task.state_dir, quiet=True)

    def _told(self, word: bytes) -> None:
        if word == b"reload":
            self._reports.say("reloaded", self._reload())
        else:
            self.end()

    def _reload(self) -> list[str]:
        """:returns: the mistakes."""
        try:
            renewed = self._load()
        except ConfigurationError as error:
            return list(error.mistakes)
        for gateway, loaded in zip(self._gateways, renewed, strict=True):
            gateway.renew(loaded)
        return []

    def end(self) -> None:
        """Let sessions finish for ``shutdown_timeout``, and end the process."""
        if self.running:
            self._stop_and_exit()

    @inlineCallbacks
    def _stop_and_exit(self) -> Generator[Deferred[Any], Any, None]:
        self._reports.say("stopping", sum(gateway.sessions for gateway in self._gateways))
        yield self.stopService()  # type: ignore[no-untyped-call]
        self._reactor.stop()


def main(arguments: list[str]) -> None:
    """:param arguments: the worker's number, for who looks at ``ps``, and its descriptors."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    control, report = (int(argument.partition("=")[2]) for argument in arguments[1:])
    try:
        task = Task.receive(control)
    except EOFError:
        sys.exit(1)
    if os.getcwd() != task.directory:
        os.chdir(task.directory)
    reports = Reports(report)
    from twisted.internet import reactor  # noqa: PLC0415 - importing it installs it

    dedicate(reactor)
    try:
        worker = Worker(reactor, task, control, reports)
    except ConfigurationError as error:
        reports.say("failed", error.mistakes)
        sys.exit(1)
    globalLogBeginner.beginLoggingTo([reports], discardBuffer=True, redirectStandardIO=False)
    worker.startService()  # type: ignore[no-untyped-call]
    reports.say("ready")
    run: Any = reactor.run
    run(installSignalHandlers=False)


if __name__ == "__main__":
    main(sys.argv[1:])
