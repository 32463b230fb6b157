"""The daemon: gateways as a Twisted service, checked whole before a port is opened."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
from twisted.application.service import MultiService
from twisted.internet.defer import Deferred, gatherResults, succeed
from twisted.internet.threads import deferToThread
from twisted.logger import Logger
from twisted.python.failure import Failure

from pgtls.conninfo.connection_string import ConnInfo
from pgtls.daemon.cannot_start import CannotStart
from pgtls.daemon.configuration import Configuration
from pgtls.daemon.embedded import EmbeddedPostgreSQL
from pgtls.daemon.file_reload import watch_files
from pgtls.daemon.gateway_loading import (
    daemons_certificate,
    load_first,
    load_gateway,
    upstream_endpoint,
    uses_default_certificate,
)
from pgtls.daemon.mistakes import Mistakes
from pgtls.daemon.port_check import why_not_opened
from pgtls.daemon.route_tables import with_routes_read_again
from pgtls.daemon.startup_notice import print_line, print_listening
from pgtls.daemon.state import DefaultCertificate
from pgtls.daemon.worker_pipe import SharedGateway, Task
from pgtls.daemon.workers import Workers
from pgtls.errors import ConfigurationError
from pgtls.gateway.gateway import Gateway
from pgtls.gateway.key_holders import KeyHolder, KeyHolders
from pgtls.transport.reactor import IReactor

if TYPE_CHECKING:
    from pgtls.daemon.daemon_status import DaemonStatus

_log = Logger(namespace="pgtls.gateway")


class Daemon(MultiService):
    """Runs the gateways of a configuration, each of them a service below this one.

    Everything is checked when it is made; ports are opened when it is started. It changes nothing
    in its process beyond that, and can be started again when it has been stopped.

    :param reactor: Twisted's reactor.
    :param configuration: what to run.
    :param stop_requested: tells whether it is to stop again, while it is being started.
    :param ready: is called each time that it has been started, once the reactor runs.
    :ivar predecessors: older processes whose sessions go on, and may be canceled through this one.
    :ivar key_holder: has the sessions of this daemon, its workers and its predecessors.
    :raises ConfigurationError: with every mistake.
    """

    def __init__(
        self,
        reactor: IReactor,
        configuration: Configuration,
        stop_requested: Callable[[], bool] = lambda: False,
        ready: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._reactor = reactor
        self._stop_requested = stop_requested
        self._ready = ready
        self._reload_mistake = ""
        self._settings = settings = configuration.daemon
        self._embedded = EmbeddedPostgreSQL(Path(settings.embedded)) if settings.embedded else None
        # Where the names of files count from, wherever twistd goes from here (--rundir).
        self._directory = os.getcwd()
        self._workers: Workers | None = None
        self._status = self._make_status() if settings.status else None
        self.predecessors: list[KeyHolder] = []
        self.key_holder = KeyHolders(self._key_holders)
        self._file_watch = watch_files(
            *(reactor, settings, self._directory, self._files_to_workers),
            lambda: self.gateways if self.running else [],
        )
        for loaded in load_first(reactor, configuration):
            gateway = Gateway(
                reactor,
                loaded,
                shutdown_timeout=settings.shutdown_timeout,
                expiry_warning=timedelta(days=settings.expiry_warning),
                elsewhere=self.key_holder,
            )
            if self._status is not None:
                self._status.observe(gateway)
            gateway.setServiceParent(self)  # type: ignore[no-untyped-call]
        self._certificate: DefaultCertificate | None = None
        if any(uses_default_certificate(each.settings) for each in configuration.gateways):
            # Now: twistd --uid may soon have no right to read it.
            self._certificate = daemons_certificate(settings.state_dir)

    def _make_status(self) -> DaemonStatus:
        # Not used, it costs nothing.
        from pgtls.daemon.daemon_status import DaemonStatus  # noqa: PLC0415

        return DaemonStatus(self._reactor, self._settings, lambda: self.gateways)

    @property
    def gateways(self) -> list[Gateway]:
        """The gateways, in the order of the configuration."""
        return [service for service in self.services if isinstance(service, Gateway)]

    @property
    def sessions(self) -> int:
        """How many connections of clients are open, in all processes."""
        if self._workers is not None:
            return self._workers.connections()
        return sum(gateway.sessions for gateway in self.gateways)

    @property
    def summary(self) -> str:
        """A line about what it does, and what was wrong at its last reload."""
        sessions = f"{_counted(self.sessions, 'session')} open"
        if not self.running:
            return f"draining: {sessions}"
        gateways = f"{_counted(len(self.gateways), 'gateway')}, {sessions}"
        mistake = self._reload_mistake or "; ".join(self._file_watch.mistakes[:1])
        return f"{gateways}; last reload failed: {mistake}" if mistake else gateways

    def check_workers(self, timeout: float) -> None:
        """Ask the workers whether they are alive; those that do not answer are replaced.

        :param timeout: seconds that they have.
        """
        if self._workers is not None:
            self._workers.check_alive(timeout)

    def startService(self) -> None:
        """Start the embedded PostgreSQL, open the ports, start the workers, say how to reach them.

        :raises CannotStart: PostgreSQL does not start, a port cannot be opened, or a worker cannot
            work. Nothing is left open then.
        """
        starting = Deferred.fromCoroutine(self._start())
        failed: list[Failure] = []
        if starting.called:  # as it is with every endpoint of Twisted's own
            starting.addErrback(failed.append)
        else:
            starting.addErrback(lambda failure: _log.failure("no gateway is started", failure))
        for failure in failed:
            failure.raiseException()

    async def _start(self) -> None:
        try:
            if self._embedded is not None:
                self._use_embedded(self._embedded.start(print_line))
            await self._open_ports()
            if self._settings.workers > 1:
                self._start_workers()
        except ConfigurationError as error:
            for gateway in self.gateways:
                gateway.close_port()
            if self._status is not None:
                self._status.stop()
            if self._embedded is not None:
                self._embedded.stop()
            raise CannotStart(error) from None
        super().startService()  # type: ignore[no-untyped-call]
        self._file_watch.start()
        # Not before signals are handled: a script that reads this may stop the daemon at once.
        self._reactor.callWhenRunning(self._started)

    def _use_embedded(self, conninfo: str) -> None:
        """Give the gateways without an upstream the embedded PostgreSQL.

        :param conninfo: its connection string.
        """
        upstream = ConnInfo.parse(conninfo, {})
        for gateway in self.gateways:
            loaded = gateway.loaded
            if not loaded.configuration.settings.upstream:
                gateway.renew(
                    attrs.evolve(
                        loaded,
                        configuration=attrs.evolve(loaded.configuration, upstream=upstream),
                        upstream=upstream_endpoint(self._reactor, upstream),
                    )
                )

    async def _open_ports(self) -> None:
        """:raises ConfigurationError: with every port that cannot be opened."""
        mistakes = Mistakes()
        opening = [_open_port(gateway, mistakes) for gateway in self.gateways]
        if self._status is not None:
            opening.append(self._status.open_port(mistakes))
        await gatherResults(opening)
        mistakes.check()

    def _started(self) -> None:
        if not self.running or self._stop_requested():
            return
        self._ready()
        for gateway in self.gateways:
            settings = gateway.loaded.configuration.settings
            certificate = self._certificate if uses_default_certificate(settings) else None
            embedded = self._embedded is not None and not settings.upstream
            print_listening(gateway.address, settings, certificate, embedded=embedded)
        if self.running and self._status is not None:
            print_line(f"pgtls: status at {self._status.start()}")

    def _start_workers(self) -> None:
        """Have other processes accept what comes to the ports.

        :raises ConfigurationError: a worker cannot work.
        """
        # Nothing has been accepted here: the reactor has had no turn.
        shared = tuple(
            SharedGateway(gateway.loaded.configuration, gateway.leave_port_to_workers())
            for gateway in self.gateways
        )
        self._workers = Workers(
            self._reactor,
            Task(
                workers=self._settings.workers,
                gateways=shared,
                directory=self._directory,
                state_dir=self._settings.state_dir,
                shutdown_timeout=self._settings.shutdown_timeout,
                metrics_directory=self._status.directory if self._status is not None else "",
            ),
            self._stop_requested,
            KeyHolders(lambda: self.predecessors),
        )
        if self._status is not None:
            self._status.workers_process = self._workers
        self._workers.start()

    def _key_holders(self) -> list[KeyHolder]:
        workers = self._workers.key_holders() if self._workers is not None else []
        return [*self.gateways, *workers, *self.predecessors]

    def reload(self) -> Deferred[None]:
        """Read again what the settings name: certificates, keys, CRLs, ident maps. All of it is
        used for connections from now on, or none of it if there is a mistake anywhere.

        :returns: fires when it is done; never fails.
        """
        return Deferred.fromCoroutine(self._reload())

    async def _reload(self) -> None:
        if not self.running:
            return
        found = Mistakes()
        try:
            with contextlib.chdir(self._directory):
                renewed = [
                    (gateway, loaded)
                    for gateway in self.gateways
                    for loaded in load_gateway(
                        self._reactor,
                        with_routes_read_again(gateway.loaded.configuration, found),
                        self._settings.state_dir,
                        found,
                        before=gateway.loaded,
                    )
                ]
        except OSError as error:
            found.add(str(error))
        if found.found:
            self._not_reloaded(found.found)
            return
        for gateway, loaded in renewed:
            gateway.renew(loaded)
        mistakes = []
        if self._workers is not None:
            self._workers.replace_configurations([loaded.configuration for _, loaded in renewed])
            mistakes = await self._workers.reload()
        if mistakes:  # a file has changed since we read it, or a worker does not answer
            self._not_reloaded(mistakes)
        else:
            self._reload_mistake = ""
            if self._status is not None:
                self._status.reloaded(())
            _log.info("reloaded: new connections get what is in the files now")

    def _not_reloaded(self, mistakes: Sequence[object]) -> None:
        self._reload_mistake = str(mistakes[0])
        if self._status is not None:
            self._status.reloaded(mistakes)
        for mistake in mistakes:
            _log.error("not reloaded: {mistake}", mistake=mistake)

    def _files_to_workers(self) -> Deferred[list[str]]:
        configurations = [gateway.loaded.configuration for gateway in self.gateways]
        return self._workers.read_files(configurations) if self._workers else succeed([])

    def stopService(self) -> Deferred[None]:
        """Begin no more sessions, let those that are open finish for ``shutdown_timeout``, then
        close them. The ports stay open until then, for their cancel requests.

        :returns: fires when nothing is left open.
        """
        self.running = 0
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        if self._status is not None:
            self._status.draining = True
        self._file_watch.stop()
        timeout = self._settings.shutdown_timeout
        workers, ended = self._workers, None
        count = self.sessions
        if workers is not None:
            ended = workers.stop(timeout)
        if count:
            _log.info("{count} sessions have {timeout:g} s to finish", count=count, timeout=timeout)
        if ended is not None:
            await ended
            self._workers = None
        await super().stopService()  # type: ignore[no-untyped-call]
        if self._embedded is not None:
            await deferToThread(self._embedded.stop)
        if self._status is not None:
            await self._status.stop()

    def end_sessions(self) -> None:
        """Close all that :meth:`stopService` waits for, at once."""
        if self._workers is not None:
            self._workers.kill()
        for gateway in self.gateways:
            gateway.abort_sessions()


def _open_port(gateway: Gateway, mistakes: Mistakes) -> Deferred[None]:
    def not_opened(failure: Failure) -> None:
        listen = gateway.loaded.configuration.settings.listen
        mistakes.add(f"{listen}: {why_not_opened(failure.value)}")

    return gateway.open_port().addErrback(not_opened)


def _counted(number: int, things: str) -> str:
    return f"{number} {things}" if number == 1 else f"{number} {things}s"
