"""A connection's way to its socket without TLS."""

from __future__ import annotations

import socket
from typing import Protocol

from twisted.internet.main import CONNECTION_DONE, CONNECTION_LOST

from pgtls.tls.records import BULK
from pgtls.transport.splice import Pipe

#: Bytes that are read at a time; and once that many were there, which is what TLS seals at a time.
READ_SIZE, BULK_SIZE = 65536, BULK


class Sink(Protocol):
    """Where spliced bytes go."""

    def fileno(self) -> int:
        """Its socket."""

    def takes_more(self) -> bool:
        """Whether a write would go to the socket at once."""

    def write(self, data: bytes) -> None:
        """Send more.

        :param data: what the socket did not take.
        """


class Plaintext:
    """Bytes as they are.

    :param connection: the socket; it does not block.
    :ivar end: why nothing more will be received; None while more may come.
    :ivar unsent: what was taken by :meth:`send` and not yet by the socket: never anything.
    :ivar handshaking: whether it takes nothing yet.
    :ivar spliced: bytes that have gone to another socket in the kernel.
    """

    end: Exception | None = None
    unsent: bytes | memoryview = b""
    handshaking = False
    spliced = 0

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._sink: Sink | None = None
        self._pipe: Pipe | None = None
        self._in_bulk = False

    def receive(self) -> bytes:
        """Read what has come.

        :returns: nothing where nothing has; :attr:`end` says whether more may come.
        """
        if self._in_bulk and self._sink is not None and self._sink.takes_more():
            pipe = self._pipe
            if pipe is not None and pipe.usable:
                self._splice(self._sink, pipe)
                return b""
        try:
            data = self._socket.recv(BULK_SIZE if self._in_bulk else READ_SIZE)
        except (BlockingIOError, InterruptedError):
            return b""
        except OSError:
            self.end = CONNECTION_LOST
            return b""
        if not data:
            self.end = CONNECTION_DONE
        self._in_bulk = len(data) >= READ_SIZE
        return data

    def splice_to(self, sink: Sink | None, pipe: Pipe | None) -> None:
        """Let what comes in bulk go to another socket in the kernel.

        :param sink: its connection; None for no more.
        :param pipe: what is to be between the two; None where there can be none.
        """
        self._sink, self._pipe = sink, pipe

    def _splice(self, sink: Sink, pipe: Pipe) -> None:
        """What :meth:`receive` does, once, where what has come is in bulk."""
        try:
            count, rest = pipe.pass_on(self._socket.fileno(), sink.fileno())
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            if pipe.usable:
                self.end = CONNECTION_LOST
            return
        if not count:
            self.end = CONNECTION_DONE
        self.spliced += count
        self._in_bulk = count >= READ_SIZE
        if rest:
            sink.write(rest)

    def send(self, data: bytes | memoryview) -> int:
        """Send as much as the socket takes.

        :param data: what is to be sent.
        :returns: how many bytes of it have been taken.
        :raises OSError: the connection is broken.
        """
        try:
            return self._socket.send(data)
        except (BlockingIOError, InterruptedError):
            return 0

    def flush(self) -> bool:
        """Send what :meth:`send` has taken.

        :returns: whether everything has been sent.
        """
        return True

    def finish(self) -> None:
        """Tell the peer that no more will come."""
        try:  # noqa: SIM105 - suppress() is dearer than the call
            self._socket.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # it is gone

    def close_notify(self) -> None:
        """Tell the peer that the connection will be closed: closing the socket does that."""

    def detach(self) -> None:
        """The connection is over: let the other one go."""
        self._sink = None
