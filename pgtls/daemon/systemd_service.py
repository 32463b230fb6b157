"""The daemon as a service of systemd's: says what it does, and that it is alive.

The watchdog is the reactor's: a daemon that hangs is silent, and systemd ends it. A worker that
hangs is seen by the daemon in the same time, and replaced; the other workers' sessions go on.
"""

from __future__ import annotations

from collections.abc import Sized
from typing import Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall

from pgtls.daemon.systemd_notify import SystemdNotify

#: Seconds between looks at whether the status line is still right.
_LOOK = 2.0


class ReportedDaemon(Protocol):
    """What systemd is told of."""

    running: int

    @property
    def mistake(self) -> str:
        """What was wrong when files were read last."""

    @property
    def gateways(self) -> Sized:
        """What it runs."""

    @property
    def sessions(self) -> int:
        """How many connections of clients are open."""

    def check_workers(self, timeout: float) -> None:
        """Replace those that do not answer.

        :param timeout: seconds that they have.
        """


class SystemdService:
    """Does nothing where there is no service manager.

    :param reactor: Twisted's reactor.
    :param notify: takes the messages.
    :param daemon: what they are about.
    """

    def __init__(
        self, reactor: IReactorTime, notify: SystemdNotify, daemon: ReportedDaemon
    ) -> None:
        self._reactor = reactor
        self._notify = notify
        self._daemon = daemon
        self._serving = False
        self._reloads = 0
        self._last_status = ""
        self._loops: list[LoopingCall] = []

    def starting(self, seconds: float) -> None:
        """The start takes longer than others.

        :param seconds: at most so long.
        """
        self._notify.extend_timeout(seconds)

    def ready(self) -> None:
        """The ports are open and the workers ready; the watchdog's time begins."""
        if not self._notify.used:
            return
        self._serving = True
        self._notify.ready(self._status())
        self._loop(self._look, _LOOK)
        if interval := self._notify.watchdog_interval:
            self._loop(self._alive, interval)

    def reload(self, done: Deferred[bool]) -> None:
        """The daemon reads its files again. However that ends, it is ready then.

        :param done: fires at the end.
        """
        self._reloads += 1
        self._notify.reloading()
        done.addBoth(self._reloaded)

    def _reloaded(self, result: object) -> object:
        self._reloads -= 1
        if self._serving and not self._reloads:
            self._notify.ready(self._status())
        return result

    def stopping(self, seconds: float) -> None:
        """The daemon begins no more sessions.

        :param seconds: it takes at most so long to end.
        """
        self._serving = False
        self._notify.stopping(self._status())
        self._notify.extend_timeout(seconds)

    def leave(self, process: int) -> None:
        """Another process is the service's main one from now on: this one says nothing more.

        :param process: its process id.
        """
        self.stop()
        self._serving = False
        self._notify.new_main_process(process)

    def stop(self) -> None:
        """Say nothing more."""
        loops, self._loops = self._loops, []
        for loop in loops:
            loop.stop()

    def _loop(self, call: object, interval: float) -> None:
        loop = LoopingCall(call)  # type: ignore[arg-type]
        loop.clock = self._reactor
        self._loops.append(loop)
        loop.start(interval)

    def _alive(self) -> None:
        self._notify.alive()
        if interval := self._notify.watchdog_interval:
            self._daemon.check_workers(2 * interval)

    def _look(self) -> None:
        before = self._last_status
        if self._status() != before:
            self._notify.status(self._last_status)

    def _status(self) -> str:
        daemon = self._daemon
        status = f"{_counted(daemon.sessions, 'session')} open"
        if not daemon.running:
            status = f"draining: {status}"
        else:
            status = f"{_counted(len(daemon.gateways), 'gateway')}, {status}"
            if daemon.mistake:
                status += f"; last reload failed: {daemon.mistake}"
        self._last_status = status
        return status


def _counted(number: int, things: str) -> str:
    return f"{number} {things}" if number == 1 else f"{number} {things}s"
