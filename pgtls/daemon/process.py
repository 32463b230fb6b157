"""The daemon's own process: signals, limits, log formatting, the reactor's waiting.

None of this happens to a process that only imports pgtls or runs its endpoints.
"""

from __future__ import annotations

import os
import signal
from contextlib import ExitStack
from types import FrameType

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorFromThreads
from twisted.logger import Logger
from twisted.python.failure import Failure

from pgtls.daemon import predecessor
from pgtls.daemon.cancel_requests import cancel_answerers
from pgtls.daemon.cannot_start import CannotStart
from pgtls.daemon.configuration import Configuration
from pgtls.daemon.daemon_service import Daemon
from pgtls.daemon.freed_memory import FreedMemory
from pgtls.daemon.garbage_collector import collect_garbage
from pgtls.daemon.log_files import append_to_log_files, reopen_log_files, rotate_log_files
from pgtls.daemon.monotonic_clock import use_monotonic_clock
from pgtls.daemon.open_files import allow_open_files
from pgtls.daemon.pid_file import PidFile
from pgtls.daemon.reactor_waiting import dedicate
from pgtls.daemon.signals import OTHER_SIGNALS, STOP_SIGNALS, Handler, signals
from pgtls.daemon.successor import Program
from pgtls.daemon.systemd_notify import SystemdNotify
from pgtls.daemon.systemd_service import SystemdService
from pgtls.daemon.takeover import Takeover
from pgtls.daemon.text_log import speed_up_text_logs
from pgtls.daemon.upgrade import Upgrade
from pgtls.daemon.workers import END_TIMEOUT, START_TIMEOUT
from pgtls.transport.reactor import IReactor
from pgtls.transport.socket_table import sockets

_log = Logger(namespace="pgtls.gateway")

#: Seconds that the embedded PostgreSQL may take to stop.
_EMBEDDED_STOP_TIMEOUT = 120.0


class IDaemonReactor(IReactor, IReactorFromThreads):
    """A reactor that does what Twisted's do about signals."""

    def sigInt(number: int, frame: FrameType | None) -> None:
        """Stop, and have the process end by SIGINT."""

    def sigTerm(number: int, frame: FrameType | None) -> None:
        """Stop, and have the process end by SIGTERM."""


