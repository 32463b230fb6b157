"""The client's certificate against the role: names as PostgreSQL reads and prints them."""

from __future__ import annotations

import contextlib
import datetime
import os
import subprocess

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.name import _ASN1Type
from cryptography.x509.oid import NameOID
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase
from twisted.trial.util import suppress as suppress_warnings

from pgtls.errors import CertificateNotVerified
from pgtls.policy.client_identity import (
    ClientCert,
    ClientName,
    ClientNotVerified,
    check_client,
    identities,
)
from pgtls.policy.ident_map import IdentMap
from pgtls.text import log_name
from pgtls.tls.certificate import Certificate
from pgtls.tls.distinguished_name import SHORT_NAMES, DistinguishedName
from pgtls.tls.sources import pem_of

# cryptography warns of attributes that are shorter or longer than X.520 has them.
suppress = [suppress_warnings(category=UserWarning, message="Attribute's length")]

KEY = ec.generate_private_key(ec.SECP256R1())
START = datetime.datetime(2025, 1, 1, tzinfo=datetime.UTC)

# src/test/ssl: the subject of client-dn.crt, and the maps that its tests use.
DN_RDNS = [("O", "PGDG"), ("OU", "Engineering"), ("OU", "Testing"), ("CN", "ssltestuser-dn")]
DN = "CN=ssltestuser-dn,OU=Testing,OU=Engineering,O=PGDG"
SSL_MAPS = f"""# MAPNAME  SYSTEM-USERNAME  PG-USERNAME
dnmap "{DN}" ssltestuser
dnmapre "/^.*OU=Testing,.*$" ssltestuser
cnmap ssltestuser-dn ssltestuser
"""

OIDS = {name: x509.ObjectIdentifier(oid) for oid, name in SHORT_NAMES.items()}


def attribute(
    name: str, value: str | bytes, type_: _ASN1Type = _ASN1Type.UTF8String
) -> x509.NameAttribute:
    """One attribute, of any ASN.1 type, its length not checked."""
    oid = OIDS.get(name) or x509.ObjectIdentifier(name)
    return x509.NameAttribute(oid, value, type_, _validate=False)


def certificate(
    subject: x509.Name, *alternative: x509.GeneralName, serial: int = 0x0A1B2C
) -> Certificate:
    """A certificate for a subject."""
    builder = (
        x509.CertificateBuilder(subject_name=subject, issuer_name=subject)
        .public_key(KEY.public_key())
        .serial_number(serial)
        .not_valid_before(START)
        .not_valid_after(START + datetime.timedelta(days=1))
    )
    if alternative:
        builder = builder.add_extension(x509.SubjectAlternativeName(alternative), critical=False)
    return Certificate.of(builder.sign(KEY, hashes.SHA256()))


def named(*attributes: tuple[str, str]) -> Certificate:
    """A certificate for a subject of plain attributes."""
    return certificate(x509.Name([attribute(*pair) for pair in attributes]))


def changed(original: Certificate, old: bytes, new: bytes) -> Certificate:
    """The certificate with bytes changed; who reads its names does not look at the signature."""
    der = original.der
    assert old in der
    assert len(old) == len(new)
    return Certificate(der.replace(old, new))


def latin() -> Certificate:
    """A certificate for the CN ``m\u00fcll`` in Latin-1."""
    written = attribute("CN", "m\u00fcl", _ASN1Type.T61String)
    return changed(certificate(x509.Name([written])), b"m\xc3\xbcl", b"m\xfcll")


def unreadable() -> Certificate:
    """A certificate for a name in UTF-8 that is none."""
    return changed(named(("O", "ab")), b"\x0c\x02ab", b"\x0c\x02a\xff")


def openssl(certificate: Certificate, *arguments: str) -> str:
    """What ``openssl x509`` prints."""
    return subprocess.run(
        ["openssl", "x509", "-noout", *arguments],
        input=pem_of(certificate.der),
        capture_output=True,
        check=True,
    ).stdout.decode("ascii")


