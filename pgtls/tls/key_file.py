"""Private keys in files: permissions, how they are read, that they belong to a certificate.

The rules for a key file are those of libpq (``initialize_SSL`` in ``fe-secure-openssl.c``) and of
the server (``check_ssl_key_file_permissions`` in ``be-secure-common.c``), which differ in one
thing: only the server refuses another user's file, and so does this module. They are checked on
the open file, so that what is checked is what is read.

OpenSSL reads the key. What its provider "legacy" has alone is refused even where that is loaded,
as ``cryptography`` does: libpq and PostgreSQL could not use the key.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from functools import partial

from OpenSSL import SSL, crypto

from pgtls.errors import ConfigurationError
from pgtls.reading import read_file
from pgtls.tls.certificate import Certificate
from pgtls.tls.key_encryption import legacy_cipher
from pgtls.tls.loading import reason_of
from pgtls.tls.openssl import key_fits
from pgtls.tls.pem import is_der, why_nothing

Path = str | os.PathLike[str]

#: A password, or what asks for it, once and only when the key is encrypted.
Password = Callable[[], bytes] | bytes | None

#: Permission bits that must not be set, by owner: 0640 is the most for root, 0600 for others.
_REFUSED_OF_ROOT = stat.S_IWGRP | stat.S_IXGRP | stat.S_IRWXO
_REFUSED_OF_USER = stat.S_IRWXG | stat.S_IRWXO


def load_private_key(path: Path, password: Password = None, *, der_too: bool = True) -> crypto.PKey:
    """Read a private key file: PEM, or DER that is not encrypted. Nothing is asked at a terminal.

    :param path: the file.
    :param password: for an encrypted one; another does not need it.
    :param der_too: a client of libpq's may have its key in DER, a server not.
    :returns: the key.
    :raises ConfigurationError: the file is not a private one, or what is in it cannot be read.
    """
    what = f'private key file "{os.fspath(path)}"'
    data = read_key_file(path)
    if is_der(data) and not der_too:
        raise ConfigurationError(
            f"could not load {what}: it is DER, and must be PEM: see openssl pkey -inform DER"
        )
    return parse_private_key(data, what, password)


def read_key_file(path: Path) -> bytes:
    """The content of a private key file that is as private as it must be.

    :param path: the file.
    :returns: its content.
    :raises ConfigurationError: it cannot be read, or users other than its owner might read or write
        it.
    """
    name = os.fspath(path)
    try:
        return read_file(path, check=partial(_check_private, name))
    except OSError as error:
        raise ConfigurationError(
            f'could not open private key file "{name}": {error.strerror}'
        ) from error


def _check_private(name: str, status: os.stat_result) -> None:
    """:raises ConfigurationError: kind, owner or mode of the file are not as they must be."""
    user = os.geteuid()
    if not stat.S_ISREG(status.st_mode):
        raise ConfigurationError(f'private key file "{name}" is not a regular file')
    if status.st_uid not in (user, 0):
        raise ConfigurationError(
            f'private key file "{name}" must be owned by the database user or root; '
            f"it is owned by user {status.st_uid}, and this process runs as user {user}"
        )
    if status.st_mode & (_REFUSED_OF_USER if status.st_uid else _REFUSED_OF_ROOT):
        raise ConfigurationError(
            f'private key file "{name}" has group or world access; file must have permissions '
            "u=rw (0600) or less if owned by the current user, or permissions u=rw,g=r (0640) or "
            "less if owned by root"
        )


def parse_private_key(data: bytes, what: str, password: Password = None) -> crypto.PKey:
    """Read a private key: PEM, or DER that is not encrypted (OpenSSL decrypts no other).

    :param data: it, and in PEM anything around it.
    :param what: what is read, for the error message.
    :param password: for an encrypted one; another does not need it.
    :returns: the key.
    :raises ConfigurationError: it cannot be read, or not with this password.
    """
    if cipher := legacy_cipher(data):
        raise ConfigurationError(
            f"could not load {what}: it is encrypted with {cipher}, which OpenSSL 3 has in its "
            "legacy provider only, so that libpq and PostgreSQL refuse it too; encrypt it anew "
            "with openssl pkcs8 -topk8 -v2 aes-256-cbc, and -provider legacy -provider default"
        )
    asking = _Asking(password, what)
    try:
        if not is_der(data):
            return crypto.load_privatekey(crypto.FILETYPE_PEM, data, asking)
        return crypto.load_privatekey(crypto.FILETYPE_ASN1, data)
    except crypto.Error as error:
        raise ConfigurationError(f"could not load {what}: {asking.explain(error, data)}") from error


class _Asking:
    """What OpenSSL asks for the password.

    pyOpenSSL hands on what this raises.
    """

    def __init__(self, password: Password, what: str) -> None:
        self._password = password
        self._what = what
        self._secret: bytes | None = None

    def __call__(self, _rwflag: int) -> bytes:
        """The password.

        :raises ConfigurationError: there is none, or it is longer than OpenSSL takes.
        """
        if self._secret is None:
            password = self._password
            self._secret = (password() if callable(password) else password) or b""
        if not self._secret:
            raise ConfigurationError(
                f"could not load {self._what}: it is encrypted and there is no password for it; "
                "give one (sslpassword of a client, ssl_passphrase_command of a server)"
            )
        if len(self._secret) > _LONGEST_PASSWORD:
            raise ConfigurationError(
                f"could not load {self._what}: its password has more than {_LONGEST_PASSWORD} bytes"
            )
        return self._secret

    def explain(self, error: crypto.Error, data: bytes) -> str:
        """Why the key could not be read."""
        reasons = [entry[2] for entry in error.args[0]] if error.args else []
        if self._secret and any("bad decrypt" in reason for reason in reasons):
            return "bad decrypt; the password is not the one that it was encrypted with"
        if self._secret:
            return f"OpenSSL cannot decrypt it with this password: {reason_of(error)}"
        if hint := why_nothing(data) if not is_der(data) else "":
            return f"no private key in PEM or DER in it ({hint})"
        reason = (
            f"no private key in PEM or DER in it, or one of an unknown kind ({reason_of(error)}"
        )
        if is_der(data):
            reason += "; one that is encrypted must be in PEM: libpq and OpenSSL decrypt no DER"
        return f"{reason})"


#: Octets of a password that OpenSSL has room for (PEM_BUFSIZE).
_LONGEST_PASSWORD = 1024


def check_key_matches(certificate: Certificate, key: crypto.PKey, what: str) -> None:
    """Check that ``key`` is the private half of the key in ``certificate``.

    :param certificate: the certificate.
    :param key: the private key.
    :param what: what the key is from, for the error message.
    :raises ConfigurationError: it is not.
    """
    try:
        fits = key_fits(certificate.openssl(), key)
    except (ValueError, SSL.Error):
        fits = False
    if not fits:
        raise ConfigurationError(f"certificate does not match {what}")
