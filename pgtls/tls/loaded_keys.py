"""A server's private keys at a start and at a reload: read, kept, or handed over.

``ssl_passphrase_command_supports_reload`` in PostgreSQL's documentation, "Connections and
Authentication", "SSL"; ``be_tls_init`` in ``src/backend/libpq/be-secure-openssl.c``. There a reload
changes nothing of TLS where a key needs a passphrase and its command may not run. Here the key that
was loaded stays, and the rest is read anew.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from types import MappingProxyType

from OpenSSL import crypto

from pgtls.errors import ConfigurationError
from pgtls.tls.key_file import read_key_file
from pgtls.tls.sources import CertificateSource, KeyPair, KeySource, load_key_pair, with_key

CANNOT_RELOAD = "cannot be reloaded because it requires a passphrase"


@dataclass(frozen=True, slots=True)
class LoadedKey:
    """A private key that has been read from a file.

    :ivar key: the key.
    :ivar refused: the hash of what was in the file at the last reload, where that needs a
        passphrase that may not be asked for again; empty otherwise.
    """

    key: crypto.PKey = field(repr=False)
    refused: bytes = field(default=b"", repr=False)


#: Private keys by the path of their file.
LoadedKeys = Mapping[str, LoadedKey]

NO_KEYS: LoadedKeys = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class PairSource:
    """Where a certificate and its key come from.

    :ivar certificate: the certificate.
    :ivar key: the key.
    :ivar ask: asks for the key's passphrase.
    :ivar asks_again: whether that may be done at a reload.
    """

    certificate: CertificateSource
    key: KeySource
    ask: Callable[[], bytes]
    asks_again: bool = False

    @property
    def path(self) -> str:
        """The key's file; empty where it is none."""
        return os.fspath(self.key) if isinstance(self.key, str | os.PathLike) else ""


class _Encrypted(ConfigurationError):
    """A key needs a passphrase, and its command may not run."""


def load_pair(
    source: PairSource, handed: LoadedKeys, loaded: LoadedKeys | None
) -> tuple[KeyPair, LoadedKey, str]:
    """Load a certificate and its key.

    :param source: where they come from.
    :param handed: keys that another process has read: their files are not looked at.
    :param loaded: at a reload, the keys that are in use; None at a start.
    :returns: both; the key to remember; and a sentence for the log where the key is not the one
        that is in the file now, empty otherwise and where that has been said.
    :raises ConfigurationError: they cannot be used.
    """
    path = source.path
    what = f'private key file "{path}"'
    if path in handed:
        return with_key(source.certificate, handed[path].key, what), handed[path], ""
    may_ask = loaded is None or source.asks_again
    try:
        pair = load_key_pair(
            *(source.certificate, source.key, source.ask if may_ask else _refuse), der_too=False
        )
    except _Encrypted:
        before = loaded.get(path) if loaded is not None else None
        if before is None:
            raise ConfigurationError(f"{what} {CANNOT_RELOAD}") from None
        pair = with_key(source.certificate, before.key, f"{what}, which {CANNOT_RELOAD}")
        content = sha256(read_key_file(path)).digest()
        is_news = content != before.refused
        warning = f"{what} {CANNOT_RELOAD}; the key that was loaded stays" if is_news else ""
        return pair, LoadedKey(before.key, content), warning
    return pair, LoadedKey(pair.key), ""


def _refuse() -> bytes:
    raise _Encrypted("it is encrypted")
