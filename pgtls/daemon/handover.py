"""Open files that one process hands to another: descriptors over a Unix socket (SCM_RIGHTS).

A message is a number that both know, with the descriptors in their order. It never waits: what the
other process has not taken yet stays in the socket.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Sequence

from pgtls.daemon.open_files import TOO_MANY_OPEN_FILES

#: The message's number, and how many descriptors it has.
_HEADER = struct.Struct("!II")

#: Descriptors at a time: the kernel takes 253 (SCM_MAX_FD).
_AT_ONCE = 200

#: Seconds that the rest of a message may take, of which the beginning is there.
_TIMEOUT = 10.0


def hand_over(end: socket.socket, number: int, descriptors: Sequence[int]) -> None:
    """Send a message.

    :param end: one end of a socketpair; it does not block.
    :param number: the message's.
    :param descriptors: at least one; they stay open here.
    :raises OSError: the other process is gone, or has not taken what was sent before.
    """
    header = _HEADER.pack(number, len(descriptors))
    for start in range(0, len(descriptors), _AT_ONCE):
        socket.send_fds(end, [header], descriptors[start : start + _AT_ONCE])


def take_over(end: socket.socket, number: int) -> list[int]:
    """Receive a message. Those before it that have not been received are dropped.

    :param end: the other end of the socketpair; it blocks.
    :param number: the message's.
    :returns: the descriptors, which are the caller's now.
    :raises ConnectionError: the daemon is gone.
    :raises OSError: it does not come in time, or this process may have no more open files.
    """
    end.settimeout(_TIMEOUT)
    taken: list[int] = []
    flags = getattr(socket, "MSG_CMSG_CLOEXEC", 0)
    while True:
        data, descriptors, _, _ = socket.recv_fds(end, _HEADER.size, _AT_ONCE, flags)
        if len(data) < _HEADER.size:
            close_all([*taken, *descriptors])
            raise ConnectionError("the daemon has handed over nothing")
        found, count = _HEADER.unpack(data)
        if found != number:
            close_all(descriptors)
            continue
        expected = min(_AT_ONCE, count - len(taken))
        taken += descriptors
        if len(descriptors) < expected:  # the kernel has dropped some
            close_all(taken)
            raise OSError(TOO_MANY_OPEN_FILES)
        if len(taken) == count:
            return taken


def close_all(descriptors: Sequence[int]) -> None:
    """Close files that are not needed.

    :param descriptors: which ones.
    """
    for each in descriptors:
        os.close(each)
