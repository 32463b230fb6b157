"""The commands for certificates refuse files and directories that are not private."""

from __future__ import annotations

import os
from pathlib import Path

from tests.support.safety_case import SafetyCase


class Refused(SafetyCase):
    """Places and files that are not as they must be, with the reason."""

    def each(self, reason: str) -> None:
        """Every command that writes into the authority's directory refuses it."""
        request = self.dot / "postgresql.csr"
        for command in (
            ("mkcert", "--renew"),
            ("mkcert", "--force", "localhost"),
            ("sign", "--yes", "--renew", request),
            ("revoke", self.crt),
            ("crl",),
        ):
            self.refused(reason, *command, "-D", self.ca)

    def test_a_directory_that_others_can_write_into(self) -> None:
        self.ca.chmod(0o775)
        self.each(r"others can write into directory .* \(mode 0775\): chmod go-w it")

    def test_a_directory_of_somebody_elses(self) -> None:
        if os.geteuid() == 0:
            os.chown(self.ca, 65534, -1)
        else:
            self.ca = Path("/usr")
        reason = "(belongs to .*run this as|No such file|could not open|Permission denied)"
        self.refused(reason, "mkcert", "-D", self.ca, "--force", "localhost")
        self.refused(reason, "crl", "-D", self.ca)

    def test_the_users_directory_too(self) -> None:
        self.dot.chmod(0o777)
        self.refused("others can write into", "install", self.crt)
        self.refused("others can write into", "keygen", "--conf", self.conf, "--force")

    def test_what_is_no_directory(self) -> None:
        self.refused("is not a directory|cannot be made", "mkcert", "-D", self.conf, "localhost")

    def test_a_key_that_others_can_read(self) -> None:
        (self.ca / "root.key").chmod(0o644)
        self.each('root.key" has group or world access')

    def test_a_users_key_that_others_can_read(self) -> None:
        (self.dot / "postgresql.key").chmod(0o640 if os.geteuid() else 0o644)
        self.refused('postgresql.key" has group or world access', "install", self.crt)

    def test_symbolic_links(self) -> None:
        """A link in a file's place is neither followed nor replaced."""
        for name, command in (
            ("root.key", ("crl", "-D", self.ca)),
            ("root.crl", ("crl", "-D", self.ca)),
            ("crlnumber", ("crl", "-D", self.ca)),
            ("index.txt", ("revoke", "-D", self.ca, self.crt)),
            ("server.key", ("mkcert", "-D", self.ca, "--force", "localhost")),
            ("server.crt", ("mkcert", "-D", self.ca, "--renew")),
        ):
            self.link(self.ca / name, *command)
        for name, command in (
            ("postgresql.key", ("keygen", "--conf", self.conf, "--force")),
            ("postgresql.csr", ("keygen", "--conf", self.conf, "--force")),
            ("postgresql.crt", ("install", "--force", self.crt)),
        ):
            self.link(self.dot / name, *command)
        renew = ("sign", "-D", self.ca, "--yes", "--renew", self.dot / "postgresql.csr")
        self.link(self.dot / "postgresql.crt", *renew)

    def link(self, path: Path, *command: str | Path) -> None:
        elsewhere = path.rename(self.top / "elsewhere")
        path.symlink_to(elsewhere)
        content = elsewhere.read_bytes()
        self.refused(f'{path.name}" is a symbolic link', *command)
        self.assertTrue(path.is_symlink())
        self.assertEqual(elsewhere.read_bytes(), content)
        elsewhere.replace(path)

    def test_a_link_in_the_place_of_the_lock(self) -> None:
        lock = self.ca / ".pgtls.lock"
        lock.unlink()
        lock.symlink_to(self.top / "victim")
        self.each("pgtls.lock.*symbolic link")
        self.assertFalse((self.top / "victim").exists())

    def test_a_dangling_link_is_not_written_through(self) -> None:
        (self.dot / "postgresql.crt").unlink()
        (self.dot / "postgresql.crt").symlink_to(self.top / "victim")
        request = self.dot / "postgresql.csr"
        self.refused("is a symbolic link", "sign", "-D", self.ca, "--yes", request)
        self.refused("is a symbolic link", "install", self.crt)
        self.assertFalse((self.top / "victim").exists())

    def test_newcerts_elsewhere(self) -> None:
        newcerts = self.ca / "newcerts"
        newcerts.chmod(0o777)
        self.refused("others can write into", "sign", "-D", self.ca, "--yes", "--renew", self.crt)
