"""What the gateway needs of its machine fails: disk, descriptors, the clock, names."""

from __future__ import annotations

import contextlib
import re
import shutil
import signal
import socket
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg

from tests.faults import network
from tests.faults.neighbours import Clients, FaultCase
from tests.faults.sockets import packet, serving
from tests.support.gateway_daemon import Gateway, GatewayFailed, in_thread, wait_until
from tests.support.processes import TWISTD
from tests.support.raw_client import connect
from tests.support.servers import HOST

DISK = 1 << 20

NOT_UPGRADED = re.compile("not upgraded: .*too many open files: raise the limit .* goes on")


class DiskFull(FaultCase):
    """No byte more can be written."""

    def setUp(self) -> None:
        super().setUp()
        self.disk = Path(tempfile.mkdtemp(prefix="pgtls-disk-", dir="/tmp"))
        self.addCleanup(shutil.rmtree, self.disk)
        network.run("mount", "-t", "tmpfs", "-o", f"size={DISK},mode=755", "none", str(self.disk))
        self.addCleanup(network.run, "umount", "-l", str(self.disk))
        self.own = self.server().conninfo(user=None, dbname=None, sslmode="disable")

    @contextlib.contextmanager
    def full(self) -> Iterator[None]:
        """While this lasts."""
        filler = self.disk / "filler"
        with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
            while file.write(b"x" * 4096):
                pass
        yield
        filler.unlink()

    def test_of_the_log(self) -> None:
        """Sessions go on; when there is room again, lines are written again."""
        log = self.disk / "pgtls.log"
        self.beside(self.own, program=(*TWISTD, "-n", f"--logfile={log}"))

        def fault(neighbours: Clients) -> dict[str, Any]:
            with self.full():
                size = log.stat().st_size
                for _ in range(200):
                    psycopg.connect(self.relay.conninfo()).close()
                neighbours.go_on()
                lost = log.stat().st_size - size < 10000
            name = f"room{time.monotonic_ns()}"
            with contextlib.suppress(psycopg.OperationalError):
                psycopg.connect(self.relay.conninfo(user=name))
            wait_until(lambda: name in log.read_text(errors="replace"), lambda: "no line")
            return {"sessions": 200, "lines_lost": lost}

        self.survives("disk of the log full", fault)

    def test_of_the_state_directory(self) -> None:
        """What it needs is there already: reloads and sessions go on."""
        self.beside(self.own, state=str(self.disk / "state"), top="reload_interval = 0")
        done = 0

        def fault(neighbours: Clients) -> dict[str, Any]:
            nonlocal done
            with self.full():
                for _ in range(10):
                    done += 1
                    self.relay.signal(signal.SIGHUP)
                    self.relay.wait_for_log("reloaded", done)
                    psycopg.connect(self.relay.conninfo()).close()
                neighbours.go_on()
            return {"reloads": 10}

        self.survives("disk of the state directory full", fault)

    def test_of_the_state_directory_at_the_start(self) -> None:
        """It says why it does not start; when there is room, it starts."""
        state = self.disk / "state"
        config = f"""
            state_dir = "{state}"
            [[gateway]]
            listen = "tcp:0:interface={HOST}"
            upstream = "{self.own}"
        """
        with self.full(), self.assertRaises(GatewayFailed) as caught:
            Gateway(config=config)
        self.assertIn("No space left on device", str(caught.exception))
        self.assertNotIn("Traceback", str(caught.exception))
        gateway = self.gateway(config=config)
        psycopg.connect(gateway.conninfo(sslrootcert=str(state / "root.crt"))).close()


class DescriptorsExhausted(FaultCase):
    """More connections than the process may have files: sessions go on, others are closed."""

    def test_exhausted(self) -> None:
        own = self.server().conninfo(user=None, dbname=None, sslmode="disable")
        limit = ("sh", "-c", 'ulimit -n 120; exec "$@"', "sh")
        self.beside(own, 'ssl = "on"', program=(*limit, *TWISTD, "-n"))

        def fault(neighbours: Clients) -> dict[str, Any]:
            with contextlib.ExitStack() as stack:
                for _ in range(200):  # Twisted closes those for which there is no descriptor
                    stack.enter_context(connect(self.relay.address))
                wait_until(
                    lambda: self.relay.open_files() >= 118,
                    lambda: f"{self.relay.open_files()} files are open",
                )
                # Without descriptors no file can be read: what was good stays, and the log says so.
                said = len(re.findall("reloaded", self.relay.log()))
                self.relay.signal(signal.SIGHUP)
                self.relay.wait_for_log("reloaded", said + 1)
                self.assertIn("Too many open files", self.relay.log())
                refused = NOT_UPGRADED.findall(self.relay.log())
                self.relay.signal(signal.SIGUSR2)
                self.relay.wait_for_log(NOT_UPGRADED.pattern, len(refused) + 1)
                before = cpu_seconds(self.relay.pid)
                began = time.monotonic()
                neighbours.go_on(queries=100, connections=0)
                busy = (cpu_seconds(self.relay.pid) - before) / (time.monotonic() - began)
            left = time.monotonic()
            psycopg.connect(self.relay.conninfo()).close()
            again = time.monotonic() - left
            self.assertLess(busy, 0.5)
            self.assertLess(again, 5)
            return {
                "connections": 200,
                "limit": 120,
                "cpu": round(busy, 2),
                "again": round(again, 1),
            }

        self.survives("descriptors exhausted", fault, short=0)