class DistinguishedNameTests(SynchronousTestCase):
    """The DN is what openssl prints, byte for byte."""

    def assert_as_openssl(self, certificate: x509.Certificate) -> None:
        printed = openssl(certificate, "-subject", "-nameopt", "RFC2253")
        self.assertEqual(
            identities(certificate, ClientName.DN),
            [printed.removeprefix("subject=").removesuffix("\n")],
        )

    def test_postgresqls_example(self) -> None:
        self.assertEqual(identities(named(*DN_RDNS), ClientName.DN), [DN])

    def test_order_and_common_types(self) -> None:
        self.assert_as_openssl(
            named(
                ("DC", "org"),
                ("DC", "example"),
                ("C", "DE"),
                ("serialNumber", "1"),
                ("emailAddress", "a@example.org"),
                ("UID", "alice"),
                ("CN", "alice"),
            )
        )

    def test_every_short_name(self) -> None:
        self.assert_as_openssl(named(*((name, "xx") for name in SHORT_NAMES.values())))

    def test_several_attributes_in_one_part(self) -> None:
        part = x509.RelativeDistinguishedName([attribute("CN", "a"), attribute("UID", "b")])
        other = x509.RelativeDistinguishedName([attribute("O", "c")])
        self.assert_as_openssl(certificate(x509.Name([other, part])))

    def test_unknown_type(self) -> None:
        named_so = certificate(x509.Name([attribute("1.2.3.4.99999", "a"), attribute("CN", "b")]))
        self.assert_as_openssl(named_so)
        self.assertIn("1.2.3.4.99999=#0C0161", identities(named_so, ClientName.DN)[0])

    def test_every_byte_of_a_latin_string(self) -> None:
        # cryptography writes T61String as UTF-8: two bytes a letter, changed to the 256 bytes.
        written = "\u00fc" * 128
        with_t61 = certificate(x509.Name([attribute("O", written, _ASN1Type.T61String)]))
        self.assert_as_openssl(changed(with_t61, written.encode(), bytes(range(256))))

    def test_places_that_need_an_escape(self) -> None:
        values = (
            " ",
            "  ",
            " a ",
            "#a",
            "a#",
            "#",
            "a,b+c",
            '"<>;\\',
            "\\",
            "a=b",
            "\n",
            "\x7f",
            "",
        )
        self.assert_as_openssl(named(*(("O", value) for value in values)))

    def test_wide_strings(self) -> None:
        self.assert_as_openssl(
            certificate(
                x509.Name(
                    [
                        attribute("O", "\u00fc \u0142,", _ASN1Type.BMPString),
                        attribute("O", "#\u00fc\U0001f418 ", _ASN1Type.UniversalString),
                    ]
                )
            )
        )

    def test_string_that_is_not_what_it_claims_is_refused(self) -> None:
        self.assertRaises(ValueError, identities, unreadable(), ClientName.DN)

    def test_bit_string(self) -> None:
        bits = attribute("x500UniqueIdentifier", b"\x00\xa5", _ASN1Type.BitString)
        self.assert_as_openssl(certificate(x509.Name([bits])))

    @given(st.lists(st.text(max_size=8), min_size=1, max_size=20))
    @settings(deadline=None, max_examples=25)
    def test_any_text(self, values: list[str]) -> None:
        self.assert_as_openssl(named(*(("OU", value) for value in values)))

    @given(st.binary(max_size=60))
    @settings(deadline=None)
    def test_any_bytes_are_a_name_or_a_value_error(self, der: bytes) -> None:
        with contextlib.suppress(ValueError):
            self.assertTrue(DistinguishedName.parse(der).rfc2253().isascii())


class CommonNameTests(SynchronousTestCase):
    def test_first_of_several(self) -> None:
        self.assertEqual(
            identities(named(("CN", "first"), ("O", "x"), ("CN", "last")), ClientName.CN), ["first"]
        )

    def test_none(self) -> None:
        self.assertEqual(identities(named(("O", "x")), ClientName.CN), [])

    def test_empty(self) -> None:
        self.assertEqual(identities(named(("CN", "")), ClientName.CN), [])

    def test_nul_is_refused_whatever_is_compared(self) -> None:
        with_nul = named(("CN", "alice\0.example.org"))
        for clientname in ClientName:
            error = self.assertRaises(ValueError, identities, with_nul, clientname)
            self.assertEqual(
                str(error), "SSL certificate's common name contains embedded null", clientname
            )

    def test_bytes_are_taken_as_they_are(self) -> None:
        (name,) = identities(latin(), ClientName.CN)
        self.assertEqual(name.encode("utf-8", "surrogateescape"), b"m\xfcll")

    def test_two_byte_string_counts_as_one_with_nul(self) -> None:
        bmp = certificate(x509.Name([attribute("CN", "ab", _ASN1Type.BMPString)]))
        self.assertRaises(ValueError, identities, bmp, ClientName.CN)


