"""The certificate authority of one site.

An authority is a directory with ``root.crt`` and ``root.key``, the record of what was issued
(:mod:`pgtls.certs.database`), and ``root.crl``.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes as PublicKey
from cryptography.hazmat.primitives.serialization import Encoding

from pgtls.certs import profile
from pgtls.certs.database import Database
from pgtls.certs.files import locked, refuse_existing, refuse_symlink, write_file
from pgtls.certs.keys import IssuerKey, KeyType, key_in, key_pem, signing_key
from pgtls.certs.names import general_names
from pgtls.errors import ConfigurationError
from pgtls.tls.certificate import Certificate
from pgtls.tls.key_file import Password
from pgtls.tls.sources import load_key_pair

#: How long the authority is good for.
ROOT_DAYS = 3650
#: How long a server certificate is good for: the most that Apple's platforms take from a private
#: authority, and what mkcert chose for the same reason.
SERVER_DAYS = 825
#: How long a client certificate is good for.
CLIENT_DAYS = 365
#: How long a CRL is good for; a server that checks it refuses every client when it has expired.
CRL_DAYS = 30


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


class Authority:
    """A certificate authority: :meth:`load` one or :meth:`create` one.

    :param key: its private key.
    :ivar directory: where it lives.
    :ivar certificate: its own, self-signed.
    """

    def __init__(self, directory: Path, certificate: x509.Certificate, key: IssuerKey) -> None:
        self.directory = directory
        self.certificate = certificate
        self._issuer = profile.Issuer(certificate, key)

    @classmethod
    def load(cls, directory: Path, password: Password = None) -> Authority:
        """Load the authority in ``directory``.

        :param directory: the authority's directory, with ``root.crt`` and ``root.key``.
        :param password: of ``root.key``, where it is encrypted: the password, or a function that
            asks for it.
        :returns: the authority.
        :raises ConfigurationError: there is none, or its files cannot be used.
        """
        certificate_path, key_path = directory / "root.crt", directory / "root.key"
        refuse_symlink(key_path)
        pair = load_key_pair(certificate_path, key_path, password)
        read = pair.chain.certificates[0]
        key = signing_key(pair.key, key_path)
        if not read.is_authority:
            raise ConfigurationError(f'"{certificate_path}" is not an authority\'s certificate')
        try:
            certificate = read.cryptography()
            profile.check_issuer(certificate)
        except ValueError as error:
            raise ConfigurationError(
                f'"{certificate_path}" is not one that certificates can be made with here: {error}'
            ) from error
        return cls(directory, certificate, key)

    @classmethod
    def create(
        cls,
        directory: Path,
        name: str | None = None,
        key_type: KeyType = KeyType.ECDSA,
        password: bytes | None = None,
    ) -> Authority:
        """Make an authority in ``directory``, which must exist. Never touches one that is there.

        :param directory: where ``root.crt`` and ``root.key`` go.
        :param name: its common name; without one, it is called after this machine.
        :param key_type: the kind of its key.
        :param password: to encrypt ``root.key`` with.
        :returns: the authority.
        :raises ConfigurationError: the directory has one already.
        """
        with locked(directory):
            return cls.create_locked(directory, name, key_type, password, password)

    @classmethod
    def create_locked(
        cls,
        directory: Path,
        name: str | None,
        key_type: KeyType,
        new_password: bytes | None,
        password: Password,
    ) -> Authority:
        """What :meth:`create` does, for a caller that holds the directory's lock.

        :param directory: see :meth:`create`.
        :param name: see :meth:`create`.
        :param key_type: see :meth:`create`.
        :param new_password: to encrypt a new ``root.key`` with.
        :param password: of a ``root.key`` that an interrupted creation has left there.
        :returns: the authority.
        """
        certificate_path = directory / "root.crt"
        refuse_existing(certificate_path)
        key = key_in(directory / "root.key", key_type, new_password, password=password)
        name = name or f"pgtls authority of {socket.gethostname()}"
        certificate = profile.root_certificate(name, key, ROOT_DAYS)
        write_file(certificate_path, certificate.public_bytes(Encoding.PEM))
        return cls(directory, certificate, key)

    @property
    def shown(self) -> Certificate:
        """Its own certificate, to be shown or compared."""
        return Certificate.of(self.certificate)

    @contextmanager
    def record(self) -> Iterator[Database]:
        """The record of what was issued, locked for all others while the block runs.

        :raises ConfigurationError: see :meth:`Database.create`.
        """
        with locked(self.directory):
            yield Database.create(self.directory)

    def issue_server(
        self,
        names: Sequence[str],
        *,
        key_type: KeyType = KeyType.ECDSA,
        days: int = SERVER_DAYS,
    ) -> Issued:
        """A server certificate with a new key. Nothing is written, nor recorded.

        :param names: host names, international ones and those beginning with ``*.`` included, and
            IP addresses; the first one is the common name too.
        :param key_type: the kind of the new key.
        :param days: how long it is valid, at least 1; not longer than the authority.
        :returns: the certificate and its key.
        :raises ConfigurationError: a name is neither, there is none, or the authority has expired.
        """
        key = key_type.generate()
        return Issued(self.certify_server(names, key.public_key(), days), key_pem(key, None))

    def certify_server(
        self, names: Sequence[str], key: PublicKey, days: int = SERVER_DAYS
    ) -> x509.Certificate:
        """As :meth:`issue_server`, for an existing key.

        :param names: see :meth:`issue_server`.
        :param key: the server's public key.
        :param days: how long it is valid.
        :returns: the certificate.
        """
        alternatives = general_names(names)
        self.refuse_expired()
        return profile.server_certificate(self._issuer, alternatives, key, days)

    def certify_client(
        self, subject: x509.Name, key: PublicKey, days: int = CLIENT_DAYS
    ) -> x509.Certificate:
        """A client certificate. Nothing is written, nor recorded.

        :param subject: the certificate's subject; its common name is the role.
        :param key: the client's public key.
        :param days: how long it is valid, at least 1; not longer than the authority.
        :returns: the certificate.
        :raises ConfigurationError: the authority has expired.
        """
        self.refuse_expired()
        return profile.client_certificate(self._issuer, subject, key, days)

    def write_crl(self, database: Database, days: int = CRL_DAYS) -> x509.CertificateRevocationList:
        """Make ``root.crl`` anew, from the record, whose lock the caller holds.

        :param database: the record, which is locked.
        :param days: until the next update is due, at least 1.
        :returns: the CRL.
        """
        revoked = [entry.revoked() for entry in database.entries if entry.revoked_at]
        number = database.next_crl_number()
        crl = profile.revocation_list(self._issuer, revoked, number, days)
        write_file(self.directory / "root.crl", crl.public_bytes(Encoding.PEM), overwrite=True)
        return crl

    def refuse_expired(self) -> None:
        """:raises ConfigurationError: the authority's time is over."""
        end = self.certificate.not_valid_after_utc
        if end <= datetime.now(UTC):
            raise ConfigurationError(
                f'"{self.directory / "root.crt"}" expired on {end:%Y-%m-%d}: move it and '
                "root.key away to get a new authority, whose root.crt every client needs"
            )
