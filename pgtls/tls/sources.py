"""Where certificates and keys come from: files, or the memory of an embedding application."""

from __future__ import annotations

import os

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes as PrivateKey

from pgtls.tls.key_file import (
    Password,
    check_key_matches,
    load_certificate_chain,
    load_key_pair,
    load_private_key,
    parse_certificate_chain,
    parse_private_key,
)

Path = str | os.PathLike[str]

#: A file's path, PEM or DER, or the object itself.
CertificateSource = Path | bytes | x509.Certificate
KeySource = Path | bytes | PrivateKey


def certificates_from(
    source: CertificateSource, kind: str = "certificate file"
) -> list[x509.Certificate]:
    """One certificate or several: the peer's own first, then its intermediates.

    :param kind: what a file is, for the error message.
    :raises ConfigurationError: they cannot be read.
    """
    if isinstance(source, x509.Certificate):
        return [source]
    if isinstance(source, bytes):
        return parse_certificate_chain(source, "certificate in memory")
    return load_certificate_chain(source, kind)


def key_pair_from(
    certificate: CertificateSource, key: KeySource, password: Password = None
) -> tuple[list[x509.Certificate], PrivateKey]:
    """A certificate, with its intermediates, and the private key that belongs to it.

    :raises ConfigurationError: they cannot be read, or do not belong together.
    """
    if isinstance(key, str | os.PathLike):
        if isinstance(certificate, str | os.PathLike):
            return load_key_pair(certificate, key, password)
        private_key = load_private_key(key, password)
    elif isinstance(key, bytes):
        private_key = parse_private_key(key, "private key in memory", password)
    else:
        private_key = key
    chain = certificates_from(certificate)
    check_key_matches(chain[0], private_key, "private key")
    return chain, private_key
