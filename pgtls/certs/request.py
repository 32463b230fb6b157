"""What a user sends to be signed: a certificate request, or a self-signed certificate."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes as PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_public_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from pgtls.certs.certification_request import CertificationRequest, block_of
from pgtls.certs.files import read_limited
from pgtls.certs.keys import refuse_weak
from pgtls.certs.names import SUBJECT_FIELDS, subject_field
from pgtls.errors import ConfigurationError
from pgtls.tls.certificate import Certificate
from pgtls.tls.chain import signed_by
from pgtls.tls.distinguished_name import DistinguishedName
from pgtls.tls.pem import CERTIFICATES

_ALLOWED = {oid.dotted_string: name for name, (oid, _) in SUBJECT_FIELDS.items()}


@dataclass(frozen=True, slots=True)
class Request:
    """A request whose sender has shown to have the private key.

    :ivar kind: what it came as, for a person to read.
    :ivar subject: what will be certified; its one common name is the role.
    :ivar left_out: what the request asks for beyond that, and does not get.
    """

    kind: str
    subject: x509.Name
    public_key: PublicKey
    left_out: tuple[str, ...]

    @property
    def role(self) -> str:
        """The common name."""
        return str(self.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value)

    @property
    def public_key_der(self) -> bytes:
        """The key as it stands in a certificate."""
        return self.public_key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def read_request(path: Path, root: Certificate, *, renew: bool = False) -> Request:
    """Read a request and check that its sender has the private key: by its signature.

    :param path: PEM or DER.
    :param root: the authority's certificate.
    :param renew: accept a certificate of the authority's own too: its key was checked when it was
        issued.
    :returns: the request.
    :raises ConfigurationError: it cannot be read, the signature is wrong, the key is weak, or the
        subject is not one that can be certified.
    """
    data = read_limited(path, "request")
    what = f'request "{path}"'
    try:
        return _read(data, what, root, renew)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise ConfigurationError(
            f"could not read {what}: no certificate request or self-signed certificate, in PEM or "
            f"DER, in it, or a damaged one ({error})"
        ) from error


def _read(data: bytes, what: str, root: Certificate, renew: bool) -> Request:
    certificate = _certificate(data)
    if certificate is None:
        request = CertificationRequest.read(data)
        if request is None:
            raise ValueError("there is neither")
        if not request.is_signed_by_its_key():
            raise ConfigurationError(_not_shown(what))
        left_out = _extension_names(request.extensions())
        return _checked("certificate request", request.subject, request.public_key_der, left_out)
    if certificate.self_issued:
        if not signed_by(certificate, certificate):
            raise ConfigurationError(_not_shown(what))
        left_out = _extension_names(oid for oid, _ in certificate.extensions())
        kind = "self-signed certificate"
        return _checked(kind, certificate.subject, certificate.public_key_der, left_out)
    if not renew:
        raise ConfigurationError(
            f"{what} is a certificate signed by another key, not a request; --renew takes those "
            "of this authority"
        )
    if not signed_by(certificate, root):
        raise ConfigurationError(f"{what} is a certificate of another authority")
    if ExtendedKeyUsageOID.CLIENT_AUTH.dotted_string not in (certificate.purposes or []):
        raise ConfigurationError(
            f"{what} is not a client certificate; mkcert --renew is for the server's"
        )
    # What it was given itself is not asked for again: no extensions.
    kind = "certificate of this authority"
    return _checked(kind, certificate.subject, certificate.public_key_der, [])


def _certificate(data: bytes) -> Certificate | None:
    """The certificate in there; None where it is something else."""
    der = block_of(data, CERTIFICATES)
    certificate = Certificate(der) if der is not None else None
    try:
        if certificate is not None:
            certificate.openssl()
    except ValueError:
        return None
    return certificate


def _checked(
    kind: str, subject: DistinguishedName, public_key_der: bytes, left_out: list[str]
) -> Request:
    public_key = cast(PublicKey, load_der_public_key(public_key_der))
    refuse_weak(public_key)
    fields, fields_left_out = [], []
    for attribute in (each for rdn in subject.rdns for each in rdn):
        name = _ALLOWED.get(attribute.oid)
        try:
            if name is None:
                raise ValueError("not one of ours")
            text = attribute.text()
        except ValueError:
            fields_left_out.append(f"subject field {attribute.short_name}")
        else:
            fields.append(subject_field(name, text))
    roles = [field for field in fields if field.oid == NameOID.COMMON_NAME]
    if len(roles) != 1:
        raise ConfigurationError(
            f"the request has {len(roles) or 'no'} common name{'s' * (len(roles) > 1)}; "
            "it needs one, which is the name of the role"
        )
    # The order of the fields is the site's, and that of openssl's policies: a name is the same
    # in every request, and from every program that signs.
    order = list(_ALLOWED)
    fields.sort(key=lambda field: order.index(field.oid.dotted_string))
    return Request(kind, x509.Name(fields), public_key, (*fields_left_out, *left_out))


def _extension_names(oids: Iterator[str]) -> list[str]:
    """The extensions that are left out, by their names; it is no matter whether they make sense."""
    found = []
    try:
        for oid in oids:
            name = x509.ObjectIdentifier(oid)._name  # "Unknown OID" for those without one
            found.append(f"extension {oid if name.startswith('Unknown') else name}")
    except ValueError:
        found.append("extensions that cannot be read")
    return found


def _not_shown(what: str) -> str:
    return (
        f"{what} is not signed by the key that it is for: its sender may not have that key, or "
        "the file was changed on its way"
    )
