"""Host keys against known_hosts files."""

from __future__ import annotations

import hashlib
import hmac
import os
from base64 import b64encode

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from twisted.conch.ssh.keys import Key
from twisted.trial.unittest import SynchronousTestCase

from pgtls.errors import CertificateNotVerified
from pgtls.transport.ssh_known_hosts import KnownHosts
from pgtls.transport.ssh_settings import SSHServer

SERVER = SSHServer("alice", "bastion.example.com")
ELSEWHERE = SSHServer("alice", "bastion.example.com", 2222)

#: Types with keys that are none; what twisted.conch makes of some is an error of its own.
MALFORMED = (
    *("ssh-ed25519 AAAA", "ssh-ed25519 not-base64", "1024 35", "ssh-rsa AAAAB3NzaC1yc2E"),
    "sk-ssh-ed25519@openssh.com AAAAC3NzaC1lZDI1NTE5",
)


def key() -> Key:
    """A new host key."""
    return Key(Ed25519PrivateKey.generate()).public()


def line(host: str, shown: Key, marker: str = "") -> str:
    """A line of known_hosts."""
    return f"{marker} {host} ssh-ed25519 {b64encode(shown.blob()).decode()} comment\n".lstrip()


def hashed(host: str) -> str:
    """A name as HashKnownHosts has it."""
    salt = os.urandom(20)
    digest = hmac.new(salt, host.encode(), hashlib.sha1).digest()
    return f"|1|{b64encode(salt).decode()}|{b64encode(digest).decode()}"


class KnownHostsTests(SynchronousTestCase):
    """Which host keys are accepted."""

    def file(self, *lines: str) -> KnownHosts:
        path = self.mktemp()
        with open(path, "w") as known:
            known.writelines(lines)
        return KnownHosts((path, "not-there"))

    def refused(self, known: KnownHosts, server: SSHServer, shown: Key) -> str:
        return str(self.assertRaises(CertificateNotVerified, known.check, server, shown))

    def test_a_key_that_is_known_by_name_by_hash_and_by_port(self) -> None:
        shown = key()
        self.file(line("other,bastion.example.com", shown)).check(SERVER, shown)
        self.file("# a comment\n", "\n", line(hashed("bastion.example.com"), shown)).check(
            SERVER, shown
        )
        self.file(line("[bastion.example.com]:2222", shown)).check(ELSEWHERE, shown)
        self.file(line(SERVER.host, key()), line(SERVER.host, shown)).check(SERVER, shown)

    def test_a_key_that_is_known_for_another_host_or_port(self) -> None:
        shown = key()
        known = self.file(line("bastion.example.com", shown))
        self.assertIn("is not known", self.refused(known, ELSEWHERE, shown))
        self.assertIn(
            "is not known", self.refused(known, SSHServer("alice", "bastion.example.org"), shown)
        )

    def test_another_key_than_the_known_one(self) -> None:
        why = self.refused(self.file("\n", line(SERVER.host, key())), SERVER, key())
        self.assertIn("the host key of bastion.example.com has changed", why)
        self.assertIn("line 2", why)
        self.assertIn("ssh-keygen -R 'bastion.example.com'", why)

    def test_a_revoked_key_whatever_else_is_known(self) -> None:
        shown = key()
        lines = line("bastion.example.com", shown), line("*", shown, "@revoked")
        for each in (lines, lines[::-1]):
            self.assertIn("is revoked", self.refused(self.file(*each), SERVER, shown))

    def test_lines_that_are_none_do_not_keep_the_others_from_counting(self) -> None:
        shown = key()
        none = (
            *("bastion.example.com ssh-ed25519\n", "|1|x ssh-ed25519 AAAA\n", "\xff\n"),
            *(f"bastion.example.com {kind}\n" for kind in MALFORMED),
        )
        known = self.file(*none, line(SERVER.host, shown))
        known.check(SERVER, shown)
        self.assertEqual(known.key_types(SERVER), {b"ssh-ed25519"})
        self.assertIn("is not known", self.refused(self.file(*none), SERVER, shown))

    def test_a_line_that_is_commented_out_does_not_count(self) -> None:
        shown = key()
        for comment in ("#", " #", "# ", "#*,"):
            known = self.file(comment + line("old.example.com,bastion.example.com", shown))
            self.assertIn("is not known", self.refused(known, SERVER, shown))
            self.assertEqual(known.key_types(SERVER), set())

    def test_names_with_patterns(self) -> None:
        shown = key()
        for names in ("*.example.com", "Bastion.?xample.com", "other,*", "!other.example.com,*"):
            self.file(line(names, shown)).check(SERVER, shown)
        self.file(line("[*.example.com]:2222", shown)).check(ELSEWHERE, shown)
        for names in (
            *("*.example.org", "?", "[b]astion.example.com", "*,!bastion.example.com"),
            "bastion.example.com,!*.example.com",
        ):
            self.assertIn(
                "is not known", self.refused(self.file(line(names, shown)), SERVER, shown)
            )

    def test_an_authority_for_host_certificates_is_named_and_does_not_count(self) -> None:
        shown = key()
        known = self.file(line("*.example.com", shown, "@cert-authority"))
        why = self.refused(known, SERVER, shown)
        self.assertIn("line 1 (@cert-authority) is for host certificates", why)
        self.assertEqual(known.key_types(SERVER), set())

    def test_a_file_that_cannot_be_read_is_empty_and_named(self) -> None:
        directory, pipe = self.mktemp(), self.mktemp()
        os.mkdir(directory)
        os.mkfifo(pipe)
        why = self.refused(KnownHosts([directory, pipe]), SERVER, key())
        self.assertIn(f"{directory}: Is a directory or {pipe}: it is no regular file", why)
