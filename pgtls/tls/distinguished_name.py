r"""Distinguished names as PostgreSQL prints them, which is as OpenSSL prints them.

Source: X509_NAME_print_ex() and ASN1_STRING_print_ex() in OpenSSL's ``crypto/asn1/a_strex.c`` with
the flags that ``src/backend/libpq/be-secure-openssl.c`` gives: XN_FLAG_RFC2253 for the name that
``clientname=DN`` compares, X509_NAME_to_cstring() and prepare_cert_name() for the log.

``cryptography`` has its own RFC 4514 text, which differs (OIDs as names of attributes, non-ASCII
left as it is), and refuses names that OpenSSL takes: ``&`` in a PrintableString, an RDN whose parts
are not sorted. The name is therefore read from DER, with the string types in it.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass

from pgtls.tls.der import OBJECT_IDENTIFIER, dotted, elements

COMMON_NAME = "2.5.4.3"

#: Stands for a name that breaks the rules for its own strings.
UNREADABLE = "(unreadable name)"

# Types that are numbered without a gap.
_X520 = """
    CN SN serialNumber C L ST street O OU title description searchGuide businessCategory
    postalAddress postalCode postOfficeBox physicalDeliveryOfficeName telephoneNumber telexNumber
    teletexTerminalIdentifier facsimileTelephoneNumber x121Address internationaliSDNNumber
    registeredAddress destinationIndicator preferredDeliveryMethod presentationAddress
    supportedApplicationContext member owner roleOccupant seeAlso userPassword userCertificate
    cACertificate authorityRevocationList certificateRevocationList crossCertificatePair name GN
    initials generationQualifier x500UniqueIdentifier dnQualifier enhancedSearchGuide
    protocolInformation distinguishedName uniqueMember houseIdentifier supportedAlgorithms
    deltaRevocationList dmdName
""".split()  # noqa: SIM905 - one name a line would be a page

_PILOT = """
    UID textEncodedORAddress mail info favouriteDrink roomNumber photo userClass host manager
    documentIdentifier documentTitle documentVersion documentAuthor documentLocation
""".split()  # noqa: SIM905

#: OpenSSL's short names of attributes. One that is not here prints as OID and hexadecimal, as in
#: an OpenSSL that does not know it.
SHORT_NAMES = {
    **{f"2.5.4.{arc}": name for arc, name in enumerate(_X520, 3)},
    "2.5.4.65": "pseudonym",
    "2.5.4.72": "role",
    "2.5.4.97": "organizationIdentifier",
    **{f"0.9.2342.19200300.100.1.{arc}": name for arc, name in enumerate(_PILOT, 1)},
    "0.9.2342.19200300.100.1.25": "DC",
    "0.9.2342.19200300.100.1.37": "associatedDomain",
    "0.9.2342.19200300.100.1.43": "friendlyCountryName",
    "1.2.840.113549.1.9.1": "emailAddress",
    "1.2.840.113549.1.9.2": "unstructuredName",
    "1.2.840.113549.1.9.8": "unstructuredAddress",
    "1.2.840.113549.1.9.20": "friendlyName",
    "1.2.643.3.131.1.1": "INN",
    "1.2.643.100.1": "OGRN",
    "1.2.643.100.3": "SNILS",
    "1.3.6.1.4.1.311.20.2.3": "msUPN",
    "1.3.6.1.4.1.311.60.2.1.1": "jurisdictionL",
    "1.3.6.1.4.1.311.60.2.1.2": "jurisdictionST",
    "1.3.6.1.4.1.311.60.2.1.3": "jurisdictionC",
}

_UTF8_STRING = 12

#: Bytes of a character, by the tag of the string: Numeric, Printable, T61 (read as Latin-1), IA5,
#: UTCTime, GeneralizedTime, Visible; Universal; BMP. Other types print as hexadecimal.
_WIDTHS = {18: 1, 19: 1, 20: 1, 22: 1, 23: 1, 24: 1, 26: 1, 28: 4, 30: 2}

# OpenSSL does not escape a "#" that is all there is.
_SPECIAL = re.compile(rb'[,+"\\<>;]|\A#(?!\Z)|\A[ ]|[ ]\Z')
_SPECIAL_TEXT = re.compile(r'[,+"\\<>;]|\A[# ]|[ ]\Z')
_CONTROL = re.compile(rb"[\x00-\x1f\x7f]")
_CONTROL_OR_HIGH = re.compile(rb"[\x00-\x1f\x7f-\xff]")


@dataclass(frozen=True, slots=True)
class Attribute:
    """One attribute of a name.

    :ivar oid: its type, in dots and numbers.
    :ivar tag: the ASN.1 type of the value.
    :ivar value: the value's bytes, in the encoding of that type.
    :ivar der: the value with tag and length.
    """

    oid: str
    tag: int
    value: bytes
    der: bytes

    @property
    def short_name(self) -> str:
        """OpenSSL's name of the type, its OID where there is none."""
        return SHORT_NAMES.get(self.oid, self.oid)

    def escaped(self, *, to_hex: re.Pattern[bytes]) -> bytes:
        """The value by RFC 2253, in UTF-8.

        :param to_hex: finds the bytes that are written as a backslash and two digits.
        :returns: the text; in hexadecimal where the value is none.
        :raises ValueError: the string is not of the type that it claims to be.
        """
        if self.tag != _UTF8_STRING and self.tag not in _WIDTHS:
            return self.dumped()
        text = _SPECIAL.sub(rb"\\\g<0>", self._utf8())
        return to_hex.sub(lambda byte: b"\\%02X" % ord(byte[0]), text)

    def text(self) -> str:
        """The value as text.

        :raises ValueError: it is none, or not of the type that it claims to be.
        """
        if self.tag != _UTF8_STRING and self.tag not in _WIDTHS:
            raise ValueError("not text")
        return self._utf8().decode()

    def legible(self) -> str:
        """``NAME=value`` by RFC 4514, letters beyond ASCII as they are."""
        try:
            value = _SPECIAL_TEXT.sub(r"\\\g<0>", self.text()).replace("\0", "\\00")
        except ValueError:
            value = self.dumped().decode()
        return f"{self.short_name}={value}"

    def legible_value(self) -> str:
        """The value as text, or in hexadecimal where it is none."""
        try:
            return self.text()
        except ValueError:
            return self.value.hex()

    def dumped(self) -> bytes:
        """The value in hexadecimal."""
        return b"#" + self.der.hex().upper().encode()

    def _utf8(self) -> bytes:
        if self.tag == _UTF8_STRING:
            return self.value.decode("utf-8").encode("utf-8")
        width = _WIDTHS[self.tag]
        if len(self.value) % width:
            raise ValueError(f"a string of {width}-byte characters has {len(self.value)} bytes")
        # Character by character: a pair of surrogates is not one in a BMPString.
        points = [
            int.from_bytes(self.value[at : at + width], "big")
            for at in range(0, len(self.value), width)
        ]
        if any(point > sys.maxunicode for point in points):
            raise ValueError("a character beyond Unicode")
        return "".join(map(chr, points)).encode("utf-8")


