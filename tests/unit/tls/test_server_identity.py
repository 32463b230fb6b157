"""Who the server is: the host name rows of PostgreSQL's own tests, and what lies around them.

Every row is also put to libpq itself, so the table cannot drift from what it claims to be.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime
from ipaddress import ip_address, ip_network
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from pgtls.errors import CertificateNotVerified
from pgtls.tls.certificate import Certificate
from pgtls.tls.server_identity import host_address, verify_server_name
from pgtls.tls.sources import pem_of
from tests.support.one_handshake import VERIFIED, verify_full

KEY = ec.generate_private_key(ec.SECP256R1())

#: A certificate: its CNs and the values of its subjectAltName, None for no such extension.
Names = tuple[list[str], list[str] | None]

# The certificates of PostgreSQL's src/test/ssl/conf.
CN_ONLY: Names = (["common-name.pg-ssltest.test"], None)
IP_CN_ONLY: Names = (["192.0.2.1"], None)
IP_IN_DNSNAME: Names = ([], ["DNS:192.0.2.1"])
MULTIPLE: Names = (
    [],
    [
        "DNS:dns1.alt-name.pg-ssltest.test",
        "DNS:dns2.alt-name.pg-ssltest.test",
        "DNS:*.wildcard.pg-ssltest.test",
    ],
)
SINGLE: Names = ([], ["DNS:single.alt-name.pg-ssltest.test"])
IPS: Names = ([], ["IP:192.0.2.1", "IP:2001:db8::1"])
CN_AND_DNS: Names = (["common-name.pg-ssltest.test"], MULTIPLE[1][:2] if MULTIPLE[1] else None)
CN_AND_IPS: Names = (["common-name.pg-ssltest.test"], IPS[1])
IP_CN_AND_IPS: Names = (["192.0.2.1"], ["IP:192.0.2.2", "IP:2001:db8::1"])
IP_CN_AND_DNS: Names = (["192.0.2.1"], CN_AND_DNS[1])
NO_NAMES: Names = ([], None)

_DNS1 = 'server certificate for "dns1.alt-name.pg-ssltest.test"'
_IP1 = 'server certificate for "192.0.2.1"'

#: Certificate, host, and libpq's complaint: None where it is content. 001_ssltests.pl's rows.
POSTGRESQL: list[tuple[Names, str, str | None]] = [
    (CN_ONLY, "common-name.pg-ssltest.test", None),
    (
        CN_ONLY,
        "wronghost.test",
        'server certificate for "common-name.pg-ssltest.test" does not match host name '
        '"wronghost.test"',
    ),
    (
        CN_ONLY,
        "common-name.pg-ssltest.test.bad",
        'server certificate for "common-name.pg-ssltest.test" does not match host name '
        '"common-name.pg-ssltest.test.bad"',
    ),
    (IP_CN_ONLY, "192.0.2.1", None),
    (IP_CN_ONLY, "192.000.002.001", f'{_IP1} does not match host name "192.000.002.001"'),
    (IP_IN_DNSNAME, "192.0.2.1", None),
    (MULTIPLE, "dns1.alt-name.pg-ssltest.test", None),
    (MULTIPLE, "dns2.alt-name.pg-ssltest.test", None),
    (MULTIPLE, "foo.wildcard.pg-ssltest.test", None),
    (
        MULTIPLE,
        "wronghost.alt-name.pg-ssltest.test",
        f"{_DNS1} (and 2 other names) does not match host name "
        '"wronghost.alt-name.pg-ssltest.test"',
    ),
    (
        MULTIPLE,
        "deep.subdomain.wildcard.pg-ssltest.test",
        f"{_DNS1} (and 2 other names) does not match host name "
        '"deep.subdomain.wildcard.pg-ssltest.test"',
    ),
    (SINGLE, "single.alt-name.pg-ssltest.test", None),
    (
        SINGLE,
        "wronghost.alt-name.pg-ssltest.test",
        'server certificate for "single.alt-name.pg-ssltest.test" does not match host name '
        '"wronghost.alt-name.pg-ssltest.test"',
    ),
    (
        SINGLE,
        "deep.subdomain.wildcard.pg-ssltest.test",
        'server certificate for "single.alt-name.pg-ssltest.test" does not match host name '
        '"deep.subdomain.wildcard.pg-ssltest.test"',
    ),
    (IPS, "192.0.2.1", None),
    (IPS, "192.000.002.001", None),
    (IPS, "192.0.2.2", f'{_IP1} (and 1 other name) does not match host name "192.0.2.2"'),
    (IPS, "2001:DB8::1", None),
    (IPS, "2001:db8:0:0:0:0:0:1", None),
    (IPS, "2001:db8::0.0.0.1", None),
    (IPS, "::1", f'{_IP1} (and 1 other name) does not match host name "::1"'),
    (
        IPS,
        "2001:DB8::1/128",
        f'{_IP1} (and 1 other name) does not match host name "2001:DB8::1/128"',
    ),
    (CN_AND_DNS, "dns1.alt-name.pg-ssltest.test", None),
    (CN_AND_DNS, "dns2.alt-name.pg-ssltest.test", None),
    (
        CN_AND_DNS,
        "common-name.pg-ssltest.test",
        f'{_DNS1} (and 1 other name) does not match host name "common-name.pg-ssltest.test"',
    ),
    (CN_AND_IPS, "common-name.pg-ssltest.test", None),
    (CN_AND_IPS, "192.0.2.1", None),
    (CN_AND_IPS, "2001:db8::1", None),
    (IP_CN_AND_IPS, "192.0.2.2", None),
    (IP_CN_AND_IPS, "2001:db8::1", None),
    (
        IP_CN_AND_IPS,
        "192.0.2.1",
        'server certificate for "192.0.2.2" (and 1 other name) does not match host name '
        '"192.0.2.1"',
    ),
    (IP_CN_AND_DNS, "192.0.2.1", None),
    (IP_CN_AND_DNS, "dns1.alt-name.pg-ssltest.test", None),
    (IP_CN_AND_DNS, "dns2.alt-name.pg-ssltest.test", None),
    (
        NO_NAMES,
        "common-name.pg-ssltest.test",
        "could not get server's host name from server certificate",
    ),
]


def _no_match(first: str, host: str, others: str = "") -> str:
    return f'server certificate for "{first}"{others} does not match host name "{host}"'


#: What PostgreSQL's own table does not ask.
MORE: list[tuple[Names, str, str | None]] = [
    # Case, in ASCII only: the Kelvin sign is not a k.
    (([], ["DNS:DB.Example.COM"]), "db.example.com", None),
    ((["\u212aiosk.test"], None), "kiosk.test", _no_match("\u212aiosk.test", "kiosk.test")),
    # A trailing dot is a character.
    (
        ([], ["DNS:db.example.com"]),
        "db.example.com.",
        _no_match("db.example.com", "db.example.com."),
    ),
    (([], ["DNS:db.example.com."]), "db.example.com.", None),
    (([], ["DNS:*.example.com."]), "db.example.com.", None),
    # White space counts.
    (
        ([], ["DNS: db.example.com"]),
        "db.example.com",
        _no_match(" db.example.com", "db.example.com"),
    ),
    (
        ([], ["DNS:db.example.com"]),
        "db.example.com ",
        _no_match("db.example.com", "db.example.com "),
    ),
    # Wildcards: first, whole label, exactly one.
    (([], ["DNS:*.com"]), "example.com", None),
    ((["*.example.com"], None), "db.example.com", None),
    (([], ["DNS:*.example.com"]), "xn--bcher-kva.example.com", None),
    (([], ["DNS:*.example.com"]), "*.example.com", None),
    (([], ["DNS:*.example.com"]), "example.com", _no_match("*.example.com", "example.com")),
    (([], ["DNS:*.example.com"]), ".example.com", _no_match("*.example.com", ".example.com")),
    (([], ["DNS:*.example.com"]), "a.b.example.com", _no_match("*.example.com", "a.b.example.com")),
    (([], ["DNS:*"]), "localhost", _no_match("*", "localhost")),
    (([], ["DNS:*."]), "localhost.", _no_match("*.", "localhost.")),
    (([], ["DNS:d*.example.com"]), "db.example.com", _no_match("d*.example.com", "db.example.com")),
    (([], ["DNS:*b.example.com"]), "db.example.com", _no_match("*b.example.com", "db.example.com")),
    (([], ["DNS:db.*.com"]), "db.example.com", _no_match("db.*.com", "db.example.com")),
    (([], ["DNS:*.*.com"]), "db.example.com", _no_match("*.*.com", "db.example.com")),
    # Addresses.
    (IPS, "0xc0000201", None),
    (IPS, "3221225985", None),
    (IPS, "192.0.513", None),
    ((["2001:db8::1"], None), "2001:DB8::1", None),
    ((["2001:db8::1"], None), "2001:db8:0::1", _no_match("2001:db8::1", "2001:db8:0::1")),
    (([], ["DNS:2001:db8::1"]), "2001:db8::1", None),
    (([], ["IP:::ffff:192.0.2.1"]), "192.0.2.1", _no_match("::ffff:192.0.2.1", "192.0.2.1")),
    (([], ["IP:192.0.2.1"]), "::ffff:192.0.2.1", _no_match("192.0.2.1", "::ffff:192.0.2.1")),
    ((["*.0.2.1"], None), "192.0.2.1", None),  # libpq's wildcards know no addresses
    (([], ["IP:192.0.2.1"]), "db.example.com", _no_match("192.0.2.1", "db.example.com")),
    (
        (["db"], ["IP:192.0.2.1", "DNS:a"]),
        "db",
        _no_match("192.0.2.1", "db", " (and 1 other name)"),
    ),
    # Entries of other kinds neither count nor stand in the CN's way.
    ((["db"], ["URI:spiffe://example.com/db", "email:dba@example.com"]), "db", None),
    (
        (["db"], ["URI:https://other:5432/", "email:dba@other"]),
        "other",
        _no_match("db", "other"),
    ),
    # Several CNs: the first one.
    ((["db", "db2"], None), "db", None),
    ((["db", "db2"], None), "db2", _no_match("db", "db2")),
    # Empty names, odd names.
    ((["db"], ["DNS:"]), "db", _no_match("", "db")),
    ((["our database"], None), "our database", None),
    ((["b\u00fccher"], None), "b\u00fccher", None),
    # NUL.
    ((["db\0.evil.test"], None), "db", "SSL certificate's name contains embedded null"),
    (([], ["DNS:db\0.evil.test"]), "db", "SSL certificate's name contains embedded null"),
    (([], ["DNS:a\0", "DNS:db"]), "db", "SSL certificate's name contains embedded null"),
    # The address and mask of a name constraint.
    (
        ([], ["NET:192.0.2.0/24"]),
        "192.0.2.1",
        "certificate contains IP address with invalid length 8",
    ),
]

_GENERAL_NAME: dict[str, Callable[[str], x509.GeneralName]] = {
    "DNS": x509.DNSName,
    "IP": lambda text: x509.IPAddress(ip_address(text)),
    "NET": lambda text: x509.IPAddress(ip_network(text)),
    "URI": x509.UniformResourceIdentifier,
    "email": x509.RFC822Name,
}


AUTHORITY = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "authority")])


def sign(subject: x509.Name, extensions: list[x509.ExtensionType]) -> Certificate:
    """A certificate of the authority's, read back as it comes off the wire."""
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(AUTHORITY)
        .public_key(KEY.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime(2020, 1, 1))
        .not_valid_after(datetime(2049, 1, 1))
    )
    for extension in extensions:
        builder = builder.add_extension(extension, critical=False)
    signed = builder.sign(KEY, hashes.SHA256())
    return Certificate.of(signed)


