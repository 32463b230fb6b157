"""Private keys and certificates in files: who may hold them, how they are read, that they belong
together.

The rules for a key file are those of libpq (``initialize_SSL`` in ``fe-secure-openssl.c``) and of
the server (``check_ssl_key_file_permissions`` in ``be-secure-common.c``), which differ in one
thing: only the server refuses another user's file, and so does this module. They are checked on
the open file, so that what is checked is what is read.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes as PrivateKey
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes as PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_private_key,
    load_pem_private_key,
)

from pgtls.errors import ConfigurationError

Path = str | os.PathLike[str]

#: A password, or who is asked for it, once and only when the key is encrypted.
Password = Callable[[], bytes] | bytes | None

#: Permission bits that must not be set, by owner: 0640 is the most for root, 0600 for others.
_REFUSED_OF_ROOT = stat.S_IWGRP | stat.S_IXGRP | stat.S_IRWXO
_REFUSED_OF_USER = stat.S_IRWXG | stat.S_IRWXO

_BEGIN_CERTIFICATE = re.compile(rb"-----BEGIN (?:\w+ )?CERTIFICATE-----")


def load_key_pair(
    certificate_path: Path, key_path: Path, password: Password = None
) -> tuple[list[x509.Certificate], PrivateKey]:
    """Read a certificate, with its intermediates, and the private key that belongs to it.

    :raises ConfigurationError: a file cannot be used, or the two do not belong together.
    """
    chain = load_certificate_chain(certificate_path)
    if not os.path.exists(key_path):
        raise ConfigurationError(
            f'certificate present, but not private key file "{os.fspath(key_path)}"'
        )
    key = load_private_key(key_path, password)
    check_key_matches(chain[0], key, f'private key file "{os.fspath(key_path)}"')
    return chain, key


def load_certificate_chain(path: Path, kind: str = "certificate file") -> list[x509.Certificate]:
    """Read a certificate file: PEM with one certificate or several, the peer's own first, or DER.

    :param kind: what the file is, for the error message.
    :raises ConfigurationError: the file or what is in it cannot be read.
    """
    what = f'{kind} "{os.fspath(path)}"'
    try:
        with open(path, "rb") as file:
            data = file.read()
    except OSError as error:
        raise ConfigurationError(f"could not open {what}: {error.strerror}") from error
    return parse_certificate_chain(data, what)


def parse_certificate_chain(data: bytes, what: str) -> list[x509.Certificate]:
    """Read certificates from PEM or DER.

    :param what: what is read, for the error message.
    :raises ConfigurationError: they cannot be read, or there is none.
    """
    try:
        if _is_pem(data):
            chain = x509.load_pem_x509_certificates(data)
            if len(chain) != len(_BEGIN_CERTIFICATE.findall(data)):
                raise ValueError("passed over: cut off, or a TRUSTED CERTIFICATE")
            return chain
        return [x509.load_der_x509_certificate(data)]
    except ValueError as error:
        raise ConfigurationError(
            f"could not read {what}: no certificate in PEM or DER in it, or a damaged one"
        ) from error


def load_private_key(path: Path, password: Password = None) -> PrivateKey:
    """Read a private key file, PEM or DER. Nobody is ever prompted.

    :raises ConfigurationError: the file is not a private one, or what is in it cannot be read.
    """
    what = f'private key file "{os.fspath(path)}"'
    return parse_private_key(read_key_file(path), what, password)


def read_key_file(path: Path) -> bytes:
    """The content of a private key file that is as private as it must be.

    :raises ConfigurationError: it cannot be read, or others than its owner might read or write it.
    """
    name = os.fspath(path)
    try:
        # Without O_NONBLOCK a FIFO in the file's place would hang us before it is refused.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            _check_private(os.fstat(descriptor), name)
            with open(descriptor, "rb", closefd=False) as file:
                return file.read()
        finally:
            os.close(descriptor)
    except OSError as error:
        raise ConfigurationError(
            f'could not open private key file "{name}": {error.strerror}'
        ) from error


def _check_private(status: os.stat_result, name: str) -> None:
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


def parse_private_key(data: bytes, what: str, password: Password = None) -> PrivateKey:
    """Read a private key from PEM or DER. A password for a key without one is not used.

    :param what: what is read, for the error message.
    :raises ConfigurationError: it cannot be read, or not with this password.
    """
    load = load_pem_private_key if _is_pem(data) else load_der_private_key
    secret: bytes | None = None
    try:
        try:
            return load(data, None)
        except TypeError:  # it is encrypted
            secret = password() if callable(password) else password
        if not secret:
            raise ConfigurationError(
                f"could not load {what}: it is encrypted and there is no password for it; give "
                "one (sslpassword of a client, ssl_passphrase_command of a server)"
            )
        return load(data, secret)
    except (ValueError, UnsupportedAlgorithm) as error:
        reason = (
            "bad decrypt; the password is not the one that it was encrypted with"
            if secret
            else "no private key in PEM or DER in it, or one of an unknown kind"
        )
        raise ConfigurationError(f"could not load {what}: {reason}") from error


def check_key_matches(certificate: x509.Certificate, key: PrivateKey, what: str) -> None:
    """Check that ``key`` is the private half of the key in ``certificate``.

    :param what: what the key is from, for the error message.
    :raises ConfigurationError: it is not.
    """
    try:
        certified = certificate.public_key()
    except (ValueError, UnsupportedAlgorithm):
        certified = None
    if certified is None or _encoded(certified) != _encoded(key.public_key()):
        raise ConfigurationError(f"certificate does not match {what}")


def _encoded(public_key: PublicKey) -> bytes:
    return public_key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _is_pem(data: bytes) -> bool:
    """PEM may stand behind any other text, so its first line is looked for everywhere."""
    return b"-----BEGIN " in data
