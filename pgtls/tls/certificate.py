"""A certificate as it stands in DER, each part read when it is asked for.

OpenSSL decides whether a certificate is any good, and takes many that ``cryptography`` refuses: a
PrintableString with ``&``, ``FALSE`` written out, an unknown extension twice, version 2. So no
certificate that was made elsewhere is given to ``cryptography``, which here only makes them.

RFC 5280, section 4.1.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum
from functools import cached_property

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.utils import CryptographyDeprecationWarning
from OpenSSL import crypto

from pgtls.text import log_name
from pgtls.tls.der import (
    BOOLEAN,
    INTEGER,
    OBJECT_IDENTIFIER,
    OCTET_STRING,
    SEQUENCE,
    Value,
    dotted,
    elements,
    first,
    inner,
    moment,
)
from pgtls.tls.distinguished_name import UNREADABLE, DistinguishedName

#: Stands for a part of a certificate, not a name, that is not what it should be.
UNREADABLE_PART = "unreadable"

SUBJECT_KEY_IDENTIFIER = "2.5.29.14"
SUBJECT_ALTERNATIVE_NAME = "2.5.29.17"
BASIC_CONSTRAINTS = "2.5.29.19"
EXTENDED_KEY_USAGE = "2.5.29.37"

_VERSION = 0xA0
_EXTENSIONS = 0xA3


class NameType(IntEnum):
    """What a subject alternative name is, by the tag that it has in DER (RFC 5280, 4.2.1.6)."""

    OTHER = 0xA0
    EMAIL = 0x81
    DNS = 0x82
    X400 = 0xA3
    DIRECTORY = 0xA4
    EDI_PARTY = 0xA5
    URI = 0x86
    ADDRESS = 0x87
    REGISTERED_ID = 0x88


@dataclass(frozen=True, slots=True)
class AlternativeName:
    """One subject alternative name.

    :ivar value: as it stands there: ASCII of an e-mail address, a DNS name or a URI (nothing
        makes sure of it), 4 or 16 octets of an address, DER of the rest.
    """

    type: NameType
    value: bytes


@dataclass(frozen=True, repr=False)
class Certificate:
    """A certificate. Two are equal if every octet is.

    Each property that reads raises ValueError where that part is not what it should be, and
    nothing else; the others are not affected.

    :ivar der: all of it.
    """

    der: bytes

    @classmethod
    def of(cls, certificate: x509.Certificate) -> Certificate:
        """From an object of ``cryptography``'s.

        :param certificate: one that was made here, or that an application gave.
        :returns: the same.
        """
        return cls(certificate.public_bytes(Encoding.DER))

    @classmethod
    def of_openssl(cls, certificate: crypto.X509) -> Certificate:
        """From an object of pyOpenSSL's.

        :param certificate: one that a peer sent.
        :returns: the same.
        """
        return cls(crypto.dump_certificate(crypto.FILETYPE_ASN1, certificate))

    def __repr__(self) -> str:
        return f"<Certificate {self.subject_text} SHA-256 {self.sha256.hex()}>"

    def openssl(self) -> crypto.X509:
        """For OpenSSL.

        :raises ValueError: OpenSSL cannot read it.
        """
        try:
            return crypto.load_certificate(crypto.FILETYPE_ASN1, self.der)
        except crypto.Error as error:
            raise ValueError("OpenSSL cannot read this certificate") from error

    def cryptography(self) -> x509.Certificate:
        """For an application that works with ``cryptography``.

        :raises ValueError: ``cryptography`` cannot read it, whatever it raises itself.
        """
        try:
            # Not a warning for users: that a serial number is not positive cannot be changed here.
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", CryptographyDeprecationWarning)
                return x509.load_der_x509_certificate(self.der)
        except ValueError:
            raise
        except Exception as error:  # InvalidVersion, ParseError of whatever version
            raise ValueError(str(error)) from error

    @cached_property
    def _fields(self) -> list[Value]:
        """serialNumber, signature, issuer, validity, subject, subjectPublicKeyInfo and the rest."""
        to_be_signed = first(first(self.der, SEQUENCE).content, SEQUENCE)
        fields = list(elements(to_be_signed.content))
        if fields and fields[0].tag == _VERSION:
            del fields[0]
        expected = [INTEGER, SEQUENCE, SEQUENCE, SEQUENCE, SEQUENCE, SEQUENCE]
        if [field.tag for field in fields[:6]] != expected:
            raise ValueError("not a certificate")
        return fields

    @property
    def _validity(self) -> list[Value]:
        times = list(elements(self._fields[3].content))
        if len(times) != 2:
            raise ValueError("not a Validity")
        return times

    @cached_property
    def serial(self) -> int:
        """The serial number, which can be negative."""
        return int.from_bytes(self._fields[0].content, "big", signed=True)

    @property
    def serial_hex(self) -> str:
        """The serial number as ``openssl x509 -serial`` prints it."""
        return serial_hex(self.serial)

    @property
    def serial_text(self) -> str:
        """The same for a person to read; never fails."""
        try:
            return self.serial_hex
        except ValueError:
            return UNREADABLE_PART

    @cached_property
    def issuer(self) -> DistinguishedName:
        """The name of the authority that signed it."""
        return DistinguishedName.parse(self._fields[2].content)

    @cached_property
    def subject(self) -> DistinguishedName:
        """The name of its owner."""
        return DistinguishedName.parse(self._fields[4].content)

    @property
    def issuer_der(self) -> bytes:
        """The issuer's name, to compare it with another certificate's subject."""
        return self._fields[2].whole

    @property
    def subject_der(self) -> bytes:
        """The subject, to compare it with another certificate's issuer."""
        return self._fields[4].whole

    @property
    def self_issued(self) -> bool:
        """Whether issuer and subject are the same."""
        return self.issuer_der == self.subject_der

    @cached_property
    def subject_text(self) -> str:
        """The subject in RFC 4514's form, for a person to read; never fails."""
        return _shown(self, "subject", legible=True)

    @cached_property
    def issuer_text(self) -> str:
        """The issuer in RFC 4514's form, for a person to read; never fails."""
        return _shown(self, "issuer", legible=True)

    @cached_property
    def subject_line(self) -> str:
        """The subject for a log line, as PostgreSQL writes it there; never fails."""
        return _shown(self, "subject", legible=False)

    @cached_property
    def issuer_line(self) -> str:
        """The issuer for a log line, as PostgreSQL writes it there; never fails."""
        return _shown(self, "issuer", legible=False)

    @cached_property
    def not_before(self) -> datetime:
        """Its first second, in UTC."""
        return moment(self._validity[0])

    @cached_property
    def not_after(self) -> datetime:
        """Its last second, in UTC."""
        return moment(self._validity[1])

    @property
    def public_key_der(self) -> bytes:
        """Its key as SubjectPublicKeyInfo."""
        return self._fields[5].whole

    @property
    def public_key_algorithm(self) -> bytes:
        """The AlgorithmIdentifier of its key, in DER."""
        return first(self._fields[5].content, SEQUENCE).whole

    @property
    def sha256(self) -> bytes:
        """Its fingerprint, 32 octets."""
        return hashlib.sha256(self.der).digest()

    @property
    def fingerprint(self) -> str:
        """The same as ``openssl x509 -fingerprint -sha256`` prints it."""
        return self.sha256.hex(":").upper()

    def extensions(self) -> Iterator[tuple[str, bytes]]:
        """Type (numbers and dots) and value of each extension, in their order."""
        for field in self._fields[6:]:
            if field.tag == _EXTENSIONS:
                yield from extensions(first(field.content, SEQUENCE).content)

    def extension(self, oid: str) -> bytes | None:
        """The value of an extension.

        :param oid: its type, in numbers and dots.
        :returns: what it holds; None where it is not there.
        :raises ValueError: it is there twice, or it cannot be found out.
        """
        found = [value for each, value in self.extensions() if each == oid]
        if len(found) > 1:
            raise ValueError(f"the extension {oid} is there twice")
        return found[0] if found else None

    @cached_property
    def alternative_names(self) -> tuple[AlternativeName, ...]:
        """The subject alternative names, in their order; none where there is no such extension."""
        value = self.extension(SUBJECT_ALTERNATIVE_NAME)
        if value is None:
            return ()
        return tuple(AlternativeName(NameType(each.tag), each.content) for each in inner(value))

    @property
    def is_authority(self) -> bool:
        """Whether its basic constraints say that it may sign others; false where they are not
        there or cannot be read."""
        try:
            value = self.extension(BASIC_CONSTRAINTS)
            parts = inner(value) if value is not None else []
        except ValueError:
            return False
        return bool(parts) and parts[0].tag == BOOLEAN and parts[0].content != b"\0"

    @property
    def purposes(self) -> list[str] | None:
        """What its key may be used for by its extended key usage, in numbers and dots; None where
        it does not say, or cannot be read."""
        try:
            value = self.extension(EXTENDED_KEY_USAGE)
            return None if value is None else [dotted(each.content) for each in inner(value)]
        except ValueError:
            return None

    @property
    def subject_key_identifier(self) -> bytes | None:
        """The name that it gives its own key; None where it gives none."""
        value = self.extension(SUBJECT_KEY_IDENTIFIER)
        return None if value is None else first(value, OCTET_STRING).content


def extensions(der: bytes) -> Iterator[tuple[str, bytes]]:
    """Type (numbers and dots) and value of each extension.

    :param der: the content of Extensions.
    :returns: pairs, in their order.
    :raises ValueError: it is something else.
    """
    for each in elements(der):
        oid, *_, value = elements(each.content)
        if oid.tag != OBJECT_IDENTIFIER or value.tag != OCTET_STRING:
            raise ValueError("not an extension")
        yield dotted(oid.content), value.content


def serial_hex(number: int) -> str:
    """A serial number as ``openssl x509 -serial`` prints it.

    :param number: it; negative ones too, which some authorities have issued.
    :returns: hexadecimal digits in capitals, two for each byte.
    """
    digits = f"{abs(number):X}"
    return "-" * (number < 0) + digits.zfill(len(digits) + len(digits) % 2)


def _shown(certificate: Certificate, which: str, *, legible: bool) -> str:
    try:
        name: DistinguishedName = getattr(certificate, which)
        return name.legible() if legible else log_name(name.oneline())
    except ValueError:
        return UNREADABLE
