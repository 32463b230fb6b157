"""Sockets and files that outlive a gateway: a supervisor's sockets, lock files, pid files."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import psycopg

from tests.daemon.test_gateway import AS_SYSTEMD
from tests.support.gateway_daemon import Gateway, GatewayCase, GatewayFailed
from tests.support.processes import TIMEOUT, TWISTD, children, environment
from tests.support.servers import postgres


def upstream() -> str:
    return postgres(17).conninfo(user=None, dbname=None, sslmode="disable")


class SystemdsUnixSocket(GatewayCase):
    """Its file is systemd's: its permissions stay, and so does the file."""

    def served(self, *options: str, listen: str = "systemd:domain=UNIX:index=0") -> None:
        directory = Path("/tmp", f"pgtls-{os.getpid()}-{self._testMethodName[-30:]}")
        directory.mkdir()
        self.addCleanup(directory.rmdir)
        path = directory / ".s.PGSQL.5432"
        self.addCleanup(path.unlink)
        with closing(socket.socket(socket.AF_UNIX)) as listening:
            listening.bind(str(path))
            path.chmod(0o660)
            listening.listen(7)
            gateway = self.gateway(
                *("--upstream", upstream(), *options),
                listen=listen,
                program=[*AS_SYSTEMD, str(listening.fileno())],
                pass_fds=[listening.fileno()],
            )
            if not listen.startswith("haproxy"):
                conninfo = f"host={directory} user=postgres dbname=postgres connect_timeout=20"
                psycopg.connect(conninfo).close()
            self.assertEqual(path.stat().st_mode & 0o777, 0o660)
            gateway.stop()
            with closing(socket.socket(socket.AF_UNIX)) as client:
                client.connect(str(path))  # who waits for the next gateway
        self.assertTrue(path.is_socket())

    def test_of_one_process(self) -> None:
        self.served()

    def test_of_workers(self) -> None:
        self.served("--workers", "2")

    def test_behind_haproxy(self) -> None:
        self.served(listen="haproxy:systemd:domain=UNIX:index=0")

    def test_whatever_the_string_calls_it(self) -> None:
        self.served(listen="systemd:domain=INET:index=0")

    def test_ssl_cannot_be_required(self) -> None:
        with self.assertRaisesRegex(GatewayFailed, 'ssl must be "off" for a Unix socket'):
            self.served("--ssl", "require")


class SystemdsTCPSocket(GatewayCase):
    """``ListenStream=5432`` gives an IPv6 socket that takes IPv4 too."""

    def served(self, *options: str, listen: str = "systemd:domain=INET:index=0") -> None:
        with socket.create_server(("", 0), family=socket.AF_INET6, dualstack_ipv6=True) as opened:
            port = opened.getsockname()[1]
            gateway = self.gateway(
                *("--upstream", upstream(), *options),
                listen=listen,
                program=[*AS_SYSTEMD, str(opened.fileno())],
                pass_fds=[opened.fileno()],
            )
        self.assertEqual(gateway.places, [("[::]", str(port))])
        for host in ("127.0.0.1", "::1"):
            psycopg.connect(gateway.conninfo(hostaddr=host)).close()
        gateway.wait_for_log(r"127\.0\.0\.1\(\d+\): user=postgres")
        gateway.wait_for_log(r"\D::1\(\d+\): user=postgres")

    def test_of_one_process(self) -> None:
        self.served()

    def test_of_workers(self) -> None:
        self.served("--workers", "2")

    def test_none_was_passed(self) -> None:
        for index in ("1", "-2"):
            with self.assertRaisesRegex(GatewayFailed, "needs a socket that systemd has opened"):
                self.served(listen=f"systemd:domain=INET:index={index}")


class OurUnixSocket(GatewayCase):
    """Its file is ours, and so is the lock beside it."""

    def setUp(self) -> None:
        self.directory = Path("/tmp", f"pgtls-lock-{os.getpid()}")
        self.directory.mkdir()
        self.addCleanup(self.directory.rmdir)
        self.path = self.directory / ".s.PGSQL.5432"
        self.lock = Path(f"{self.path}.lock")

    def start(self, *options: str, prefix: str = "") -> Gateway:
        listen = f"{prefix}unix:{self.path}"
        return self.gateway("--upstream", upstream(), *options, listen=listen)

    def test_it_is_removed_in_the_end(self) -> None:
        for prefix in ("", "haproxy:"):
            self.start(prefix=prefix).stop()
            self.assertEqual(list(self.directory.iterdir()), [])

    def test_behind_haproxy_tls_cannot_be_required(self) -> None:
        with self.assertRaisesRegex(GatewayFailed, 'ssl must be "off" for a Unix socket'):
            self.start("--ssl", "require", prefix="haproxy:")

    def test_a_lock_that_names_another_program_does_not_count(self) -> None:
        with closing(socket.socket(socket.AF_UNIX)) as killed:
            killed.bind(str(self.path))
        self.lock.symlink_to(str(os.getpid()))
        gateway = self.start()
        conninfo = f"host={self.directory} user=postgres dbname=postgres"
        psycopg.connect(conninfo).close()
        gateway.stop()

    def test_a_socket_on_which_nobody_listens_does_not_count(self) -> None:
        with closing(socket.socket(socket.AF_UNIX)) as killed:
            killed.bind(str(self.path))
        gateway = self.gateway("--upstream", upstream(), listen=f"unix:{self.path}:lockfile=0")
        conninfo = f"host={self.directory} user=postgres dbname=postgres"
        psycopg.connect(conninfo).close()
        gateway.stop()

    def test_a_file_that_is_no_socket_stays(self) -> None:
        self.path.write_text("somebody's")
        self.addCleanup(self.path.unlink)
        with self.assertRaisesRegex(GatewayFailed, "Address already in use"):
            self.start()
        self.assertEqual(self.path.read_text(), "somebody's")
        self.assertFalse(self.lock.is_symlink())

    def test_a_lock_of_one_that_runs_is_named(self) -> None:
        first = self.start()
        with self.assertRaisesRegex(
            GatewayFailed, rf'process {first.pid} listens there.*lock file "{self.lock}"'
        ):
            self.start()
        first.stop()


