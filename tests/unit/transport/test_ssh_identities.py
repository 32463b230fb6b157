"""The private keys for an SSH server: when a passphrase is asked for."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed448 import Ed448PrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from twisted.conch.ssh.keys import Key
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase

from pgtls.errors import ConfigurationError
from pgtls.reading import noting
from pgtls.transport import ssh_identities
from pgtls.transport.ssh_identities import (
    Identity,
    identities_from_files,
    identities_of_agent,
)
from pgtls.transport.ssh_settings import SSHSettings

ECDSA = generate_private_key(SECP256R1())


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


class FormatTests(SynchronousTestCase):
    """Private keys in files, in each form that OpenSSH and OpenSSL write."""

    def read(self, data: bytes, command: str = "") -> list[Identity]:
        path = Path(self.mktemp()).absolute()
        path.write_bytes(data)
        path.chmod(0o600)
        settings = SSHSettings(
            upstream_via="ssh://user@bastion",
            ssh_identity_file=str(path),
            ssh_passphrase_command=command,
        )
        return identities_from_files(settings)

    def refused(self, data: bytes, command: str = "") -> str:
        return str(self.assertRaises(ConfigurationError, self.read, data, command))

    def test_openssh_pkcs8_and_the_older_pem(self) -> None:
        for format_ in PrivateFormat.OpenSSH, PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL:
            for secret in NoEncryption(), BestAvailableEncryption(b"secret"):
                data = ECDSA.private_bytes(Encoding.PEM, format_, secret)
                (identity,) = self.read(data, "echo secret")
                self.assertEqual(identity.public.blob(), Key(ECDSA).blob())

    def test_a_wrong_passphrase_is_called_that(self) -> None:
        for format_ in PrivateFormat.OpenSSH, PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL:
            data = ECDSA.private_bytes(Encoding.PEM, format_, BestAvailableEncryption(b"secret"))
            self.assertIn("its passphrase is wrong", self.refused(data, "echo wrong"))
            self.assertIn("set ssh_passphrase_command", self.refused(data))

    def test_what_is_no_key_is_not_shown(self) -> None:
        pem = ECDSA.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
        secret = b"".join(pem.splitlines()[1:-1])
        for data in (secret, b"- " + pem.replace(b"OPENSSH", b"OPENSHS"), pem[:100], b"\xff", b""):
            why = self.refused(data)
            self.assertIn("it is no private key in OpenSSH's format or PEM", why)
            self.assertNotIn(secret[:50].decode(), why)

    def test_a_kind_that_ssh_does_not_use(self) -> None:
        data = Ed448PrivateKey.generate().private_bytes(
            Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
        )
        self.assertIn("it is no private key in", self.refused(data))

    def test_a_public_key(self) -> None:
        self.assertIn("is a public key", self.refused(Key(ECDSA).public().toString("OPENSSH")))


class _SilentAgent(Protocol):
    """Takes a request, and never answers.

    :ivar asked: fires with the request.
    :ivar left: fires when its client has gone.
    """

    def __init__(self) -> None:
        self.asked: Deferred[bytes] = Deferred()
        self.left: Deferred[None] = Deferred()

    def dataReceived(self, data: bytes) -> None:
        self.asked.callback(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.left.callback(None)


class SilentAgentTests(TestCase):
    """An agent that hangs holds up no SSH connection, and keeps no descriptor."""

    def setUp(self) -> None:
        # The path of a socket has to be short.
        directory = tempfile.TemporaryDirectory(dir="/tmp")
        self.addCleanup(directory.cleanup)
        path = os.path.join(directory.name, "agent")
        self.agent = _SilentAgent()
        port = reactor.listenUNIX(path, Factory.forProtocol(lambda: self.agent))  # type: ignore[attr-defined]
        self.addCleanup(port.stopListening)
        self.patch(os, "environ", {**os.environ, "SSH_AUTH_SOCK": path})

    def asking(self) -> Deferred[list[Identity]]:
        asked = Deferred.fromCoroutine(identities_of_agent(reactor))  # type: ignore[arg-type]
        return asked.addCallback(lambda found: found[0])

    async def test_it_has_a_time_to_answer(self) -> None:
        self.patch(ssh_identities, "AGENT_TIMEOUT", 0.1)
        self.assertEqual(await self.asking(), [])
        await self.agent.left

    async def test_who_asks_may_give_up(self) -> None:
        asking = self.asking()
        await self.agent.asked
        asking.cancel()
        with self.assertRaises(CancelledError):
            await asking
        await self.agent.left
