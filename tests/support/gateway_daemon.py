"""The gateway as its users start it: ``twistd -n pgtls ...`` as a child process.

Everything here blocks, as in :mod:`tests.support.servers`: the gateway runs in a process of its
own, so tests may use blocking clients. Its log goes to a file, which never makes it
wait for a test.
"""

from __future__ import annotations

import atexit
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from threading import Thread
from typing import NamedTuple

from twisted.trial.unittest import SynchronousTestCase

from tests.support.processes import TIMEOUT, TWISTD, environment
from tests.support.raw_client import SSL_REQUEST, connect
from tests.support.servers import HOST, postgres

TWIST = (
    sys.executable,
    "-c",
    "from twisted.application.twist._twist import Twist; Twist.main()",
)
"""``twist`` of the interpreter that runs the tests."""

ON_TWISTEDS_TRANSPORTS = (
    sys.executable,
    "-c",
    "from pgtls.transport import reactor; reactor.EPOLL = False; "
    "from twisted.scripts.twistd import run; run()",
)
"""``twistd``, with none of the connections of :mod:`pgtls.transport`."""

LISTENING = re.compile(r"^pgtls: listening on (\[\S+\]|\S+?):(\S+)$", re.MULTILINE)

STILLNESS = 0.3
"""Seconds without CPU time after which nothing flows through a gateway any more."""

BUG = re.compile(
    r"[Uu]nhandled|Traceback|internal error|#critical|DeprecationWarning|ResourceWarning"
)
"""What must never be in the log."""


def in_thread(target: Callable[[], object]) -> Thread:
    """Run it beside the test."""
    thread = Thread(target=target, daemon=True)
    thread.start()
    return thread


class GatewayFailed(Exception):
    """The gateway did not do in time what was waited for; the text is its log."""


def wait_until(condition: Callable[[], bool], failure: Callable[[], str]) -> None:
    """Until ``condition()`` is true: what another process does is seen from outside only.

    :raises GatewayFailed: it does not become true.
    """
    end = time.monotonic() + TIMEOUT
    while not condition():
        if time.monotonic() > end:
            raise GatewayFailed(failure())
        time.sleep(0.01)


