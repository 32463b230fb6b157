"""The private keys for an SSH server: when a passphrase is asked for."""

from __future__ import annotations

from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
)
from twisted.trial.unittest import SynchronousTestCase

from pgtls.errors import ConfigurationError
from pgtls.reading import noting
from pgtls.transport.ssh_identities import Identity, identities_from_files
from pgtls.transport.ssh_settings import SSHSettings


class PassphraseTests(SynchronousTestCase):
    """An encrypted key, at the start and at a reload."""

    def setUp(self) -> None:
        directory = Path(self.mktemp()).absolute()
        directory.mkdir()
        self.key, self.asked = directory / "key", directory / "asked"
        self.settings = SSHSettings(
            upstream_via="ssh://user@bastion",
            ssh_identity_file=str(self.key),
            ssh_passphrase_command=f"echo >> {self.asked}; echo secret",
        )
        self.write_key()

    def write_key(self) -> None:
        self.key.write_bytes(
            Ed25519PrivateKey.generate().private_bytes(
                Encoding.PEM, PrivateFormat.OpenSSH, BestAvailableEncryption(b"secret")
            )
        )
        self.key.chmod(0o600)

    def read(self, *before: Identity) -> Identity:
        (identity,) = identities_from_files(self.settings, before)
        return identity

    def times_asked(self) -> int:
        return len(self.asked.read_text().splitlines())

    def test_not_for_a_file_that_has_not_changed(self) -> None:
        first = self.read()
        self.assertIs(self.read(first), first)
        self.assertEqual(self.times_asked(), 1)

    def test_for_a_file_that_has_changed(self) -> None:
        first = self.read()
        self.write_key()
        self.assertNotEqual(self.read(first).public.blob(), first.public.blob())
        self.assertEqual(self.times_asked(), 2)

    def test_the_file_is_noted(self) -> None:
        with noting() as files:
            self.read()
        self.assertEqual(list(files), [str(self.key)])

    def test_a_file_that_is_gone(self) -> None:
        first = self.read()
        self.key.unlink()
        with self.assertRaisesRegex(ConfigurationError, "could not open private key file"):
            self.read(first)
