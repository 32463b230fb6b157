"""The clients: PostgreSQL's own programs, and bare connections where there have to be thousands."""

from __future__ import annotations

import socket
import ssl
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.peers import POSTGRES
from pgtls.wire.messages import StartupMessage
from tests.support.processes import environment
from tests.support.servers import HOST

TIMEOUT = 120.0
SSL_REQUEST = bytes.fromhex("0000000804d2162f")
QUERY = b"Q\0\0\0\x0eselect 1;\0"
TERMINATE = b"X\0\0\0\x04"
READY = b"Z\0\0\0\x05I"


class ClientFailed(Exception):
    """A client did not get what it asked for; the text is its message."""


@dataclass(frozen=True)
class Target:
    """Where clients connect to, and how they begin TLS there.

    :ivar sslnegotiation: None where they have no TLS; otherwise a value of libpq's parameter.
    """

    port: int
    sslnegotiation: str | None

    def environment(self) -> dict[str, str]:
        """What steers libpq there."""
        return environment(
            {
                "PGHOST": HOST,
                "PGPORT": str(self.port),
                "PGUSER": "postgres",
                "PGDATABASE": "postgres",
                "PGSSLMODE": "require" if self.sslnegotiation else "disable",
                "PGSSLNEGOTIATION": self.sslnegotiation or POSTGRES,
                "PGGSSENCMODE": "disable",
            }
        )


class ClientProcess:
    """A program of PostgreSQL's that runs.

    :param stdin: the file that it reads.
    """

    def __init__(self, target: Target, command: Sequence[str], stdin: str = "/dev/null") -> None:
        with open(stdin, "rb") as file:
            self._process = subprocess.Popen(
                command,
                env=target.environment(),
                stdin=file,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )

    def output(self) -> str:
        """What it wrote, when it has ended.

        :raises ClientFailed: it failed, or takes too long.
        """
        try:
            out, err = self._process.communicate(timeout=TIMEOUT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()
            raise ClientFailed(f"not ready after {TIMEOUT:g} s") from None
        if self._process.returncode:
            raise ClientFailed(err.strip())
        return out


class Connection:
    """A session that has asked one query: it is logged in, and has a server connection of its own.

    :raises ClientFailed: that did not work.
    """

    def __init__(self, target: Target) -> None:
        try:
            self._socket = self._connect(target)
            self._socket.sendall(STARTUP)
            self._until_ready()
            self._socket.sendall(QUERY)
            self._until_ready()
        except OSError as error:
            raise ClientFailed(str(error)) from error

    def close(self) -> None:
        """End the session as libpq does."""
        self._socket.sendall(TERMINATE)
        self._socket.close()

    def _connect(self, target: Target) -> socket.socket:
        plain = socket.create_connection((HOST, target.port), TIMEOUT)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if target.sslnegotiation is None:
            return plain
        if target.sslnegotiation == POSTGRES:
            plain.sendall(SSL_REQUEST)
            if plain.recv(1) != b"S":
                raise ClientFailed("no TLS")
        return TLS.wrap_socket(plain)

    def _until_ready(self) -> None:
        received = b""
        while not received.endswith(READY):
            more = self._socket.recv(8192)
            if not more:
                raise ClientFailed(f"closed after {received!r}")
            received += more


def _tls() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["postgresql"])
    return context


TLS = _tls()
STARTUP = StartupMessage.build({b"user": b"postgres", b"database": b"postgres"}).raw
