"""The listening sockets that this process was started with.

systemd opens sockets before the service, and passes them on: sd_listen_fds(3). They are systemd's:
what is done here never closes one, so that a listener can be taken away and added again. This
module imports nothing heavy: it is used before Twisted looks for the same sockets.
"""

from __future__ import annotations

import os
from collections.abc import MutableMapping
from contextlib import suppress

#: The first descriptor that is passed (``SD_LISTEN_FDS_START``).
_FIRST = 3

#: The name of a socket that was given none.
_UNNAMED = "unknown"


class SocketTable:
    """Listening sockets by number and name.

    :ivar systemds: the sockets of systemd's, in its order: name and descriptor.
    """

    def __init__(self) -> None:
        self.systemds: list[tuple[str, int]] = []

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


#: The process's own.
sockets = SocketTable()