def certificate(common_names: list[str], alternatives: list[str] | None) -> Certificate:
    """A certificate with these names."""
    subject = x509.Name(x509.NameAttribute(x509.NameOID.COMMON_NAME, text) for text in common_names)
    if alternatives is None:
        return sign(subject, [])
    pairs = [text.split(":", 1) for text in alternatives]
    names = x509.SubjectAlternativeName(_GENERAL_NAME[kind](text) for kind, text in pairs)
    return sign(subject, [names])


def malformed(content: bytes, *common_names: str) -> Certificate:
    """A certificate with these bytes for a subjectAltName."""
    subject = x509.Name(x509.NameAttribute(x509.NameOID.COMMON_NAME, text) for text in common_names)
    oid = x509.oid.ExtensionOID.SUBJECT_ALTERNATIVE_NAME
    return sign(subject, [x509.UnrecognizedExtension(oid, content)])


def complaint(cert: Certificate, host: str) -> str | None:
    """What there is to say against ``cert`` as the certificate of ``host``."""
    try:
        verify_server_name(cert, host)
    except CertificateNotVerified as error:
        return str(error)
    return None


class Rows(SynchronousTestCase):
    """The tables above."""

    def test_postgresql_ssl_tests(self) -> None:
        """Each row of PostgreSQL's own tests has the outcome, and the words, that it has there."""
        for names, host, expected in POSTGRESQL:
            self.assertEqual(complaint(certificate(*names), host), expected, (names, host))

    def test_more(self) -> None:
        """So have the corners that those tests leave out."""
        for names, host, expected in MORE:
            self.assertEqual(complaint(certificate(*names), host), expected, (names, host))

    def test_libpq_says_the_same(self) -> None:
        """libpq itself, against a server with the row's certificate, says what the row says."""
        directory = Path(self.mktemp())
        directory.mkdir()
        for names, host, expected in POSTGRESQL + MORE:
            said = libpq_says(directory, certificate(*names), host)
            self.assertIn(expected or VERIFIED, said, (names, host, said))


