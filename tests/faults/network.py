"""A network of machines: namespaces of Linux, on one switch in the test's own namespace."""

from __future__ import annotations

import subprocess

from tests.support.processes import TIMEOUT

SWITCH = "switch"
GATE = "10.77.0.1"
"""The switch's own address: where the test itself is."""


def run(*command: str) -> None:
    """Run a command to its end."""
    subprocess.run(command, check=True, timeout=TIMEOUT)


def make_switch() -> None:
    """In a namespace that is the test's own: ``unshare -n``."""
    run("ip", "link", "set", "lo", "up")
    run("ip", "link", "add", SWITCH, "type", "bridge")
    run("ip", "addr", "add", f"{GATE}/24", "dev", SWITCH)
    run("ip", "link", "set", SWITCH, "up")


def remove_switch() -> None:
    """The cables are gone with their machines."""
    run("ip", "link", "del", SWITCH)


class Machine:
    """A machine with a cable to the switch.

    :param name: short.
    :param address: its address.
    :ivar enter: in front of a command, runs it there.
    """

    def __init__(self, name: str, address: str) -> None:
        self.name, self.address = name, address
        self._holder = subprocess.Popen(
            ["unshare", "-n", "sh", "-c", "echo; exec sleep 3600"], stdout=subprocess.PIPE
        )
        assert self._holder.stdout is not None
        self._holder.stdout.readline()  # it is there
        pid = str(self._holder.pid)
        self.enter = ("nsenter", "-t", pid, "-n")
        cable = f"cable-{name}"
        run("ip", "link", "add", cable, "type", "veth", "peer", "name", "eth0", "netns", pid)
        run("ip", "link", "set", cable, "master", SWITCH, "up")
        run(*self.enter, "ip", "link", "set", "lo", "up")
        run(*self.enter, "ip", "addr", "add", f"{address}/24", "dev", "eth0")
        run(*self.enter, "ip", "link", "set", "eth0", "up")

    def plug(self, in_: bool) -> None:
        """Pull its cable, or put it back: what is sent meanwhile is lost, and nobody is told."""
        run("ip", "link", "set", f"cable-{self.name}", "up" if in_ else "down")

    def remove(self) -> None:
        """Turn it off. Its cable goes at once; with the namespace alone it would go some time."""
        run("ip", "link", "del", f"cable-{self.name}")
        self._holder.kill()
        self._holder.communicate()
