"""The wall clock is set while the gateway runs: its timeouts do not follow."""

from __future__ import annotations

import os
from pathlib import Path

from tests.support.gateway_daemon import Gateway, GatewayCase
from tests.support.processes import environment
from tests.support.raw_client import connect
from tests.support.servers import HOST, postgres

CLOCK = """\
import os, time
real = time.time
time.time = lambda: real() + HOURS * 3600 * os.path.exists(FILE)
"""
"""A ``sitecustomize`` module: the clock is some hours wrong as soon as a file is there."""


class ClockIsSet(GatewayCase):
    options: tuple[str, ...] = ()

    def started(self, hours: int, timeout: float) -> Gateway:
        directory = Path(self.mktemp()).absolute()
        directory.mkdir()
        self.file = directory / "set"
        (directory / "sitecustomize.py").write_text(
            CLOCK.replace("HOURS", str(hours)).replace("FILE", repr(str(self.file)))
        )
        path = f"{directory}{os.pathsep}{environment()['PYTHONPATH']}"
        return self.gateway(
            *("--upstream", postgres(17).conninfo(user=None, dbname=None, sslmode="disable")),
            *("--authentication-timeout", str(timeout), *self.options),
            listen=f"tcp:0:interface={HOST}",
            env={"PYTHONPATH": path},
        )

    def test_back(self) -> None:
        gateway = self.started(-1, timeout=2)
        with connect(gateway.address) as stalled:
            gateway.wait_until_still()
            self.file.touch()
            stalled.settimeout(30)
            self.assertEqual(stalled.recv(1), b"")
        with connect(gateway.address) as stalled:
            stalled.settimeout(30)
            self.assertEqual(stalled.recv(1), b"")

    def test_ahead(self) -> None:
        gateway = self.started(1, timeout=60)
        with connect(gateway.address) as slow:
            gateway.wait_until_still()
            self.file.touch()
            for _ in range(2):  # which makes it look at the time
                connect(gateway.address).close()
            gateway.wait_until_still()
            slow.settimeout(1)
            with self.assertRaises(TimeoutError):
                slow.recv(1)


class ClockIsSetWithWorkers(ClockIsSet):
    options = ("--workers", "2")