class PidFile(GatewayCase):
    def test_none_in_the_foreground(self) -> None:
        gateway = self.gateway("--upstream", upstream())
        self.assertFalse((gateway.directory / "twistd.pid").exists())

    def test_one_that_names_another_program_does_not_count(self) -> None:
        file = Path(self.mktemp()).absolute()
        file.write_text(str(os.getpid()))
        gateway = self.gateway(
            "--upstream", upstream(), program=(*TWISTD, "-n", f"--pidfile={file}")
        )
        self.assertEqual(file.read_text(), str(gateway.pid))

    def test_one_of_a_twistd_that_runs_is_named(self) -> None:
        first = self.gateway("--upstream", upstream())
        file = Path(self.mktemp()).absolute()
        file.write_text(str(first.pid))
        with self.assertRaisesRegex(GatewayFailed, f'process {first.pid}, by pid file "{file}"'):
            self.gateway("--upstream", upstream(), program=(*TWISTD, "-n", f"--pidfile={file}"))

    def test_an_empty_one_does_not_count(self) -> None:
        """twistd was killed before it could write."""
        file = Path(self.mktemp()).absolute()
        file.write_text("")
        gateway = self.gateway(
            "--upstream", upstream(), program=(*TWISTD, "-n", f"--pidfile={file}")
        )
        self.assertEqual(file.read_text(), str(gateway.pid))

    def test_something_else_is_no_pid_file(self) -> None:
        file = Path(self.mktemp()).absolute()
        file.write_text("somebody's")
        for name, why in ((file, "has no process number"), (file / "pid", "Not a directory")):
            with self.assertRaisesRegex(GatewayFailed, f'pid file "{name}".*{why}'):
                self.gateway("--upstream", upstream(), program=(*TWISTD, "-n", f"--pidfile={name}"))
        self.assertEqual(file.read_text(), "somebody's")

    def test_its_directory_is_not_there(self) -> None:
        file = Path(self.mktemp()).absolute() / "pid"
        with self.assertRaisesRegex(GatewayFailed, f'there is no directory "{file.parent}"'):
            self.gateway("--upstream", upstream(), program=(*TWISTD, "-n", f"--pidfile={file}"))

    def test_process_1_again(self) -> None:
        """As in a container that was killed and is started again."""
        directory = Path("/tmp", f"pgtls-again-{os.getpid()}")
        directory.mkdir()
        self.addCleanup(subprocess.run, ["rm", "-r", str(directory)], check=True)
        container = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
        if subprocess.run([*container, "true"], check=False, capture_output=True).returncode:
            return  # it takes root
        pid_file, path = directory / "pgtls.pid", directory / ".s.PGSQL.5432"
        command = [*container, *TWISTD, "-n", f"--pidfile={pid_file}", "pgtls"]
        command += ["--listen", f"unix:{path}", "--upstream", upstream()]
        for _ in range(2):
            with subprocess.Popen(
                command,
                env=environment(),
                cwd=directory,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            ) as process:
                self.addCleanup(process.kill)
                assert process.stdout is not None
                lines = []
                for line in process.stdout:
                    lines.append(line)
                    if line.startswith("pgtls: listening on unix:"):
                        break
                else:
                    self.fail("".join(lines))
                self.assertEqual(pid_file.read_text(), "1")
                [inside] = children(process.pid)
                os.kill(inside, signal.SIGUSR2)  # its end would be the container's
                refusal = next(line for line in process.stdout if "upgrade" in line)
                self.assertIn("not upgraded: this is process 1", refusal)
                process.send_signal(signal.SIGKILL)
                process.wait(TIMEOUT)


class Help(GatewayCase):
    def test_nobody_reads_all_of_it(self) -> None:
        with subprocess.Popen(
            [sys.executable, "-u", *TWISTD[1:], "pgtls", "--help"],
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            process.stdout.close()
            self.assertEqual(process.stderr.read(), b"")
            self.assertEqual(process.wait(TIMEOUT), 0)

    def test_it_cannot_be_written(self) -> None:
        with open("/dev/full", "wb") as full:
            tried = subprocess.run(
                [*TWISTD, "pgtls", "--help"],
                env=environment(),
                stdout=full,
                stderr=subprocess.PIPE,
                text=True,
                check=False,
                timeout=TIMEOUT,
            )
        self.assertEqual(tried.stderr, "pgtls: standard output: No space left on device\n")
        self.assertEqual(tried.returncode, 1)
