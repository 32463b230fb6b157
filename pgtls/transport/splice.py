"""From one socket to another without passing through the process: ``splice(2)``, which needs a pipe
in between. For bulk data that is not looked at here."""

from __future__ import annotations

import errno
import fcntl
import os
from contextlib import suppress

#: The size of the pipe, and so how many bytes are passed on at a time. What the other socket does
#: not take of them is in memory until it does; with half as much, COPY TO gains nothing.
_SIZE = 262144

#: A socket, a kernel or a sandbox which has no splice(). Other errors are the connection's.
_CANNOT = {errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM}


class Pipe:
    """One for all connections: it is empty when :meth:`pass_on` returns.

    :ivar usable: whether it is known to be empty, and splice() to work.
    :raises OSError: there can be none.
    """

    def __init__(self) -> None:
        self._out, self._in = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self.usable = True
        with suppress(OSError):  # a limit of the system's: then it stays as it is
            fcntl.fcntl(self._in, fcntl.F_SETPIPE_SZ, _SIZE)

    def pass_on(self, source: int, to: int) -> tuple[int, bytes]:
        """Move what there is to read from one non-blocking socket to another.

        :param source: descriptor of the first.
        :param to: descriptor of the second.
        :returns: how many bytes were read, 0 at the end; and those that the other socket did not
            take, because it is full or broken: the next write will tell.
        :raises OSError: as reading would; or, where the pipe is then not usable, nothing was read.
        """
        # Should anything go wrong in between, no other connection may get what is left inside.
        self.usable = False
        try:
            count = os.splice(source, self._in, _SIZE)
        except OSError as error:
            self.usable = error.errno not in _CANNOT
            raise
        left = count
        if left:
            with suppress(OSError):
                left -= os.splice(self._out, to, left)
        rest = b""
        while len(rest) < left:
            rest += os.read(self._out, left - len(rest))
        self.usable = True
        return count, rest


def pipe() -> Pipe | None:
    """A new one, None where there is no splice()."""
    try:
        return Pipe() if hasattr(os, "splice") else None
    except OSError:
        return None
