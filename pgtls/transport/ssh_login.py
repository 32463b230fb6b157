"""Logging in at an SSH server, with keys alone: nobody is there to type a password."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, cast

from twisted.conch.ssh.connection import SSHConnection
from twisted.conch.ssh.keys import Key
from twisted.conch.ssh.transport import SSHClientTransport
from twisted.conch.ssh.userauth import SSHUserAuthClient
from twisted.internet.defer import Deferred
from twisted.logger import Logger, LogPublisher

from pgtls.errors import ConnectFailed
from pgtls.text import log_text
from pgtls.transport.ssh_identities import Identity, PublicKey

#: In place of conch's loggers, which say each step: what an operator needs is said elsewhere.
SILENT = Logger(observer=LogPublisher())

#: How RSA keys sign (RFC 8332).
_RSA = {b"rsa-sha2-512", b"rsa-sha2-256"}

_HAVE_ONE = "name one with ssh_identity_file, or have an agent that answers (SSH_AUTH_SOCK)"


class Login(SSHUserAuthClient):
    """Logs in with one key after the other.

    :param user: the user there.
    :param service: is started when we are in.
    :param identities: the keys.
    """

    _log = SILENT

    def __init__(self, user: str, service: SSHConnection, identities: Sequence[Identity]) -> None:
        super().__init__(user.encode(), service)
        self._identities = identities
        self._offers: Iterator[Identity] = iter(())
        self._offered: Identity | None = None
        self._methods: str | None = None  # that the server would accept

    def serviceStarted(self) -> None:
        """The server takes logins, and may have said which signatures it knows (RFC 8308)."""
        server = cast(SSHClientTransport, self.transport)
        server_knows = server.peerExtensions.get(b"server-sig-algs", b"")
        self._offers = iter(_offers(self._identities, server_knows))
        super().serviceStarted()

    def tryAuth(self, kind: bytes) -> Any:
        """Nothing but keys.

        :param kind: SSH's name of a method.
        :returns: what conch expects: None, or whether something was sent.
        """
        return super().tryAuth(kind) if kind == b"publickey" else None

    def getPublicKey(self) -> PublicKey | None:
        """The next key; None when all have been offered."""
        self._offered = next(self._offers, None)
        return self._offered.public if self._offered is not None else None

    def signData(self, publicKey: Key, signData: bytes) -> Deferred[bytes] | None:
        """Sign with the key that the server has accepted.

        :param publicKey: the one that was offered last.
        :param signData: what to sign.
        :returns: fires with the signature.
        """
        return self._offered.sign(signData) if self._offered is not None else None

    def ssh_USERAUTH_FAILURE(self, packet: bytes) -> Any:
        """The server has not accepted a key, or says at the beginning what it accepts.

        :param packet: its methods.
        :returns: what conch makes of it.
        """
        methods = packet[4 : 4 + int.from_bytes(packet[:4], "big")]
        self._methods = log_text(methods)
        return super().ssh_USERAUTH_FAILURE(packet)

    @property
    def error(self) -> ConnectFailed | None:
        """Why the server did not let us in; None where it has not said."""
        if self._methods is None:
            return None
        tried = len({each.public.blob() for each in self._identities})
        keys = f"{tried} {'key was' if tried == 1 else 'keys were'} offered" if tried else "no key"
        return ConnectFailed(
            f"Permission denied ({self._methods}): {keys}"
            + ("" if tried else f" to offer: {_HAVE_ONE}")
        )


def _offers(identities: Sequence[Identity], server_knows: bytes) -> list[Identity]:
    """In which order they are offered. What OpenSSH 9.2 says it knows is more than its
    PubkeyAcceptedAlgorithms lets in, so RSA keys try both signatures. Each offer counts
    (MaxAuthTries): the second ones come last."""
    known = _RSA.intersection(server_knows.split(b","))
    unknown = _RSA - known if known else set()
    offers = [each for each in identities if each.public.algorithm not in unknown]
    return sorted(offers, key=lambda each: each.public.algorithm == b"rsa-sha2-256")
