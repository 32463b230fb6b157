"""Sockets that end in ways that programs seldom choose: resets, silence, full queues."""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Callable, Iterator

from OpenSSL.SSL import Connection, Error

from tests.support.gateway_daemon import in_thread
from tests.support.servers import HOST

READY = b"R\0\0\0\x08\0\0\0\0Z\0\0\0\x05I"
"""What a server says to a client whom it trusts."""


def reset(connection: socket.socket) -> None:
    """Close it with a RST, which overtakes what was sent."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def packet(connection: socket.socket | Connection) -> bytes:
    """A packet of the startup phase, or b"" at the end."""
    head = _exactly(connection, 4)
    return head and head + _exactly(connection, int.from_bytes(head, "big") - 4)


def message(connection: socket.socket | Connection) -> bytes:
    """A message of a session, or b"" at the end."""
    head = _exactly(connection, 5)
    return head and head + _exactly(connection, int.from_bytes(head[1:], "big") - 4)


def _exactly(connection: socket.socket | Connection, size: int) -> bytes:
    found = b""
    while len(found) < size:
        more = connection.recv(size - len(found))
        if not more:
            return b""
        found += more
    return found


@contextlib.contextmanager
def serving(script: Callable[[socket.socket], None]) -> Iterator[int]:
    """A server with a thread for each connection, which is closed when its script is over.

    :param script: what happens to a connection.
    :returns: its port.
    """

    def serve(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError, Error):
            script(connection)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                in_thread(lambda connection=connection: serve(connection))

    with socket.create_server((HOST, 0), backlog=200) as listener:
        in_thread(accept)
        try:
            yield listener.getsockname()[1]
        finally:
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def full_queue() -> Iterator[int]:
    """A listener that accepts nothing, and whose queue is full: the kernel drops what comes.

    :returns: its port.
    """
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server((HOST, 0), backlog=0))
        while True:
            waiting = stack.enter_context(socket.socket())
            waiting.settimeout(0.5)
            try:
                waiting.connect(listener.getsockname())
            except TimeoutError:
                break
        yield listener.getsockname()[1]
