"""The listening sockets of this process: those that it was started with, and those that it opened.

systemd opens sockets before the service, and passes them on: sd_listen_fds(3). They are systemd's:
what is done here never closes one, so that a listener can be taken away and added again. A process
that takes the place of another one gets its listening sockets, each by its address.

This module imports nothing heavy: it is used before Twisted looks for systemd's sockets.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, MutableMapping
from contextlib import suppress
from typing import Protocol

#: The first descriptor that is passed (``SD_LISTEN_FDS_START``).
_FIRST = 3

#: The name of a socket that was given none.
_UNNAMED = "unknown"


class _File(Protocol):
    """A socket's file: ``SocketFile``."""

    ours: bool

    def take(self) -> None: ...


class _Port(Protocol):
    """A port of Twisted's; one of a Unix socket may have a file."""

    def fileno(self) -> int: ...


def tcp_address(interface: str, port: int) -> str:
    """What a TCP listener's socket is known by.

    :param interface: as an endpoint has it; empty for every IPv4 address.
    :param port: as an endpoint has it: 0 where the system chooses one.
    :returns: the address.
    """
    return f"tcp:{interface or '0.0.0.0'}:{port}"  # noqa: S104


def unix_address(path: str) -> str:
    """What a Unix listener's socket is known by.

    :param path: as an endpoint has it.
    :returns: the address.
    """
    return f"unix:{path if path.startswith(chr(0)) else os.path.abspath(path)}"


class SocketTable:
    """Listening sockets.

    :ivar systemds: the sockets of systemd's, in its order: name and descriptor.
    """

    def __init__(self) -> None:
        self.systemds: list[tuple[str, int]] = []
        self._inherited: list[tuple[str, int]] = []
        self._ports: list[tuple[str, _Port]] = []

    def take_systemds(self, environ: MutableMapping[str, str]) -> None:
        """Take what systemd, or another program that does as it does, has passed. Programs that
        this one starts get neither the sockets nor the variables.

        :param environ: with ``LISTEN_PID``, ``LISTEN_FDS``, ``LISTEN_FDNAMES``; they are removed.
        """
        process = environ.pop("LISTEN_PID", "")
        number = environ.pop("LISTEN_FDS", "")
        names = environ.pop("LISTEN_FDNAMES", "")
        if process != str(os.getpid()) or not (number.isascii() and number.isdigit()):
            return
        given = iter(names.split(":") if names else ())
        with suppress(OSError):  # there are fewer of them
            for descriptor in range(_FIRST, _FIRST + int(number)):
                os.set_inheritable(descriptor, False)
                self.systemds.append((next(given, _UNNAMED), descriptor))

    def systemd(self, index: str | None, name: str | None) -> int:
        """Find a socket of systemd's.

        :param index: its number, from 0; None where it has been asked for by name.
        :param name: its ``FileDescriptorName=``; of several with one name it is the last.
        :returns: its descriptor, which stays open.
        :raises LookupError: there is none.
        :raises ValueError: neither was given, or both, or the number is none.
        """
        if (index is None) == (name is None):
            raise ValueError("systemd: needs either index= or name=")
        if index is None:
            return dict(self.systemds)[name or ""]
        if int(index) < 0:
            raise LookupError(index)
        return self.systemds[int(index)][1]

    def inherit(
        self, systemds: Iterable[tuple[str, int]], others: Iterable[tuple[str, int]]
    ) -> None:
        """Take the sockets of the process whose place this one takes.

        :param systemds: those that are systemd's, by name.
        :param others: the others, by address.
        """
        self.systemds, self._inherited = list(systemds), list(others)
        for _, descriptor in (*self.systemds, *self._inherited):
            os.set_inheritable(descriptor, False)

    def is_inherited(self, address: str) -> bool:
        """Whether there is a socket for an address that need not be opened.

        :param address: see :func:`tcp_address` and :func:`unix_address`.
        :returns: True if so.
        """
        return any(address == each for each, _ in self._inherited)

    def take(self, address: str) -> int | None:
        """Take an inherited socket.

        :param address: see :func:`tcp_address` and :func:`unix_address`.
        :returns: its descriptor, the caller's now; None where there is none.
        """
        for number, (each, descriptor) in enumerate(self._inherited):
            if each == address:
                del self._inherited[number]
                return descriptor
        return None

    def opened(self, address: str, port: _Port) -> None:
        """A port is open.

        :param address: see :func:`tcp_address` and :func:`unix_address`.
        :param port: the port.
        """
        self._ports = [*self._open_ports(), (address, port)]

    def listening(self) -> list[tuple[str, int]]:
        """The sockets on which this process listens.

        :returns: address and descriptor, without systemd's.
        """
        return [(address, port.fileno()) for address, port in self._open_ports()]

    def give_away(self) -> None:
        """Another process serves the sockets from now on: this one leaves their files."""
        for file in self._files():
            file.ours = False

    def take_over(self) -> list[OSError]:
        """This process serves the sockets from now on: their files are its own, and those that it
        has no use for are closed.

        :returns: what has failed.
        """
        unused, self._inherited = self._inherited, []
        for _, descriptor in unused:
            os.close(descriptor)
        failed = []
        for file in self._files():
            try:
                file.take()
            except OSError as error:
                failed.append(error)
        return failed

    def _open_ports(self) -> list[tuple[str, _Port]]:
        return [(address, port) for address, port in self._ports if port.fileno() >= 0]

    def _files(self) -> list[_File]:
        files: list[_File | None] = [getattr(port, "file", None) for _, port in self._open_ports()]
        return [file for file in files if file is not None]


#: The process's own.
sockets = SocketTable()
