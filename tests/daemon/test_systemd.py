"""The gateway as a service of systemd's, with a socket like its own in its place."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import psycopg

from tests.support.gateway_daemon import Gateway, GatewayCase
from tests.support.processes import TIMEOUT, TWISTD, children, environment
from tests.support.servers import HOST, postgres

Message = dict[str, str]


class ServiceManager:
    """Takes what a service sends.

    :ivar received: the messages, and who has sent them.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self._socket.bind("\0" + address[1:] if address[0] == "@" else address)
        self._socket.settimeout(TIMEOUT)
        if address[0] != "@":
            os.chmod(address, 0o777)
        self.received: list[tuple[int, Message]] = []

    def wait_for(self, what: Callable[[Message], object]) -> Message:
        """The next message that is such a one."""
        while True:
            data, control, _, _ = self._socket.recvmsg(4096, 1024)
            [(_, _, credentials)] = control
            message = dict(line.split("=", 1) for line in data.decode().split("\n"))
            self.received.append((int.from_bytes(credentials[:4], "little"), message))
            if what(message):
                return message

    def silent_for(self, seconds: float) -> bool:
        self._socket.settimeout(seconds)
        with contextlib.suppress(TimeoutError):
            return self.wait_for(lambda message: True) == {}
        return True

    def close(self) -> None:
        self._socket.close()


class NotifyCase(GatewayCase):
    def started(
        self,
        *options: str,
        address: str = "",
        env: Mapping[str, str] = {},
    ) -> tuple[Gateway, ServiceManager]:
        directory = tempfile.TemporaryDirectory(dir="/tmp")
        self.addCleanup(directory.cleanup)
        os.chmod(directory.name, 0o755)
        systemd = ServiceManager(address or os.path.join(directory.name, "notify"))
        self.addCleanup(systemd.close)
        gateway = self.gateway(
            *("--upstream", postgres(17).conninfo(user=None, dbname=None, sslmode="disable")),
            *options,
            env={"NOTIFY_SOCKET": systemd.address, **env},
            program=(*TWISTD, "-n"),
        )
        return gateway, systemd


class Notify(NotifyCase):
    def test_from_the_start_to_the_end(self) -> None:
        hba = Path(self.mktemp()).absolute()
        hba.write_text("host all all all trust\n")
        gateway, systemd = self.started("--hba-file", str(hba))
        ready = systemd.wait_for(lambda message: "READY" in message)
        self.assertEqual(ready["MAINPID"], str(gateway.pid))
        self.assertEqual(ready["STATUS"], "1 gateway, 0 sessions open")
        with psycopg.connect(gateway.conninfo()):
            systemd.wait_for(lambda message: message.get("STATUS", "").endswith("1 session open"))
        for lines, status in (
            ("nonsense", "; last reload failed: .*configuration file"),
            ("host all all all trust\n", "sessions? open$"),
        ):
            hba.write_text(lines)
            gateway.signal(signal.SIGHUP)
            systemd.wait_for(lambda message: message.get("RELOADING") == "1")
            self.assertRegex(systemd.wait_for(lambda message: "READY" in message)["STATUS"], status)
        with psycopg.connect(gateway.conninfo()):
            gateway.signal(signal.SIGTERM)
            stopping = systemd.wait_for(lambda message: message.get("STOPPING") == "1")
            self.assertEqual(stopping["STATUS"], "draining: 1 session open")
            systemd.wait_for(lambda message: "EXTEND_TIMEOUT_USEC" in message)
        self.assertEqual(gateway.wait(), -signal.SIGTERM)
        self.assertEqual({sender for sender, _ in systemd.received}, {gateway.pid})

    def test_the_watchdog(self) -> None:
        gateway, systemd = self.started(
            address=f"@pgtls-{os.getpid()}-{self._testMethodName}", env={"WATCHDOG_USEC": "400000"}
        )
        for _ in range(3):
            systemd.wait_for(lambda message: message == {"WATCHDOG": "1"})
        os.kill(gateway.pid, signal.SIGSTOP)  # it hangs
        self.addCleanup(os.kill, gateway.pid, signal.SIGCONT)
        while not systemd.silent_for(1):
            pass

    def test_a_start_that_fails_is_never_ready(self) -> None:
        with socket.create_server((HOST, 0)) as taken:
            systemd = ServiceManager(f"@pgtls-{os.getpid()}-failing")
            self.addCleanup(systemd.close)
            listen = f"tcp:{taken.getsockname()[1]}:interface={HOST}"
            with self.assertRaisesRegex(Exception, "Address already in use"):
                Gateway(listen=listen, env={"NOTIFY_SOCKET": systemd.address})
        while not systemd.silent_for(0.1):
            pass
        self.assertNotIn("READY", [name for _, message in systemd.received for name in message])


class NotifyWithWorkers(NotifyCase):
    def test_a_worker_that_hangs_is_replaced(self) -> None:
        gateway, systemd = self.started("--workers", "2", env={"WATCHDOG_USEC": "1000000"})
        systemd.wait_for(lambda message: "READY" in message)
        hung, other = children(gateway.pid)
        self.speak_not(hung, other)
        os.kill(hung, signal.SIGSTOP)
        gateway.wait_for_log(rf"worker \d \(process {hung}\) has not answered for 1 s")
        gateway.wait_for_log("worker [12] is ready", count=3)
        self.assertIn(other, children(gateway.pid))
        gateway.signal(signal.SIGHUP)
        systemd.wait_for(lambda message: "RELOADING" in message)
        systemd.wait_for(lambda message: "READY" in message)

    def speak_not(self, *workers: int) -> None:
        for pid in workers:
            environ = Path(f"/proc/{pid}/environ").read_bytes()
            for name in (b"NOTIFY_SOCKET", b"WATCHDOG_USEC", b"LISTEN_"):
                self.assertNotIn(name, environ)


class SocketActivation(GatewayCase):
    """By systemd's own program for that."""

    def test_by_the_first_client(self) -> None:
        program = "/usr/bin/systemd-socket-activate"
        if not os.access(program, os.X_OK):
            return
        with socket.create_server((HOST, 0)) as free:
            port = free.getsockname()[1]
        activated = [program, "-E", "PYTHONPATH", "-E", "HOME", "--fdname=pg:other"]
        activated += ["-l", f"{HOST}:{port}", "-l", f"@pgtls-{os.getpid()}-other"]
        gateway = ["pgtls", "--listen", "systemd:domain=INET:name=pg", "--ssl", "on", "--upstream"]
        gateway += [postgres(17).conninfo(user=None, dbname=None, sslmode="disable")]
        gateway += ["--state-dir", str(Path(self.mktemp()).absolute())]
        with subprocess.Popen(
            [*activated, *TWISTD, "-n", *gateway],
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            env=environment(),
        ) as activate:
            self.addCleanup(activate.kill)
            assert activate.stderr is not None
            self.assertIn(b"Listening on", activate.stderr.readline())
            self.assertIn(b"Listening on", activate.stderr.readline())
            for _ in range(2):
                psycopg.connect(
                    f"host={HOST} port={port} user=postgres dbname=postgres connect_timeout=30"
                ).close()
            activate.terminate()
            activate.stderr.read()
            self.assertEqual(activate.wait(TIMEOUT), -signal.SIGTERM)