class Gateway:
    """A running gateway, on a port that the system chose.

    :param options: its options; those of a listener on 127.0.0.1 and of a state directory of its
        own come by themselves.
    :param config: the text of a ``pgtls.toml``, in place of options. ``{state}`` in it stands for
        the state directory.
    :param listen: where to listen; its address is then in :attr:`places`.
    :param program: ``twistd`` and its options up to ``pgtls``.
    :param env: what to add to :func:`tests.support.processes.environment`.
    :raises GatewayFailed: it does not start; the text is its log.

    :ivar places: host and port of each listener, as the gateway printed them.
    """

    host = HOST

    def __init__(
        self,
        *options: str,
        config: str | None = None,
        listen: str = f"tcp:0:interface={HOST}",
        program: Sequence[str] = (*TWISTD, "-n"),
        env: Mapping[str, str] = {},
        pass_fds: Sequence[int] = (),
    ) -> None:
        # In /tmp, whatever TMPDIR says: the path of a socket has to be short.
        self.directory = Path(tempfile.mkdtemp(prefix="pgtls-gateway-", dir="/tmp"))
        self.state = self.directory / "state"
        self.root_crt = str(self.state / "root.crt")
        self._log = self.directory / "log"
        listeners = 1
        if config is None:
            options = ("--listen", listen, "--log-disconnections", "on", *options)
            options = ("--state-dir", str(self.state), *options)
        else:
            toml = self.directory / "pgtls.toml"
            toml.write_text(config.replace("{state}", str(self.state)))
            options = ("--config", str(toml))
            listeners = config.count("[[gateway]]")
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [*program, "pgtls", *options],
                cwd=self.directory,
                env=environment(env),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                pass_fds=pass_fds,
            )
        wait_until(
            lambda: len(LISTENING.findall(self.log())) == listeners or not self.runs(), self.log
        )
        self.places: list[tuple[str, str]] = LISTENING.findall(self.log())
        if not self.runs():
            log = self.log()
            self.remove()
            raise GatewayFailed(log)

    @property
    def port(self) -> int:
        """The port of the first listener."""
        return int(self.places[0][1])

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def address(self) -> tuple[str, int]:
        """Where the first listener is, for ``socket.create_connection``."""
        return self.host, self.port

    def conninfo(self, **parameters: str | int | None) -> str:
        """A connection string: verify-full by the gateway's own root, user and database
        ``postgres``, changed by ``parameters``.

        :param parameters: any of libpq's; None leaves one out.
        """
        defaults: dict[str, str | int | None] = {
            "host": "localhost",
            "hostaddr": HOST,
            "port": self.port,
            "user": "postgres",
            "dbname": "postgres",
            "sslmode": "verify-full",
            "sslrootcert": self.root_crt,
        }
        every = {**defaults, **parameters}
        return " ".join(f"{key}='{value}'" for key, value in every.items() if value is not None)

    def runs(self) -> bool:
        """Whether its process is there."""
        return self._process.poll() is None

    def log(self) -> str:
        """All that it has printed and logged."""
        return self._log.read_text(errors="replace")

    def wait_for_log(self, pattern: str, count: int = 1) -> list[str]:
        """Wait until ``pattern`` has been found that many times in the log."""
        found = re.compile(pattern)
        wait_until(
            lambda: len(found.findall(self.log())) >= count,
            lambda: f"no {pattern!r} in the log:\n{self.log()}",
        )
        return [match[0] for match in found.finditer(self.log())]

    def open_files(self) -> int:
        """How many file descriptors its process has open."""
        return len(os.listdir(f"/proc/{self._process.pid}/fd"))

    def open_files_at_rest(self) -> int:
        """The same when it has nothing to do: its look at the upstream at the start is over too."""
        self.wait_for_log(r"upstream: ")
        self.wait_until_still()
        return self.open_files()

    def memory(self) -> int:
        """Its resident memory, in bytes."""
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        match = re.search(r"^VmRSS:\s+(\d+) kB", status, re.MULTILINE)
        assert match
        return int(match[1]) * 1024

    def wait_until_still(self) -> None:
        """Wait until it has had nothing to do for a while: what flowed through it has stopped."""
        wait_until(self._still, lambda: f"it does not come to rest:\n{self.log()}")

    def _still(self) -> bool:
        before = self._cpu_time()
        time.sleep(STILLNESS)
        return self._cpu_time() == before

    def _cpu_time(self) -> list[str]:
        """User and system time of its process, in ticks of 10 ms."""
        stat = Path(f"/proc/{self._process.pid}/stat").read_text()
        return stat.rpartition(")")[2].split()[11:13]

    def connections(self) -> int:
        """How many sockets its process has open, the listening ones included."""
        names = (
            Path(f"/proc/{self._process.pid}/fd/{number}")
            for number in os.listdir(f"/proc/{self._process.pid}/fd")
        )
        return sum(_link(name).startswith("socket:") for name in names)

    def is_fast(self, client: socket.socket) -> bool:
        """Whether its end of a client's TCP connection is a fast transport: one that an epoll of
        pgtls's own watches, where the reactor's is one of those watched. The connection must be
        open, and one that it reads from."""
        descriptor = self._descriptor(client)
        watched = self._watched()
        [watching] = [fds for fds in watched.values() if descriptor in fds]
        return any(epoll in watching for epoll in watched)

    def has_fast_transports(self) -> bool:
        """Whether a client's connection to the first listener becomes a fast one."""
        with connect(self.address) as client:
            client.sendall(SSL_REQUEST)
            client.recv(1)  # when it has answered, its transport is what it stays
            return self.is_fast(client)

    def wait_until_read(self, client: socket.socket) -> None:
        """Wait until it has read all that a client has sent, or has closed."""

        def read() -> bool:
            try:
                row = _tcp_row(client)
            except OSError:
                return True  # it has reset the connection
            return row is None or row.unread == 0

        wait_until(read, self.log)

    def _descriptor(self, client: socket.socket) -> int:
        row = _tcp_row(client)
        assert row is not None
        fds = Path(f"/proc/{self._process.pid}/fd")
        (number,) = (
            int(name) for name in os.listdir(fds) if _link(fds / name) == f"socket:[{row.inode}]"
        )
        return number

    def _watched(self) -> dict[int, list[int]]:
        """Each of its epolls, with the descriptors that it watches."""
        fds = Path(f"/proc/{self._process.pid}/fd")
        return {
            int(name): [
                int(number)
                for number in re.findall(
                    r"^tfd: +([0-9]+)", (fds.parent / "fdinfo" / name).read_text(), re.MULTILINE
                )
            ]
            for name in os.listdir(fds)
            if _link(fds / name) == "anon_inode:[eventpoll]"
        }

    def wait_for_open_files(self, at_most: int) -> None:
        """Wait until it has no more files open than that."""
        wait_until(
            lambda: self.open_files() <= at_most,
            lambda: f"{self.open_files()} files are open\n{self.log()}",
        )

    def signal(self, number: int) -> None:
        """Send it a signal."""
        self._process.send_signal(number)

    def wait(self) -> int:
        """Wait for its end.

        :returns: the exit code, or minus the signal's number.
        """
        return self._process.wait(TIMEOUT)

    def stop(self) -> int:
        """End it at once, if it still runs.

        :returns: as :meth:`wait`.
        """
        if self.runs():
            self.signal(signal.SIGTERM)
        try:
            return self.wait()
        except subprocess.TimeoutExpired:
            self._process.kill()
            raise GatewayFailed(f"it does not stop:\n{self.log()}") from None

    def remove(self) -> None:
        """Stop it and remove what it leaves."""
        try:
            self.stop()
        finally:
            shutil.rmtree(self.directory)


