"""Logging in at an SSH server: which key is offered when, and for which signature."""

from __future__ import annotations

from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from twisted.conch.ssh.common import NS, getNS
from twisted.conch.ssh.connection import SSHConnection
from twisted.trial.unittest import SynchronousTestCase

from pgtls.transport.ssh_identities import identities_from_files
from pgtls.transport.ssh_login import Login
from pgtls.transport.ssh_settings import SSHSettings

RSA = generate_private_key(65537, 2048)
REFUSED = NS(b"publickey") + b"\0"


class _Server:
    """An SSH server that lets no key in.

    :param knows: its ``server-sig-algs`` (RFC 8308, section 3.1); None where it does not say.
    :ivar offered: the algorithms of the keys that it was offered.
    """

    def __init__(self, knows: bytes | None) -> None:
        self.peerExtensions = {} if knows is None else {b"server-sig-algs": knows}
        self.offered: list[str] = []

    def sendPacket(self, number: int, request: bytes) -> None:
        _, _, method, rest = getNS(request, 3)
        if method == b"publickey":
            self.offered.append(getNS(rest[1:])[0].decode())

    def sendDisconnect(self, reason: int, why: bytes) -> None:
        pass


class OfferTests(SynchronousTestCase):
    """With an RSA key, and an Ed25519 key after it."""

    def offered(self, knows: bytes | None) -> list[str]:
        identities = []
        for key in RSA, Ed25519PrivateKey.generate():
            path = Path(self.mktemp()).absolute()
            path.touch(0o600)
            path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()))
            settings = SSHSettings("ssh://alice@bastion", ssh_identity_file=str(path))
            identities += identities_from_files(settings)
        login = Login("alice", SSHConnection(), identities)
        login.transport = server = _Server(knows)
        login.serviceStarted()
        for _ in range(len(identities) + 1):
            login.ssh_USERAUTH_FAILURE(REFUSED)
        self.assertIn("2 keys were offered", str(login.error))
        return server.offered

    def test_RSA_for_both_signatures_the_second_one_last(self) -> None:
        for knows in None, b"ssh-ed25519", b"rsa-sha2-256,rsa-sha2-512":
            self.assertEqual(self.offered(knows), ["rsa-sha2-512", "ssh-ed25519", "rsa-sha2-256"])

    def test_RSA_for_the_one_that_the_server_knows(self) -> None:
        self.assertEqual(self.offered(b"rsa-sha2-512"), ["rsa-sha2-512", "ssh-ed25519"])
        self.assertEqual(self.offered(b"ssh-rsa,rsa-sha2-256"), ["ssh-ed25519", "rsa-sha2-256"])
