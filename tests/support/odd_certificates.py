"""Certificates that OpenSSL takes, or not, and that a strict parser stumbles over."""

from __future__ import annotations

from collections.abc import Mapping

from pgtls.tls.certificate import Certificate
from pgtls.tls.der import (
    INTEGER,
    OBJECT_IDENTIFIER,
    OCTET_STRING,
    SEQUENCE,
    SET,
    elements,
    encoded,
    first,
    inner,
)
from tests.support.certificates import Authority, Key

_PRINTABLE, _UTF8, _T61, _IA5, _UNIVERSAL, _BMP = 0x13, 0x0C, 0x14, 0x16, 0x1C, 0x1E
_FALSE = b"\x01\x01\x00"
_TRUE = b"\x01\x01\xff"


def oid(dotted: str) -> bytes:
    """An OBJECT IDENTIFIER."""
    one, two, *rest = map(int, dotted.split("."))
    octets = bytearray([40 * one + two])
    for number in rest:
        groups = [number & 0x7F]
        while number := number >> 7:
            groups.append(number & 0x7F | 0x80)
        octets += bytes(reversed(groups))
    return encoded(OBJECT_IDENTIFIER, bytes(octets))


def sequence(*content: bytes) -> bytes:
    """A SEQUENCE."""
    return encoded(SEQUENCE, b"".join(content))


def extension(dotted: str, value: bytes, critical: bytes = b"") -> bytes:
    """An extension; ``critical`` as it stands there, if it does."""
    return sequence(oid(dotted), critical, encoded(OCTET_STRING, value))


def attribute(dotted: str, tag: int, value: bytes) -> bytes:
    """An attribute of a name."""
    return sequence(oid(dotted), encoded(tag, value))


def name(*rdns: bytes) -> bytes:
    """A name of RDNs, each with its attributes side by side."""
    return sequence(*(encoded(SET, rdn) for rdn in rdns))


CN, O, OU, C = "2.5.4.3", "2.5.4.10", "2.5.4.11", "2.5.4.6"  # noqa: E741 - X.520's own


def common_name(text: bytes, tag: int = _UTF8) -> bytes:
    """A CN."""
    return attribute(CN, tag, text)


def _san(*names: bytes) -> bytes:
    return extension("2.5.29.17", sequence(*names))


_DNS = encoded(0x82, b"localhost")
_X400 = encoded(0xA3, b"")
_EDI = encoded(0xA5, encoded(0xA1, encoded(_UTF8, b"party")))

#: Extensions that stand beside a subjectAltName of ``localhost``.
EXTENSIONS: dict[str, list[bytes]] = {
    "basic_constraints_explicit_false": [extension("2.5.29.19", sequence(_FALSE))],
    "basic_constraints_pathlen_without_ca": [extension("2.5.29.19", sequence(b"\x02\x01\x00"))],
    "basic_constraints_malformed": [extension("2.5.29.19", b"\x30\x05\x01")],
    "critical_explicit_false": [extension("1.2.3.4.5", b"\x05\x00", _FALSE)],
    "unknown_extension_twice": [extension("1.2.3.4.5", b"\x05\x00")] * 2,
    "unknown_extension_malformed": [extension("1.2.3.4.5", b"\xff")],
    "unknown_extension_critical": [extension("1.2.3.4.5", b"\x05\x00", _TRUE)],
    "malformed_sct_list": [extension("1.3.6.1.4.1.11129.2.4.2", encoded(4, b"\x00\x05abc"))],
    "malformed_policies": [extension("2.5.29.32", sequence(b"\x30\x00"))],
    "malformed_tls_feature": [extension("1.3.6.1.5.5.7.1.24", sequence(b"\x04\x01\x05"))],
    "malformed_authority_information": [extension("1.3.6.1.5.5.7.1.1", sequence(b"\x30\x00"))],
    "malformed_crl_distribution_points": [extension("2.5.29.31", b"\x30\x03\x02\x01\x00")],
    "malformed_key_usage": [extension("2.5.29.15", b"\x03\x01")],
    "malformed_extended_key_usage": [extension("2.5.29.37", sequence(b"\x02\x01\x00"))],
    "extended_key_usage_empty": [extension("2.5.29.37", sequence())],
    "malformed_name_constraints": [extension("2.5.29.30", b"\x30\x01\x00")],
    "malformed_subject_key_identifier": [extension("2.5.29.14", b"\x04\x20ab")],
    "authority_key_identifier_without_serial": [
        extension(
            "2.5.29.35", sequence(encoded(0xA1, encoded(0xA4, name(common_name(b"odd root")))))
        )
    ],
    "malformed_authority_key_identifier": [extension("2.5.29.35", b"\x30\x02\x80\x40")],
    "second_alternative_names": [_san(encoded(0x82, b"other.example"))],
}

