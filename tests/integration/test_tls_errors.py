"""TLS that fails in mid-session is logged as PostgreSQL logs it, on either side of a gateway."""

from __future__ import annotations

import contextlib
import socket

from OpenSSL import SSL

from tests.support.fake_servers import AUTHENTICATION_OK, READY_FOR_QUERY
from tests.support.gateway_daemon import GatewayCase, in_thread
from tests.support.in_memory import server_context
from tests.support.processes import TIMEOUT
from tests.support.raw_client import read_all, startup_message
from tests.support.relay_client import Session, Truncated
from tests.support.transports import OnTwistedsTransports

#: As the record of a session, and not decipherable.
BROKEN_RECORD = b"\x17\x03\x03\x00\x40" + bytes(64)

REASON = r"SSL error: decryption failed or bad record mac"


class BrokenRecords(GatewayCase):
    """A bad record MAC."""

    def test_from_the_client(self) -> None:
        gateway = self.shared()
        session = Session(gateway.address, tls=True)
        self.addCleanup(session.close)
        port = session.socket.getsockname()[1]
        session.socket.sendall(BROKEN_RECORD)
        with contextlib.suppress(Truncated, SSL.Error):
            session.read()
        gateway.wait_for_log(rf"127\.0\.0\.1\({port}\): {REASON}")

    def test_from_the_server(self) -> None:
        listening = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(listening.close)
        serving = in_thread(lambda: self.serve(listening))
        self.addCleanup(serving.join)
        self.addCleanup(listening.shutdown, socket.SHUT_RDWR)  # which ends the thread
        port = listening.getsockname()[1]
        gateway = self.gateway(
            *("--ssl", "on", "--upstream", f"host=127.0.0.1 port={port} sslmode=require")
        )
        with socket.create_connection(gateway.address, TIMEOUT) as client:
            client.sendall(startup_message())
            self.assertEqual(read_all(client), AUTHENTICATION_OK + READY_FOR_QUERY)
        gateway.wait_for_log(rf'server at "127\.0\.0\.1", port {port}: {REASON}')

    def serve(self, listening: socket.socket) -> None:
        """Sessions that are open, and then broken."""
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            with connection, contextlib.suppress(SSL.Error, ConnectionError):
                if not connection.recv(8):
                    continue
                connection.sendall(b"S")
                tls = SSL.Connection(server_context(), connection)
                tls.set_accept_state()
                tls.do_handshake()
                tls.recv(1000)
                tls.sendall(AUTHENTICATION_OK + READY_FOR_QUERY)
                connection.sendall(BROKEN_RECORD)
                tls.recv(1000)


class BrokenRecordsOnTwisteds(OnTwistedsTransports, BrokenRecords):
    """On Twisted's own transports."""
