"""Where certificates and keys come from: files, or the memory of an embedding application.

Files are PEM, which is all that libpq and PostgreSQL read; what an application gives in memory may
be DER too. OpenSSL decides what is in it.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar, cast

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from OpenSSL import SSL, crypto

from pgtls.errors import ConfigurationError
from pgtls.reading import exists, read_file
from pgtls.tls.certificate import Certificate
from pgtls.tls.der import INTEGER, OCTET_STRING, SEQUENCE, encoded, first, inner
from pgtls.tls.key_file import Password, check_key_matches, load_private_key, parse_private_key
from pgtls.tls.loading import lenient_context, reason_of, use_chain
from pgtls.tls.pem import (
    CERTIFICATES,
    PLAIN_CERTIFICATES,
    Block,
    blocks,
    file_of,
    is_der,
    why_nothing,
)

Path = str | os.PathLike[str]

#: A file's path, PEM or DER, or the object itself.
CertificateSource = Path | bytes | x509.Certificate
KeySource = Path | bytes | PrivateKeyTypes

# AlgorithmIdentifier of id-RSASSA-PSS without parameters, in DER (RFC 4055, section 1.2).
_RSASSA_PSS = bytes.fromhex("300b06092a864886f70d01010a")


@dataclass(frozen=True, slots=True)
class Chain:
    """A certificate and its intermediates.

    :ivar pem: as OpenSSL reads them.
    :ivar certificates: the same for us: the owner's own first.
    """

    pem: bytes
    certificates: tuple[Certificate, ...]


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A certificate, its intermediates, and the private key that belongs to it."""

    chain: Chain
    key: crypto.PKey


def read_pem(source: CertificateSource, kind: str) -> tuple[bytes, str]:
    """The PEM of a source, and what to call the source in an error message.

    :param source: a path, or PEM, DER or an object in memory.
    :param kind: what a file is, for that.
    :returns: the PEM; and the name of the source for an error message.
    :raises ConfigurationError: a file cannot be opened.
    """
    if isinstance(source, x509.Certificate):
        return source.public_bytes(Encoding.PEM), "certificate in memory"
    if isinstance(source, bytes):
        return pem_or_der(source), "certificate in memory"
    what = f'{kind} "{os.fspath(source)}"'
    try:
        return read_file(source), what
    except OSError as error:
        raise ConfigurationError(f"could not open {what}: {error.strerror}") from error


def pem_or_der(data: bytes) -> bytes:
    """A certificate in PEM, whether PEM or DER was given.

    :param data: the certificate.
    :returns: it in PEM.
    """
    return pem_of(data) if is_der(data) else data


def pem_of(der: bytes, name: str = "CERTIFICATE") -> bytes:
    """DER as PEM.

    :param der: the object.
    :param name: its kind, in the BEGIN line.
    :returns: it in PEM.
    """
    text = base64.b64encode(der).decode()
    lines = [text[at : at + 64] for at in range(0, len(text), 64)]
    return "\n".join([f"-----BEGIN {name}-----", *lines, f"-----END {name}-----", ""]).encode()


def read_chain(source: CertificateSource, kind: str = "certificate file") -> Chain:
    """A certificate and its intermediates, as SSL_CTX_use_certificate_chain_file() finds them.

    :param source: a path, or PEM, DER or an object in memory.
    :param kind: what a file is, for the error message.
    :returns: the chain.
    :raises ConfigurationError: they cannot be read.
    """
    pem, what = read_pem(source, kind)
    return parse_chain(pem, what)


def parse_chain(pem: bytes, what: str) -> Chain:
    """As :func:`read_chain`, from what has been read.

    :param pem: the content.
    :param what: what it was, for the error message.
    :returns: the chain.
    :raises ConfigurationError: they cannot be read.
    """
    try:
        found = _legible(pem, CERTIFICATES)
        if not found:
            raise ValueError("no certificate in PEM in it")
        use_chain(lenient_context(), pem)
    except (SSL.Error, ValueError) as error:
        raise _unreadable(what, pem, error) from error
    own, *others = found
    above = [block for block in others if block.name in PLAIN_CERTIFICATES]
    return Chain(pem, tuple(map(_certificate, (own, *above))))


def read_roots(
    sources: CertificateSource | Sequence[CertificateSource],
    kind: str = "root certificate file",
    context: SSL.Context | None = None,
) -> list[Certificate]:
    """The certificates of a file of roots, as SSL_CTX_load_verify_locations() finds them.

    :param sources: one, or several.
    :param kind: what a file is, for the error message.
    :param context: is made to trust them.
    :returns: each; none for a file that has only CRLs, by which OpenSSL trusts nothing.
    :raises ConfigurationError: OpenSSL cannot read one, or finds nothing in it.
    """
    if isinstance(sources, str | bytes | os.PathLike | x509.Certificate):
        sources = [sources]
    found = []
    for source in sources:
        pem, what = read_pem(source, kind)
        found += parse_roots(pem, what, context)
    if not sources:
        raise ConfigurationError("there is no root certificate")
    return found


def parse_roots(pem: bytes, what: str, context: SSL.Context | None = None) -> list[Certificate]:
    """As :func:`read_roots`, from what has been read, for one source.

    :param pem: the content.
    :param what: what it was, for the error message.
    :param context: is made to trust them.
    :returns: the certificates.
    """
    try:
        certificates = _legible(pem, CERTIFICATES)
        with file_of(pem) as path:
            (context or SSL.Context(SSL.TLS_METHOD)).load_verify_locations(path)
    except (SSL.Error, ValueError) as error:
        raise _unreadable(what, pem, error) from error
    return [_certificate(block) for block in certificates]


