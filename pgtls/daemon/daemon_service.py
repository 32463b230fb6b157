"""The daemon: gateways as a Twisted service, checked whole before a port is opened."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Coroutine, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
from twisted.application.service import MultiService
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from twisted.logger import Logger
from twisted.python.failure import Failure

from pgtls.conninfo.connection_string import ConnInfo
from pgtls.daemon.cannot_start import CannotStart
from pgtls.daemon.configuration import Configuration, DaemonSettings
from pgtls.daemon.embedded import EmbeddedPostgreSQL
from pgtls.daemon.file_reload import watch_files
from pgtls.daemon.gateway_loading import load_all
from pgtls.daemon.mistakes import Mistakes
from pgtls.daemon.own_certificate import daemons_certificate, uses_default_certificate
from pgtls.daemon.reloading import InTurn, plan_reload
from pgtls.daemon.served_gateways import ServedGateways
from pgtls.daemon.startup_notice import print_line, print_listening
from pgtls.daemon.upstream_loading import upstream_endpoint
from pgtls.errors import ConfigurationError
from pgtls.gateway.gateway import Gateway
from pgtls.gateway.key_holders import KeyHolder, KeyHolders
from pgtls.transport.listening_sockets import is_unix_socket
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
        self._left = False
        self._reload_mistake = ""
        self._configuration = configuration
        settings = configuration.daemon
        self._embedded = EmbeddedPostgreSQL(Path(settings.embedded)) if settings.embedded else None
        self._embedded_conninfo: ConnInfo | None = None
        # Where the names of files count from, wherever twistd goes from here (--rundir).
        self._directory = os.getcwd()
        self._status = self._make_status(settings) if settings.status else None
        self.predecessors: list[KeyHolder] = []
        self.key_holder = KeyHolders(self._key_holders)
        self._served = ServedGateways(reactor, settings, self._directory, self._observe)
        self._served.elsewhere = self.key_holder
        self._served.setServiceParent(self)  # type: ignore[no-untyped-call]
        self._served.add_first(load_all(reactor, configuration))
        self._file_watch = watch_files(*(reactor, self._directory, self._served, self._files_read))
        self._reloads = InTurn(self._reload)

    def _make_status(self, settings: DaemonSettings) -> DaemonStatus:
        # Not used, it costs nothing.
        from pgtls.daemon.daemon_status import DaemonStatus  # noqa: PLC0415

        return DaemonStatus(self._reactor, settings, lambda: self.gateways)

    def _observe(self, gateway: Gateway) -> None:
        if self._status is not None:
            self._status.observe(gateway)

    @property
    def _settings(self) -> DaemonSettings:
        return self._served.settings

    @property
    def gateways(self) -> list[Gateway]:
        """The gateways, in the order of the configuration. Those that a reload has taken away are
        not among them, whether they have sessions or not."""
        return self._served.served

    @property
    def sessions(self) -> int:
        """How many connections of clients are open, in all processes."""
        return self._served.sessions

    @property
    def shutdown_timeout(self) -> float:
        """Seconds that sessions have to finish when it is stopped."""
        return self._settings.shutdown_timeout

    @property
    def mistake(self) -> str:
        """What was wrong when files were read last; empty where nothing was."""
        return self._reload_mistake or "; ".join(self._file_watch.mistakes[:1])

    def check_workers(self, timeout: float) -> None:
        """Ask the workers whether they are alive; those that do not answer are replaced.

        :param timeout: seconds that they have.
        """
        if self._served.workers is not None:
            self._served.workers.check_alive(timeout)

    def privilegedStartService(self) -> None:
        """Open the TCP ports: some may need rights that the process is about to give up.

        :raises CannotStart: one cannot be opened. Nothing is left open then.
        """
        super().privilegedStartService()  # type: ignore[no-untyped-call]
        if self._embedded is None:
            self._now(self._start_privileged())

    async def _start_privileged(self) -> None:
        try:
            await self._served.open_ports(
                gateway
                for gateway in self.gateways
                if not is_unix_socket(gateway.loaded.configuration.settings.listen)
            )
        except ConfigurationError as error:
            self._served.close_ports()
            raise CannotStart(error) from None

    def startService(self) -> None:
        """Start the embedded PostgreSQL, open the ports, start the workers, say how to reach them.

        :raises CannotStart: PostgreSQL does not start, a port cannot be opened, or a worker cannot
            work. Nothing is left open then.
        """
        self._now(self._start())

    def _now(self, coroutine: Coroutine[Deferred[object], object, None]) -> None:
        starting = Deferred.fromCoroutine(coroutine)
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
            self._served.close_ports()
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
        self._embedded_conninfo = upstream = ConnInfo.parse(conninfo, {})
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
        with mistakes.at(""):
            await self._served.open_ports(self.gateways)
        if self._status is not None:
            await self._status.open_port(mistakes)
        mistakes.check()

    def _started(self) -> None:
        if not self.running or self._stop_requested():
            return
        self._ready()
        self._print_listening(self.gateways)
        if self.running and self._status is not None:
            print_line(f"pgtls: status at {self._status.start()}")

    def _print_listening(self, gateways: Iterable[Gateway]) -> None:
        for gateway in gateways:
            settings = gateway.loaded.configuration.settings
            certificate = None
            if uses_default_certificate(settings):
                with contextlib.suppress(ConfigurationError), contextlib.chdir(self._directory):
                    certificate = daemons_certificate(self._settings.state_dir)
            embedded = self._embedded is not None and not settings.upstream
            print_listening(gateway.address, settings, certificate, embedded=embedded)

    def _start_workers(self) -> None:
        """:raises ConfigurationError: a worker cannot work."""
        directory = self._status.directory if self._status is not None else ""
        others = KeyHolders(lambda: self.predecessors)
        self._served.start_workers(self._stop_requested, directory, others)
        if self._status is not None:
            self._status.workers_process = self._served.workers

    def _key_holders(self) -> list[KeyHolder]:
        workers = self._served.workers
        holders = workers.key_holders() if workers is not None else []
        return [*self._served.with_sessions, *holders, *self.predecessors]

    def reload(self) -> Deferred[bool]:
        """Read again the configuration file, and what it names: certificates, keys, CRLs, ident
        maps. Gateways are added, changed and removed. All of it is used for connections from now
        on, or none of it if there is a mistake anywhere.

        :returns: fires when it is done, with whether it is in use; never fails.
        """
        return self._reloads.run()

    async def _reload(self) -> bool:
        if not self.running:
            return False
        before = self.gateways
        try:
            with contextlib.chdir(self._directory):
                plan = plan_reload(
                    self._reactor,
                    self._configuration,
                    self._settings,
                    before,
                    embedded=self._embedded_conninfo,
                )
            served = plan.served(self._served.make)
            hung = await self._served.replace(plan.settings, served, plan.kept)
        except ConfigurationError as error:
            self._not_reloaded(error.mistakes)
            return False
        except OSError as error:
            self._not_reloaded([error])
            return False
        self._file_watch.interval = plan.settings.reload_interval
        if plan.needs_restart:
            _log.warn(
                "not changed by a reload, since that needs a restart: {settings}",
                settings=", ".join(plan.needs_restart),
            )
        if self.running:
            self._print_listening(gateway for gateway in served if gateway not in before)
        if hung:
            self._not_reloaded(hung)
            return False
        self._reload_mistake = ""
        if self._status is not None:
            self._status.reloaded(())
        _log.info("reloaded: new connections get what is in the files now")
        return True

    def _files_read(self, mistakes: Sequence[str]) -> None:
        if self._status is not None:
            self._status.reloaded(mistakes or self._file_watch.mistakes)

    def _not_reloaded(self, mistakes: Sequence[object]) -> None:
        self._reload_mistake = str(mistakes[0])
        if self._status is not None:
            self._status.reloaded(mistakes)
        for mistake in mistakes:
            _log.error("not reloaded: {mistake}", mistake=mistake)

    def leave_listeners(self) -> None:
        """Another process serves the listeners from now on. What is open goes on, until
        :meth:`stopService` ends it."""
        self._left = True
        self._served.close_ports()
        if self._status is not None:
            self._status.leave()

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
        count = self.sessions
        ended = self._served.stop_workers(timeout, leave=self._left)
        if count:
            _log.info("{count} sessions have {timeout:g} s to finish", count=count, timeout=timeout)
        if ended is not None:
            await ended
        await super().stopService()  # type: ignore[no-untyped-call]
        if self._embedded is not None:
            await deferToThread(self._embedded.stop)
        if self._status is not None:
            await self._status.stop()

    def end_sessions(self) -> None:
        """Close all that :meth:`stopService` waits for, at once."""
        self._served.end_sessions()
