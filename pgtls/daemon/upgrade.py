"""SIGUSR2: the program is started anew, as it is installed and configured now, and takes this
process's place.

Nothing is refused meanwhile: both have the listening sockets, and this process goes on until the
other one serves.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping

from twisted.logger import Logger

from pgtls.daemon.open_files import reason_of
from pgtls.daemon.pid_file import PidFile
from pgtls.daemon.pipe_requests import Answerer
from pgtls.daemon.successor import Program, Successor
from pgtls.transport.reactor import IReactor
from pgtls.transport.socket_table import SocketTable

_log = Logger(namespace="pgtls.gateway")

#: Seconds after which a process that was started to detach another one has ended.
_DETACHED = 1.0


class Upgrade:
    """The old process's side of it.

    :param reactor: Twisted's reactor.
    :param program: what is started.
    :param sockets: the listening sockets.
    :param pid_file: twistd's.
    :param older: returns the processes before this one whose sessions go on, and the descriptors
        of links to them.
    :param answerers: what answers the new process's requests, by their names.
    :param leave: is called with its process id when the new process serves.
    :ivar done: whether another process has taken over.
    """

    def __init__(
        self,
        reactor: IReactor,
        program: Program,
        sockets: SocketTable,
        pid_file: PidFile,
        older: Callable[[], list[tuple[int, int]]],
        answerers: Mapping[str, Answerer],
        leave: Callable[[int], None],
    ) -> None:
        self._reactor = reactor
        self._program = program
        self._sockets = sockets
        self._pid_file = pid_file
        self._older = older
        self._answerers = answerers
        self._leave = leave
        self._successor: Successor | None = None
        self.done = False

    def start(self, obstacle: str = "") -> None:
        """Begin, unless that has been done.

        :param obstacle: why it cannot be done; empty where it can.
        """
        if self._successor is not None:
            state = "has taken over" if self.done else "is being started"
            _log.warn(
                "SIGUSR2 ignored: process {process} {state}",
                process=self._successor.process,
                state=state,
            )
            return
        if os.getpid() == 1:
            obstacle = (
                "this is process 1, and its end would be the container's: start a new container"
            )
        if obstacle:
            self._failed(obstacle)
            return
        _log.info("upgrade: the program is started anew")
        try:
            self._successor = Successor(
                self._reactor,
                self._program,
                self._sockets,
                self._pid_file.descriptor,
                self._older(),
                self._answerers,
                self._ready,
                self._failed,
            )
        except OSError as error:
            self._failed(f"it cannot be started: {reason_of(error)}")

    def cancel(self) -> None:
        """This process is to be stopped: end what is being started."""
        if self._successor is not None and not self.done:
            self._successor.kill()

    def _ready(self) -> None:
        assert self._successor is not None  # noqa: S101 - it has just said so
        self.done = True
        self._pid_file.give_up()
        self._sockets.give_away()
        self._leave(self._successor.process)
        self._successor.serve()
        self._reactor.callLater(_DETACHED, self._successor.reap)

    def _failed(self, reason: str) -> None:
        self._successor = None
        _log.error("not upgraded: {reason}; this process goes on", reason=reason)
