"""SIGUSR2: another process takes a gateway's place, and nothing is refused."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from threading import Event

import psycopg
from psycopg.errors import QueryCanceled

from tests.daemon.test_systemd import ServiceManager
from tests.support.gateway_daemon import Gateway, GatewayCase, in_thread, wait_until
from tests.support.processes import TWISTD, alive, children, environment
from tests.support.servers import HOST, postgres


def upstream() -> str:
    return postgres(17).conninfo(user=None, dbname=None, sslmode="disable")


class UpgradeCase(GatewayCase):
    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory(prefix="pgtls-upgrade-", dir="/tmp")
        self.addCleanup(directory.cleanup)
        self.directory = Path(directory.name)
        self.directory.chmod(0o755)
        self.pid_file = self.directory / "pid"
        self.upgrades = 0

    def started(
        self,
        text: str,
        twistd: tuple[str, ...] = (*TWISTD, "-n"),
        env: Mapping[str, str] = {},
        **parameters: object,
    ) -> Gateway:
        """A gateway of a configuration file."""
        gateway = self.gateway(
            config=text,
            program=(*twistd, f"--pidfile={self.pid_file}"),
            env={**env},
            **parameters,
        )
        self.addCleanup(self.kill, gateway)
        return gateway

    def kill(self, gateway: Gateway) -> None:
        pids = re.findall(r"process (\d+) serves from now on", gateway.log())
        for pid in (*pids, *re.findall(r"in place of process (\d+)", gateway.log())):
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)

    def process(self) -> int:
        return int(self.pid_file.read_text())

    def upgrade(self, gateway: Gateway) -> int:
        """:returns: the process that serves now."""
        os.kill(self.process(), signal.SIGUSR2)
        self.upgrades += 1
        gateway.wait_for_log("in place of process", count=self.upgrades)
        return self.process()

    def ends(self, process: int, gateway: Gateway) -> None:
        """It ends by itself."""
        wait_until(lambda: not alive(process), gateway.log)

    def stop(self, gateway: Gateway) -> None:
        process = self.process()
        workers = children(process)
        os.kill(process, signal.SIGTERM)
        self.ends(process, gateway)
        self.assertFalse(self.pid_file.exists())
        self.assertEqual([each for each in workers if alive(each)], [])


class Upgrade(UpgradeCase):
    workers = 1

    def test_sessions_go_on_and_all_is_read_anew(self) -> None:
        path = self.directory / ".s.PGSQL.5432"
        text = (
            f'state_dir = "{{state}}"\nshutdown_timeout = 60\nworkers = {self.workers}\n'
            f'[[gateway]]\nlisten = "tcp:0:interface={HOST}"\nupstream = "{upstream()}"\n'
            f'[[gateway]]\nlisten = "unix:{path}:mode=660"\nupstream = "{upstream()}"\n'
        )
        gateway = self.started(text)
        first = self.process()
        old = psycopg.connect(gateway.conninfo(), autocommit=True)
        old_unix = psycopg.connect(f"host={self.directory} user=postgres dbname=postgres")
        self.addCleanup(old.close)
        self.addCleanup(old_unix.close)
        second = self.storm(gateway, lambda: self.upgrade(gateway))
        self.assertNotEqual(second, first)
        self.assertEqual(os.readlink(f"{path}.lock"), str(second))
        self.cancels(old)
        if self.workers == 1:
            self.once_more(gateway, first, second, old)
        old.close()
        old_unix.close()
        self.ends(first, gateway)
        self.assertEqual(gateway.wait(), 0)
        self.stop(gateway)
        self.assertEqual(list(self.directory.iterdir()), [])

    def once_more(
        self, gateway: Gateway, first: int, second: int, old: psycopg.Connection[object]
    ) -> None:
        """The second one has no sessions, and leaves; the first one's can be canceled."""
        toml = gateway.directory / "pgtls.toml"
        toml.write_text(toml.read_text() + "log_disconnections = true\n")
        self.upgrade(gateway)
        self.ends(second, gateway)
        self.assertTrue(alive(first))
        self.cancels(old)
        psycopg.connect(f"host={self.directory} user=postgres dbname=postgres").close()
        gateway.wait_for_log("disconnection: user=postgres")

    def storm(self, gateway: Gateway, act: Callable[[], int]) -> int:
        """Do it while clients come and go, of which none sees an error."""
        unix = f"host={self.directory} user=postgres dbname=postgres"
        enough, failures, count = Event(), list[str](), [0]

        def clients() -> None:
            while not enough.is_set():
                for conninfo in (gateway.conninfo(), unix):
                    try:
                        psycopg.connect(conninfo).close()
                    except psycopg.Error as error:
                        failures.append(str(error))
                    count[0] += 1

        thread = in_thread(clients)
        result = act()
        wait_until(lambda seen=count[0]: count[0] > seen + 10, gateway.log)  # type: ignore[misc]
        enough.set()
        thread.join()
        self.assertEqual(failures, [])
        return result

    def cancels(self, session: psycopg.Connection[object]) -> None:
        """A cancel request for a session of an old process comes to the new one."""
        running = Event()

        def sleep() -> None:
            running.set()
            session.execute("SELECT pg_sleep(100)")

        failure: list[BaseException] = []

        def run() -> None:
            try:
                sleep()
            except BaseException as error:
                failure.append(error)

        thread = in_thread(run)
        running.wait()
        with psycopg.connect(postgres(17).conninfo(), autocommit=True) as observer:
            wait_until(
                lambda: (
                    observer.execute(
                        "SELECT 1 FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(100)' "
                        "AND state = 'active'"
                    ).fetchone()
                    is not None
                ),
                lambda: "it does not run",
            )
            session.cancel()
            thread.join()
        self.assertIsInstance(failure[0], QueryCanceled)


