"""Is this SSH server the right one? Its host key, against known_hosts files.

The format is OpenSSH's (sshd(8), "SSH_KNOWN_HOSTS FILE FORMAT"); a line that is not of this form
counts as none, as it does there. ``@revoked`` lines refuse a key for every host; those with
``@cert-authority`` are for host certificates, which twisted.conch does not ask for. A key that is
not known is refused, always: nobody is there to be asked.
"""

from __future__ import annotations

import hmac
from base64 import b64decode, b64encode
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from hashlib import sha1

import attrs
from twisted.conch.ssh.common import NS
from twisted.conch.ssh.keys import FingerprintFormats, Key

from pgtls.errors import CertificateNotVerified
from pgtls.reading import read_file
from pgtls.transport.ssh_settings import SSHServer

_REVOKED = "@revoked"
_CERT_AUTHORITY = "@cert-authority"

#: What the names of a hashed line (``HashKnownHosts`` in ssh_config(5)) begin with.
_HASHED = "|1|"


@attrs.frozen
class _Line:
    """A line of a known_hosts file.

    :ivar place: which one it is.
    :ivar marker: how it is marked; empty for the key of a host.
    :ivar names: of the hosts.
    :ivar key_type: SSH's name of the key's type.
    :ivar key: the key, in base64.
    """

    place: str
    marker: str
    names: str
    key_type: str
    key: str

    @classmethod
    def read(cls, place: str, text: str) -> _Line | None:
        """Take it apart.

        :param place: which line it is.
        :param text: the line.
        :returns: the line; None where it is none.
        """
        text = text.strip()
        if text.startswith("#"):  # what is behind that may be a line like any other
            return None
        marker, *fields = text.split() if text.startswith("@") else ["", *text.split()]
        if len(fields) < 3 or not _is_key(fields[1], fields[2]):
            return None
        return cls(place, marker, *fields[:3])

    def is_for(self, name: str) -> bool:
        """Whether it is about a host.

        :param name: the host's name, in lower case, as a known_hosts file has it.
        :returns: True if so.
        """
        if self.names.startswith(_HASHED):
            return _is_hash_of(name, self.names)
        names = self.names.lower().split(",")
        if any(each[:1] == "!" and _matches(name, each[1:]) for each in names):
            return False
        return any(_matches(name, each) for each in names)


def _is_key(key_type: str, key: str) -> bool:
    """Whether it is the key that it says; what is in it need not be sound."""
    try:
        return b64decode(key, validate=True).startswith(NS(key_type.encode()))
    except ValueError:
        return False


def _is_hash_of(name: str, hashed: str) -> bool:
    try:
        salt, digest = map(b64decode, hashed.removeprefix(_HASHED).split("|"))
    except ValueError:
        return False
    return hmac.compare_digest(hmac.new(salt, name.encode(), sha1).digest(), digest)


def _matches(name: str, pattern: str) -> bool:
    """ "PATTERNS" in ssh_config(5): ``*`` and ``?``, and nothing else, stand for other signs."""
    return fnmatchcase(name, pattern.replace("[", "[[]"))


class KnownHosts:
    """Known host keys.

    :param paths: the files, read whenever they are needed. One that cannot be read is empty.
    """

    def __init__(self, paths: Sequence[str]) -> None:
        self._paths = paths

    def key_types(self, server: SSHServer) -> set[bytes]:
        """The types of key by which a server is known.

        :param server: the server.
        :returns: SSH's names of them, such as ``ssh-ed25519``.
        """
        lines, _ = self._read()
        return {
            line.key_type.encode()
            for line in lines
            if not line.marker and line.is_for(server.known_as)
        }

    def check(self, server: SSHServer, shown: Key) -> None:
        """Check the key that a server shows.

        :param server: which server it should be.
        :param shown: its host key.
        :raises CertificateNotVerified: it is not known, is another one, or is revoked.
        """
        lines, files = self._read()
        blob = b64encode(shown.blob()).decode()
        for line in lines:
            if line.marker == _REVOKED and line.key == blob:
                raise CertificateNotVerified(
                    f"Host key verification failed: the host key {_named(shown)} is revoked in "
                    f"{line.place}"
                )
        about = [line for line in lines if line.is_for(server.known_as)]
        known = [line for line in about if not line.marker]
        if any(line.key == blob for line in known):
            return
        if known:
            raise _changed(server, shown, known)
        raise _unknown(server, shown, files, about)

    def _read(self) -> tuple[list[_Line], list[str]]:
        """What is in the files; and which they are, with what is wrong with them."""
        lines: list[_Line] = []
        files: list[str] = []
        for path in self._paths:
            try:
                data = read_file(path)
            except OSError as error:
                files.append(f"{path}: {error.strerror}")
            else:
                files.append(path)
                lines += _lines(path, data)
        return lines, files


def _lines(path: str, data: bytes) -> Iterator[_Line]:
    for number, text in enumerate(data.decode(errors="replace").split("\n"), 1):
        line = _Line.read(f'"{path}", line {number}', text)
        if line is not None:
            yield line


def _changed(server: SSHServer, shown: Key, known: list[_Line]) -> CertificateNotVerified:
    return CertificateNotVerified(
        f"Host key verification failed: the host key of {server.host} has changed: it shows "
        f"{_named(shown)}, and another one is known ({', '.join(line.place for line in known)}). "
        "Somebody may be listening in. If the server's administrator confirms the new key, remove "
        f"the old one with: ssh-keygen -R '{server.known_as}'"
    )


def _unknown(
    server: SSHServer, shown: Key, files: list[str], about: list[_Line]
) -> CertificateNotVerified:
    authorities = [line.place for line in about if line.marker == _CERT_AUTHORITY]
    step = (
        f"and add it by connecting once: ssh -p {server.port} {server.user}@{server.host}"
        if not authorities
        else f"and add a line with it: {', '.join(authorities)} ({_CERT_AUTHORITY}) is for host "
        "certificates, which are not used here"
    )
    return CertificateNotVerified(
        f"Host key verification failed: the host key {_named(shown)} of {server.host} is not known "
        f"({' or '.join(files)}): compare it with what the server's administrator says, {step}"
    )


def _named(key: Key) -> str:
    return f"{key.sshType().decode()} {fingerprint(key)}"


def fingerprint(key: Key) -> str:
    """A key's fingerprint as ``ssh-keygen -l`` prints it.

    :param key: the key.
    :returns: ``SHA256:`` and 43 characters.
    """
    digest = key.fingerprint(FingerprintFormats.SHA256_BASE64)
    return f"SHA256:{digest.rstrip('=')}"
