"""What ``describe`` and ``certificate_facts`` say of connections and certificates."""

from __future__ import annotations

from ipaddress import ip_address

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from OpenSSL import SSL
from twisted.trial.unittest import SynchronousTestCase

from pgtls.tls.certificate import serial_hex
from pgtls.tls.tls_info import certificate_facts, describe, names
from tests.support.certificates import Authority, localhost
from tests.support.in_memory import client_context, handshake, server_context

POSTGRESQL = b"postgresql"


class DescribeTests(SynchronousTestCase):
    """A connection, seen from either end."""

    def test_both_ends_name_the_post_quantum_key_exchange(self) -> None:
        pair = handshake(server_context())
        for end in (pair.server, pair.client):
            facts = describe(end)
            self.assertEqual(
                (facts.version, facts.cipher, facts.bits, facts.group, facts.forward_secret),
                ("TLSv1.3", "TLS_AES_256_GCM_SHA384", 256, "X25519MLKEM768", True),
            )

    def test_tls_1_2(self) -> None:
        client = client_context(version=SSL.TLS1_2_VERSION, ciphers="ECDHE-ECDSA-AES128-GCM-SHA256")
        facts = describe(handshake(server_context(), client).server)
        self.assertEqual(
            (facts.version, facts.cipher, facts.bits, facts.group, facts.forward_secret),
            ("TLSv1.2", "ECDHE-ECDSA-AES128-GCM-SHA256", 128, "x25519", True),
        )

    def test_static_rsa_is_not_forward_secret(self) -> None:
        server = server_context(Authority("root").issue(["localhost"], key="rsa"))
        client = client_context(version=SSL.TLS1_2_VERSION, ciphers="AES256-GCM-SHA384")
        facts = describe(handshake(server, client).client)
        self.assertEqual((facts.group, facts.forward_secret), (None, False))

    def test_alpn(self) -> None:
        server = server_context()
        server.set_alpn_select_callback(lambda connection, protocols: POSTGRESQL)
        pair = handshake(server, client_context(alpn=[POSTGRESQL]))
        self.assertEqual(describe(pair.server).alpn, "postgresql")
        self.assertEqual(describe(pair.client).alpn, "postgresql")

    def test_without_alpn(self) -> None:
        self.assertIsNone(describe(handshake(server_context()).client).alpn)

    def test_the_certificate_is_the_peers(self) -> None:
        pair = handshake(server_context())
        self.assertEqual(describe(pair.client).peer_certificate, localhost().certificate)
        self.assertIsNone(describe(pair.server).peer_certificate)


class CertificateFactsTests(SynchronousTestCase):
    """A certificate as JSON shows it."""

    def test_all_of_it(self) -> None:
        certificate = localhost().certificate
        facts = certificate_facts(localhost().shown)
        self.assertEqual(facts["subject"], "CN=localhost")
        self.assertEqual(facts["issuer"], "CN=pgtls test root")
        self.assertEqual(facts["names"], ["localhost", "127.0.0.1", "::1"])
        self.assertEqual(facts["sha256"], certificate.fingerprint(hashes.SHA256()).hex())
        self.assertEqual(int(facts["serial"], 16), certificate.serial_number)

    def test_dates_are_iso_8601_in_utc(self) -> None:
        facts = certificate_facts(localhost().shown)
        self.assertRegex(facts["not_before"], r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$")
        self.assertLess(facts["not_before"], facts["not_after"])

    def test_a_subject_reads_as_rfc_2253_has_it(self) -> None:
        subject = x509.Name.from_rfc4514_string("CN=bob\\, the builder,OU=b,O=a")
        issued = Authority("root").issue(subject=subject)
        self.assertEqual(
            certificate_facts(issued.shown)["subject"], "CN=bob\\, the builder,OU=b,O=a"
        )

    def test_names_of_every_kind(self) -> None:
        san = [
            x509.RFC822Name("dba@example.com"),
            x509.UniformResourceIdentifier("spiffe://example.com/db"),
            x509.IPAddress(ip_address("192.0.2.1")),
        ]
        issued = Authority("root").issue(["db.example.com"], cn="other", san=san)
        self.assertEqual(
            names(issued.shown),
            ["db.example.com", "dba@example.com", "spiffe://example.com/db", "192.0.2.1"],
        )

    def test_the_cn_where_there_are_no_other_names(self) -> None:
        self.assertEqual(
            names(Authority("root").issue(cn="db.example.com").shown), ["db.example.com"]
        )

    def test_no_names_at_all(self) -> None:
        self.assertEqual(names(Authority("root").issue().shown), [])

    def test_serial_numbers_have_whole_bytes(self) -> None:
        self.assertEqual(
            [serial_hex(0), serial_hex(0xABC), serial_hex(-0x1F)], ["00", "0ABC", "-1F"]
        )