#: Subjects, beside a subjectAltName of ``localhost``.
SUBJECTS: dict[str, bytes] = {
    "printable_string_with_ampersand": name(attribute(O, _PRINTABLE, b"AT&T @_*")),
    "latin_1_in_t61": name(common_name(b"m\xfcller", _T61)),
    "latin_1_in_utf8": name(common_name(b"m\xfcller")),
    "bmp_string": name(common_name("müller".encode("utf-16-be"), _BMP)),
    "bmp_string_of_odd_length": name(common_name(b"abc", _BMP)),
    "universal_string": name(common_name("müller".encode("utf-32-be"), _UNIVERSAL)),
    "universal_string_beyond_unicode": name(common_name(b"\xff\xff\xff\xff", _UNIVERSAL)),
    "unsorted_rdn": name(attribute(OU, _UTF8, b"b") + common_name(b"a"), attribute(O, _UTF8, b"o")),
    "country_of_three_letters": name(attribute(C, _PRINTABLE, b"GER"), common_name(b"a")),
    "country_in_utf8": name(attribute(C, _UTF8, b"D"), common_name(b"a")),
    "empty_common_name": name(common_name(b"")),
    "long_common_name": name(common_name(b"x" * 300)),
    "number_for_a_common_name": name(common_name(b"\x01", INTEGER)),
    "ia5_with_high_octets": name(attribute("1.2.840.113549.1.9.1", _IA5, b"\xff@b")),
    "nothing": name(),
    "empty_rdn": name(b"", common_name(b"a")),
}

#: subjectAltNames beside the CN ``localhost``.
ALTERNATIVES: dict[str, list[bytes]] = {
    "x400_address": [_X400, _DNS],
    "edi_party": [_EDI, _DNS],
    "other_name": [encoded(0xA0, oid("1.2.3") + encoded(0xA0, encoded(_UTF8, b"a"))), _DNS],
    "directory_name_unsorted": [
        encoded(0xA4, name(attribute(OU, _UTF8, b"b") + common_name(b"a"))),
        _DNS,
    ],
    "registered_id": [encoded(0x88, b"\x2a\x03"), _DNS],
    "high_octets_in_a_uri": [encoded(0x86, b"\xff"), _DNS],
    "high_octets_in_another_name": [encoded(0x82, b"\xff.example"), _DNS],
    "no_names": [],
}

#: Serial numbers: content of the INTEGER.
SERIALS: dict[str, bytes] = {
    "zero": b"\x00",
    "negative": b"\xff\x01",
    "of_21_octets": b"\x01" + b"\xab" * 20,
    "of_64_octets": b"\x7f" * 64,
}


class Signer:
    """Signs what ``cryptography`` would not.

    :ivar key: the key of all these certificates.
    """

    def __init__(self, authority: Authority, *, client: bool = False) -> None:
        self._authority = authority
        self._leaf = authority.issue(["localhost"], cn="localhost", client=client)
        self.key: Key = self._leaf.key
        (body, self._algorithm, _) = inner(self._leaf.shown.der)
        self._fields = [field.whole for field in elements(body.content)]

    def sign(self, fields: Mapping[int, bytes]) -> Certificate:
        """The certificate with some of its fields changed, by their place."""
        parts = [fields.get(place, field) for place, field in enumerate(self._fields)]
        body = sequence(*parts)
        signature = encoded(3, b"\0" + self._authority.issued.key.sign(body))
        return Certificate(sequence(body, self._algorithm.whole, signature))

    def with_extensions(self, *extensions: bytes) -> Certificate:
        """With these and no others."""
        return self.sign({7: encoded(0xA3, sequence(*extensions))})

    def own_authority(
        self, subject: bytes, *extensions: bytes, serial: bytes | None = None
    ) -> Certificate:
        """A root, self-signed, with the authority's key.

        :param serial: its serial number, in DER.
        """
        root = inner(self._authority.issued.shown.der)[0]
        fields = [field.whole for field in elements(root.content)]
        fields[3] = fields[5] = subject
        fields[1] = serial or fields[1]
        if extensions:
            present = inner(first(fields[7], 0xA3).content)
            fields[7] = encoded(0xA3, sequence(*(each.whole for each in present), *extensions))
        body = sequence(*fields)
        signature = encoded(3, b"\0" + self._authority.issued.key.sign(body))
        return Certificate(sequence(body, self._algorithm.whole, signature))


def odd_certificates(signer: Signer) -> dict[str, Certificate]:
    """One of each kind, by a name for it."""
    san = _san(_DNS)
    found = {
        name_: signer.with_extensions(san, *extensions) for name_, extensions in EXTENSIONS.items()
    }
    found |= {
        f"subject_{name_}": signer.sign({5: subject, 7: encoded(0xA3, sequence(san))})
        for name_, subject in SUBJECTS.items()
    }
    found |= {
        f"alternative_{name_}": signer.with_extensions(_san(*names))
        for name_, names in ALTERNATIVES.items()
    }
    found |= {
        f"serial_{name_}": signer.sign({1: encoded(INTEGER, number)})
        for name_, number in SERIALS.items()
    }
    found |= {
        f"version_{version + 1}": signer.sign({0: encoded(0xA0, bytes([2, 1, version]))})
        for version in (0, 1, 3, 9)
    }
    year = signer.sign(
        {4: sequence(encoded(0x18, b"20200101000000Z"), encoded(0x18, b"20490101000000Z"))}
    )
    times = encoded(0x17, b"200101000000Z") + encoded(0x17, b"490101000000Z")
    return found | {
        "generalized_time_before_2050": year,
        "indefinite_length": signer.sign({4: b"\x30\x80" + times + b"\0\0"}),
    }