_LABELS = ["a", "B", "*", "xn--a", "1", "c d"]
_ADDRESSES = st.sampled_from(["10.0.0.1", "10.1", "0xa000001", "::A", "0::0.0.0.10"])
_HOSTS = st.lists(st.sampled_from(_LABELS), min_size=1, max_size=4).map(".".join) | _ADDRESSES
_ENTRIES = (
    st.lists(st.sampled_from(["", *_LABELS]), max_size=4).map(
        lambda labels: "DNS:" + ".".join(labels)
    )
    | _ADDRESSES.map("DNS:{}".format)
    | st.sampled_from(["IP:10.0.0.1", "IP:::a", "email:a@b", "DNS:a\0"])
)


class Properties(SynchronousTestCase):
    """What holds whatever the certificate and the host are."""

    @given(st.lists(_HOSTS, max_size=2), st.none() | st.lists(_ENTRIES, max_size=3), _HOSTS)
    @settings(deadline=None, max_examples=60)
    def test_accepts_nothing_that_libpq_refuses(
        self, common_names: list[str], alternatives: list[str] | None, host: str
    ) -> None:
        """What libpq refuses is refused; what it accepts is accepted, but for a NUL behind it."""
        directory = Path(self.mktemp())
        directory.mkdir()
        cert = certificate(common_names, alternatives)
        ours, theirs = complaint(cert, host), libpq_says(directory, cert, host)
        if ours is None or "embedded null" not in ours:
            self.assertIn(ours or VERIFIED, theirs)

    @given(st.binary(max_size=60), st.text(max_size=20))
    @example(bytes.fromhex("3000"), "db")
    @example(bytes.fromhex("30058703") + b"abc", "192.0.2.1")
    @example(bytes.fromhex("30048202fffe"), "db")
    @example(bytes.fromhex("3004a4023000"), "\ud800")
    @settings(deadline=None)
    def test_any_alternative_names(self, content: bytes, host: str) -> None:
        """Any bytes for a subjectAltName, any host: refused, or accepted by the CN alone.

        No other exception ever.
        """
        cert = malformed(content, "db")
        self.assertIn(complaint(cert, host) is None, (False, host.lower() == "db"))

    @given(st.text(max_size=30), st.lists(st.text(max_size=10), max_size=3), st.booleans())
    @settings(deadline=None)
    def test_any_names(self, host: str, texts: list[str], in_subject: bool) -> None:
        """Any text for a name and for a host: an answer, or CertificateNotVerified."""
        if in_subject:
            cert = certificate([text for text in texts if text], None)
        else:
            encoded = (text.encode("utf-8", "replace") for text in texts)
            entries = b"".join(bytes([0x82, len(entry)]) + entry for entry in encoded)
            cert = malformed(b"\x30\x81" + bytes([len(entries)]) + entries)
        complaint(cert, host)


