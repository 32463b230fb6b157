"""What a user sends to be signed: a certificate request, or a self-signed certificate."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes as PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from pgtls.certs.database import issued_by
from pgtls.certs.files import read_limited
from pgtls.certs.keys import refuse_weak
from pgtls.certs.names import SUBJECT_FIELDS, subject_field
from pgtls.certs.profile import purposes
from pgtls.errors import ConfigurationError

_ALLOWED = {oid: name for name, (oid, _) in SUBJECT_FIELDS.items()}


@dataclass(frozen=True, slots=True)
class Request:
    """A request whose sender has shown that he has the private key.

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


def read_request(path: Path, root: x509.Certificate, *, renew: bool = False) -> Request:
    """Read a request and check that its sender has the private key: by its signature.

    :param root: the authority's certificate.
    :param renew: take a certificate that the authority itself made, too: its key was shown then.
    :raises ConfigurationError: it cannot be read, the signature is wrong, the key is weak, or the
        subject is not one that can be certified.
    """
    data = read_limited(path, "request")
    what = f'request "{path}"'
    try:
        return _read(data, what, root, renew)
    except ConfigurationError:
        raise
    except (ValueError, TypeError, UnsupportedAlgorithm, InvalidSignature) as error:
        raise ConfigurationError(
            f"could not read {what}: no certificate request or self-signed certificate, in PEM or "
            "DER, in it, or a damaged one"
        ) from error


def _read(data: bytes, what: str, root: x509.Certificate, renew: bool) -> Request:
    certificate = _certificate(data)
    if certificate is None:
        request = (
            x509.load_pem_x509_csr(data) if b"-----BEGIN " in data else x509.load_der_x509_csr(data)
        )
        if not request.is_signature_valid:
            raise ConfigurationError(_not_shown(what))
        return _checked("certificate request", request)
    if certificate.issuer == certificate.subject:
        if not issued_by(certificate, certificate):
            raise ConfigurationError(_not_shown(what))
        return _checked("self-signed certificate", certificate)
    if not renew:
        raise ConfigurationError(
            f"{what} is a certificate that somebody signed, not a request; --renew takes those "
            "of this authority"
        )
    if not issued_by(certificate, root):
        raise ConfigurationError(f"{what} is a certificate of another authority")
    if ExtendedKeyUsageOID.CLIENT_AUTH not in (purposes(certificate) or []):
        raise ConfigurationError(
            f"{what} is not a client certificate; mkcert --renew is for the server's"
        )
    return _checked("certificate of this authority", certificate)


def _certificate(data: bytes) -> x509.Certificate | None:
    """The certificate in there; None where it is something else."""
    try:
        if b"-----BEGIN " in data:
            return x509.load_pem_x509_certificate(data)
        return x509.load_der_x509_certificate(data)
    except ValueError:
        return None


def _checked(kind: str, source: x509.CertificateSigningRequest | x509.Certificate) -> Request:
    public_key = source.public_key()
    refuse_weak(public_key)
    fields, left_out = [], []
    for attribute in source.subject:
        name = _ALLOWED.get(attribute.oid)
        if name is None or isinstance(attribute.value, bytes):
            left_out.append(f"subject field {attribute.rfc4514_attribute_name}")
        else:
            fields.append(subject_field(name, attribute.value))
    roles = [field for field in fields if field.oid == NameOID.COMMON_NAME]
    if len(roles) != 1:
        raise ConfigurationError(
            f"the request has {len(roles) or 'no'} common name{'s' * (len(roles) > 1)}; "
            "it needs one, which is the name of the role"
        )
    # The order of the fields is the site's, and that of openssl's policies: a name is the same
    # whoever asks for it, and whoever signs.
    order = list(_ALLOWED)
    fields.sort(key=lambda field: order.index(field.oid))
    # What it was given itself is not asked for again.
    if kind != "certificate of this authority":
        left_out += [f"extension {_extension_name(one)}" for one in source.extensions]
    return Request(kind, x509.Name(fields), public_key, tuple(left_out))


def _extension_name(extension: x509.Extension[x509.ExtensionType]) -> str:
    name = extension.oid._name  # "Unknown OID" for those that cryptography has no name for
    return extension.oid.dotted_string if name.startswith("Unknown") else name


def _not_shown(what: str) -> str:
    return (
        f"{what} is not signed by the key that it is for: who sent it may not have that key, or "
        "the file was changed on its way"
    )