class DaemonProcess(Service):
    """Runs a daemon, in a process of its own.

    :param reactor: Twisted's reactor.
    :param configuration: what to run.
    :param pid_file: twistd's.
    :param chroot: where twistd is to change its root to; empty for nowhere.
    :raises ConfigurationError: with every mistake.
    """

    def __init__(
        self,
        reactor: IDaemonReactor,
        configuration: Configuration,
        pid_file: PidFile | None = None,
        *,
        chroot: str = "",
    ) -> None:
        self._reactor = reactor
        self._pid_file = pid_file = pid_file or PidFile()
        self._chroot = chroot
        self._configuration = configuration
        self._daemon = Daemon(reactor, configuration, self._stop_requested, self._ready)
        notify = SystemdNotify.taken_from(os.environ)
        self._systemd = SystemdService(reactor, notify, self._daemon)
        program = Program.of_this_process(notify.environment())
        self._takeover = Takeover(
            *(reactor, predecessor.predecessor, sockets, pid_file),
            *(self._daemon.predecessors, self._systemd.ready),
        )
        self._upgrade = Upgrade(
            *(reactor, program, sockets, pid_file, self._takeover.older),
            *(cancel_answerers(self._daemon.key_holder), self._leave),
        )
        self._undo = ExitStack()
        self._stop_signalled = False

    def privilegedStartService(self) -> None:
        """Do what the process may soon have no right to: open ports, for one thing.

        :raises CannotStart: the daemon cannot be started.
        """
        super().privilegedStartService()  # type: ignore[no-untyped-call]
        self._pid_file.open()
        try:
            self._daemon.privilegedStartService()
        except CannotStart:
            if not self._reactor.running:
                self._reactor.iterate(0)  # ports that were open close in the reactor's turn
            raise

    def startService(self) -> None:
        """Make the process ready, and start the daemon.

        :raises CannotStart: the daemon cannot be started.
        """
        super().startService()  # type: ignore[no-untyped-call]
        self._stop_signalled = False
        settings, gateways = self._configuration.daemon, self._configuration.gateways
        with ExitStack() as undo:
            undo.callback(self._restore_signals)
            # What is started from now on has to be stopped in good order.
            signals.keep(*OTHER_SIGNALS, *STOP_SIGNALS)
            undo.callback(speed_up_text_logs())
            append_to_log_files()
            undo.callback(use_monotonic_clock(self._reactor))
            if settings.workers == 1:
                dedicate(self._reactor)
                freed_memory = FreedMemory(self._reactor, lambda: self._daemon.sessions)
                freed_memory.start()
                undo.callback(freed_memory.stop)
            allow_open_files(gateway.settings for gateway in gateways)
            self._reactor.callWhenRunning(collect_garbage)
            self._reactor.callWhenRunning(self._handle_signals)
            self._takeover.begin()
            undo.callback(self._systemd.stop)
            if settings.workers > 1 or settings.embedded:
                self._systemd.starting(START_TIMEOUT + END_TIMEOUT)
            try:
                self._daemon.startService()
            except CannotStart as error:
                self._takeover.failed(error.mistakes)
                if not self._reactor.running:
                    self._reactor.iterate(0)  # ports that were open close in the reactor's turn
                raise
            self._undo = undo.pop_all()

    def stopService(self) -> Deferred[None]:
        """Stop the daemon, and leave the process as it was.

        :returns: fires when it is done.
        """
        super().stopService()  # type: ignore[no-untyped-call]
        self._upgrade.cancel()
        stopped = self._daemon.stopService()
        if self._upgrade.done:
            return stopped.addBoth(self._stopped)
        settings = self._configuration.daemon
        last = _EMBEDDED_STOP_TIMEOUT if settings.embedded else END_TIMEOUT
        self._systemd.stopping(self._daemon.shutdown_timeout + END_TIMEOUT + last)
        return stopped.addBoth(self._stopped)

    def _stopped(self, result: Failure | None) -> Failure | None:
        self._undo.close()
        return result

    def _ready(self) -> None:
        self._takeover.ready()

    def _stop_requested(self) -> bool:
        return self._stop_signalled or signals.stop_requested()

    def _handle_signals(self) -> None:
        if self.running:
            handlers: dict[int, Handler] = dict.fromkeys(STOP_SIGNALS, self._stop)
            handlers[signal.SIGHUP] = self._reload
            handlers[signal.SIGUSR1] = self._rotate
            handlers[signal.SIGUSR2] = self._start_upgrade
            signals.handle(handlers)

    def _restore_signals(self) -> None:
        if not self._stop_signalled:  # otherwise the process ends, whatever comes now
            signals.restore()

    def _reloaded(self, succeeded: bool) -> bool:
        gateways = self._daemon.gateways
        allow_open_files(gateway.loaded.configuration.settings for gateway in gateways)
        return succeeded

    # A signal comes between any two steps of the program; what it asks for waits for its turn.

    def _reload(self, number: int, frame: FrameType | None) -> None:
        self._reactor.callFromThread(reopen_log_files)
        self._reactor.callFromThread(self._reload_daemon)

    def _reload_daemon(self) -> None:
        if self.running:
            reloading = self._daemon.reload()
            reloading.addCallback(self._reloaded)
            self._systemd.reload(reloading)

    def _rotate(self, number: int, frame: FrameType | None) -> None:
        self._reactor.callFromThread(rotate_log_files)

    def _start_upgrade(self, number: int, frame: FrameType | None) -> None:
        self._reactor.callFromThread(self._upgrade_daemon)

    def _upgrade_daemon(self) -> None:
        obstacle = ""
        if not self.running and not self._upgrade.done:
            obstacle = "this process is being stopped"
        elif self._configuration.daemon.embedded:
            obstacle = "the embedded PostgreSQL ends with this process: restart it instead"
        elif self._chroot:
            obstacle = "with twistd --chroot the program cannot be started anew"
        self._upgrade.start(obstacle)

    def _leave(self, process: int) -> None:
        """Another process serves: finish what is open."""
        self._takeover.leave()
        self._systemd.leave(process)
        _log.info("process {process} serves from now on, in place of this one", process=process)
        self._daemon.leave_listeners()
        self._reactor.stop()

    def _stop(self, number: int, frame: FrameType | None) -> None:
        """The first time in good order; the second time at once."""
        if self._stop_signalled or not (self.running or self._upgrade.done):
            self._reactor.callFromThread(self._daemon.end_sessions)
        elif not self._upgrade.done:  # which stops it in good order already
            stop = self._reactor.sigInt if number == signal.SIGINT else self._reactor.sigTerm
            stop(number, frame)
        self._stop_signalled = True
