"""OpenSSH's server for the tests, on a port of its own, and its clients' files."""

from __future__ import annotations

import getpass
import os
import shutil
import signal
import socket
import subprocess
import tempfile
from pathlib import Path

from tests.support.gateway_daemon import wait_until
from tests.support.servers import HOST, free_port

SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
"""The server's program; None where it is not installed."""


class SSHServer:
    """A running server that lets one key in.

    :ivar directory: the keys ``id`` (let in) and ``other``, and the file ``known_hosts``.
    :ivar address: what ``upstream_via`` takes.
    """

    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="pgtls-ssh-", dir="/tmp"))
        self.directory.chmod(0o755)
        self.port = free_port()
        self.address = f"ssh://{getpass.getuser()}@{HOST}:{self.port}"
        for name in ("host_key", "id", "other"):
            self.make_key(name)
        shutil.copy(self.directory / "id.pub", self.directory / "authorized_keys")
        self.known_hosts = self.known("host_key")
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def make_key(self, name: str, kind: str = "ed25519", passphrase: str = "") -> str:
        """A new key; returns its file's path."""
        path = str(self.directory / name)
        command = ["ssh-keygen", "-q", "-t", kind, "-N", passphrase, "-f", path]
        subprocess.run(command, check=True, timeout=30)
        return path

    def let_in(self, name: str) -> None:
        """Another key is let in from now on."""
        with (self.directory / "authorized_keys").open("ab") as keys:
            keys.write((self.directory / f"{name}.pub").read_bytes())

    def known(self, name: str, marker: str = "", file: str = "known_hosts") -> str:
        """A known_hosts file with a key; returns its path."""
        kind, key = (self.directory / f"{name}.pub").read_text().split()[:2]
        host = "*" if marker else f"[{HOST}]:{self.port}"
        path = self.directory / file
        with path.open("a") as known:
            known.write(f"{marker} {host} {kind} {key}".strip() + "\n")
        return str(path)

    def start(self, *options: str) -> None:
        """Start it, with more options of sshd_config(5)."""
        if SSHD is None:
            raise FileNotFoundError("sshd")
        settings = {
            "Port": self.port,
            "ListenAddress": HOST,
            "HostKey": self.directory / "host_key",
            "AuthorizedKeysFile": self.directory / "authorized_keys",
            "StrictModes": "no",
            "UsePAM": "no",
            "PidFile": "none",
            "PermitRootLogin": "yes",
            "MaxStartups": "1000",
        }
        config = self.directory / "sshd_config"
        lines = [f"{name} {value}" for name, value in settings.items()]
        config.write_text("\n".join([*options, *lines]) + "\n")
        os.makedirs("/run/sshd", exist_ok=True)  # its own, for a process without rights
        self._process = subprocess.Popen(
            [SSHD, "-D", "-f", str(config), "-E", str(self.directory / "log")],
            start_new_session=True,
        )
        wait_until(self._listens, (self.directory / "log").read_text)

    def _listens(self) -> bool:
        with socket.socket() as tried:
            return tried.connect_ex((HOST, self.port)) == 0

    def stop(self) -> None:
        """End it, with the connections that it has."""
        process, self._process = self._process, None
        if process is not None:
            for pid in [*_descendants(process.pid), process.pid]:
                os.kill(pid, signal.SIGKILL)
            process.wait(30)

    def remove(self) -> None:
        """End it, and remove its files."""
        self.stop()
        shutil.rmtree(self.directory)


def _descendants(pid: int) -> list[int]:
    """Its processes for connections, which are in sessions of their own."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    found = [int(child) for child in children]
    return [each for child in found for each in [*_descendants(child), child]]
