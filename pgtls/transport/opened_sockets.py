"""Listening sockets that this process opens, or takes over from the process whose place it takes.

Twisted shuts a socket down when it closes a port, which ends it for every process that has it, and
removes a Unix socket's file. So sockets are opened here, as Twisted opens them, and Twisted's ports
get them as sockets that belong to somebody else.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
from contextlib import suppress
from typing import Any, cast

from twisted.internet import tcp, unix
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IProtocolFactory, IReactorSocket
from twisted.python.failure import Failure


def open_tcp(port: int, interface: str, backlog: int) -> socket.socket:
    """Open a TCP socket.

    :param port: its number; 0 for one that the system chooses.
    :param interface: an address of the machine's; empty for every IPv4 address.
    :param backlog: how many connections may wait.
    :returns: the socket, which does not block.
    :raises CannotListenError: it cannot be opened.
    """
    family = socket.AF_INET6 if ":" in interface else socket.AF_INET
    opened = socket.socket(family)
    try:
        opened.setblocking(False)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        address: Any = (interface, port)
        if family == socket.AF_INET6:  # an address may name an interface: fe80::1%eth0
            flags = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
            address = socket.getaddrinfo(interface, port, family, flags=flags)[0][4]
        opened.bind(address)
        opened.listen(backlog)
    except OSError as error:
        opened.close()
        raise CannotListenError(interface, port, error) from error
    return opened


class SocketFile:
    """The file of a Unix socket, and its lock file: a link that leads to the process id.

    :param path: the socket's.
    :param locked: whether there is a lock file.
    :param ours: whether it is this process that removes them in the end.
    """

    def __init__(self, path: str, *, locked: bool, ours: bool) -> None:
        self._path = path
        self._abstract = path.startswith("\0")  # without a file
        self._lock = f"{path}.lock" if locked and not self._abstract else None
        self.ours = ours

    def open(self, backlog: int, mode: int) -> socket.socket:
        """Open the socket.

        :param backlog: how many connections may wait.
        :param mode: the file's permissions.
        :returns: the socket, which does not block.
        :raises CannotListenError: it cannot be opened.
        """
        opened = socket.socket(socket.AF_UNIX)
        try:
            opened.setblocking(False)
            if self._lock:
                os.symlink(str(os.getpid()), self._lock)
            try:
                opened.bind(self._path)
            except OSError:
                if self._lock:
                    os.unlink(self._lock)
                raise
            if not self._abstract:
                os.chmod(self._path, mode)
            opened.listen(backlog)
        except OSError as error:
            opened.close()
            raise CannotListenError(None, cast(Any, self._path), error) from error
        return opened

    def take(self) -> None:
        """It is this process now that removes them in the end.

        :raises OSError: the lock file cannot be changed.
        """
        self.ours = True
        if self._lock:
            mine = f"{self._lock}.{os.getpid()}"
            os.symlink(str(os.getpid()), mine)
            os.replace(mine, self._lock)

    def remove(self) -> None:
        """Remove them, if that is for this process to do."""
        for path in (self._path, self._lock) if self.ours and not self._abstract else ():
            if path:
                with suppress(FileNotFoundError):
                    os.unlink(path)


class UNIXPort(unix.Port):
    """A port of a Unix socket that is open already.

    :param listening: the socket, which does not block.
    :param factory: makes a protocol for each connection.
    :param reactor: Twisted's.
    :param file: its file; None where that is not ours, as the file of a socket of systemd's.
    :ivar file: the same.
    """

    def __init__(
        self,
        listening: socket.socket,
        factory: IProtocolFactory,
        reactor: IReactorSocket,
        file: SocketFile | None = None,
    ) -> None:
        super().__init__(cast(Any, listening.getsockname()), factory, reactor=reactor)
        self._listening = listening
        self.file = file

    def startListening(self) -> None:
        """Accept connections."""
        cast(Any, self.factory).doStart()
        self.connected = True
        self.socket = self._listening
        self.fileno = self._listening.fileno  # type: ignore[method-assign]
        self.numberAccepts = 100
        self.startReading()  # type: ignore[no-untyped-call]

    def connectionLost(self, reason: Failure) -> None:
        """The socket is to be closed.

        :param reason: says why.
        """
        if self.file is not None:
            self.file.remove()
        # Twisted would shut it down, for every process that has it.
        self.socket = socket.socket(socket.AF_UNIX)
        self._listening.close()
        tcp.Port.connectionLost(self, reason)  # not unix.Port's, which removes the file


def remove_stale_files(path: str) -> None:
    """Remove a socket on which no process listens, and its lock file. The process that this one
    names may be another one now: the only one of a container is number 1 each time.

    :param path: the socket's.
    :raises CannotListenError: a process listens, or a file cannot be removed.
    """
    lock = f"{path}.lock"
    left = [path] * _is_socket(path) + [lock] * os.path.islink(lock)
    if path.startswith("\0") or not left:
        return
    if not _is_listened_on(path):
        try:
            for name in left:
                os.unlink(name)
        except OSError as error:
            reason = f'"{error.filename}" cannot be removed: {error.strerror}'
            raise CannotListenError(None, path, OSError(error.errno, reason)) from error
    elif lock in left:
        reason = f'process {os.readlink(lock)} listens there, as its lock file "{lock}" says'
        raise CannotListenError(None, path, OSError(errno.EADDRINUSE, reason))


def _is_listened_on(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        client.setblocking(False)
        try:
            client.connect(path)
        except OSError as error:
            # Otherwise a process listens whose queue is full, or which takes no connection from us.
            return error.errno not in (errno.ECONNREFUSED, errno.ENOENT)
    return True


def _is_socket(path: str) -> bool:
    with suppress(OSError):
        return stat.S_ISSOCK(os.lstat(path).st_mode)
    return False