class UpgradeOfWorkers(Upgrade):
    workers = 2


class FailedUpgrade(UpgradeCase):
    def test_the_old_process_goes_on(self) -> None:
        listen = f'listen = "tcp:0:interface={HOST}"\nupstream = "{upstream()}"\n'
        gateway = self.started(f'state_dir = "{{state}}"\n[[gateway]]\n{listen}')
        first, before = self.process(), gateway.open_files_at_rest()
        toml = gateway.directory / "pgtls.toml"
        good = toml.read_text()
        toml.write_text(good + "nonsense = 1\n")
        os.kill(first, signal.SIGUSR2)
        gateway.wait_for_log("the program is started anew")
        os.kill(first, signal.SIGUSR2)
        gateway.wait_for_log(r"SIGUSR2 ignored: process \d+ is being started")
        gateway.wait_for_log('not upgraded: .*unknown setting "nonsense"; this process goes on')
        self.assertEqual(self.process(), first)
        psycopg.connect(gateway.conninfo()).close()
        self.assertEqual(children(first), [])
        gateway.wait_for_open_files(before)
        toml.write_text(good)
        self.assertNotEqual(self.upgrade(gateway), first)
        self.ends(first, gateway)
        psycopg.connect(gateway.conninfo()).close()
        self.stop(gateway)


class UpgradeUnderSystemd(UpgradeCase):
    def test_the_new_process_is_the_main_one(self) -> None:
        systemd = ServiceManager(str(self.directory / "notify"))
        self.addCleanup(systemd.close)
        with socket.create_server((HOST, 0)) as opened:
            number = opened.fileno()
            activated = (
                "import os, sys; os.dup2(int(sys.argv[1]), 3); "
                "os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS='1'); "
                "os.execv(sys.argv[2], sys.argv[2:])"
            )
            gateway = self.started(
                'state_dir = "{state}"\n[[gateway]]\nlisten = "systemd:domain=INET:index=0"\n'
                f'upstream = "{upstream()}"\n',
                (sys.executable, "-c", activated, str(number), *TWISTD, "-n"),
                env={"NOTIFY_SOCKET": systemd.address, "WATCHDOG_USEC": "20000000"},
                pass_fds=[number],
            )
        first = self.process()
        systemd.wait_for(lambda message: "READY" in message)
        second = self.upgrade(gateway)
        systemd.wait_for(lambda message: "READY" in message)
        systemd.wait_for(lambda message: "WATCHDOG" in message)
        self.ends(first, gateway)
        psycopg.connect(gateway.conninfo()).close()
        third = self.upgrade(gateway)
        systemd.wait_for(lambda message: "READY" in message)
        self.stop(gateway)
        systemd.wait_for(lambda message: "STOPPING" in message)
        said = [
            (sender, name, value)
            for sender, message in systemd.received
            for name, value in message.items()
            if name in ("READY", "MAINPID", "STOPPING")
        ]
        self.assertEqual(
            said,
            [
                *((first, "READY", "1"), (first, "MAINPID", str(first))),
                (first, "MAINPID", str(second)),
                *((second, "READY", "1"), (second, "MAINPID", str(second))),
                (second, "MAINPID", str(third)),
                *((third, "READY", "1"), (third, "MAINPID", str(third))),
                (third, "STOPPING", "1"),
            ],
        )


class UpgradeInTheBackground(UpgradeCase):
    def test_of_a_daemon_without_rights(self) -> None:
        """A pid file in root's directory, and another user."""
        nobody = {"user": 65534, "group": 65534, "extra_groups": []}
        try:
            subprocess.run([*TWISTD[:-1], "import pgtls"], env=environment(), check=True, **nobody)  # type: ignore[call-overload]
            rights = ["--uid=65534", "--gid=65534"]
        except (OSError, subprocess.CalledProcessError):
            rights = []  # we are not root, or its files cannot be read by others
        with socket.socket() as probe:
            probe.bind((HOST, 0))
            port = probe.getsockname()[1]
        log = self.directory / "twistd.log"
        log.touch()
        log.chmod(0o666)
        code = "import sys; sys.argv[0] = 'twistd'; " + TWISTD[-1]
        command = [sys.executable, "-c", code, *rights, f"--logfile={log}"]
        command += [f"--pidfile={self.pid_file}", "pgtls", "--ssl=off", "--upstream", upstream()]
        self.run_to_its_end([*command, "--listen", f"tcp:{port}:interface={HOST}"])
        first = self.process()
        self.addCleanup(self.kill_all, log)
        psycopg.connect(f"host={HOST} port={port} user=postgres dbname=postgres").close()
        os.kill(first, signal.SIGUSR2)
        wait_until(lambda: "in place of process" in log.read_text(), log.read_text)
        second = self.process()
        self.assertNotEqual(second, first)
        wait_until(lambda: not alive(first), log.read_text)
        psycopg.connect(f"host={HOST} port={port} user=postgres dbname=postgres").close()
        os.kill(second, signal.SIGTERM)
        wait_until(lambda: not alive(second), log.read_text)

    def kill_all(self, log: Path) -> None:
        for pid in re.findall(r"in place of process (\d+)", log.read_text()):
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        with contextlib.suppress(OSError, ValueError):
            os.kill(self.process(), signal.SIGKILL)

    def run_to_its_end(self, command: list[str]) -> None:
        done = subprocess.run(
            command, env=environment(), cwd="/", check=False, capture_output=True, text=True
        )
        self.assertEqual((done.returncode, done.stderr), (0, ""))
