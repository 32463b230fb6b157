"""Very many sessions that do nothing, in TLS.

``python -m tests.faults.idle_clients HOST PORT ROOT_CRT COUNT``: prints one line when all are
there, then waits for the end of its input; each has to answer a query before it is closed.
"""

from __future__ import annotations

import socket
import ssl
import sys
from concurrent.futures import ThreadPoolExecutor

from tests.faults.idle_server import ANSWER
from tests.faults.sockets import READY
from tests.support.raw_client import SSL_REQUEST, connect, startup_message

QUERY = b"Q\0\0\0\x0dSELECT 1\0"


def read(session: socket.socket, size: int) -> bytes:
    """That many bytes."""
    found = b""
    while len(found) < size:
        more = session.recv(size - len(found))
        if not more:
            raise ConnectionResetError("the session ended")
        found += more
    return found


def main(host: str, port: int, root_crt: str, count: int) -> None:
    """Open them, wait, ask each of them."""
    context = ssl.create_default_context(cafile=root_crt)
    context.set_alpn_protocols(["postgresql"])

    def opened(_: int) -> ssl.SSLSocket:
        connection = connect((host, port))
        connection.sendall(SSL_REQUEST)
        assert connection.recv(1) == b"S"
        session = context.wrap_socket(connection, server_hostname="localhost")
        session.sendall(startup_message())
        assert read(session, len(READY)) == READY
        return session

    def asked(session: ssl.SSLSocket) -> None:
        session.sendall(QUERY)
        assert read(session, len(ANSWER)) == ANSWER
        session.close()

    with ThreadPoolExecutor(8) as pool:
        sessions = list(pool.map(opened, range(count)))
        print(len(sessions), flush=True)
        sys.stdin.read()
        list(pool.map(asked, sessions))
    print("all answered", flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4]))
