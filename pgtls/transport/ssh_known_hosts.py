"""Is this SSH server the right one? Its host key, against known_hosts files.

The format is OpenSSH's (sshd(8), "SSH_KNOWN_HOSTS FILE FORMAT"), read by twisted.conch: names as
they are and hashed ones. ``@revoked`` lines refuse a key for every host; lines with patterns and
``@cert-authority`` count as no line. A key that is not known is refused, always: nobody is there to
be asked.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator, Sequence

from twisted.conch.client.knownhosts import KnownHostsFile
from twisted.conch.interfaces import IKnownHostEntry
from twisted.conch.ssh.keys import FingerprintFormats, Key
from twisted.python.filepath import FilePath

from pgtls.errors import CertificateNotVerified
from pgtls.transport.ssh_settings import SSHServer


class KnownHosts:
    """Known host keys.

    :param paths: the files; one that is not there is empty.
    """

    def __init__(self, paths: Sequence[str]) -> None:
        self._paths = paths

    def key_types(self, server: SSHServer) -> set[bytes]:
        """The types of key by which a server is known.

        :param server: the server.
        :returns: SSH's names of them, such as ``ssh-ed25519``.
        """
        found = (entry for _, _, entry in self._entries() if entry.matchesHost(server.known_as))
        return {entry.keyType for entry in found if entry.keyType is not None}

    def check(self, server: SSHServer, shown: Key) -> None:
        """Check the key that a server shows.

        :param server: which server it should be.
        :param shown: its host key.
        :raises CertificateNotVerified: it is not known, is another one, or is revoked.
        """
        key = f"{shown.sshType().decode()} {fingerprint(shown)}"
        others: list[str] = []
        known = False
        for path, number, entry in self._entries():
            if _revokes(entry, shown):
                raise CertificateNotVerified(
                    f'Host key verification failed: the host key {key} is revoked in "{path}", '
                    f"line {number}"
                )
            if entry.matchesHost(server.known_as):
                known = known or entry.matchesKey(shown)
                others.append(f'"{path}", line {number}')
        if known:
            return
        if others:
            raise CertificateNotVerified(
                f"Host key verification failed: the host key of {server.host} has changed: it "
                f"shows {key}, and another one is known ({', '.join(others)}). Somebody may be "
                "listening in. If the server's administrator confirms the new key, remove the old "
                f"one with: ssh-keygen -R '{server.known_as.decode()}'"
            )
        raise CertificateNotVerified(
            f"Host key verification failed: the host key {key} of {server.host} is not known "
            f"({' or '.join(self._paths)}): compare it with what the server's administrator says, "
            f"and add it by connecting once: ssh -p {server.port} {server.user}@{server.host}"
        )

    def _entries(self) -> Iterator[tuple[str, int, IKnownHostEntry]]:
        for path in self._paths:
            entries = KnownHostsFile.fromPath(FilePath(path)).iterentries()
            for number, entry in enumerate(entries, 1):
                yield path, number, entry


def _revokes(entry: IKnownHostEntry, key: Key) -> bool:
    line = entry.toString().split()
    return line[:1] == [b"@revoked"] and b64encode(key.blob()) in line


def fingerprint(key: Key) -> str:
    """A key's fingerprint as ``ssh-keygen -l`` prints it.

    :param key: the key.
    :returns: ``SHA256:`` and 43 characters.
    """
    digest = key.fingerprint(FingerprintFormats.SHA256_BASE64)
    return f"SHA256:{digest.rstrip('=')}"
