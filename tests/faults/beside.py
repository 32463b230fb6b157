"""Some of the faults in front of pgtls, pgbouncer and stunnel, as ``benchmarks`` configures them.

``unshare -n python -m tests.faults.beside [NAME...]``: a line for each fault; those of
docs/reliability.rst.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg

from benchmarks.peers import PEERS
from benchmarks.process import Proxy
from benchmarks.sites import Legs, site
from tests.faults import network
from tests.faults.neighbours import Clients
from tests.faults.sockets import full_queue
from tests.support import certificates
from tests.support.gateway_daemon import in_thread, wait_until
from tests.support.raw_client import connect
from tests.support.servers import HOST, Server

PATIENCE = 75
"""Seconds after which what a client waits for is taken not to come."""

FEW = 120
"""Descriptors, where they are to run out."""


class Beside:
    """One program in front of servers that fail.

    :param name: of it, in :data:`benchmarks.peers.PEERS`.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.directory = Path(tempfile.mkdtemp(prefix="pgtls-beside-", dir="/tmp"))
        self.directory.chmod(0o755)
        files = certificates.Files(self.directory)
        leaf = certificates.localhost()
        self.root = files.write("root.crt", certificates.authority().pem())
        self.pair = (
            Path(files.write("server.crt", leaf.chain())),
            Path(files.write("server.key", leaf.key.pem(), mode=0o600)),
        )

    @contextlib.contextmanager
    def proxy(self, upstream: int, files: int) -> Iterator[Proxy]:
        """It runs in front of a port, and may have that many descriptors."""
        peer = PEERS[self.name]
        place = site(self.directory, self.name, upstream, self.pair, Legs.TLS_PLAIN)
        assert peer.command is not None
        command = peer.command(str(peer.path()), place)
        limit = ("sh", "-c", f'ulimit -n {files}; exec "$@"', "sh")
        proxy = Proxy([*limit, *command], place.port, peer.user)
        try:
            yield proxy
        finally:
            proxy.stop()

    def conninfo(self, proxy: Proxy) -> str:
        """For its clients."""
        return (
            f"host=localhost hostaddr={HOST} port={proxy.port} user=postgres dbname=postgres "
            f"sslmode=verify-full sslrootcert={self.root}"
        )

    def run(self) -> None:
        """All faults; a line for each."""
        server = Server(17)
        try:
            for fault, files in (
                (self.killed, 1000),
                (self.exhausted, FEW),
                (self.half_open, 1000),
            ):
                with self.proxy(server.port, files) as proxy:
                    self.say(fault.__name__, fault(proxy, server))
            with full_queue() as port, self.proxy(port, 1000) as proxy:
                self.say("full_queue", self.unreachable(proxy))
        finally:
            server.stop()
            shutil.rmtree(self.directory)

    def say(self, fault: str, figures: dict[str, Any]) -> None:
        print(f"{self.name}: {fault}: {json.dumps(figures)}", flush=True)

    def killed(self, proxy: Proxy, server: Server) -> dict[str, Any]:
        """The server is killed and started again, under load."""
        clients = Clients(self.conninfo(proxy))
        with contextlib.closing(clients):
            clients.go_on()
            server.kill()
            server.start()
            started = time.monotonic()
            clients.go_on(queries=0)
            seconds = time.monotonic() - started
            report = clients.report()
        return {
            "served_again_after": round(seconds, 2),
            **{each: report[each] for each in ("failures", "lost", "reasons", "lost_reasons")},
        }

    def exhausted(self, proxy: Proxy, server: Server) -> dict[str, Any]:
        """More connections than it may have descriptors."""
        clients = Clients(self.conninfo(proxy), short=0)
        with contextlib.closing(clients):
            with contextlib.ExitStack() as stack:
                for _ in range(2 * FEW):
                    stack.enter_context(connect((HOST, proxy.port)))
                clients.go_on(connections=0)
                cpu, began = proxy.cpu(), time.monotonic()
                clients.go_on(queries=100, connections=0)
                busy = (proxy.cpu() - cpu) / (time.monotonic() - began)
            closed = time.monotonic()
            wait_until(lambda: self.connects(proxy), lambda: "it accepts nothing any more")
            again = time.monotonic() - closed
            report = clients.report()
        return {"lost": report["lost"], "cpu": round(busy, 2), "again_after": round(again, 2)}

    def connects(self, proxy: Proxy) -> bool:
        """Whether a new session can be had."""
        try:
            psycopg.connect(self.conninfo(proxy), connect_timeout=5).close()
        except psycopg.OperationalError:
            return False
        return True

    def half_open(self, proxy: Proxy, server: Server) -> dict[str, Any]:
        """Clients that say nothing."""
        began = time.monotonic()
        ends: list[float] = []

        def wait() -> None:
            with connect((HOST, proxy.port)) as connection:
                connection.settimeout(PATIENCE)
                with contextlib.suppress(TimeoutError, ConnectionResetError):
                    connection.recv(1)
            ends.append(time.monotonic() - began)

        threads = [in_thread(wait) for _ in range(20)]
        for thread in threads:
            thread.join()
        return {"closed_after": [round(min(ends)), round(max(ends))], "patience": PATIENCE}

    def unreachable(self, proxy: Proxy) -> dict[str, Any]:
        """The server's accept queue is full."""
        began = time.monotonic()
        try:
            psycopg.connect(self.conninfo(proxy), connect_timeout=PATIENCE).close()
        except psycopg.OperationalError as error:
            said = str(error).strip()[-160:]
        return {"after": round(time.monotonic() - began, 1), "said": said}


if __name__ == "__main__":
    network.run("ip", "link", "set", "lo", "up")
    for each in sys.argv[1:] or ("pgtls", "pgbouncer", "stunnel"):
        Beside(each).run()
