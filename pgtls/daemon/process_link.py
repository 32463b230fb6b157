"""The link between two processes, of which one takes the other's place."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping

from pgtls.daemon.pipe_requests import Answerer, PipeRequests
from pgtls.daemon.worker_pipe import LineReader, LineSender
from pgtls.transport.reactor import IReactor


class ProcessLink:
    """One end of it.

    :param reactor: Twisted's reactor; it need not run yet.
    :param descriptor: an end of a socketpair, which is closed in the end.
    :param said: is called with each line of the other process's that is no request or answer.
    :param ended: is called when the other process is gone.
    :param answerers: what answers the other process's requests, by their names.
    :ivar requests: asks the other process.
    """

    def __init__(
        self,
        reactor: IReactor,
        descriptor: int,
        said: Callable[[bytes], None],
        ended: Callable[[], None],
        answerers: Mapping[str, Answerer],
    ) -> None:
        self._reactor = reactor
        self._said = said
        self._ended = ended
        self._sender = LineSender(reactor, os.dup(descriptor))
        self.requests = PipeRequests(reactor, self._sender.write, answerers)
        self._reader = LineReader(descriptor, self._line, self._closed)

    def fileno(self) -> int:
        """The descriptor; -1 when it is closed."""
        return self._reader.fileno()

    def start(self) -> None:
        """Listen to the other process."""
        self._reactor.addReader(self._reader)

    def say(self, line: str) -> None:
        """Say something.

        :param line: without its end.
        """
        self._sender.write(line)

    def close(self) -> None:
        """Say and hear no more; ``ended`` is called."""
        if self._reader.fileno() >= 0:
            self._reactor.removeReader(self._reader)
            self._reader.connectionLost()

    def _line(self, line: bytes) -> None:
        if not self.requests.receive(line):
            self._said(line)

    def _closed(self) -> None:
        self.requests.close()
        self._sender.connectionLost()
        self._ended()
