"""CancelRequests in crowds, from clients that have not logged in: nobody else notices."""

from __future__ import annotations

import contextlib
import re
import socket
import struct

import psycopg

from tests.support.gateway_daemon import Gateway, GatewayCase, wait_until
from tests.support.raw_client import connect
from tests.support.servers import postgres

REQUESTS = 700

#: Connections that may be open for CancelRequests at a time: from clients and to servers.
BOUND = 400

CONFIG = """
state_dir = "{state}"
[[gateway]]
listen = "tcp:0:interface=127.0.0.1"
upstream = "%s"
[[gateway]]
listen = "tcp:0:interface=127.0.0.1"
upstream = "%s"
"""


def cancel_request(number: int) -> bytes:
    """With a key that no session has."""
    return struct.pack("!IIII", 16, 80877102, number, number)


class CancelFlood(GatewayCase):
    def deaf_server(self) -> str:
        """A server that accepts nothing and whose queue is full: who connects hears nothing.

        :returns: its connection string.
        """
        server = socket.create_server(("127.0.0.1", 0), backlog=0)
        self.addCleanup(server.close)
        for _ in range(3):
            waiting = socket.socket()
            waiting.setblocking(False)
            self.addCleanup(waiting.close)
            waiting.connect_ex(server.getsockname())
        return f"host=127.0.0.1 port={server.getsockname()[1]} sslmode=disable"

    def start(self, upstream: str, workers: int = 1) -> Gateway:
        """A gateway in front of ``upstream``, whose neighbour has a real server."""
        good = postgres(17).conninfo(user=None, dbname=None, sslmode="disable")
        return self.gateway(config=f"workers = {workers}" + CONFIG % (upstream, good))

    def flood(self, gateway: Gateway) -> int:
        """Send many requests, each client staying until the gateway closes.

        :returns: the most files that the gateway had open.
        """
        most = 0
        with contextlib.ExitStack() as stack:
            for number in range(REQUESTS):
                client = stack.enter_context(connect(gateway.address))
                client.sendall(cancel_request(number))
                if number % 50 == 0:
                    most = max(most, gateway.open_files())
            gateway.wait_until_still()
            most = max(most, gateway.open_files())
            self.neighbour_works(gateway)
        return most

    def neighbour_works(self, gateway: Gateway) -> None:
        neighbour = gateway.conninfo(port=int(gateway.places[1][1]))
        with psycopg.connect(neighbour) as session:
            session.execute("SELECT 1")

    def test_an_upstream_that_does_not_accept(self) -> None:
        gateway = self.start(self.deaf_server())
        gateway.wait_until_still()
        before = gateway.open_files()
        self.assertLess(self.flood(gateway) - before, BOUND)
        gateway.wait_for_log(r"\d{3,} more cancel requests dropped")
        gateway.wait_for_open_files(before)
        gateway.wait_for_log(r"cancel request not passed on: .*timeout expired")
        self.assertLess(len(re.findall("cancel request", gateway.log())), REQUESTS // 2)

    def test_an_upstream_that_refuses(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            nobody = f"host=127.0.0.1 port={server.getsockname()[1]} sslmode=disable"
        gateway = self.start(nobody)
        self.flood(gateway)
        gateway.wait_for_log(r"\d{3,} more cancel requests not passed on")
        self.assertLess(len(re.findall("cancel request", gateway.log())), REQUESTS // 2)

    def test_many_hosts_do_not_multiply_a_request(self) -> None:
        deaf = self.deaf_server()
        port = deaf.split("port=")[1].split()[0]
        hosts = ",".join(["127.0.0.1"] * 20)
        ports = ",".join([port] * 20)
        gateway = self.start(f"host={hosts} port={ports} sslmode=disable")
        gateway.wait_until_still()
        before = gateway.open_files()
        self.assertLess(self.flood(gateway) - before, BOUND)
        gateway.wait_for_open_files(before)

    def test_a_session_can_be_cancelled_meanwhile(self) -> None:
        self.cancelled_meanwhile(1)

    def test_whichever_worker_the_request_comes_to(self) -> None:
        self.cancelled_meanwhile(2, times=6)

    def cancelled_meanwhile(self, workers: int, times: int = 1) -> None:
        server = postgres(17)
        good = server.conninfo(user=None, dbname=None, sslmode="disable")
        parts = dict(part.split("=", 1) for part in good.replace("'", "").split())
        deaf = self.deaf_server()
        port = deaf.split("port=")[1].split()[0]
        gateway = self.start(
            f"host={parts['host']},127.0.0.1 port={parts['port']},{port} sslmode=disable", workers
        )
        session = psycopg.connect(gateway.conninfo(), autocommit=True)
        self.addCleanup(session.close)
        asleep = f"SELECT wait_event FROM pg_stat_activity WHERE pid = {session.info.backend_pid}"
        with contextlib.ExitStack() as stack:
            for number in range(REQUESTS):
                client = stack.enter_context(connect(gateway.address))
                client.sendall(cancel_request(number))
            for _ in range(times):
                session.pgconn.send_query(b"SELECT pg_sleep(60)")
                wait_until(lambda: server.psql(asleep) == "PgSleep", lambda: "it does not sleep")
                session.cancel()
                result = session.pgconn.get_result()
                assert result is not None
                state = result.error_field(psycopg.pq.DiagnosticField.SQLSTATE)
                self.assertEqual(state, b"57014")
                self.assertIsNone(session.pgconn.get_result())
