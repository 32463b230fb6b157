"""The commands for certificates, killed at any moment, and several at once."""

from __future__ import annotations

import os
import random
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from pgtls.certs.database import Entry
from pgtls.commands.main import main
from pgtls.tls.certificate import serial_hex
from tests.support.authorities import certificate
from tests.support.safety_case import SafetyCase

#: How many times each command is killed.
KILLS = int(os.environ.get("PGTLS_TEST_KILLS", "20"))

#: What changes the file system, among the events that Python tells of.
CHANGES = {"open", "os.rename", "os.link", "os.remove", "os.mkdir", "os.chmod", "fcntl.flock"}


def forked(command: list[str], environ: dict[str, str], prepare: Callable[[], None]) -> int:
    """Run a command in a child of this process, and wait for its end.

    A fork, as a new interpreter would spend nearly all of its time on imports, where nothing
    happens that a kill could spoil.

    :param prepare: called in the child, before the command.
    :returns: the exit code, or minus the number of the signal that ended it.
    """
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    code = 70
    try:
        os.environ.update(environ)
        nowhere = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(nowhere, descriptor)
        prepare()
        main(command, prog_name="pgtls")
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(bool(end.code))
    finally:
        os._exit(code)


def kill_at(change: int) -> Callable[[], None]:
    """kill -9 just before the change with that number."""

    def prepare() -> None:
        left = change

        def hook(event: str, _arguments: object) -> None:
            nonlocal left
            if event in CHANGES:
                left -= 1
                if left < 0:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(hook)

    return prepare


def kill_after(seconds: float) -> Callable[[], None]:
    """The end comes from the kernel after that time, between any two instructions."""

    def prepare() -> None:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, seconds)

    return prepare


