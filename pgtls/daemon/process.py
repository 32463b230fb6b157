"""The daemon's own process: signals, limits, log formatting, the reactor's waiting.

None of this happens to a process that only imports pgtls or runs its endpoints.
"""

from __future__ import annotations

import resource
import signal
from collections.abc import Generator
from contextlib import ExitStack
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.logger import Logger

from pgtls.daemon.configuration import Configuration
from pgtls.daemon.daemon_service import Daemon
from pgtls.daemon.reactor_waiting import dedicate
from pgtls.daemon.text_log import quicken_text_logs
from pgtls.protocols.places import descriptors

_log = Logger(namespace="pgtls.gateway")

#: File descriptors that the daemon needs besides those for clients.
_SPARE_FILES = 64


class DaemonProcess(Service):
    """Runs a daemon, in a process of its own.

    :param reactor: Twisted's reactor.
    :param configuration: what to run.
    :raises ConfigurationError: with every mistake.
    """

    def __init__(self, reactor: Any, configuration: Configuration) -> None:
        self._reactor = reactor
        self._configuration = configuration
        self._daemon = Daemon(reactor, configuration)
        self._undo = ExitStack()

    def startService(self) -> None:
        """Make the process ready, and start the daemon.

        :raises CannotStart: the daemon cannot be started.
        """
        super().startService()  # type: ignore[no-untyped-call]
        with ExitStack() as undo:
            undo.callback(quicken_text_logs())
            if self._configuration.daemon.workers == 1:
                dedicate(self._reactor)
            gateways = self._configuration.gateways
            _allow_open_files(
                sum(descriptors(g.settings.listener.max_connections) for g in gateways)
            )
            undo.callback(
                signal.signal, signal.SIGHUP, signal.signal(signal.SIGHUP, self._reload_asked)
            )
            self._daemon.startService()
            self._undo = undo.pop_all()

    @inlineCallbacks
    def stopService(self) -> Generator[Deferred[Any], Any, None]:
        """Stop the daemon, and leave the process as it was.

        :returns: fires when it is done.
        """
        super().stopService()  # type: ignore[no-untyped-call]
        try:
            yield self._daemon.stopService()
        finally:
            self._undo.close()

    def _reload_asked(self, *_: object) -> None:
        # A signal comes between any two steps of the program; the reload waits for its turn.
        self._reactor.callFromThread(self._daemon.reload)


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
