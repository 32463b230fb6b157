"""The ``pgtls`` command in this process, and directories to use it in."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result
from cryptography import x509
from twisted.trial.unittest import SynchronousTestCase

from pgtls.commands.main import main


def openssl(*arguments: str | Path, cwd: Path | None = None, **environ: str) -> str:
    """What openssl says; an error if it fails."""
    done = subprocess.run(
        ["openssl", *arguments],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, **environ},
        check=False,
    )
    if done.returncode:
        raise AssertionError(f"openssl {arguments}: {done.stdout}{done.stderr}")
    return done.stdout


class AuthorityCase(SynchronousTestCase):
    """``ca`` is where the DBA works, ``home`` the user's home directory."""

    def setUp(self) -> None:
        self.top = Path(self.mktemp()).absolute()
        self.ca, self.home = self.top / "ca", self.top / "home"
        self.home.mkdir(parents=True)
        self.dot = self.home / ".postgresql"
        self.conf = self.top / "client.conf"

    def run_pgtls(self, *arguments: str | Path, input: str = "", **environ: str) -> Result:
        """Run a command, however it ends."""
        environ = {"HOME": str(self.home), "PGUSER": "alice", **environ}
        result = CliRunner().invoke(main, [str(one) for one in arguments], input=input, env=environ)
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    def pgtls(self, *arguments: str | Path, input: str = "", **environ: str) -> str:
        """Standard output of a command that succeeds."""
        result = self.run_pgtls(*arguments, input=input, **environ)
        self.assertEqual(result.exit_code, 0, result.output)
        return result.stdout

    def json(self, *arguments: str | Path) -> Any:
        """The JSON of a command that succeeds."""
        return json.loads(self.pgtls(*arguments, "--json"))

    def refused(self, reason: str, *arguments: str | Path, status: int = 1, **more: str) -> None:
        """The command fails, for this reason, which is one line on standard error."""
        result = self.run_pgtls(*arguments, **more)
        self.assertEqual(result.exit_code, status, result.output)
        last = result.stderr.rstrip("\n").split("\n")[-1]
        self.assertRegex(last, reason)
        self.assertNotIn("Traceback", result.output)
        if status == 1:
            self.assertTrue(last.startswith(f"pgtls {arguments[0]}: "), last)

    def make_authority(self) -> None:
        """Step 0 and step 1."""
        self.pgtls("mkcert", "-D", self.ca, "localhost")
        self.pgtls("client-conf", "-D", self.ca, "-o", self.conf)

    def make_request(self, *more: str | Path, user: str = "alice") -> Path:
        """Step 2."""
        self.pgtls("keygen", "--conf", self.conf, "--user", user, *more)
        return self.dot / "postgresql.csr"

    def sign(self, request: Path, *more: str | Path) -> Path:
        """Step 3: beside the request."""
        self.pgtls("sign", "-D", self.ca, "--yes", request, *more)
        return request.with_suffix(".crt")

    def listed(self) -> list[dict[str, Any]]:
        """What ``pgtls list`` shows."""
        found: list[dict[str, Any]] = self.json("list", "-D", self.ca)["certificates"]
        return found


def certificate(path: Path) -> x509.Certificate:
    """The certificate in a file."""
    return x509.load_pem_x509_certificate(path.read_bytes())


def hex_serial(path: Path) -> str:
    """Its serial number as openssl prints it."""
    return openssl("x509", "-in", path, "-noout", "-serial").strip().partition("=")[2]
