"""Who logs in at an SSH server: private keys from files, and those that an agent holds."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from hashlib import sha256
from typing import cast

import attrs
from cryptography.hazmat.primitives.serialization import (
    load_pem_private_key,
    load_ssh_private_key,
)
from twisted.conch.ssh.agent import AGENT_SIGN_RESPONSE, AGENTC_SIGN_REQUEST, SSHAgentClient
from twisted.conch.ssh.common import NS, getNS
from twisted.conch.ssh.keys import Key
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.endpoints import UNIXClientEndpoint
from twisted.internet.interfaces import ITransport

from pgtls.errors import ConfigurationError
from pgtls.tls.key_file import read_key_file
from pgtls.tls.passphrase import passphrase
from pgtls.transport.dial import OneProtocol
from pgtls.transport.reactor import IReactor
from pgtls.transport.ssh_settings import SSHSettings

#: The flags with which an agent signs so (draft-ietf-sshm-ssh-agent, section 3.6.1).
_AGENT_FLAGS = {b"rsa-sha2-256": b"\0\0\0\2", b"rsa-sha2-512": b"\0\0\0\4"}
_AGENT_NO_FLAGS = b"\0\0\0\0"

#: Seconds that an agent has to answer.
AGENT_TIMEOUT = 5.0

_OPENSSH = b"-----BEGIN OPENSSH PRIVATE KEY-----"
_PUBLIC = (b"ssh-", b"ecdsa-", b"sk-")

_SET_IT = "set ssh_passphrase_command to a command that prints its passphrase, or use an agent"


class PublicKey(Key):
    """A public key that is offered to a server, under the name of the signature it will make.

    :ivar algorithm: that name.
    """

    algorithm: bytes = b""

    def sshType(self) -> bytes:
        """The algorithm's name."""
        return self.algorithm or cast(bytes, super().sshType())


def _public_keys(blob: bytes) -> Iterator[PublicKey]:
    """The key once for each algorithm that it can sign with; SHA-1, which "ssh-rsa" stands for, is
    refused by servers of today (RFC 8332)."""
    for algorithm in PublicKey.fromString(blob, type="BLOB").supportedSignatureAlgorithms():
        if algorithm != b"ssh-rsa":
            public = PublicKey.fromString(blob, type="BLOB")
            public.algorithm = algorithm
            yield public


@attrs.frozen
class Identity:
    """A key to log in with, and how it signs: an RSA key makes two of them.

    :ivar public: its public half.
    :ivar sign: signs bytes with the private half.
    :ivar file: the path of its file, and the hash of what is in there; None for one of the agent's.
    """

    public: PublicKey
    sign: Callable[[bytes], Deferred[bytes]]
    file: tuple[str, bytes] | None = None


def identities_from_files(settings: SSHSettings, before: Sequence[Identity] = ()) -> list[Identity]:
    """Read the private keys.

    :param settings: name them.
    :param before: at a reload, those that have been read before. Where a file has not changed its
        key stays, and no passphrase is asked for.
    :returns: the keys. An encrypted one that is not named in the settings, and has no command for
        its passphrase, is left to the agent.
    :raises ConfigurationError: a file cannot be read, other users may read it, or it is no key.
    """
    found: list[Identity] = []
    mistakes: list[str] = []
    for path in settings.identity_files:
        try:
            data = read_key_file(path)
            file = path, sha256(data).digest()
            same = [each for each in before if each.file == file]
            key = None if same else _private_key(path, data, settings)
        except ConfigurationError as error:
            mistakes += error.mistakes
        else:
            found += same if key is None else _identities(key, file)
    if mistakes:
        raise ConfigurationError(*mistakes)
    return found


def _private_key(path: str, data: bytes, settings: SSHSettings) -> Key | None:
    if data.startswith(_PUBLIC):
        raise ConfigurationError(f'"{path}" is a public key: ssh_identity_file is the private one')
    wrong = "it is no private key in OpenSSH's format or PEM"
    try:
        try:
            return _key(data, None)
        except TypeError:  # it is encrypted
            if not settings.ssh_passphrase_command and not settings.ssh_identity_file:
                return None
        command, name = settings.ssh_passphrase_command, "ssh_passphrase_command"
        secret = passphrase(command, path, advice=_SET_IT, name=name)
        wrong = "its passphrase is wrong"
        return _key(data, secret)
    except ConfigurationError:
        raise
    except Exception as error:  # of many kinds: what is in the file is anybody's
        raise ConfigurationError(
            f'could not load private key file "{path}": {wrong} ({error})'
        ) from error


def _key(data: bytes, secret: bytes | None) -> Key:
    """Read it. conch's own reader knows no PKCS#8, and its errors have what is in the file."""
    load = load_ssh_private_key if _OPENSSH in data else load_pem_private_key
    key = Key(load(data, secret))
    key.blob()  # a kind that conch does not know shows here
    return key


def _identities(key: Key, file: tuple[str, bytes]) -> Iterator[Identity]:
    def signing(algorithm: bytes) -> Callable[[bytes], Deferred[bytes]]:
        return lambda data: succeed(key.sign(data, algorithm))

    for public in _public_keys(key.public().blob()):
        yield Identity(public, signing(public.algorithm), file)


async def identities_of_agent(reactor: IReactor) -> tuple[list[Identity], Callable[[], None]]:
    """Ask the agent (``SSH_AUTH_SOCK``) for its keys. Cancelling it closes the connection.

    :param reactor: Twisted's.
    :returns: the keys, none where there is no agent, or none that answers within AGENT_TIMEOUT; and
        what closes the connection to it, after which they cannot sign any more.
    """
    path = os.environ.get("SSH_AUTH_SOCK")
    if not path:
        return [], lambda: None
    endpoint = UNIXClientEndpoint(reactor, path, timeout=AGENT_TIMEOUT)
    agent = SSHAgentClient()
    try:
        await endpoint.connect(OneProtocol.forProtocol(lambda: agent))
        keys = await agent.requestIdentities().addTimeout(AGENT_TIMEOUT, reactor)
    except Exception as error:
        if agent.transport is not None:
            agent.transport.loseConnection()
        if isinstance(error, CancelledError):
            raise
        # It is gone, hangs, or answers what it should not: the keys in files may do.
        return [], lambda: None
    found = []
    for blob, _ in keys:
        try:
            public_keys = list(_public_keys(blob))
        except Exception:  # noqa: S112 - a kind of key that conch does not know
            continue
        found += [Identity(each, _signing(agent, blob, each.algorithm)) for each in public_keys]
    return found, cast(ITransport, agent.transport).loseConnection


def _signing(
    agent: SSHAgentClient, blob: bytes, algorithm: bytes
) -> Callable[[bytes], Deferred[bytes]]:
    flags = _AGENT_FLAGS.get(algorithm, _AGENT_NO_FLAGS)

    def sign(data: bytes) -> Deferred[bytes]:
        # conch's own signData() asks for no flags: RSA keys would sign with SHA-1.
        request = NS(blob) + NS(data) + flags
        answer: Deferred[bytes] = agent.sendRequest(AGENTC_SIGN_REQUEST, request)
        return answer.addCallback(_signature)

    return sign


def _signature(answer: bytes) -> bytes:
    if answer[:1] != bytes((AGENT_SIGN_RESPONSE,)):
        raise ValueError("the agent does not sign")
    signature: bytes = getNS(answer[1:])[0]
    return signature