class StricterThanLibpq(SynchronousTestCase):
    """Where libpq would go on."""

    def test_nul_behind_a_name_that_matches(self) -> None:
        """A NUL anywhere refuses the certificate; libpq stops at the first match."""
        cert = certificate([], ["DNS:db", "DNS:db\0.evil.test"])
        self.assertEqual(complaint(cert, "db"), "SSL certificate's name contains embedded null")

    def test_unreadable_alternative_names(self) -> None:
        """A subjectAltName that cannot be read does not make the CN count."""
        self.assertIn("could not be read", complaint(malformed(b"\x30\x05\x82", "db"), "db") or "")

    def test_names_are_shown_in_one_line(self) -> None:
        """A name reaches a log and a terminal; it neither breaks the line nor is without end."""
        for presented, shown in (
            (certificate(["a\x1b[2Jb\nc"], None), r"a\x1b[2Jb\nc"),
            (certificate(["käse.example"], None), "käse.example"),
            (certificate([], ["DNS:" + "x" * 300]), "x" * 253 + "..."),
        ):
            found = complaint(presented, "db.example")
            self.assertEqual(
                found, f'server certificate for "{shown}" does not match host name "db.example"'
            )

    def test_wildcard_for_an_empty_label(self) -> None:
        """A wildcard stands for no label that is empty, also where a dot follows a dot."""
        cert = certificate([], ["DNS:*.b.c"])
        self.assertEqual(complaint(cert, "..b.c"), _no_match("*.b.c", "..b.c"))

    def test_common_name_that_is_no_text(self) -> None:
        """A CN in a type that holds bits is no name."""
        der = certificate(["db"], None).der
        utf8_string, bit_string = b"\x0c\x02db", b"\x03\x02\x00d"
        cert = Certificate(der.replace(utf8_string, bit_string))
        self.assertIsNotNone(complaint(cert, "db"))