def load_roots(source: CertificateSource, kind: str = "root certificate file") -> crypto.X509Store:
    """A store of what a file of roots makes OpenSSL trust.

    :param source: a path, or PEM, DER or an object in memory.
    :param kind: what a file is, for the error message.
    :returns: the store.
    :raises ConfigurationError: it cannot be read, or is empty.
    """
    pem, what = read_pem(source, kind)
    parse_roots(pem, what)
    store = crypto.X509Store()
    with file_of(pem) as path:
        store.load_locations(path)
    return store


def ask_for_certificates_of(context: SSL.Context, roots: Iterable[bytes]) -> None:
    """Name authorities to clients, as SSL_load_client_CA_file() finds them.

    :param context: a server's.
    :param roots: files of roots, in PEM.
    :raises ConfigurationError: none is in them: a TRUSTED CERTIFICATE does not count.
    """
    try:
        with file_of(b"\n".join(roots)) as path:
            context.load_client_ca(path.encode())
    except SSL.Error as error:
        raise ConfigurationError(
            "there is no authority to ask clients for certificates of (a TRUSTED CERTIFICATE, or "
            "a CRL, is none)"
        ) from error


def _legible(pem: bytes, names: Sequence[str]) -> list[Block]:
    """The blocks of these names.

    :raises ValueError: one is damaged, or encrypted: OpenSSL would ask for its password at the
        terminal.
    """
    found = blocks(pem, names)
    if any(b"ENCRYPTED" in block.header for block in found):
        raise ValueError("a certificate in it is encrypted")
    return found


def _certificate(block: Block) -> Certificate:
    try:  # what is behind it is of no account, or says what a TRUSTED one is trusted for
        return Certificate(first(block.der, SEQUENCE).whole)
    except ValueError:  # as OpenSSL takes it: it can be used, but not described
        return Certificate(block.der)


def _unreadable(what: str, pem: bytes, error: Exception) -> ConfigurationError:
    reason = reason_of(error) if isinstance(error, SSL.Error) else str(error)
    hint = why_nothing(pem)
    return ConfigurationError(f"could not read {what}: {reason}{f' ({hint})' if hint else ''}")


def load_key_pair(
    certificate: CertificateSource,
    key: KeySource,
    password: Password = None,
    *,
    der_too: bool = True,
) -> KeyPair:
    """A certificate, with its intermediates, and the private key that belongs to it.

    :param certificate: the certificate.
    :param key: the key.
    :param password: for a key that is encrypted.
    :param der_too: whether a key file may be DER.
    :returns: both.
    :raises ConfigurationError: they cannot be read, or do not belong together.
    """
    chain = read_chain(certificate)
    if isinstance(key, str | os.PathLike):
        what = f'private key file "{os.fspath(key)}"'
        if not exists(key):
            raise ConfigurationError(f"certificate present, but not {what}")
        private_key = load_private_key(key, password, der_too=der_too)
    elif isinstance(key, bytes):
        what = "private key in memory"
        private_key = parse_private_key(key, what, password)
    else:
        what = "private key"
        private_key = _from_cryptography(key, chain.certificates[0])
    check_key_matches(chain.certificates[0], private_key, what)
    return KeyPair(chain, private_key)


def with_key(certificate: CertificateSource, key: crypto.PKey, what: str) -> KeyPair:
    """A certificate, with its intermediates, and a private key that has been read before.

    :param certificate: the certificate.
    :param key: the key.
    :param what: what the key is from, for the error message.
    :returns: both.
    :raises ConfigurationError: the certificate cannot be read, or they do not belong together.
    """
    chain = read_chain(certificate)
    check_key_matches(chain.certificates[0], key, what)
    return KeyPair(chain, key)


def _from_cryptography(key: PrivateKeyTypes, certificate: Certificate) -> crypto.PKey:
    """cryptography reads a key whose algorithm is RSASSA-PSS and writes it as plain RSA, with which
    OpenSSL makes no signature for such a certificate. So the algorithm is put back."""
    der = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    if certificate.public_key_algorithm == _RSASSA_PSS:
        version, _, rsa, *_ = inner(der)
        content = encoded(INTEGER, version.content) + _RSASSA_PSS
        der = encoded(SEQUENCE, content + encoded(OCTET_STRING, rsa.content))
    return crypto.load_privatekey(crypto.FILETYPE_ASN1, der)


_Source = TypeVar("_Source", CertificateSource, KeySource)


def several(value: _Source | Sequence[_Source]) -> list[_Source]:
    """What a setting of an application's holds: one thing, or a sequence of them.

    :param value: empty text stands for none.
    :returns: each.
    """
    if isinstance(value, list | tuple):
        return list(value)
    return [] if value == "" else [cast(_Source, value)]


def several_paths(value: _Source | Sequence[_Source]) -> list[_Source]:
    """The same, where a configuration file has paths with commas between them.

    :param value: empty text stands for none.
    :returns: each.
    """
    if isinstance(value, str):
        return [cast(_Source, path) for part in value.split(",") if (path := part.strip())]
    return several(value)


def absent_files(*sources: CertificateSource | KeySource) -> list[str]:
    """What is to be said of files that are not there.

    :param sources: certificates and keys.
    :returns: a sentence for each.
    """
    return [f'file "{path}" does not exist' for path in map(missing_file, sources) if path]


def missing_file(source: CertificateSource | KeySource) -> str:
    """The file that a source names, if it is not there.

    :param source: a certificate or a key.
    :returns: its path; empty where it is there, or is no file.
    """
    if isinstance(source, str | os.PathLike) and not exists(source):
        return os.fspath(source)
    return ""
