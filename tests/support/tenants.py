"""Servers of many tenants, in a thread of their own: they note what they get, and let everybody in.

Tenant ``n`` is at 127.0.0.n. A connection that begins with another packet than those of the startup
phase is closed.
"""

from __future__ import annotations

import contextlib
import socket
import socketserver
import struct
import threading
from collections import defaultdict

from pgtls.wire.messages import CANCEL_REQUEST_CODE, CancelRequest, Packet, StartupMessage
from tests.support.raw_client import GSSENC_REQUEST, SSL_REQUEST


class _Connection(socketserver.StreamRequestHandler):
    """One connection to a tenant's server."""

    server: Tenants

    def handle(self) -> None:
        """Answer until the client closes."""
        with contextlib.suppress(ConnectionError, struct.error):
            tenant = int(self.connection.getsockname()[0].rpartition(".")[2])
            packet = self._packet()
            while packet in (SSL_REQUEST, GSSENC_REQUEST):
                self.wfile.write(b"N")
                packet = self._packet()
            read = Packet(packet, int.from_bytes(packet[4:8], "big"))
            if read.code == CANCEL_REQUEST_CODE:
                self.server.cancels[tenant].append(CancelRequest.parse(read).key)
                return
            self.server.sessions[tenant].append(StartupMessage.parse(read))
            self.wfile.write(self.server.greeting(tenant))
            while (kind := self.rfile.read(1)) not in (b"", b"X"):
                (length,) = struct.unpack("!I", self.rfile.read(4))
                self.rfile.read(length - 4)
                if kind == b"Q":
                    self.wfile.write(b"I\0\0\0\4Z\0\0\0\5I")

    def _packet(self) -> bytes:
        length = self.rfile.read(4)
        return length + self.rfile.read(struct.unpack("!I", length)[0] - 4)


class Tenants(socketserver.ThreadingTCPServer):
    """All of them, at one port.

    :param same_keys: whether every session has the same cancel key.
    :ivar sessions: the StartupMessages that each tenant's server got.
    :ivar cancels: the keys in CancelRequests that it got.
    """

    daemon_threads = True
    request_queue_size = 512

    def __init__(self, *, same_keys: bool = False) -> None:
        super().__init__(("0.0.0.0", 0), _Connection)
        self.same_keys = same_keys
        self.sessions: dict[int, list[StartupMessage]] = defaultdict(list)
        self.cancels: dict[int, list[bytes]] = defaultdict(list)
        self._count = 0
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        """Their port."""
        return int(self.server_address[1])

    def greeting(self, tenant: int) -> bytes:
        """AuthenticationOk, BackendKeyData with the tenant as process ID, ReadyForQuery."""
        with self._lock:
            self._count += 1
            secret = 1 if self.same_keys else self._count
        key = struct.pack("!II", 7 if self.same_keys else tenant, secret)
        return b"R\0\0\0\x08\0\0\0\0" + b"K\0\0\0\x0c" + key + b"Z\0\0\0\x05I"

    def stop(self) -> None:
        """Accept nothing more."""
        self.shutdown()
        self.server_close()
        self._thread.join()

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that went in the middle is no error."""


def is_open(session: socket.socket) -> bool:
    """Whether a session answers."""
    session.sendall(b"Q\0\0\0\5\0")
    return session.recv(100) == b"I\0\0\0\4Z\0\0\0\5I"