class AlternativeNameTests(SynchronousTestCase):
    SUBJECT = x509.Name([attribute("CN", "cn")])

    def test_uri_dns_and_email_in_their_order(self) -> None:
        with_names = certificate(
            self.SUBJECT,
            x509.UniformResourceIdentifier("spiffe://example.org/app"),
            x509.DirectoryName(self.SUBJECT),
            x509.DNSName("app.example.org"),
            x509.RFC822Name("app@example.org"),
        )
        self.assertEqual(
            identities(with_names, ClientName.SAN),
            ["spiffe://example.org/app", "app.example.org", "app@example.org"],
        )

    def test_common_name_is_none(self) -> None:
        self.assertEqual(identities(certificate(self.SUBJECT), ClientName.SAN), [])

    def test_nul_is_refused(self) -> None:
        original = certificate(self.SUBJECT, x509.DNSName("alice.example.org"))
        with_nul = changed(original, b"alice.example", b"alice\0example")
        error = self.assertRaises(ValueError, identities, with_nul, ClientName.SAN)
        self.assertEqual(str(error), "SSL certificate's name contains embedded null")

    def test_bytes_that_are_not_ascii_are_refused(self) -> None:
        original = certificate(self.SUBJECT, x509.DNSName("alice.example.org"))
        broken = changed(original, b"alice.example", b"alic\xff.example")
        self.assertRaises(ValueError, identities, broken, ClientName.SAN)


class CheckClientTests(SynchronousTestCase):
    def ident_map(self, contents: str) -> IdentMap:
        path = os.path.abspath(self.mktemp())
        with open(path, "w") as file:
            file.write(contents)
        return IdentMap.load(path)

    def refused(self, *args: object, **kwargs: object) -> ClientNotVerified:
        kwargs = {"clientcert": ClientCert.VERIFY_FULL, **kwargs}
        error = self.assertRaises(ClientNotVerified, check_client, *args, **kwargs)
        assert isinstance(error, ClientNotVerified)
        self.assertEqual((error.response.severity, error.response.sqlstate), ("FATAL", "28000"))
        return error

    def test_postgresqls_maps(self) -> None:
        # 001_ssltests.pl, databases certdb_dn, certdb_dn_re and certdb_cn.
        ident_map = self.ident_map(SSL_MAPS)
        for map_name, clientname, matched in (
            ("dnmap", ClientName.DN, DN),
            ("dnmapre", ClientName.DN, DN),
            ("cnmap", ClientName.CN, "ssltestuser-dn"),
        ):
            name = check_client(
                named(*DN_RDNS),
                b"ssltestuser",
                clientcert=ClientCert.VERIFY_FULL,
                clientname=clientname,
                ident_map=ident_map,
                map_name=map_name,
            )
            self.assertEqual(name, matched)

    def test_common_name_is_the_role(self) -> None:
        name = check_client(named(("CN", "alice")), b"alice", clientcert=ClientCert.VERIFY_FULL)
        self.assertEqual(name, "alice")

    def test_no_certificate(self) -> None:
        for clientcert in (ClientCert.VERIFY_CA, ClientCert.VERIFY_FULL):
            error = self.refused(None, b"alice", clientcert=clientcert)
            self.assertEqual(
                error.response.message, "connection requires a valid client certificate"
            )

    def test_no_certificate_asked_for(self) -> None:
        self.assertEqual(check_client(None, b"alice", clientcert=ClientCert.NO), "")

    def test_verify_ca_compares_nothing(self) -> None:
        other = named(("CN", "bob"))
        self.assertEqual(check_client(other, b"alice", clientcert=ClientCert.VERIFY_CA), "")

    def test_mismatch(self) -> None:
        error = self.refused(named(("CN", "bob")), b"alice")
        self.assertEqual(
            error.response.message, 'certificate authentication failed for user "alice"'
        )
        self.assertEqual(
            error.log_detail,
            'certificate validation (clientcert=verify-full) failed for user "alice": CN mismatch: '
            "provided user name (alice) and authenticated user name (bob) do not match",
        )

    def test_mismatch_in_a_map(self) -> None:
        error = self.refused(
            named(*DN_RDNS),
            b"alice",
            clientname=ClientName.DN,
            ident_map=self.ident_map(SSL_MAPS),
            map_name="dnmap",
        )
        self.assertEqual(
            error.log_detail,
            'certificate validation (clientcert=verify-full) failed for user "alice": DN mismatch: '
            f'no match in usermap "dnmap" for user "alice" authenticated as "{DN}"',
        )

    def test_no_name(self) -> None:
        error = self.refused(named(("O", "x")), b"alice")
        self.assertEqual(
            error.log_detail,
            'certificate authentication failed for user "alice": '
            "client certificate contains no user name",
        )

    def test_nul_lets_nobody_in(self) -> None:
        for clientcert in ClientCert:
            error = self.refused(named(("CN", "alice\0")), b"alice", clientcert=clientcert)
            self.assertIn("contains embedded null", error.log_detail)

    def test_empty_role(self) -> None:
        self.refused(named(("CN", "")), b"")

    def test_any_alternative_name_will_do(self) -> None:
        names = x509.DNSName("bob"), x509.RFC822Name("alice@example.org")
        with_names = certificate(x509.Name([]), *names)
        name = check_client(
            with_names,
            b"alice",
            clientcert=ClientCert.VERIFY_FULL,
            clientname=ClientName.SAN,
            ident_map=self.ident_map(r"m /^(.*)@example\.org$ \1"),
            map_name="m",
        )
        self.assertEqual(name, "alice@example.org")

    def test_many_alternative_names_make_a_short_line(self) -> None:
        names = (x509.DNSName(f"{'x' * 60}.host{n}.example.org") for n in range(500))
        error = self.refused(
            certificate(x509.Name([]), *names), b"alice", clientname=ClientName.SAN
        )
        self.assertIn("SAN mismatch", error.log_detail)
        self.assertIn("and 496 more", error.log_detail)
        self.assertLess(len(error.log_detail), 2000)

    def test_bytes_decide_where_it_is_not_utf8(self) -> None:
        check_client(latin(), b"m\xfcll", clientcert=ClientCert.VERIFY_FULL)
        error = self.refused(latin(), b"m\xfell")
        self.assertIn('user "m\ufffdll"', error.response.encode().decode())
        self.assertIn(r"(m\xfell)", error.log_detail)

    def test_role_is_cut_as_postgresql_cuts_it(self) -> None:
        # PostgreSQL would let the 64 bytes in as the role of the first 63.
        self.refused(named(("CN", "a" * 64)), b"a" * 64)
        check_client(named(("CN", "a" * 63)), b"a" * 64, clientcert=ClientCert.VERIFY_FULL)

    def test_it_is_a_certificate_error(self) -> None:
        error = self.refused(None, b"alice")
        self.assertIsInstance(error, CertificateNotVerified)
        self.assertIsNone(error.depth)


