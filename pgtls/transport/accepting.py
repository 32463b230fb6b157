"""``accept(2)`` without detours.

Python's ``socket.accept()`` finds out for each connection what family and type the listening socket
has, and makes enumerations' members of them, which takes longer than the system call. What is
private in ``socket`` is used here only.
"""

from __future__ import annotations

import socket
from typing import Any


def accept(listening: socket.socket, family: int) -> tuple[socket.socket, Any]:
    """Accept a connection.

    :param listening: a listening stream socket; it does not block.
    :param family: its address family.
    :returns: the connection, which does not block either, and the peer's address as ``accept`` has
        it.
    :raises OSError: as ``socket.accept`` does.
    """
    try:
        take = listening._accept  # type: ignore[attr-defined]
    except AttributeError:  # a Python of the future
        connection, address = listening.accept()
    else:
        descriptor, address = take()
        connection = socket.socket(family, socket.SOCK_STREAM, 0, descriptor)
    connection.setblocking(False)
    return connection, address
