"""The daemon: gateways as a Twisted service, checked whole before a port is opened."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
from collections.abc import Generator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import attrs
from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredList, inlineCallbacks, maybeDeferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort
from twisted.internet.threads import deferToThread
from twisted.logger import Logger
from twisted.python.failure import Failure

from pgtls.conninfo.connection_string import ConnInfo
from pgtls.daemon.announce import announce, say
from pgtls.daemon.census import census_file
from pgtls.daemon.configuration import Configuration
from pgtls.daemon.embedded import EmbeddedPostgreSQL
from pgtls.daemon.prepared import Plan, Prepared, begin, every, prepare, upstream_endpoint
from pgtls.daemon.text_log import quicken_text_logs
from pgtls.daemon.worker_pipe import Task
from pgtls.daemon.workers import Workers
from pgtls.errors import ConfigurationError
from pgtls.gateway.gateway import Gateway
from pgtls.protocols.places import descriptors
from pgtls.transport.poller import dedicate

_log = Logger(namespace="pgtls.gateway")

#: File descriptors that the daemon needs besides those for clients.
_SPARE_FILES = 64


class CannotStart(SystemExit, Exception):
    """The end of a daemon that cannot begin: a line for each mistake, without a traceback.

    An Exception as well, since twistd removes its pidfile for nothing else, nor lets the parent of
    a daemon know.
    """

    def __init__(self, error: ConfigurationError) -> None:
        super().__init__("\n".join(f"pgtls: {mistake}" for mistake in error.mistakes))


class GatewayService(Service):
    """Runs the gateways of a configuration.

    Everything is checked when it is made; ports are opened when it is started.

    :raises ConfigurationError: with every mistake.
    """

    def __init__(self, reactor: Any, configuration: Configuration) -> None:
        self._reactor = reactor
        self._daemon = configuration.daemon
        self._embedded = (
            EmbeddedPostgreSQL(Path(self._daemon.embedded)) if self._daemon.embedded else None
        )
        # Where the names of files count from, wherever twistd goes from here (--rundir).
        self._directory = os.getcwd()
        self._gateways: list[Gateway] = []
        self._ports: list[IListeningPort] = []
        self._checks: list[Deferred[None]] = []
        self._workers: Workers | None = None
        plans = [
            Plan(settings, place, self._daemon.state_dir)
            for place, settings in zip(configuration.places, configuration.gateways, strict=True)
        ]
        self._prepared: list[Prepared] = every(
            *(partial(begin, reactor, plan, self._daemon) for plan in plans)
        )

    def startService(self) -> None:
        """Start the embedded PostgreSQL, open the ports, say how to reach them.

        :raises CannotStart: PostgreSQL does not start, or a port cannot be opened.
        """
        super().startService()  # type: ignore[no-untyped-call]
        quicken_text_logs()
        if self._daemon.workers == 1:
            dedicate(self._reactor)
        _allow_open_files(
            sum(descriptors(p.plan.settings.listener.max_connections) for p in self._prepared)
        )
        signal.signal(signal.SIGHUP, self._hangup)
        try:
            if self._embedded is not None:
                self._lead_to(self._embedded.start(say))
            self._open_ports()
        except ConfigurationError as error:
            raise CannotStart(error) from None

    def _lead_to(self, embedded: str) -> None:
        """Give the gateways without an upstream the embedded PostgreSQL.

        :param embedded: its connection string.
        """
        conninfo = ConnInfo.parse(embedded, {})
        for index, prepared in enumerate(self._prepared):
            if prepared.upstream is None:
                self._prepared[index] = attrs.evolve(
                    prepared,
                    plan=attrs.evolve(prepared.plan, upstream=conninfo),
                    upstream=upstream_endpoint(self._reactor, conninfo),
                )

    def _open_ports(self) -> None:
        """:raises ConfigurationError: with every port that cannot be opened."""
        opening = []
        for prepared in self._prepared:
            gateway = Gateway(self._reactor, prepared)
            self._gateways.append(gateway)
            endpoint = serverFromString(self._reactor, prepared.plan.settings.listen)
            opening.append(maybeDeferred(endpoint.listen, gateway.factory))
        listening = DeferredList(opening, consumeErrors=True).addCallback(self._listening)
        failed: list[Failure] = []
        if listening.called:  # as it is with every endpoint of Twisted's own
            listening.addErrback(failed.append)
        for failure in failed:
            failure.raiseException()

    def _listening(self, results: list[tuple[bool, Any]]) -> None:
        """Announce every gateway, or none."""
        self._ports = [port for opened, port in results if opened]
        mistakes = [
            f"{prepared.plan.settings.listen}: {_why_not_opened(failure.value)}"
            for prepared, (opened, failure) in zip(self._prepared, results, strict=True)
            if not opened
        ]
        if mistakes:
            raise ConfigurationError(*mistakes)
        if self._daemon.workers > 1:
            self._start_workers()
        for prepared, gateway, port in zip(
            self._prepared, self._gateways, self._ports, strict=True
        ):
            # Not before signals are handled: who reads that it listens may stop it at once.
            self._reactor.callWhenRunning(
                announce, port.getHost(), prepared.plan.settings, prepared.certificate, self._daemon
            )
            shown = prepared.tls.certificates if prepared.tls else ()
            self._checks.append(gateway.check_upstream(shown))

    def _start_workers(self) -> None:
        """Have others accept what comes to the ports.

        :raises ConfigurationError: a worker cannot work.
        """
        ports: list[Any] = self._ports
        for port in ports:
            port.stopReading()  # nothing has been accepted: the reactor has had no turn
        count = self._daemon.workers
        self._census = census_file(len(ports), count)
        task = Task(
            worker=0,
            workers=count,
            plans=tuple(prepared.plan for prepared in self._prepared),
            sockets=tuple(port.fileno() for port in ports),
            census=self._census.fileno(),
            directory=self._directory,
            shutdown_timeout=self._daemon.shutdown_timeout,
        )
        self._workers = Workers(self._reactor, task)
        self._workers.start()

    def _hangup(self, *_: object) -> None:
        # A signal comes between any two steps of the program; the reload waits for its turn.
        self._reactor.callFromThread(self.reload)

    @inlineCallbacks
    def reload(self) -> Generator[Deferred[Any], Any, None]:
        """Read again what the settings name: certificates, keys, CRLs, ident maps. All of it is
        used for connections from now on, or none of it if there is a mistake anywhere."""
        if not self.running:
            return
        plans = [prepared.plan for prepared in self._prepared]
        try:
            with contextlib.chdir(self._directory):
                self._prepared = every(
                    *(partial(prepare, self._reactor, plan, quiet=False) for plan in plans)
                )
        except (ConfigurationError, OSError) as error:
            _not_reloaded(getattr(error, "mistakes", [error]))
            return
        for gateway, prepared in zip(self._gateways, self._prepared, strict=True):
            gateway.renew(prepared)
        mistakes = (yield self._workers.reload()) if self._workers is not None else []
        if mistakes:  # a file has changed since we read it
            _not_reloaded(mistakes)
        else:
            _log.info("reloaded: new connections get what is in the files now")

    @inlineCallbacks
    def stopService(self) -> Generator[Deferred[Any], Any, None]:
        """Stop listening, let sessions finish for ``shutdown_timeout``, then close them."""
        super().stopService()  # type: ignore[no-untyped-call]
        for check in self._checks:
            check.cancel()
        yield DeferredList([maybeDeferred(port.stopListening) for port in self._ports])
        count = sum(len(gateway.factory.connections) for gateway in self._gateways)
        if self._workers is not None:
            count = yield self._workers.stop()
        timeout = self._daemon.shutdown_timeout
        if count:
            _log.info("{count} sessions have {timeout:g} s to finish", count=count, timeout=timeout)
        yield DeferredList([gateway.factory.drain(timeout) for gateway in self._gateways])
        if self._workers is not None:
            yield self._workers.ended(timeout)
        if self._embedded is not None:
            yield deferToThread(self._embedded.stop)


def _not_reloaded(mistakes: Sequence[object]) -> None:
    for mistake in mistakes:
        _log.error("not reloaded: {mistake}", mistake=mistake)


def _why_not_opened(error: Exception) -> str:
    reason = error.socketError if isinstance(error, CannotListenError) else error
    if isinstance(reason, OSError) and reason.strerror:
        return reason.strerror
    return str(reason)


def _allow_open_files(files: int) -> None:
    """Raise the limit of open files as far as the hard limit allows.

    :param files: how many the clients may need; the daemon needs a few more.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = files + _SPARE_FILES
    unlimited = hard == resource.RLIM_INFINITY
    if soft < needed:
        granted = needed if unlimited else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (granted, hard))
        if granted < needed:
            _log.warn(
                "max_connections needs {needed} open files, the limit is {granted}: raise it "
                "(ulimit -n, LimitNOFILE=)",
                needed=needed,
                granted=granted,
            )