class Killed(SafetyCase):
    """No half file, no record lost, and the command can be run again."""

    def killed(self, *command: str | Path, again: tuple[str, ...] = ()) -> None:
        """Kill the command at many moments.

        :param again: options for the second run, which may find the first one's work done.
        """
        words = [str(word) for word in command]
        shutil.copytree(self.top, self.top.with_name("before"))
        before = self.top.with_name("before")
        ends = []
        changes = self.count_changes(words)
        self.assertGreater(changes, 5)
        for prepare in self.moments(changes):
            shutil.rmtree(self.top)
            shutil.copytree(before, self.top)
            ends.append(forked(words, self.environ, prepare))
            self.assertIn(ends[-1], (0, -signal.SIGKILL, -signal.SIGALRM))
            self.check(before)
            result = self.run_pgtls(*words, *again)
            if result.exit_code:
                self.assertIn("is there already", result.stderr)
            self.check(before)
            self.assertEqual([*self.top.rglob("*unfinished")], [])
        self.assertGreaterEqual(sum(end < 0 for end in ends), min(changes, KILLS // 2))

    def moments(self, changes: int) -> Iterator[Callable[[], None]]:
        """Half of the kills at changes of the file system, spread over all of them, half at
        random times."""
        step = max(1, changes * 2 // KILLS)
        for change in range(0, changes, step):
            yield kill_at(change)
        for _ in range(KILLS // 2):
            # A run takes about 20 ms; one that ends before its time is a run like any other.
            yield kill_after(random.uniform(0.0005, 0.03))

    def count_changes(self, words: list[str]) -> int:
        """How many changes the whole command makes."""
        reading, writing = os.pipe()

        def prepare() -> None:
            def hook(event: str, _arguments: object) -> None:
                if event in CHANGES:
                    os.write(writing, b".")

            sys.addaudithook(hook)

        self.assertEqual(forked(words, self.environ, prepare), 0)
        os.close(writing)
        with open(reading, "rb") as pipe:
            return len(pipe.read())

    def check(self, before: Path) -> None:
        """What must hold at any moment."""
        for path in self.top.rglob("*"):
            if path.is_file() and not path.name.startswith("."):
                self.check_whole(path)
        if not (self.ca / "index.txt").exists():
            return
        listed = {one["serial"]: one["status"] for one in self.listed()}
        recorded = self.entries(self.ca / "index.txt")
        for path in (*self.top.rglob("*.crt"), *self.top.rglob("newcerts/*.pem")):
            found = certificate(path)
            if path.name not in ("root.crt", "other.crt"):
                self.assertIn(serial_hex(found.serial_number), listed)
            if path.suffix == ".crt" and path.name != "root.crt":  # somebody has got it
                self.assertIn(found.serial_number, recorded)
        if (before / "ca" / "index.txt").exists():
            for number, entry in self.entries(before / "ca" / "index.txt").items():
                self.assertIn(recorded[number].status, ("R", entry.status))
            key = "ca/root.key"
            self.assertEqual((self.top / key).read_bytes(), (before / key).read_bytes())
            crl = x509.load_pem_x509_crl((self.ca / "root.crl").read_bytes())
            self.assertLessEqual(
                {entry.serial_number for entry in crl},
                {number for number, entry in recorded.items() if entry.status == "R"},
            )

    def check_whole(self, path: Path) -> None:
        """It is what its name says, to its last byte."""
        data = path.read_bytes()
        match path.suffix:
            case ".crt" | ".pem":
                x509.load_pem_x509_certificate(data)
            case ".key":
                load_pem_private_key(data, None)
                self.assertEqual(path.stat().st_mode & 0o777, 0o600)
            case ".csr":
                x509.load_pem_x509_csr(data)
            case ".crl":
                x509.load_pem_x509_crl(data)
            case ".conf":
                self.assertTrue(data.endswith(b"-----END CERTIFICATE-----\n"))
            case ".txt":
                self.assertIn(data[-1:], (b"\n", b""))
                self.entries(path)
            case _:
                self.assertTrue(data.endswith(b"\n"), path)

    def entries(self, index: Path) -> dict[int, Entry]:
        entries = map(Entry.parse, index.read_text().splitlines())
        return {entry.serial: entry for entry in entries}

    def test_mkcert(self) -> None:
        shutil.rmtree(self.ca)
        for path in self.top.rglob("*.crt"):
            path.unlink()
        self.killed("mkcert", "-D", self.ca, "localhost")

    def test_mkcert_renew(self) -> None:
        self.killed("mkcert", "-D", self.ca, "--renew")

    def test_mkcert_force(self) -> None:
        self.killed("mkcert", "-D", self.ca, "--force", "localhost")

    def test_client_conf(self) -> None:
        self.conf.unlink()
        self.killed("client-conf", "-D", self.ca, "-o", self.conf)

    def test_keygen(self) -> None:
        shutil.rmtree(self.dot)
        self.killed("keygen", "--conf", self.conf)

    def test_keygen_force(self) -> None:
        self.killed("keygen", "--conf", self.conf, "--force")

    def test_sign(self) -> None:
        (self.dot / "postgresql.crt").unlink()
        self.killed("sign", "-D", self.ca, "--yes", self.dot / "postgresql.csr")

    def test_sign_renew(self) -> None:
        self.killed("sign", "-D", self.ca, "--yes", "--renew", self.dot / "postgresql.crt")

    def test_install(self) -> None:
        (self.dot / "postgresql.crt").unlink()
        self.killed("install", self.crt)

    def test_revoke(self) -> None:
        self.killed("revoke", "-D", self.ca, self.crt)

    def test_crl(self) -> None:
        self.killed("crl", "-D", self.ca)


class Together(SafetyCase):
    """Several at once."""

    def test_no_record_is_lost(self) -> None:
        commands = [["revoke", "-D", str(self.ca), str(self.crt)], ["crl", "-D", str(self.ca)]]
        for number in range(6):
            user = self.top / f"user{number}"
            self.make_request("-D", user, user=user.name)
            request = str(user / "postgresql.csr")
            commands.append(["sign", "-D", str(self.ca), "--yes", request])
        children = [self.started(command) for command in commands]
        ends = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        self.assertEqual(ends, [0] * len(commands))
        listed = {one["subject"]: one["status"] for one in self.listed()}
        self.assertEqual(len(listed), 9)
        self.assertEqual((listed["CN=alice"], listed["CN=gone"]), ("revoked", "revoked"))
        self.assertEqual(self.json("list", "-D", self.ca)["warnings"], [])
        crl = self.json("crl", "-D", self.ca)
        # One for the authority's first, one in setUp, two here, and this one.
        self.assertEqual(crl["crl_number"], 5)

    def started(self, command: list[str]) -> int:
        """The id of a child that runs it."""
        child = os.fork()
        if child == 0:
            os._exit(forked(command, self.environ, lambda: None))
        return child