def cpu_seconds(pid: int) -> float:
    """Processor time of a process until now."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


class ClockJumps(FaultCase):
    """The wall clock is set: deadlines follow the other one."""

    def test_jumps(self) -> None:
        own = self.server().conninfo(user=None, dbname=None, sslmode="disable")
        [library] = Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1")
        directory = Path(tempfile.mkdtemp(prefix="pgtls-clock-", dir="/tmp"))
        self.addCleanup(shutil.rmtree, directory)
        offset = directory / "offset"
        offset.write_text("+0d\n")
        self.beside(
            own,
            "authentication_timeout = 3",
            env={
                "LD_PRELOAD": str(library),
                "FAKETIME_TIMESTAMP_FILE": str(offset),
                "FAKETIME_NO_CACHE": "1",
                "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            },
        )

        def fault(neighbours: Clients) -> dict[str, Any]:
            waited = []
            for jump in ("+1d", "-1d", "+20d", "+0d"):
                with connect(self.relay.address) as stalled:
                    began = time.monotonic()
                    offset.write_text(f"{jump}\n")
                    psycopg.connect(self.relay.conninfo()).close()
                    neighbours.go_on()
                    self.assertEqual(stalled.recv(1), b"")
                    waited.append(round(time.monotonic() - began, 1))
            self.assertGreaterEqual(min(waited), 2.9)
            self.assertLess(max(waited), 8)
            return {"timeouts_of_3_s": waited}

        self.survives("clock jumps a day on, back, twenty days on", fault)
        days = {line[:10] for line in self.relay.log().splitlines() if line[:2] == "20"}
        self.assertGreaterEqual(len(days), 4)  # it did see that


class NameServer:
    """The resolver's DNS server, which answers with what it is told.

    :ivar address: of every name; "" for NXDOMAIN, None for no answer at all, "servfail" for that.
    """

    def __init__(self) -> None:
        self.address: str | None = HOST
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind((HOST, 53))
        in_thread(self._serve)

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                question, client = self._socket.recvfrom(512)
                if not question:  # closed
                    return
                if self.address is not None:
                    self._socket.sendto(self._answer(question, self.address), client)

    def _answer(self, question: bytes, address: str) -> bytes:
        end = question.index(b"\0", 12) + 5
        failure = {"servfail": 2, "": 3}.get(address, 0)
        records = b""
        if not failure and question[end - 4 : end - 2] == b"\0\x01":
            records = b"\xc0\x0c\0\x01\0\x01\0\0\0\0\0\x04" + socket.inet_aton(address)
        head = question[:2] + bytes([0x81, 0x80 | failure]) + b"\0\x01"
        return head + bytes([0, bool(records)]) + b"\0\0\0\0" + question[12:end] + records

    def close(self) -> None:
        with contextlib.suppress(OSError):  # it wakes the thread, though it says "not connected"
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()


class Names(FaultCase):
    """DNS fails and changes; the neighbours' server has a name too, which is in /etc/hosts."""

    def setUp(self) -> None:
        super().setUp()
        self.dns = NameServer()
        self.addCleanup(self.dns.close)
        directory = Path(tempfile.mkdtemp(prefix="pgtls-dns-", dir="/tmp"))
        self.addCleanup(shutil.rmtree, directory)
        (directory / "resolv.conf").write_text(f"nameserver {HOST}\n")
        network.run("mount", "--bind", str(directory / "resolv.conf"), "/etc/resolv.conf")
        self.addCleanup(network.run, "umount", "-l", "/etc/resolv.conf")

    def test_fails_and_changes(self) -> None:
        with serving(self.first) as port:
            second = socket.create_server(("127.0.0.2", port))
            self.addCleanup(second.close)
            in_thread(lambda: accept_second(second))
            self.beside(
                f"host=db.example.com port={port} sslmode=disable connect_timeout=2",
                neighbours_host="localhost",
            )
            self.survives("DNS fails, is silent, changes", self.fault)

    def first(self, connection: socket.socket) -> None:
        packet(connection)
        connection.sendall(fatal("the first server"))

    def fault(self, neighbours: Clients) -> dict[str, Any]:
        changed = [
            self.until(address, said)
            for address, said in (
                (HOST, "the first server"),
                ("127.0.0.2", "the second server"),
                ("", "could not translate host name"),
                ("servfail", "could not translate host name"),
            )
        ]
        self.dns.address = None
        refusals: list[str] = []
        for _ in range(4):  # they come for as long as lookups that were not answered last
            threads = [
                in_thread(lambda: refusals.append(self.refusal(seconds=15))) for _ in range(10)
            ]
            neighbours.go_on(queries=100)
            for thread in threads:
                thread.join(60)
        self.assertEqual(len(refusals), 40)
        self.until(HOST, "the first server")
        return {
            "followed_after": changed,
            "refused_while_silent": len(refusals),
            "in_words": refusals[0][-90:],
        }

    def until(self, address: str, said: str) -> float:
        """Change the answer, and wait until sessions follow it.

        :returns: the seconds that it took.
        """
        self.dns.address = address
        began = time.monotonic()
        wait_until(lambda: said in self.refusal(seconds=30), lambda: f"never: {said}")
        self.assertLess(time.monotonic() - began, 15)
        return round(time.monotonic() - began, 1)


def fatal(text: str) -> bytes:
    """An ErrorResponse."""
    fields = f"SFATAL\0VFATAL\0C57P03\0M{text}\0\0".encode()
    return b"E" + (len(fields) + 4).to_bytes(4, "big") + fields


def accept_second(listener: socket.socket) -> None:
    """Answer like the first server, under another name."""
    with contextlib.suppress(OSError):
        while True:
            connection, _ = listener.accept()
            with connection:
                packet(connection)
                connection.sendall(fatal("the second server"))
