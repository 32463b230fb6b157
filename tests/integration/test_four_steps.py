"""docs/certificates.rst, run as it stands, against a PostgreSQL 17 as it comes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.support.authorities import openssl
from tests.support.processes import TIMEOUT, environment
from tests.support.servers import Server, _server_user, _wait, psql

TOP = Path(__file__).parent.parent.parent
TUTORIAL = (TOP / "docs" / "certificates.rst").read_text()

#: Who has no certificate: the superuser, on the Unix-domain socket.
LOCAL = "local all postgres trust\n"


@dataclass
class Step:
    """A command of the tutorial, and what came of it."""

    command: str
    code: int
    out: str
    err: str


@dataclass
class Tutorial:
    """The tutorial's commands, in their order."""

    server: Server
    top: Path
    steps: list[Step] = field(default_factory=list)

    def run(self) -> None:
        """Do what the text says."""
        for kind, text in re.findall(r"^    (\$ |hostssl |ssl_crl_file )(.*)$", TUTORIAL, re.M):
            if kind == "$ ":
                self.steps.append(self.do(text))
                self.let_the_server_read_its_key()
            elif kind == "hostssl ":
                self.server.reload(hba=f"{kind}{text}\n{LOCAL}")
            else:
                path = text.partition("'")[2].rstrip("'")
                self.server.reload(conf={"ssl_crl_file": str(self.top / path)})

    def do(self, command: str) -> Step:
        """Run one command; a reload is over when this returns."""
        reloads = self.server._reloads()
        done = subprocess.run(
            ["bash", "-o", "pipefail", "-c", command],
            cwd=self.top,
            env=environment(self.environ()),
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=False,
        )
        if "pg_reload_conf" in command and done.returncode == 0:
            _wait(lambda: self.server._reloads() > reloads, "no reload")
        return Step(command, done.returncode, done.stdout, done.stderr)

    def environ(self) -> dict[str, str]:
        return {
            "HOME": str(self.top),
            "PATH": os.pathsep.join(
                [str(self.top / "bin"), str(Path(psql(17)).parent), os.environ["PATH"]]
            ),
            "PGDATA": str(self.server.data),
            "PGHOST": self.server.socket_dir,
            "PGPORT": str(self.server.port),
            "PGUSER": "postgres",
            "CONF": str(TOP / "conf"),
        }

    def let_the_server_read_its_key(self) -> None:
        """root runs the tests, and the server as another user: as a DBA, with a key of root's that
        the server's group may read."""
        key = self.top / "ca" / "server.key"
        if os.geteuid() == 0:
            os.chown(key, 0, _server_user().pw_gid)
            key.chmod(0o640)

    def step(self, beginning: str) -> Step:
        """The first command that begins so."""
        return next(step for step in self.steps if step.command.startswith(beginning))

    def session(self, conninfo: str) -> Step:
        """One more session of psql's."""
        return self.do(f'psql -XAt "{conninfo}" -c "SELECT 1"')


@cache
def tutorial() -> Tutorial:
    """It is run once."""
    server = Server(17, hba=LOCAL)
    top = server.data.parent / "dba"
    (top / "bin").mkdir(parents=True)
    script = top / "bin" / "pgtls"
    script.write_text(
        f"#!/bin/sh\nexec '{sys.executable}' -c "
        '\'from pgtls.commands.main import main; main(prog_name="pgtls")\' "$@"\n'
    )
    script.chmod(0o755)
    run = Tutorial(server, top)
    run.run()
    return run


ALICE = "host=localhost dbname=postgres user=alice sslmode=verify-full"


class FourSteps(SynchronousTestCase):
    """The tutorial."""

    def setUp(self) -> None:
        self.tutorial = tutorial()

    def test_every_command_succeeds(self) -> None:
        failed = [step for step in self.tutorial.steps if step.code]
        self.assertEqual(failed, [])
        self.assertGreater(len(self.tutorial.steps), 12)

    def test_the_session_is_authenticated_both_ways(self) -> None:
        out = self.tutorial.step('psql "host=localhost').out
        self.assertRegex(out, r" t +\| TLSv1\.3 +\| /O=Example Inc\./CN=alice\n")

    def test_it_takes_less_than_ten_commands(self) -> None:
        commands = [step.command for step in self.tutorial.steps]
        session = next(i for i, text in enumerate(commands) if text.startswith('psql "host='))
        self.assertLess(session + 1, 10)

    def test_each_step_tells_the_next(self) -> None:
        for beginning, next_one in (
            ("pgtls mkcert", "pgtls client-conf "),
            ("pgtls client-conf", "pgtls keygen --conf "),
            ("pgtls keygen", "pgtls install postgresql.crt"),
            ("pgtls keygen", "pgtls sign -D DIR postgresql.csr"),
            ("pgtls sign", "pgtls install alice.crt"),
            ("pgtls install", "psql 'host=HOST dbname=DB user=alice sslmode=verify-full'"),
            ("pgtls revoke", "pg_reload_conf()"),
        ):
            step = self.tutorial.step(beginning)
            self.assertIn(next_one, (step.out + step.err).partition("Next: ")[2], beginning)

    def test_the_revoked_one_is_refused_by_the_server(self) -> None:
        step = self.tutorial.session(ALICE)
        self.assertEqual(step.code, 2)
        self.assertIn("certificate revoked", step.err)

    def test_nobody_comes_without_a_certificate(self) -> None:
        step = self.tutorial.session(f"{ALICE} sslcertmode=disable")
        self.assertIn("connection requires a valid client certificate", step.err)

    def test_nobody_comes_as_somebody_else(self) -> None:
        self.tutorial.do('psql -c "CREATE ROLE mallory LOGIN"')
        bob = "sslcert=ca/bob.crt sslkey=bob/postgresql.key sslrootcert=bob/root.crt"
        step = self.tutorial.session(f"{ALICE} user=mallory {bob}")
        self.assertIn('certificate authentication failed for user "mallory"', step.err)

    def test_what_openssl_signed_opens_a_session(self) -> None:
        self.tutorial.do('psql -c "CREATE ROLE bob LOGIN"')
        bob = "sslcert=ca/bob.crt sslkey=bob/postgresql.key sslrootcert=bob/root.crt"
        step = self.tutorial.session(f"{ALICE} user=bob {bob}")
        self.assertEqual((step.code, step.out), (0, "1\n"), step.err)

    def test_openssl_verifies_what_was_made(self) -> None:
        top = self.tutorial.top
        for crt, purpose in (("ca/server.crt", "sslserver"), ("alice.crt", "sslclient")):
            options = ("-x509_strict", "-purpose", purpose, "-CAfile", top / "ca/root.crt")
            self.assertIn(": OK", openssl("verify", *options, top / crt))
        with self.assertRaisesRegex(AssertionError, "certificate revoked"):
            crl = ("-crl_check", "-CRLfile", top / "ca/root.crl")
            openssl("verify", *crl, "-CAfile", top / "ca/root.crt", top / "alice.crt")
