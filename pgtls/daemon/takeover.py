"""This process takes another one's place: it says that it is ready, and is told to serve."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from functools import partial

from twisted.logger import Logger

from pgtls.daemon.cancel_requests import OtherProcess
from pgtls.daemon.pid_file import PidFile
from pgtls.daemon.predecessor import Predecessor
from pgtls.daemon.process_link import ProcessLink
from pgtls.gateway.key_holders import KeyHolder
from pgtls.transport.reactor import IReactor
from pgtls.transport.socket_table import SocketTable

_log = Logger(namespace="pgtls.gateway")


class Takeover:
    """The new process's side of an upgrade. Without a predecessor it has nothing to do.

    :param reactor: Twisted's reactor.
    :param predecessor: the process whose place this one takes; None for a first one.
    :param sockets: has that one's listening sockets.
    :param pid_file: twistd's.
    :param holders: gets what asks those processes for the sessions of cancel requests.
    :param serve: is called when this process is the one that serves.
    :ivar links: to the predecessor and those before it whose sessions go on, by process id.
    """

    def __init__(
        self,
        reactor: IReactor,
        predecessor: Predecessor | None,
        sockets: SocketTable,
        pid_file: PidFile,
        holders: list[KeyHolder],
        serve: Callable[[], None],
    ) -> None:
        self._reactor = reactor
        self._predecessor = predecessor
        self._sockets = sockets
        self._pid_file = pid_file
        self._holders = holders
        self._serve = serve
        self._serving = False
        self._ready = False
        self.links: dict[int, ProcessLink] = {}
        self._asked: dict[int, KeyHolder] = {}
        if predecessor is not None:
            self._link(predecessor.process, predecessor.link)

    def _link(self, process: int, descriptor: int) -> None:
        ended = partial(self._ended, process)
        link = ProcessLink(self._reactor, descriptor, self._said, ended, {})
        self.links[process] = link
        self._asked[process] = asked = OtherProcess(link.requests, asks_others=1)  # its workers
        self._holders.append(asked)

    def begin(self) -> None:
        """The process has the number now that it keeps."""
        for link in self.links.values():
            link.say(f"process {os.getpid()}")
            link.start()

    def failed(self, mistakes: Sequence[str]) -> None:
        """This process cannot serve.

        :param mistakes: why.
        """
        for link in self.links.values():
            link.say(f"failed {json.dumps(list(mistakes))}")

    def ready(self) -> None:
        """The listeners are at work."""
        self._ready = True
        if not self.links:  # a first process; or the predecessor has gone meanwhile
            self._take_over()
        for link in self.links.values():
            link.say("ready")

    def older(self) -> list[tuple[int, int]]:
        """The links, for the process that takes this one's place.

        :returns: the processes' ids, and the descriptors.
        """
        return [(process, link.fileno()) for process, link in self.links.items()]

    def leave(self) -> None:
        """Another process has the links now."""
        for link in list(self.links.values()):
            link.close()

    def _said(self, line: bytes) -> None:
        if line == b"serve":
            self._take_over()

    def _take_over(self) -> None:
        if self._serving:
            return
        self._serving = True
        if self._predecessor is not None:
            self._take_all(self._predecessor)
        self._serve()

    def _take_all(self, predecessor: Predecessor) -> None:
        predecessor.give_back_stderr()
        for process, descriptor in predecessor.older:
            self._link(process, descriptor)
            self.links[process].start()
        for error in (*self._sockets.take_over(), *self._pid_file.take()):
            _log.warn("{error}", error=error)
        _log.info("in place of process {process} from now on", process=predecessor.process)

    def _ended(self, process: int) -> None:
        del self.links[process]
        self._holders.remove(self._asked.pop(process))
        if self._ready:
            self._take_over()
