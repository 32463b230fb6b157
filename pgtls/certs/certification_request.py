"""A certificate request as it stands in DER (RFC 2986), and whether it is signed by its key.

Of a request count the key and the subject. The rest is read to be named where it is left out, and
need make no sense.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.serialization import load_der_public_key

from pgtls.tls.certificate import extensions
from pgtls.tls.der import (
    BIT_STRING,
    INTEGER,
    OBJECT_IDENTIFIER,
    SEQUENCE,
    SET,
    dotted,
    elements,
    first,
    inner,
)
from pgtls.tls.distinguished_name import DistinguishedName
from pgtls.tls.pem import REQUESTS, first_block, looks_like_pem

#: Kinds of signature: RSA (PKCS #1), ECDSA, Ed25519 and Ed448, with their hash.
_HASHES: dict[str, hashes.HashAlgorithm | None] = {
    "1.2.840.113549.1.1.11": hashes.SHA256(),
    "1.2.840.113549.1.1.12": hashes.SHA384(),
    "1.2.840.113549.1.1.13": hashes.SHA512(),
    "1.2.840.10045.4.3.2": hashes.SHA256(),
    "1.2.840.10045.4.3.3": hashes.SHA384(),
    "1.2.840.10045.4.3.4": hashes.SHA512(),
    "1.3.101.112": None,
    "1.3.101.113": None,
}

#: The attributes of a request that hold extensions: PKCS #9 (RFC 2985) and Microsoft's.
_EXTENSION_REQUESTS = ("1.2.840.113549.1.9.14", "1.3.6.1.4.1.311.2.1.14")

_ATTRIBUTES = 0xA0


@dataclass(frozen=True, slots=True)
class CertificationRequest:
    """A certificate request as it stands in DER (RFC 2986, section 4).

    :ivar der: all of it.
    :ivar public_key_der: the key, as SubjectPublicKeyInfo.
    :ivar attributes: DER of each attribute.
    """

    der: bytes
    subject: DistinguishedName
    public_key_der: bytes
    attributes: tuple[bytes, ...]

    @classmethod
    def read(cls, data: bytes) -> CertificationRequest | None:
        """Read the first request in PEM, or one in DER.

        :param data: the content of a file.
        :returns: the request, None without one.
        :raises ValueError: it is damaged.
        """
        der = block_of(data, REQUESTS)
        if der is None:
            return None
        fields = inner(first(der, SEQUENCE).content)
        expected = [INTEGER, SEQUENCE, SEQUENCE]
        if [field.tag for field in fields[:3]] != expected:
            return None
        attributes = [
            attribute.content
            for field in fields[3:]
            if field.tag == _ATTRIBUTES
            for attribute in elements(field.content)
        ]
        subject = DistinguishedName.parse(fields[1].content)
        return cls(der, subject, fields[2].whole, tuple(attributes))

    def is_signed_by_its_key(self) -> bool:
        """Whether the sender has shown the private key.

        :returns: whether the signature is that key's.
        :raises ValueError: the signature is of an unknown kind.
        """
        try:
            return x509.load_der_x509_csr(self.der).is_signature_valid
        except Exception:  # cryptography's are of many kinds, most of them about the subject
            return self._is_signature_valid()

    def _is_signature_valid(self) -> bool:
        info, algorithm, signature = inner(self.der)
        kind = dotted(first(algorithm.content, OBJECT_IDENTIFIER).content)
        if kind not in _HASHES or signature.tag != BIT_STRING:
            raise ValueError(f"a signature of an unknown kind, {kind}")
        digest, octets = _HASHES[kind], signature.content[1:]
        try:
            match load_der_public_key(self.public_key_der):
                case rsa.RSAPublicKey() as key if digest is not None:
                    key.verify(octets, info.whole, PKCS1v15(), digest)
                case ec.EllipticCurvePublicKey() as key if digest is not None:
                    key.verify(octets, info.whole, ec.ECDSA(digest))
                case ed25519.Ed25519PublicKey() | ed448.Ed448PublicKey() as key if digest is None:
                    key.verify(octets, info.whole)
                case _:
                    return False
        except (InvalidSignature, UnsupportedAlgorithm):
            return False
        return True

    def extensions(self) -> Iterator[str]:
        """The types of the extensions that are asked for.

        :raises ValueError: they cannot be read.
        """
        for attribute in self.attributes:
            oid, values = elements(attribute)
            if oid.tag == OBJECT_IDENTIFIER and dotted(oid.content) in _EXTENSION_REQUESTS:
                for value in inner(values.whole, SET):
                    yield from (name for name, _ in extensions(value.content))


def block_of(data: bytes, names: tuple[str, ...]) -> bytes | None:
    """What a file holds, in DER.

    :param data: its content, PEM or DER.
    :param names: the names of PEM blocks that will do.
    :returns: the first block of these names, DER as it is; None where PEM has no such block.
    :raises ValueError: a block is damaged.
    """
    if not looks_like_pem(data):
        return data
    found = first_block(data, names)
    return found.der if found is not None else None
