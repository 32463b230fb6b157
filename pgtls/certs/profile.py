"""What the certificates and the revocation lists of an authority contain.

The profile is RFC 5280's; names in server certificates are as RFC 6125 has them, so that libpq's
``verify-full`` and every other client take them. Nothing is read or written here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes as PublicKey
from cryptography.x509.oid import ExtendedKeyUsageOID

from pgtls.certs.keys import IssuerKey, signing_hash
from pgtls.certs.names import common_name, distinguished_name
from pgtls.tls.certificate import Certificate

#: Clocks differ: a client that connects at once, from a machine whose clock is behind, must not
#: find the certificate not yet valid.
BACKDATED = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Issuer:
    """The authority that signs."""

    certificate: x509.Certificate
    key: IssuerKey


def root_certificate(name: str, key: IssuerKey, days: int) -> x509.Certificate:
    """An authority's own certificate: for end entities only, with no authorities below it.

    :param name: the common name.
    :param key: its key.
    :param days: how long it is valid, at least 1.
    :returns: the certificate.
    """
    subject = distinguished_name(name)
    now = datetime.now(UTC)
    own_identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key())
    builder = (
        _builder(subject, subject, key.public_key())
        .not_valid_before(now - BACKDATED)
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(key_cert_sign=True, crl_sign=True), critical=True)
        .add_extension(own_identifier, critical=False)
    )
    return builder.sign(key, signing_hash(key))


def server_certificate(
    issuer: Issuer, alternatives: Sequence[x509.GeneralName], key: PublicKey, days: int
) -> x509.Certificate:
    """A certificate for TLS servers of these names; the first is the common name too.

    :param issuer: certificate and key of the authority.
    :param alternatives: the names.
    :param key: the server's public key.
    :param days: how long it is valid, at least 1.
    :returns: the certificate.
    """
    subject = common_name(alternatives)
    builder = _leaf(issuer, subject, key, days, ExtendedKeyUsageOID.SERVER_AUTH).add_extension(
        x509.SubjectAlternativeName(alternatives), critical=not subject.rdns
    )
    return builder.sign(issuer.key, signing_hash(issuer.key))


def client_certificate(
    issuer: Issuer, subject: x509.Name, key: PublicKey, days: int
) -> x509.Certificate:
    """A certificate for TLS clients.

    :param issuer: certificate and key of the authority.
    :param subject: the subject.
    :param key: the client's public key.
    :param days: how long it is valid, at least 1.
    :returns: the certificate.
    """
    builder = _leaf(issuer, subject, key, days, ExtendedKeyUsageOID.CLIENT_AUTH)
    return builder.sign(issuer.key, signing_hash(issuer.key))


def revocation_list(
    issuer: Issuer, revoked: Iterable[x509.RevokedCertificate], number: int, days: int
) -> x509.CertificateRevocationList:
    """A CRL whose next update is due within ``days``.

    :param issuer: certificate and key of the authority.
    :param revoked: what is revoked.
    :param number: the CRL's number, greater than that of the one before.
    :param days: until the next update, at least 1.
    :returns: the CRL.
    """
    now = datetime.now(UTC)
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(issuer.certificate.subject)
        .last_update(now - BACKDATED)
        .next_update(now + timedelta(days=days))
        .add_extension(_key_identifier_of(issuer.certificate), critical=False)
        .add_extension(x509.CRLNumber(number), critical=False)
    )
    for entry in revoked:
        builder = builder.add_revoked_certificate(entry)
    return builder.sign(issuer.key, signing_hash(issuer.key))


def check_issuer(certificate: x509.Certificate) -> None:
    """Check that certificates can be issued with an authority's certificate that was made
    elsewhere.

    :param certificate: the authority's.
    :raises ValueError: ``cryptography`` cannot read its subject or its expiry.
    """
    try:
        builder = x509.CertificateBuilder().issuer_name(certificate.subject)
        builder.not_valid_after(certificate.not_valid_after_utc)
        _key_identifier_of(certificate)
        if not _same_name(certificate):
            raise ValueError("its subject would be written in another way")
    except (TypeError, UnsupportedAlgorithm) as error:
        raise ValueError(str(error)) from error


def _same_name(certificate: x509.Certificate) -> bool:
    """Whether its subject, read and written, has the same octets: else no client would find it as
    the issuer."""
    return certificate.subject.public_bytes() == Certificate.of(certificate).subject_der


def _leaf(
    issuer: Issuer, subject: x509.Name, key: PublicKey, days: int, purpose: x509.ObjectIdentifier
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    # Only the RSA key exchange of TLS 1.2 encrypts with the certificate's key, the server's.
    enciphers = isinstance(key, rsa.RSAPublicKey) and purpose == ExtendedKeyUsageOID.SERVER_AUTH
    usage = _key_usage(digital_signature=True, key_encipherment=enciphers)
    # Nothing that it issued outlives the authority: that would promise too much.
    end = min(now + timedelta(days=days), issuer.certificate.not_valid_after_utc)
    return (
        _builder(subject, issuer.certificate.subject, key)
        .not_valid_before(now - BACKDATED)
        .not_valid_after(end)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        .add_extension(_key_identifier_of(issuer.certificate), critical=False)
    )


def _builder(subject: x509.Name, issuer: x509.Name, key: PublicKey) -> x509.CertificateBuilder:
    """What every certificate has. The serial number is 159 random bits (RFC 5280 allows 20 octets,
    positive)."""
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
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
    """The issuer's key as the issuer itself calls it: ``root.crt`` may have been made elsewhere."""
    own = Certificate.of(issuer).subject_key_identifier
    if own is None:
        return x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.public_key())  # type: ignore[arg-type]
    return x509.AuthorityKeyIdentifier(own, None, None)