def _link(path: Path) -> str:
    try:
        return os.readlink(path)
    except FileNotFoundError:
        return ""


class _Row(NamedTuple):
    """A connection as the kernel knows it, seen from the server's end."""

    unread: int
    inode: int


def _tcp_row(client: socket.socket) -> _Row | None:
    """The row of ``/proc/net/tcp`` with the other end of a client's connection."""
    ports = [f"{place[1]:04X}" for place in (client.getpeername(), client.getsockname())]
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, remote, _, queues, *_, inode = line.split()[:10]
        if [local[-4:], remote[-4:]] == ports:
            return _Row(int(queues.rpartition(":")[2], 16), int(inode))
    return None


def twistd(fast: bool) -> tuple[str, ...]:
    """The program of a gateway with the fast transports, or with Twisted's own alone."""
    return (*(TWISTD if fast else ON_TWISTEDS_TRANSPORTS), "-n")


@cache
def _shared(fast: bool) -> Gateway:
    gateway = Gateway(
        *("--upstream", postgres(17).conninfo(user=None, dbname=None, sslmode="disable")),
        program=twistd(fast),
    )
    atexit.register(gateway.remove)
    assert gateway.has_fast_transports() is fast
    return gateway


class GatewayCase(SynchronousTestCase):
    """A test case whose gateways log no bug of theirs.

    :cvar fast: whether the gateways have the fast transports, or Twisted's own alone: see
        :mod:`tests.support.transports`.
    """

    fast = True

    def gateway(self, *options: str, **parameters: object) -> Gateway:
        """Start a gateway for the length of the test."""
        gateway = Gateway(*options, **{"program": twistd(self.fast), **parameters})  # type: ignore[arg-type]
        self.addCleanup(gateway.remove)
        self.addCleanup(self._no_bug, gateway, 0)
        self.addCleanup(gateway.stop)
        if not {"listen", "config", "program"} & parameters.keys():
            self.assertIs(gateway.has_fast_transports(), self.fast)
        return gateway

    def shared(self) -> Gateway:
        """A gateway in front of the shared PostgreSQL 17, for tests that leave it as it is."""
        gateway = _shared(self.fast)
        self.addCleanup(self._no_bug, gateway, len(gateway.log()))
        return gateway

    def _no_bug(self, gateway: Gateway, start: int) -> None:
        log = gateway.log()[start:]
        self.assertIsNone(BUG.search(log), log)
