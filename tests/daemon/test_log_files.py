"""Log files that are rotated from outside: no line is lost, whatever renames them."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import unittest
from pathlib import Path

from tests.support.gateway_daemon import Gateway, GatewayCase, wait_until
from tests.support.processes import TWISTD
from tests.support.raw_client import answer

CONF = Path(__file__).parents[2] / "conf" / "pgtls.logrotate"
LOGROTATE = shutil.which("logrotate", path=f"{os.environ.get('PATH', '')}:/usr/sbin")


class LogFiles(GatewayCase):
    """Each refused connection is a line."""

    workers = "1"

    def setUp(self) -> None:
        self.directory = Path(self.mktemp()).absolute()
        self.directory.mkdir()
        self.file = self.directory / "pgtls.log"
        self.pid_file = self.directory / "pgtls.pid"
        self.relay = self.gateway(
            *("--upstream", "host=127.0.0.1 port=1", "--ssl", "on", "--workers", self.workers),
            program=(*TWISTD, "-n", f"--logfile={self.file}", f"--pidfile={self.pid_file}"),
        )

    def line(self, number: int, gateway: Gateway) -> None:
        """Have a line logged, and wait until it is in some file."""
        name = b"line%d" % number
        data = b"\0\3\0\0user\0" + name + b"\0\0"
        answer(gateway.address, (len(data) + 4).to_bytes(4, "big") + data)
        wait_until(lambda: f"line{number}" in self.everything(), self.everything)

    def everything(self) -> str:
        return "".join(
            path.read_text(errors="replace") for path in sorted(self.directory.glob("pgtls.log*"))
        )

    def moved(self, number: int) -> None:
        """After a rename and a signal lines go to a new file."""
        self.relay_line(1)
        self.file.rename(self.directory / "pgtls.log.old")
        self.relay_line(2)
        self.relay.signal(number)
        wait_until(self.file.exists, self.everything)
        self.relay_line(3)
        self.assertIn("line3", self.file.read_text())
        self.assertNotIn("user=line2 database=line2 SSL", self.file.read_text())

    def relay_line(self, number: int) -> None:
        self.line(number, self.relay)

    def test_renamed_and_sighup(self) -> None:
        self.moved(signal.SIGHUP)

    def test_renamed_and_sigusr1(self) -> None:
        self.moved(signal.SIGUSR1)

    def test_sigusr1_alone_rotates_as_twistd_does(self) -> None:
        self.relay_line(1)
        self.relay.signal(signal.SIGUSR1)
        wait_until((self.directory / "pgtls.log.1").exists, self.everything)
        self.relay_line(2)
        self.assertIn("line2", self.file.read_text())

    def test_truncated(self) -> None:
        self.relay_line(1)
        os.truncate(self.file, 0)
        self.relay_line(2)
        self.assertNotIn("\0", self.file.read_text())

    @unittest.skipUnless(LOGROTATE, "there is no logrotate")
    def test_logrotate(self) -> None:
        conf = CONF.read_text()
        self.assertIn("/var/log/pgtls/*.log", conf)
        conf = conf.replace("/var/log/pgtls/", f"{self.directory}/")
        conf = conf.replace("/run/pgtls/pgtls.pid", str(self.pid_file))
        conf = conf.replace("    dateext\n", "")  # it rotates once a day at most
        file = self.directory / "logrotate.conf"
        file.write_text(f"su {os.geteuid()} {os.getegid()}\n{conf}")
        file.chmod(0o600)
        self.directory.chmod(0o700)
        for number in range(0, 6, 2):
            self.relay_line(number)
            status = self.directory / "status"
            assert LOGROTATE is not None
            done = subprocess.run(
                [LOGROTATE, "--force", "--state", str(status), str(file)],
                capture_output=True,
                text=True,
                check=False,
            )
            self.assertEqual((done.returncode, done.stderr), (0, ""))
            self.relay_line(number + 1)
            wait_until(self.file.exists, self.everything)
        packed = [
            subprocess.run(["zcat", path], capture_output=True, text=True, check=True).stdout
            for path in self.directory.glob("pgtls.log*.gz")
        ]
        plain = [
            path.read_text() for path in self.directory.glob("pgtls.log*") if path.suffix != ".gz"
        ]
        found = re.findall(r"user=line(\d) database=line\d SSL", "".join(packed + plain))
        self.assertEqual(sorted(set(found)), list("012345"))


class LogFilesWithWorkers(LogFiles):
    workers = "2"
