"""The certificate authority of one site, and the server certificates that it issues.

An authority is a directory with ``root.crt`` and ``root.key``; ``mkcert`` puts ``server.crt`` and
``server.key`` beside them. Profile of the certificates: RFC 5280; of the names in them: RFC 6125,
so that libpq's ``verify-full`` and every other client take them.
"""

from __future__ import annotations

import datetime
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import ExtendedKeyUsageOID

from pgtls.certs.files import PRIVATE, locked, refuse_symlink, write_file
from pgtls.certs.names import common_name, distinguished_name, general_names
from pgtls.tls.key_file import Password, load_key_pair, load_private_key
from pgtls.wire.errors import ConfigurationError

IssuerKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey

#: How long the authority is good for.
ROOT_DAYS = 3650
#: How long a server certificate is good for: the most that Apple's platforms take from a private
#: authority, and what mkcert chose for the same reason.
SERVER_DAYS = 825
#: Clocks differ; who connects at once, from a machine that is behind, must not see the future.
_BACKDATED = datetime.timedelta(hours=1)


class KeyType(StrEnum):
    """The kinds of key that are made here."""

    ECDSA = "ecdsa"
    RSA = "rsa"
    ED25519 = "ed25519"

    def generate(self) -> IssuerKey:
        """A new key: P-256, 3072 bits, or Ed25519 (all of about 128 bits of security)."""
        match self:
            case KeyType.ECDSA:
                return ec.generate_private_key(ec.SECP256R1())
            case KeyType.RSA:
                return rsa.generate_private_key(public_exponent=65537, key_size=3072)
            case KeyType.ED25519:
                return ed25519.Ed25519PrivateKey.generate()


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate and the key that belongs to it.

    :ivar key_pem: PKCS#8, not encrypted.
    """

    certificate: x509.Certificate
    key_pem: bytes

    @property
    def certificate_pem(self) -> bytes:
        """The certificate as it goes into a file."""
        return self.certificate.public_bytes(Encoding.PEM)


@dataclass(frozen=True, slots=True)
class ServerFiles:
    """What :func:`mkcert` leaves in the directory.

    :ivar root_created: whether the authority is new, so that clients need its ``root.crt``.
    """

    root_crt: Path
    server_crt: Path
    server_key: Path
    certificate: x509.Certificate
    root_created: bool


class Authority:
    """A certificate authority: :meth:`load` one or :meth:`create` one.

    :ivar directory: where it lives.
    :ivar certificate: its own, self-signed.
    """

    def __init__(self, directory: Path, certificate: x509.Certificate, key: IssuerKey) -> None:
        self.directory = directory
        self.certificate = certificate
        self._key = key

    @classmethod
    def load(cls, directory: Path, password: Password = None) -> Authority:
        """The authority that is in ``directory``.

        :raises ConfigurationError: there is none, or its files cannot be used.
        """
        certificate_path, key_path = directory / "root.crt", directory / "root.key"
        refuse_symlink(key_path)
        chain, key = load_key_pair(certificate_path, key_path, password)
        if not isinstance(key, IssuerKey):
            raise ConfigurationError(f'"{key_path}" is of a kind that cannot sign certificates')
        if not _may_sign(chain[0]):
            raise ConfigurationError(f'"{certificate_path}" is not an authority\'s certificate')
        return cls(directory, chain[0], key)

    @classmethod
    def create(
        cls,
        directory: Path,
        name: str | None = None,
        key_type: KeyType = KeyType.ECDSA,
        password: bytes | None = None,
    ) -> Authority:
        """Make an authority in ``directory``, which must exist. Never touches one that is there.

        :param name: its common name; without one, it is called after this machine.
        :param password: to encrypt ``root.key`` with.
        :raises ConfigurationError: the directory has one already.
        """
        with locked(directory):
            return cls._create(directory, name, key_type, password)

    @classmethod
    def _create(
        cls, directory: Path, name: str | None, key_type: KeyType, password: bytes | None
    ) -> Authority:
        certificate_path = directory / "root.crt"
        if certificate_path.exists():
            raise ConfigurationError(f'"{certificate_path}" is there already')
        key = _key_in(directory / "root.key", key_type, password)
        certificate = _self_signed(name or f"pgtls authority of {socket.gethostname()}", key)
        write_file(certificate_path, certificate.public_bytes(Encoding.PEM))
        return cls(directory, certificate, key)

    def issue_server(
        self,
        names: Sequence[str],
        *,
        key_type: KeyType = KeyType.ECDSA,
        days: int = SERVER_DAYS,
    ) -> Issued:
        """A server certificate with a new key. Nothing is written.

        :param names: host names, international ones and those beginning with ``*.`` included, and
            IP addresses; the first one is the common name too.
        :raises ConfigurationError: a name is neither, there is none, or the authority has expired.
        """
        key = key_type.generate()
        return Issued(self._certify_server(names, key, days), _pem(key, None))

    def _certify_server(self, names: Sequence[str], key: IssuerKey, days: int) -> x509.Certificate:
        alternatives = general_names(names)
        subject = common_name(alternatives)
        now = datetime.datetime.now(datetime.UTC)
        root_ends = self.certificate.not_valid_after_utc
        if root_ends <= now:
            raise ConfigurationError(
                f'"{self.directory / "root.crt"}" expired on {root_ends:%Y-%m-%d}: move it and '
                "root.key away to get a new authority, whose root.crt every client needs"
            )
        builder = (
            _builder(subject, self.certificate.subject, key)
            .not_valid_before(now - _BACKDATED)
            # Nothing that it issued outlives the authority: that would promise too much.
            .not_valid_after(min(now + datetime.timedelta(days=days), root_ends))
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            # Only the RSA key exchange of TLS 1.2 encrypts with the certificate's key.
            .add_extension(
                _key_usage(
                    digital_signature=True, key_encipherment=isinstance(key, rsa.RSAPrivateKey)
                ),
                critical=True,
            )
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(x509.SubjectAlternativeName(alternatives), critical=not subject.rdns)
            .add_extension(_key_identifier_of(self.certificate), critical=False)
        )
        return _sign(builder, self._key)


def mkcert(
    directory: Path,
    names: Sequence[str],
    *,
    force: bool = False,
    key_type: KeyType = KeyType.ECDSA,
    password: bytes | None = None,
) -> ServerFiles:
    """Make ``server.crt`` and ``server.key`` in ``directory``, and the authority if it is absent.

    :param force: take the place of a server certificate that is there; never of an authority.
    :param password: of ``root.key``.
    :raises ConfigurationError: there is a server certificate; or a name or a file cannot be used.
    """
    general_names(names)  # its complaints come before anything is made
    directory.mkdir(mode=0o755, parents=True, exist_ok=True)
    with locked(directory):
        server_crt = directory / "server.crt"
        if server_crt.exists() and not force:
            raise ConfigurationError(f'"{server_crt}" is there already')
        return write_server_files(directory, names, key_type, password)


def write_server_files(
    directory: Path,
    names: Sequence[str],
    key_type: KeyType = KeyType.ECDSA,
    password: bytes | None = None,
) -> ServerFiles:
    """What :func:`mkcert` does, for a caller that holds the directory's lock and has decided that
    ``server.crt`` and ``server.key`` may be overwritten.

    A ``server.key`` without a ``server.crt`` is used as it is, so that whoever was interrupted can
    simply begin again.

    :raises ConfigurationError: a name or a file cannot be used.
    """
    root_crt, server_crt = directory / "root.crt", directory / "server.crt"
    root_created = not root_crt.exists()
    authority = (
        Authority._create(directory, None, key_type, password)
        if root_created
        else Authority.load(directory, password)
    )
    server_key = directory / "server.key"
    key = _key_in(server_key, key_type, None, overwrite=server_crt.exists())
    certificate = authority._certify_server(names, key, SERVER_DAYS)
    write_file(server_crt, certificate.public_bytes(Encoding.PEM), overwrite=True)
    return ServerFiles(root_crt, server_crt, server_key, certificate, root_created)


def fingerprint(certificate: x509.Certificate) -> str:
    """The SHA-256 fingerprint as ``openssl x509 -fingerprint -sha256`` prints it."""
    return certificate.fingerprint(hashes.SHA256()).hex(":").upper()


def _key_in(
    path: Path, key_type: KeyType, password: bytes | None, *, overwrite: bool = False
) -> IssuerKey:
    """The key that waits in ``path`` for its certificate, or else a new one, written there."""
    refuse_symlink(path)
    if path.exists() and not overwrite:
        key = load_private_key(path, password)
        if not isinstance(key, IssuerKey):
            raise ConfigurationError(f'"{path}" is not an ECDSA, RSA or Ed25519 key')
        return key
    new = key_type.generate()
    write_file(path, _pem(new, password), PRIVATE, overwrite=overwrite)
    return new


def _pem(key: IssuerKey, password: bytes | None) -> bytes:
    encryption = BestAvailableEncryption(password) if password else NoEncryption()
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)


def _self_signed(name: str, key: IssuerKey) -> x509.Certificate:
    subject = distinguished_name(name)
    now = datetime.datetime.now(datetime.UTC)
    own_identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key())
    builder = (
        _builder(subject, subject, key)
        .not_valid_before(now - _BACKDATED)
        .not_valid_after(now + datetime.timedelta(days=ROOT_DAYS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(key_cert_sign=True, crl_sign=True), critical=True)
        .add_extension(own_identifier, critical=False)
    )
    return _sign(builder, key)


def _builder(subject: x509.Name, issuer: x509.Name, key: IssuerKey) -> x509.CertificateBuilder:
    """What every certificate has. The serial number is 159 random bits (RFC 5280 allows 20 octets,
    positive)."""
    public_key = key.public_key()
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
    )


def _sign(builder: x509.CertificateBuilder, key: IssuerKey) -> x509.Certificate:
    # Ed25519 has its hash built in.
    return builder.sign(
        key, None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    )


def _key_usage(
    *,
    digital_signature: bool = False,
    key_encipherment: bool = False,
    key_cert_sign: bool = False,
    crl_sign: bool = False,
) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        content_commitment=False,
        key_encipherment=key_encipherment,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=key_cert_sign,
        crl_sign=crl_sign,
        encipher_only=False,
        decipher_only=False,
    )


def _key_identifier_of(issuer: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    """The issuer's key as the issuer itself calls it: somebody else may have made ``root.crt``."""
    try:
        own = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
    except x509.ExtensionNotFound:
        return x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.public_key())  # type: ignore[arg-type]
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own.value)


def _may_sign(certificate: x509.Certificate) -> bool:
    try:
        extension = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    except x509.ExtensionNotFound:
        return False
    return extension.value.ca
