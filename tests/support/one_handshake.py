"""libpq's verify-full against a server for one handshake, without a PostgreSQL."""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from select import select
from threading import Thread

from psycopg import pq

from pgtls.wire.messages import ErrorResponse

#: What the server answers to the StartupMessage, which libpq sends once it is content with it.
VERIFIED = "the StartupMessage has come"

_READING, _WRITING = pq.PollingStatus.READING, pq.PollingStatus.WRITING


def verify_full(certificate_and_key: Path, root: Path, host: str) -> str:
    """Have libpq connect to a server that shows a certificate.

    :returns: its error message, in which :data:`VERIFIED` is if it is content.
    :raises ssl.SSLError: Python's OpenSSL cannot show that certificate.
    """
    parameters = {
        b"host": host.encode().replace(b"'", b"\\'"),
        b"hostaddr": b"127.0.0.1",
        b"user": b"nobody",
        b"sslmode": b"verify-full",
        b"sslsni": b"0",
        b"sslcert": b"none",
        b"sslrootcert": bytes(root),
    }
    with _serving(certificate_and_key) as port:
        conninfo = b" ".join(name + b"='" + value + b"'" for name, value in parameters.items())
        return _finish(pq.PGconn.connect_start(conninfo + b" port=%d" % port))


def _finish(connection: pq.abc.PGconn) -> str:
    """Drive libpq to the end of its attempt."""
    try:
        while (status := connection.connect_poll()) in (_READING, _WRITING):
            socket_ = [connection.socket]
            select(*((socket_, [], []) if status == _READING else ([], socket_, [])))
        return connection.error_message.decode()
    finally:
        connection.finish()


@contextlib.contextmanager
def _serving(certificate_and_key: Path) -> Iterator[int]:
    """A server for one connection: SSLRequest, handshake, a refusal. Gives its port."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate_and_key)
    context.set_alpn_protocols(["postgresql"])
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = Thread(target=_serve, args=(listener, context))
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            thread.join()


def _serve(listener: socket.socket, context: ssl.SSLContext) -> None:
    """One connection."""
    accepted, _ = listener.accept()
    with accepted:
        accepted.recv(8)
        accepted.sendall(b"S")
        with contextlib.suppress(OSError), context.wrap_socket(accepted, server_side=True) as tls:
            if tls.recv(10000):
                tls.sendall(ErrorResponse.fatal("28000", VERIFIED).encode())
