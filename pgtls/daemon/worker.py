"""A worker: a process that serves the daemon's gateways, beside others that do the same."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Generator
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred, DeferredList, inlineCallbacks
from twisted.internet.interfaces import IListeningPort
from twisted.logger import ILogObserver, LogEvent, eventAsJSON, globalLogBeginner
from zope.interface import implementer

from pgtls.daemon.census import Census
from pgtls.daemon.prepared import every, prepare
from pgtls.daemon.shared_port import shared_endpoint
from pgtls.daemon.worker_pipe import LineReader, LineWriter, Task
from pgtls.errors import ConfigurationError
from pgtls.gateway.gateway import Gateway
from pgtls.transport.poller import dedicate

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


class Worker:
    """Serves, until it is told to stop or the daemon is gone.

    :param control: the descriptor that the task came from.
    :raises ConfigurationError: a file cannot be used.
    """

    def __init__(self, reactor: Any, task: Task, control: int, reports: Reports) -> None:
        self._reactor = reactor
        self._task = task
        self._reports = reports
        self._stopping = False
        self._ports: list[IListeningPort] = []
        prepared = self._prepare()
        self._gateways = [Gateway(reactor, each) for each in prepared]
        self._census = census = Census(task.census, len(prepared), task.workers)
        for number, gateway in enumerate(self._gateways):
            gateway.factory.places.everywhere = census.of(number, task.worker)
        reactor.addReader(LineReader(control, self._told, self._stop))

    def listen(self) -> None:
        """Begin to accept connections."""
        task = self._task
        for number, (gateway, plan, descriptor) in enumerate(
            zip(self._gateways, task.plans, task.sockets, strict=True)
        ):
            ahead = self._census.ahead(number, task.worker)
            endpoint = shared_endpoint(self._reactor, descriptor, plan.settings.listen, ahead)
            endpoint.listen(gateway.factory).addCallback(self._ports.append)

    def _prepare(self) -> list[Any]:
        # What there is to warn of the daemon has warned of.
        plans = self._task.plans
        return every(*(partial(prepare, self._reactor, plan, quiet=True) for plan in plans))

    def _told(self, word: bytes) -> None:
        if word == b"reload":
            self._reports.say("reloaded", self._reload())
        else:
            self._stop()

    def _reload(self) -> list[str]:
        """:returns: the mistakes."""
        try:
            prepared = self._prepare()
        except ConfigurationError as error:
            return list(error.mistakes)
        for gateway, each in zip(self._gateways, prepared, strict=True):
            gateway.renew(each)
        return []

    def _stop(self) -> None:
        if not self._stopping:
            self._stopping = True
            self._drain()

    @inlineCallbacks
    def _drain(self) -> Generator[Deferred[Any], Any, None]:
        for port in self._ports:
            port.stopListening()
        factories = [gateway.factory for gateway in self._gateways]
        self._reports.say("stopping", sum(len(each.connections) for each in factories))
        yield DeferredList([each.drain(self._task.shutdown_timeout) for each in factories])
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
    worker.listen()
    reports.say("ready")
    run: Any = reactor.run
    run(installSignalHandlers=False)


if __name__ == "__main__":
    main(sys.argv[1:])
