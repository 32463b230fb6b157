"""A client that speaks the protocol by hand, in plaintext: for what libpq would not say or show."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator

from tests.support.processes import TIMEOUT

SSL_REQUEST = bytes.fromhex("00000008 04d2162f")
GSSENC_REQUEST = bytes.fromhex("00000008 04d21630")

Address = tuple[str, int] | str


def startup_message(**parameters: str) -> bytes:
    """A StartupMessage of protocol 3.0; user and database are ``postgres`` unless they say else."""
    pairs = {"user": "postgres", "database": "postgres"} | parameters
    text = b"".join(f"{name}\0{value}\0".encode() for name, value in pairs.items())
    return struct.pack("!II", len(text) + 9, 0x30000) + text + b"\0"


def connect(address: Address) -> socket.socket:
    """A connection to a TCP port, or to a Unix-domain socket."""
    connection = socket.socket(socket.AF_UNIX if isinstance(address, str) else socket.AF_INET)
    connection.settimeout(TIMEOUT)
    connection.connect(address)
    return connection


def answer(address: Address, request: bytes) -> bytes:
    """All that the other side says to ``request`` before it closes."""
    with connect(address) as connection:
        connection.sendall(request)
        return read_all(connection)


def read_all(connection: socket.socket) -> bytes:
    """What comes until the other side closes."""
    received = b""
    while chunk := connection.recv(65536):
        received += chunk
    return received


class RawSession:
    """A session, open when it is made.

    :ivar key: process ID and secret key.
    :ivar pid: the process ID.
    """

    def __init__(self, address: Address, **parameters: str) -> None:
        self.connection = connect(address)
        self._reader = self.connection.makefile("rb")
        self.connection.sendall(startup_message(**parameters))
        (self.key,) = (body for kind, body in self.messages() if kind == b"K")
        self.pid: int = struct.unpack("!I", self.key[:4])[0]

    def send_query(self, sql: str) -> None:
        body = sql.encode() + b"\0"
        self.connection.sendall(b"Q" + struct.pack("!I", len(body) + 4) + body)

    def messages(self) -> Iterator[tuple[bytes, bytes]]:
        """The messages up to the next ReadyForQuery: type and body of each."""
        kind = b""
        while kind != b"Z":
            kind, length = struct.unpack("!cI", self._read(5))
            yield kind, self._read(length - 4)

    def cancel_request(self) -> bytes:
        """The CancelRequest for this session."""
        return struct.pack("!II", len(self.key) + 8, 80877102) + self.key

    def close(self) -> None:
        self._reader.close()
        self.connection.close()

    def _read(self, size: int) -> bytes:
        read = self._reader.read(size)
        if len(read) < size:
            raise ConnectionResetError("the session ended")
        return read