@dataclass(frozen=True, slots=True)
class DistinguishedName:
    """A subject or an issuer.

    :ivar rdns: its parts in the order of the certificate, each of one attribute or more.
    """

    rdns: tuple[tuple[Attribute, ...], ...]

    @classmethod
    def parse(cls, der: bytes) -> DistinguishedName:
        """Read a Name (RFC 5280, section 4.1.2.4).

        :param der: its content, without its own tag and length.
        :returns: the same.
        :raises ValueError: it is none.
        """
        return cls(
            tuple(
                tuple(_attribute(attribute.content) for attribute in elements(rdn.content))
                for rdn in elements(der)
            )
        )

    def first(self, oid: str) -> bytes | None:
        """The bytes of the first attribute of a type, as X509_NAME_get_text_by_NID() finds it.

        :param oid: the type, in numbers and dots.
        :returns: the bytes, in the encoding that they have there; None where there is none.
        """
        values = (attribute.value for rdn in self.rdns for attribute in rdn if attribute.oid == oid)
        return next(values, None)

    def rfc2253(self) -> str:
        """The last part first, as ``openssl x509 -nameopt RFC2253`` prints it. Pure ASCII.

        :raises ValueError: a string is not of the type that it claims to be.
        """
        return ",".join(
            "+".join(_rfc2253_attribute(attribute) for attribute in reversed(rdn))
            for rdn in reversed(self.rdns)
        )

    def legible(self) -> str:
        """The last part first, as a person reads it: RFC 4514, letters beyond ASCII as they are,
        what is not of the type that it claims to be in hexadecimal."""
        return ",".join(
            "+".join(attribute.legible() for attribute in rdn) for rdn in reversed(self.rdns)
        )

    def oneline(self) -> bytes:
        """``/C=DE/CN=name`` in the order of the certificate, UTF-8, as PostgreSQL's log has it.

        :raises ValueError: a string is not of the type that it claims to be.
        """
        return b"".join(
            b"/" + attribute.short_name.encode() + b"=" + attribute.escaped(to_hex=_CONTROL)
            for rdn in self.rdns
            for attribute in rdn
        )


def _rfc2253_attribute(attribute: Attribute) -> str:
    known = attribute.oid in SHORT_NAMES
    value = attribute.escaped(to_hex=_CONTROL_OR_HIGH) if known else attribute.dumped()
    return f"{attribute.short_name}={value.decode('ascii')}"


def _attribute(der: bytes) -> Attribute:
    parts = list(elements(der))
    if len(parts) != 2 or parts[0].tag != OBJECT_IDENTIFIER:
        raise ValueError("not an attribute of a name")
    oid, value = parts
    return Attribute(dotted(oid.content), value.tag, value.content, value.whole)