class Hosts(SynchronousTestCase):
    """What a host may be."""

    def test_no_host(self) -> None:
        """Without a host there is nothing to verify against."""
        self.assertEqual(
            complaint(certificate(["db"], None), ""),
            "host name must be specified for a verified SSL connection",
        )

    def test_host_beyond_ascii(self) -> None:
        """A host in letters beyond ASCII matches its A-label, in a wildcard's place too."""
        host = "b\u00fccher.example"
        self.assertIsNone(complaint(certificate([], ["DNS:xn--bcher-kva.example"]), host))
        self.assertIsNone(complaint(certificate([], ["DNS:*.example"]), host))
        self.assertEqual(
            complaint(certificate([], ["DNS:bucher.example"]), host),
            _no_match("bucher.example", host),
        )

    def test_host_beyond_ascii_is_not_mapped(self) -> None:
        """IDNA 2008 tells apart what IDNA 2003 mapped to one name."""
        self.assertIsNotNone(complaint(certificate([], ["DNS:fass.example"]), "fa\u00df.example"))

    def test_address_of_a_host(self) -> None:
        """An address in any spelling, and what is none."""
        self.assertEqual(str(host_address("0300.0.2.1")), "192.0.2.1")
        self.assertEqual(str(host_address("2001:DB8::0.0.0.1")), "2001:db8::1")
        for host in ("db", "192.0.2.256", "2001:db8::1/128", "[::1]", "1.2.3.4\0", "\ud800"):
            self.assertIsNone(host_address(host), host)


class ManyNames(SynchronousTestCase):
    """A certificate for half the world."""

    def test_ten_thousand_names(self) -> None:
        """10,000 names are read and compared in the time of a few handshakes."""
        cert = certificate([], [f"DNS:db{number}.example.com" for number in range(10_000)])
        started = time.process_time()
        self.assertIsNone(complaint(cert, "db9999.example.com"))
        self.assertEqual(
            complaint(cert, "db.example.com"),
            _no_match("db0.example.com", "db.example.com", " (and 9999 other names)"),
        )
        self.assertLess(time.process_time() - started, 1)


def libpq_says(directory: Path, cert: Certificate, host: str) -> str:
    """Have libpq connect with verify-full to a server that shows ``cert``; its error message."""
    root, server = directory / "root.crt", directory / "server.pem"
    constraint = x509.BasicConstraints(ca=True, path_length=None)
    root.write_bytes(pem_of(sign(AUTHORITY, [constraint]).der))
    key = KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    server.write_bytes(pem_of(cert.der) + key)
    return verify_full(server, root, host)
