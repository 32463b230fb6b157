"""A worker: a process that serves the daemon's gateways, beside others that do the same."""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, cast

import attrs
from OpenSSL import crypto
from twisted.application.service import MultiService
from twisted.internet.defer import Deferred
from twisted.logger import ILogObserver, LogEvent, eventAsJSON, globalLogBeginner
from zope.interface import implementer

from pgtls.daemon.cancel_requests import OtherProcess, cancel_answerers
from pgtls.daemon.freed_memory import FreedMemory
from pgtls.daemon.garbage_collector import collect_garbage
from pgtls.daemon.gateway_loading import load_gateway
from pgtls.daemon.handover import close_all, take_over
from pgtls.daemon.mistakes import Mistakes
from pgtls.daemon.monotonic_clock import use_monotonic_clock
from pgtls.daemon.open_files import allow_open_files
from pgtls.daemon.pipe_requests import Answerer, PipeRequests, RequestFailed
from pgtls.daemon.reactor_waiting import dedicate
from pgtls.daemon.shared_counters import ConnectionCounters, SharedPlaces
from pgtls.daemon.worker_pipe import LineReader, LineWriter, Task
from pgtls.errors import ConfigurationError
from pgtls.gateway.gateway import Gateway
from pgtls.gateway.gateway_configuration import LoadedGateway
from pgtls.gateway.key_holders import KeyHolders
from pgtls.tls.loaded_keys import LoadedKey, LoadedKeys
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


@attrs.frozen
class _Prepared:
    """What the worker is to do next.

    :ivar message: the number by which the daemon calls it.
    :ivar loaded: the gateways whose files have been read, by number, each with its revision.
    :ivar sockets: the listening sockets and counters of those that are new.
    """

    message: int
    task: Task
    loaded: dict[int, tuple[int, LoadedGateway]] = attrs.field(factory=dict)
    sockets: dict[int, tuple[int, int]] = attrs.field(factory=dict)

    def close(self) -> None:
        for descriptors in self.sockets.values():
            close_all(descriptors)


