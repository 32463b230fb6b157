"""What the certificates and the revocation lists of an authority contain.

The profile is RFC 5280's; names in server certificates are as RFC 6125 has them, so that libpq's
``verify-full`` and every other client take them. Nothing is read or written here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes as PublicKey
from cryptography.x509.oid import ExtendedKeyUsageOID

from pgtls.certs.keys import IssuerKey, signing_hash
from pgtls.certs.names import common_name, distinguished_name

#: Clocks differ; who connects at once, from a machine that is behind, must not see the future.
BACKDATED = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Issuer:
    """Who signs."""

    certificate: x509.Certificate
    key: IssuerKey


def root_certificate(name: str, key: IssuerKey, days: int) -> x509.Certificate:
    """An authority's own certificate: for end entities only, no authorities below it."""
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
    """A certificate for TLS servers of these names; the first is the common name too."""
    subject = common_name(alternatives)
    builder = _leaf(issuer, subject, key, days, ExtendedKeyUsageOID.SERVER_AUTH).add_extension(
        x509.SubjectAlternativeName(alternatives), critical=not subject.rdns
    )
    return builder.sign(issuer.key, signing_hash(issuer.key))


def client_certificate(
    issuer: Issuer, subject: x509.Name, key: PublicKey, days: int
) -> x509.Certificate:
    """A certificate for TLS clients."""
    builder = _leaf(issuer, subject, key, days, ExtendedKeyUsageOID.CLIENT_AUTH)
    return builder.sign(issuer.key, signing_hash(issuer.key))


def revocation_list(
    issuer: Issuer, revoked: Iterable[x509.RevokedCertificate], number: int, days: int
) -> x509.CertificateRevocationList:
    """A CRL that is to be renewed within ``days``."""
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


def may_sign(certificate: x509.Certificate) -> bool:
    """Whether it says of itself that it is an authority's."""
    try:
        extension = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    except (x509.ExtensionNotFound, ValueError):
        return False
    return extension.value.ca


def purposes(certificate: x509.Certificate) -> list[x509.ObjectIdentifier] | None:
    """What it is for, by its extended key usage; None where it does not say."""
    try:
        usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage)
    except (x509.ExtensionNotFound, ValueError):
        return None
    return list(usage.value)


def alternative_names(certificate: x509.Certificate) -> list[x509.GeneralName]:
    """Its subject alternative names."""
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except (x509.ExtensionNotFound, ValueError):
        return []
    return list(extension.value)


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
    """The issuer's key as the issuer itself calls it: somebody else may have made ``root.crt``."""
    try:
        own = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
    except x509.ExtensionNotFound:
        return x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.public_key())  # type: ignore[arg-type]
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own.value)
