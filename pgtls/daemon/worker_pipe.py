"""What the daemon and its workers say to each other, over pipes of their own.

The daemon gives a worker its task, in a file without a name, with the listening sockets
(:mod:`pgtls.daemon.handover`): one before it is started, others later on. It asks it to ``prepare``
such a task, which is answered with the mistakes, and then to ``use`` it, or to ``forget`` it
(:mod:`pgtls.daemon.pipe_requests`). The word ``stop`` is the end, and so is the end of this pipe;
``leave`` stands for it where another process serves the listeners.

The worker sends lines: its log, each event as Twisted's JSON, which begins with ``{``; and a word
with a value in JSON: ``ready``; ``failed`` with the mistakes; ``stopping``, in answer to ``stop``.
Each may ask the other one something.
"""

from __future__ import annotations

import contextlib
import copyreg
import os
import pickle
from collections.abc import Callable, Mapping
from threading import Lock
from types import MappingProxyType
from typing import IO

import attrs
from twisted.internet import main
from twisted.internet.interfaces import IReactorFDSet, IReadDescriptor, IWriteDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer

from pgtls.daemon.unnamed_file import unnamed_file
from pgtls.gateway.gateway_configuration import GatewayConfiguration

_CHUNK = 65536

#: Bytes that wait for a process that does not read, before no more are taken.
_MAX_UNREAD = 1 << 20


def _read_only(mapping: dict[str, str]) -> MappingProxyType[str, str]:
    return MappingProxyType(mapping)


# A ConnInfo has one, and pickle has no way of its own.
copyreg.pickle(MappingProxyType, lambda mapping: (_read_only, (dict(mapping),)))


@attrs.frozen
class SharedGateway:
    """A gateway that workers serve.

    :ivar number: its own, which no other gateway of the daemon ever has.
    :ivar revision: changes whenever a worker is to read its files again.
    :ivar configuration: the gateway's.
    :ivar keys: the private keys of its listener, in PEM, by the path of their file: the daemon has
        read them, and has asked for their passphrases.
    """

    number: int
    revision: int
    configuration: GatewayConfiguration
    keys: Mapping[str, bytes] = attrs.field(factory=dict, repr=False)


@attrs.frozen
class Task:
    """What a worker is to do. For each gateway it is handed a listening socket, and the file that
    the sessions are counted in.

    :ivar workers: how many there are.
    :ivar gateways: what to serve.
    :ivar directory: where the names of files count from.
    :ivar state_dir: as the settings have it.
    :ivar shutdown_timeout: seconds that open sessions have to finish.
    :ivar reactor: the module of the daemon's reactor.
    :ivar metrics_directory: where they count for the status; empty where there is none.
    """

    workers: int
    gateways: tuple[SharedGateway, ...]
    directory: str
    state_dir: str
    shutdown_timeout: float
    reactor: str
    metrics_directory: str = ""

    def file(self) -> IO[bytes]:
        """Write it down.

        :returns: a file without a name.
        :raises OSError: there is no room for it.
        """
        return unnamed_file(pickle.dumps(self))

    @classmethod
    def read(cls, descriptor: int) -> Task:
        """Read it.

        :param descriptor: of the file, which is closed.
        :returns: the task.
        """
        with os.fdopen(descriptor, "rb") as file:
            # From the process that started this one, in a file of theirs alone. Others read it at
            # the same time, so its position is nobody's.
            content = os.pread(file.fileno(), os.fstat(file.fileno()).st_size, 0)
        task: Task = pickle.loads(content)  # noqa: S301
        return task


def write_all(descriptor: int, data: bytes) -> None:
    """Write to a pipe.

    :param descriptor: the pipe's end.
    :param data: what to write, all of it.
    :raises OSError: the other end is closed; or the pipe is full, if it does not block.
    """
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


class LineWriter:
    """Writes lines, from any thread, each whole. That the other end is closed is no error.

    :param descriptor: a pipe's end.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._lock = Lock()

    def write(self, line: str) -> bool:
        """Write a line.

        :param line: without its end.
        :returns: whether the other end is open.
        """
        with self._lock:
            try:
                write_all(self._descriptor, line.encode() + b"\n")
            except OSError:
                return False
        return True


@implementer(IWriteDescriptor)
class LineSender:
    """Writes lines, each whole, without waiting for a process that does not read; closes the
    descriptor at its end.

    :param reactor: Twisted's reactor; it need not run yet.
    :param descriptor: a pipe's end.
    """

    def __init__(self, reactor: IReactorFDSet, descriptor: int) -> None:
        os.set_blocking(descriptor, False)
        self._reactor = reactor
        self._descriptor = descriptor
        self._unread = b""

    def fileno(self) -> int:
        """The descriptor; -1 when it is closed."""
        return self._descriptor

    def write(self, line: str) -> bool:
        """Write a line, now or as soon as there is room for it.

        :param line: without its end.
        :returns: whether it is taken; not where the other end is closed, or much waits already.
        """
        data = line.encode() + b"\n"
        if self._descriptor < 0 or len(self._unread) + len(data) > _MAX_UNREAD:
            return False
        if self._unread:
            self._unread += data
            return True
        try:
            self._unread = self._rest_of(data)
        except OSError:
            return False
        if self._unread:
            self._reactor.addWriter(self)
        return True

    def doWrite(self) -> Exception | None:  # type: ignore[override] # as every reactor takes it
        """There is room.

        :returns: what tells a reactor of the end; None before.
        """
        try:
            self._unread = self._rest_of(self._unread)
        except OSError as error:
            return error
        if not self._unread:
            self._reactor.removeWriter(self)
        return None

    def _rest_of(self, data: bytes) -> bytes:
        """:raises OSError: the other end is closed."""
        with contextlib.suppress(BlockingIOError):
            return data[os.write(self._descriptor, data) :]
        return data

    def connectionLost(self, reason: Failure | None = None) -> None:
        """Close the descriptor: the other end is closed, or is to know that this one is."""
        if self._descriptor >= 0:
            self._reactor.removeWriter(self)
            os.close(self._descriptor)
            self._descriptor = -1

    def logPrefix(self) -> str:
        """For the reactor's log."""
        return "pgtls"


@implementer(IReadDescriptor)
class LineReader:
    """Reads lines, and closes the descriptor at its end.

    :param descriptor: a pipe's end.
    :param line: is called with each.
    :param end: is called when nothing comes any more.
    """

    def __init__(
        self, descriptor: int, line: Callable[[bytes], None], end: Callable[[], None]
    ) -> None:
        self._descriptor = descriptor
        self._line = line
        self._end = end
        self._partial = b""

    def fileno(self) -> int:
        """The descriptor; -1 when it is closed."""
        return self._descriptor

    def doRead(self) -> Exception | None:  # type: ignore[override] # as every reactor takes it
        """Read what is there.

        :returns: what tells a reactor of the end; None before.
        """
        data = os.read(self._descriptor, _CHUNK)
        if not data:
            return main.CONNECTION_DONE
        *whole, self._partial = (self._partial + data).split(b"\n")
        for line in whole:
            self._line(line)
        return None

    def connectionLost(self, reason: Failure | None = None) -> None:
        """The other end is closed, or the reactor has ended."""
        os.close(self._descriptor)
        self._descriptor = -1
        try:
            if self._partial:
                self._line(self._partial)
        finally:
            self._end()

    def logPrefix(self) -> str:
        """For the reactor's log."""
        return "pgtls"