class LogTests(SynchronousTestCase):
    """What the log says of a certificate: PostgreSQL's tests have these two subjects."""

    def test_long_subject_keeps_its_end(self) -> None:
        name = "ssl-" + "1234567890" * 6
        self.assertEqual(
            named(("O", "PGDG"), ("OU", "Some Unit"), ("CN", name)).subject_line,
            f".../CN={name}",
        )

    def test_subject_that_is_not_ascii(self) -> None:
        self.assertEqual(
            named(("CN", "\u039f\u03b4\u03c5\u03c3\u03c3\u03ad\u03b1\u03c2")).subject_line,
            r"/CN=\xce\x9f\xce\xb4\xcf\x85\xcf\x83\xcf\x83\xce\xad\xce\xb1\xcf\x82",
        )

    def test_issuer(self) -> None:
        self.assertEqual(named(("O", "PGDG"), ("CN", "ca")).issuer_line, "/O=PGDG/CN=ca")

    def test_unreadable_subject(self) -> None:
        self.assertEqual(unreadable().subject_line, "(unreadable name)")

    def test_control_characters(self) -> None:
        self.assertEqual(named(("CN", "a\nb\x1b[2J")).subject_line, r"/CN=a\0Ab\1B[2J")

    def test_printable(self) -> None:
        self.assertEqual(log_name("a\nb\0"), r"a\x0ab\x00")
        self.assertEqual(log_name("x" * 71), "x" * 71)
        self.assertEqual(log_name("y" + "x" * 71), "..." + "x" * 68)
        self.assertEqual(log_name(b"0123456789", most=5), "...89")

    def test_serial_is_what_openssl_prints(self) -> None:
        for serial in (1, 0x7F, 0xA1B2C, 0xFF << 100):
            made = certificate(x509.Name([attribute("CN", "a")]), serial=serial)
            self.assertEqual(openssl(made, "-serial"), f"serial={made.serial_hex}\n")

    def test_subject_and_issuer_are_not_mixed_up(self) -> None:
        ca = x509.Name([attribute("CN", "ca")])
        signed = (
            x509.CertificateBuilder(ca, x509.Name([attribute("CN", "alice")]), KEY.public_key(), 1)
            .not_valid_before(START)
            .not_valid_after(START + datetime.timedelta(days=1))
            .sign(KEY, hashes.SHA256())
        )
        shown = Certificate.of(signed)
        self.assertEqual(shown.subject.first(NameOID.COMMON_NAME.dotted_string), b"alice")
        self.assertEqual(shown.issuer_line, "/CN=ca")
