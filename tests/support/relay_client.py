"""A session by hand, in plaintext or inside TLS: for what a driver would not do to its connection.

It reads when it is told to, says goodbye in one direction alone, and goes without a word.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from contextlib import suppress
from select import select

from OpenSSL import SSL

from tests.support.in_memory import client_context
from tests.support.processes import TIMEOUT
from tests.support.raw_client import SSL_REQUEST, startup_message

#: Longer than the minute for which a gateway keeps a side whose other side is gone.
_RECEIVE_TIMEOUT = struct.pack("ll", int(TIMEOUT) + 30, 0)
#: Seconds.
_MOMENT = 0.2

_RESET = struct.pack("ii", 1, 0)


class Truncated(Exception):
    """The connection ended, but not as its protocol ends one."""


class Session:
    """A session, open when it is made.

    :param tls: whether it is inside TLS.
    :param receive_buffer: the size of the kernel's buffer, which is the system's choice without it.
    :ivar pid: the process ID of the backend.
    """

    def __init__(
        self, address: tuple[str, int], tls: bool, *, receive_buffer: int | None = None
    ) -> None:
        self._read = bytearray()  # and not yet used
        self.socket = socket.socket()
        if receive_buffer is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _RECEIVE_TIMEOUT)
        self.socket.connect(address)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._tls: SSL.Connection | None = None
        if tls:
            self._start_tls()
        self.send(startup_message())
        (key,) = (body for kind, body in self.messages() if kind == b"K")
        self.pid: int = struct.unpack("!I", key[:4])[0]

    def _start_tls(self) -> None:
        self.socket.sendall(SSL_REQUEST)
        assert self.socket.recv(1) == b"S"
        self._tls = SSL.Connection(client_context(alpn=[b"postgresql"]), self.socket)
        self._tls.set_connect_state()
        self._tls.do_handshake()

    def send(self, data: bytes) -> None:
        """Send all of it, however long that takes."""
        (self._tls or self.socket).sendall(data)

    def send_what_goes(self, data: bytes) -> bytes:
        """Send until nothing more has gone for a moment; returns what is left."""
        left = memoryview(data)
        self.socket.setblocking(False)
        while left and select([], [self.socket], [], _MOMENT)[1]:
            with suppress(BlockingIOError, SSL.WantWriteError):
                left = left[(self._tls or self.socket).send(left[:65536]) :]
        self.socket.setblocking(True)
        return bytes(left)

    def read_what_comes(self) -> bytes:
        """Read until nothing more has come for a moment, without TLS."""
        read = bytearray()
        while select([self.socket], [], [], _MOMENT)[0]:
            read += self.read()
        return bytes(read)

    def query(self, sql: str) -> None:
        """Send a Query."""
        body = sql.encode() + b"\0"
        self.send(b"Q" + struct.pack("!I", len(body) + 4) + body)

    def read(self, most: int = 65536) -> bytes:
        """What comes next, nothing where the other side has said goodbye.

        :raises Truncated: it is gone without.
        """
        try:
            return (self._tls or self.socket).recv(most)
        except SSL.ZeroReturnError:
            return b""
        except (SSL.SysCallError, ConnectionError) as error:
            raise Truncated from error

    def read_all(self) -> bytes:
        """What comes until the other side is gone, with a goodbye or without."""
        with suppress(Truncated):
            while piece := self.read():
                self._read += piece
        read, self._read = bytes(self._read), bytearray()
        return read

    def messages(self, read: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        """The messages up to the next ReadyForQuery: type and body of each.

        :param read: what has been read of them before.
        """
        self._read += read
        kind = b""
        while kind != b"Z":
            kind, body = self.message()
            yield kind, body

    def message(self) -> tuple[bytes, bytes]:
        """The next message: type and body."""
        kind, length = struct.unpack("!cI", self._exactly(5))
        return kind, self._exactly(length - 4)

    def _exactly(self, size: int) -> bytes:
        while len(self._read) < size:
            piece = self.read()
            if not piece:
                raise Truncated
            self._read += piece
        taken = bytes(self._read[:size])
        del self._read[:size]
        return taken

    def say_no_more(self) -> None:
        """End this direction alone: TLS has a message for it, and TCP stays open."""
        if self._tls is not None:
            self._tls.shutdown()
        else:
            self.socket.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Go without a word, and without having read what has come."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self.close()

    def close(self) -> None:
        """Go, without a word inside TLS."""
        self.socket.close()


def whole_messages(data: bytes) -> list[tuple[bytes, bytes]]:
    """Type and body of each message.

    :raises Truncated: the last one is not whole.
    """
    found = []
    while data:
        end = int.from_bytes(data[1:5], "big") + 1
        if len(data) < max(end, 5):
            raise Truncated(data[:100])
        found.append((data[:1], data[5:end]))
        data = data[end:]
    return found
