"""Two machines with a cable between them: namespaces of Linux, apart from this machine's own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

from tests.support.processes import TIMEOUT

_NOBODY = "02:00:00:00:00:99"


def available() -> bool:
    """Whether this process may make them."""
    if os.geteuid() != 0 or not all(map(shutil.which, ("ip", "unshare", "nsenter"))):
        return False
    tried = subprocess.run(["unshare", "-n", "true"], capture_output=True, check=False)
    return tried.returncode == 0


class Machine:
    """One of the two.

    :ivar address: its address on the cable (RFC 5737).
    :ivar enter: in front of a command, runs it there.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        self._holder = subprocess.Popen(
            ["unshare", "-n", "sh", "-c", "echo; exec sleep 600"], stdout=subprocess.PIPE
        )
        assert self._holder.stdout is not None
        self._holder.stdout.readline()  # it is there
        self.namespace = str(self._holder.pid)
        self.enter = ("nsenter", "-t", self.namespace, "-n")

    def run(self, command: str) -> None:
        """Run a command there to its end."""
        subprocess.run([*self.enter, *command.split()], check=True, timeout=TIMEOUT)

    def python(self, code: str, *arguments: str) -> subprocess.Popen[str]:
        """Run a Python program there.

        :param code: its text.
        :param arguments: its ``sys.argv[1:]``.
        """
        return subprocess.Popen(
            [*self.enter, sys.executable, "-c", code, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def remove(self) -> None:
        """The cable goes with the namespace."""
        self._holder.kill()
        self._holder.communicate()


class Machines:
    """Both, until :meth:`remove`."""

    def __init__(self) -> None:
        self.here, self.there = Machine("192.0.2.1"), Machine("192.0.2.2")
        self.here.run(f"ip link add cable type veth peer name cable netns {self.there.namespace}")
        for machine in (self.here, self.there):
            machine.run(f"ip addr add {machine.address}/30 dev cable")
            machine.run("ip link set cable up")
            machine.run("ip link set lo up")

    def vanish(self) -> None:
        """From now on nothing that is sent there arrives here; nobody is told."""
        self.there.run(
            f"ip neigh replace {self.here.address} lladdr {_NOBODY} dev cable nud permanent"
        )

    def remove(self) -> None:
        """Both are gone."""
        self.here.remove()
        self.there.remove()
