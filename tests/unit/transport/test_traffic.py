"""How many bytes a connection has carried, as the kernel counts them."""

from __future__ import annotations

import contextlib
import socket
from contextlib import closing

from twisted.trial.unittest import SynchronousTestCase

from pgtls.transport.traffic import Traffic, tcp_traffic

BULK = 300_000


class TrafficTests(SynchronousTestCase):
    """``TCP_INFO``."""

    if not hasattr(socket, "TCP_INFO"):
        skip = "this system does not count"

    def test_both_ends(self) -> None:
        with closing(socket.create_server(("127.0.0.1", 0))) as server:
            client = socket.create_connection(server.getsockname())
            accepted, _ = server.accept()
        with closing(client), closing(accepted):
            self.assertEqual(tcp_traffic(client), Traffic(0, 0))
            left = BULK
            while left:
                left -= client.send(bytes(min(left, 65536)))
                accepted.setblocking(False)
                with contextlib.suppress(BlockingIOError):
                    accepted.recv(65536)
            accepted.setblocking(True)
            accepted.sendall(b"answer")
            self.assertEqual(client.recv(100), b"answer")
            self.assertEqual(tcp_traffic(client), Traffic(6, BULK))
            self.assertEqual(tcp_traffic(accepted), Traffic(BULK, 6))

    def test_a_Unix_socket_has_no_counters(self) -> None:
        one, other = socket.socketpair()
        with closing(one), closing(other):
            self.assertIsNone(tcp_traffic(one))

    def test_a_closed_one(self) -> None:
        closed = socket.socket()
        closed.close()
        self.assertIsNone(tcp_traffic(closed))