class Worker(MultiService):
    """Serves the daemon's gateways, until it is told to stop or the daemon is gone.

    :param reactor: Twisted's reactor.
    :param worker: this worker's number, from 0.
    :param handover: where the daemon's tasks come from.
    :param control: the descriptor that the daemon's words come from.
    :param reports: takes the answers.
    :param task: what to serve.
    :param descriptors: the listening sockets and counters that belong to it.
    :raises ConfigurationError: a file cannot be used.
    """

    def __init__(
        self,
        reactor: IReactor,
        worker: int,
        handover: socket.socket,
        control: int,
        reports: Reports,
        task: Task,
        descriptors: Sequence[int],
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._reactor = reactor
        self._worker = worker
        self._handover = handover
        self._reports = reports
        self._gateways: dict[int, Gateway] = {}
        self._revisions: dict[int, int] = {}
        self._counters: dict[int, tuple[ConnectionCounters, int]] = {}
        self._prepared: _Prepared | None = None
        self._activity = activity = _process_activity(reactor, task.metrics_directory)
        answerers: dict[str, Answerer] = {
            "alive": lambda _: True,
            **cancel_answerers(KeyHolders(self._with_sessions)),
            "prepare": self._prepare,
            "use": self._use,
            "forget": self._forget,
        }
        if activity is not None:
            answerers["activity"] = lambda most: activity.report(cast(int, most))
        self._requests = PipeRequests(reactor, reports.send, answerers)
        # The daemon asks its other workers, and may ask one before it that does the same.
        self._daemon = OtherProcess(self._requests, asks_others=2)
        self._freed_memory = FreedMemory(reactor, self._count_sessions)
        mistakes = self._load(0, task, descriptors)
        if mistakes:
            raise ConfigurationError(*mistakes)
        reactor.addReader(LineReader(control, self._told, self.end))

    def _with_sessions(self) -> list[Gateway]:
        return [service for service in self.services if isinstance(service, Gateway)]

    def _count_sessions(self) -> int:
        return sum(gateway.sessions for gateway in self._with_sessions())

    def startService(self) -> None:
        """Serve."""
        super().startService()  # type: ignore[no-untyped-call]
        self._use(0)
        self._freed_memory.start()

    def _told(self, line: bytes) -> None:
        if not self._requests.receive(line):
            for gateway in self._gateways.values() if line == b"leave" else ():
                gateway.close_port()
            self.end()

    def _prepare(self, message: object) -> list[str]:
        """:returns: the mistakes."""
        assert isinstance(message, int)  # noqa: S101 - the daemon's
        self._forget(None)
        try:
            task_file, *descriptors = take_over(self._handover, message)
        except OSError as error:
            return [f"worker {self._worker + 1}: {error}"]
        return self._load(message, Task.read(task_file), descriptors)

    def _load(self, message: int, task: Task, descriptors: Sequence[int]) -> list[str]:
        """:returns: the mistakes."""
        self._prepared = prepared = _Prepared(message, task)
        mistakes = Mistakes()
        for place, shared in enumerate(task.gateways):
            pair = descriptors[2 * place], descriptors[2 * place + 1]
            if shared.number in self._gateways:
                close_all(pair)
            else:
                prepared.sockets[shared.number] = pair
            if self._revisions.get(shared.number) != shared.revision:
                before = self._gateways.get(shared.number)
                # What there is to warn of the daemon has warned of.
                for loaded in load_gateway(
                    *(self._reactor, shared.configuration, task.state_dir, mistakes),
                    quiet=True,
                    tunnel=before.loaded.ssh_tunnel if before is not None else None,
                    handed_keys=_private_keys(shared.keys),
                ):
                    prepared.loaded[shared.number] = shared.revision, loaded
        if mistakes.found:
            self._forget(None)
        return mistakes.found

    def _use(self, message: object) -> None:
        """Do what has been prepared."""
        prepared = self._prepared
        if prepared is None or prepared.message != message:
            raise RequestFailed("nothing has been prepared")
        self._prepared = None
        numbers = {shared.number for shared in prepared.task.gateways}
        for number in [each for each in self._gateways if each not in numbers]:
            self._retire(number)
        for number, (revision, loaded) in prepared.loaded.items():
            self._revisions[number] = revision
            if number in self._gateways:
                self._gateways[number].renew(loaded)
            else:
                self._add(number, loaded, prepared)
        for gateway in self._gateways.values():
            gateway.shutdown_timeout = prepared.task.shutdown_timeout
        configurations = [each.loaded.configuration for each in self._gateways.values()]
        allow_open_files((each.settings for each in configurations), quiet=True)

    def _add(self, number: int, loaded: LoadedGateway, prepared: _Prepared) -> None:
        listening, counted = prepared.sockets[number]
        counters = ConnectionCounters(counted, prepared.task.workers)
        places = SharedPlaces(counters, self._worker)
        gateway = Gateway(
            self._reactor,
            loaded,
            shutdown_timeout=prepared.task.shutdown_timeout,
            endpoint=shared_endpoint(self._reactor, listening, places.surplus),
            shared_places=places,
            checks_upstream=False,
            elsewhere=KeyHolders(lambda: [*self._with_sessions(), self._daemon]),
        )
        if self._activity is not None:
            self._activity.observe(gateway)
        self._gateways[number] = gateway
        self._counters[number] = counters, counted
        gateway.setServiceParent(self)  # type: ignore[no-untyped-call]

    def _retire(self, number: int) -> None:
        del self._revisions[number]
        gateway = self._gateways.pop(number)
        gateway.retire().addCallback(self._drained, number, gateway)

    def _drained(self, _: None, number: int, gateway: Gateway) -> None:
        counters, descriptor = self._counters.pop(number)
        counters.close()
        os.close(descriptor)
        gateway.disownServiceParent()  # type: ignore[no-untyped-call]

    def _forget(self, message: object) -> None:
        """What has been prepared is not used."""
        prepared, self._prepared = self._prepared, None
        if prepared is not None:
            prepared.close()

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


def _private_keys(keys: Mapping[str, bytes]) -> LoadedKeys:
    """Those that the daemon has handed over."""
    return {
        path: LoadedKey(crypto.load_privatekey(crypto.FILETYPE_PEM, pem))
        for path, pem in keys.items()
    }


def run(worker: int, handover: int, control: int, report: int) -> None:
    """Serve until the daemon says that it is enough, or is gone.

    :param worker: this worker's number, from 0.
    :param handover: the descriptor of the socket that tasks come from.
    :param control: the descriptor that the daemon's words come from.
    :param report: the descriptor that takes the answers.
    """
    from_daemon = socket.socket(fileno=handover)
    task_file, *descriptors = take_over(from_daemon, 0)
    task = Task.read(task_file)
    if os.getcwd() != task.directory:
        os.chdir(task.directory)
    reports = Reports(report)
    reactor = _install_reactor(task.reactor)
    dedicate(reactor)
    reactor.callWhenRunning(collect_garbage)
    use_monotonic_clock(reactor)
    try:
        service = Worker(reactor, worker, from_daemon, control, reports, task, descriptors)
    except ConfigurationError as error:
        reports.say("failed", error.mistakes)
        sys.exit(1)
    globalLogBeginner.beginLoggingTo([reports], discardBuffer=True, redirectStandardIO=False)
    service.startService()
    reports.say("ready")
    reactor.run(installSignalHandlers=False)  # type: ignore[call-arg] # every reactor takes it


def _install_reactor(module: str) -> IReactor:
    """Use the same kind of reactor as the daemon.

    :param module: where that is; it has a function ``install``, as every reactor's has.
    """
    import_module(module).install()
    from twisted.internet import reactor  # noqa: PLC0415 - importing it earlier installs another

    return cast(IReactor, reactor)
