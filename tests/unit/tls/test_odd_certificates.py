"""Certificates that a strict parser stumbles over: OpenSSL decides, as it does for libpq."""

from __future__ import annotations

import ssl
import warnings
from pathlib import Path

from OpenSSL import SSL
from twisted.trial.unittest import SynchronousTestCase

from pgtls.conninfo.connection_string import ConnInfo
from pgtls.errors import CertificateNotVerified, ConfigurationError
from pgtls.policy.client_identity import ClientCert, ClientNotVerified, check_client
from pgtls.protocols.connection_log import _fields, tls_text
from pgtls.tls.certificate import Certificate
from pgtls.tls.chain import signed_by, verify_chain
from pgtls.tls.client_context import ClientTLS
from pgtls.tls.distinguished_name import COMMON_NAME
from pgtls.tls.loading import lenient_context, use_chain
from pgtls.tls.openssl import use_key_pair
from pgtls.tls.server_context import ServerTLSSettings, server_context
from pgtls.tls.sources import load_key_pair, pem_of, read_roots
from pgtls.tls.tls_info import certificate_facts, describe
from pgtls.wire.messages import StartupMessage
from tests.support.certificates import Authority, Files
from tests.support.in_memory import Pair, handshake
from tests.support.odd_certificates import EXTENSIONS, SUBJECTS, Signer, odd_certificates
from tests.support.one_handshake import VERIFIED, verify_full


class OddCase(SynchronousTestCase):
    """An authority whose certificates are odd; no warning is ever shown."""

    def setUp(self) -> None:
        caught = warnings.catch_warnings()
        caught.__enter__()
        self.addCleanup(caught.__exit__, None, None, None)
        warnings.simplefilter("error")
        self.files = Files(Path(self.mktemp()).absolute())
        self.authority = Authority("odd root")
        self.root = self.files.write("root.crt", self.authority.pem())

    def client(self, root: str) -> tuple[ClientTLS, ConnInfo]:
        """verify-full."""
        conninfo = ConnInfo.parse(f"host=localhost sslmode=verify-full sslrootcert={root}", {})
        return ClientTLS(conninfo), conninfo

    def shown(self, certificate: Certificate, signer: Signer) -> SSL.Context:
        """A server that shows a certificate.

        :raises ConfigurationError: OpenSSL cannot read it.
        """
        context = SSL.Context(SSL.TLS_SERVER_METHOD)
        use_key_pair(context, pem_of(certificate.der), signer.key.openssl())
        return context

    def verdict(self, certificate: Certificate, signer: Signer, root: str) -> bool:
        """Whether our client believes a server that shows it."""
        tls, conninfo = self.client(root)
        try:
            pair = handshake(self.shown(certificate, signer), tls._context)
            if pair.client_error:
                raise tls.handshake_error(pair.client, pair.client_error)
            tls.verify(pair.client, conninfo.hosts[0])
        except (CertificateNotVerified, ConfigurationError):
            return False
        self.assertEqual(describe(pair.client).certificate, certificate)
        return True


def libpqs_verdict(pem: Path, root: str) -> bool:
    """The same of libpq."""
    try:
        return VERIFIED in verify_full(pem, Path(root), "localhost")
    except ssl.SSLError:
        return False


class ServersTests(OddCase):
    """Shown by servers."""

    def test_what_libpq_takes_we_take_and_what_it_refuses_we_refuse(self) -> None:
        signer = Signer(self.authority)
        accepted = 0
        for name, certificate in odd_certificates(signer).items():
            pem = Path(self.files.write("server.pem", pem_of(certificate.der), signer.key.pem()))
            ours = self.verdict(certificate, signer, self.root)
            self.assertEqual(ours, libpqs_verdict(pem, self.root), name)
            accepted += ours
        self.assertGreater(accepted, 30)

    def test_what_is_shown_of_them(self) -> None:
        """No certificate is too odd to be described, and what can be read is."""
        signer = Signer(self.authority)
        for name, certificate in odd_certificates(signer).items():
            facts = certificate_facts(certificate)
            self.assertEqual(facts["issuer"], "CN=odd root", name)
            self.assertEqual(facts["sha256"], certificate.sha256.hex())
            self.assertRegex(facts["not_after"], r"^20\d\d-")
            self.assertTrue(certificate.issuer_line, name)
        subjects = {
            name: certificate_facts(signer.sign({5: subject}))["subject"]
            for name, subject in SUBJECTS.items()
        }
        self.assertEqual(subjects["printable_string_with_ampersand"], "O=AT&T @_*")
        self.assertEqual(subjects["latin_1_in_t61"], "CN=m\u00fcller")
        self.assertEqual(subjects["unsorted_rdn"], "O=o,OU=b+CN=a")
        self.assertEqual(subjects["latin_1_in_utf8"], "CN=#0C066DFC6C6C6572")
        self.assertEqual(subjects["nothing"], "")

    def test_serial_numbers(self) -> None:
        serials = {
            name: certificate.serial_hex
            for name, certificate in odd_certificates(Signer(self.authority)).items()
            if name.startswith("serial_")
        }
        self.assertEqual(serials["serial_zero"], "00")
        self.assertEqual(serials["serial_negative"], "-FF")
        self.assertEqual(serials["serial_of_21_octets"], "01" + "AB" * 20)


class RootsTests(OddCase):
    """Among roots."""

    def test_an_odd_root_beside_a_good_one(self) -> None:
        good = Authority("good")
        for name, root in self.odd_roots().items():
            path = self.files.write("bundle.crt", good.pem(), pem_of(root.der))
            self.assertEqual(read_roots(path), [good.issued.shown, root], name)
            for authority in (self.authority, good):
                signer = Signer(authority)
                issuer = (
                    root.subject_der
                    if authority is self.authority
                    else good.issued.shown.subject_der
                )
                leaf = signer.sign({3: issuer})
                pem = Path(self.files.write("server.pem", pem_of(leaf.der), signer.key.pem()))
                ours = self.verdict(leaf, signer, path)
                self.assertEqual(ours, libpqs_verdict(pem, path), name)
                self.assertTrue(ours or authority is self.authority, name)

    def odd_roots(self) -> dict[str, Certificate]:
        """Those that OpenSSL can read."""
        signer = Signer(self.authority)
        plain = self.authority.issued.shown.subject_der
        every = {name: signer.own_authority(subject) for name, subject in SUBJECTS.items()}
        every |= {
            name: signer.own_authority(plain, *extensions)
            for name, extensions in EXTENSIONS.items()
            if not name.startswith("basic")
        }
        return {name: root for name, root in every.items() if readable(root)}


def readable(certificate: Certificate) -> bool:
    """Whether OpenSSL can read it at all, and use it: before 4.0.3 fewer of them."""
    try:
        certificate.openssl()
        if SSL.OPENSSL_VERSION_NUMBER < 0x40000030:
            use_chain(lenient_context(), pem_of(certificate.der))
    except (ValueError, SSL.Error):
        return False
    return True


class ClientsTests(OddCase):
    """Shown by clients."""

    def setUp(self) -> None:
        super().setUp()
        self.signer = Signer(self.authority, client=True)
        crt, key = self.files.pair("server", self.authority.issue(["localhost"]))
        self.context = server_context(
            ServerTLSSettings(ssl_cert_file=crt, ssl_key_file=key, ssl_ca_file=self.root)
        ).context

    def connected(self, certificate: Certificate) -> Pair:
        """A client that shows it, at our server."""
        client = SSL.Context(SSL.TLS_CLIENT_METHOD)
        use_key_pair(client, pem_of(certificate.der), self.signer.key.openssl())
        return handshake(self.context, client)

    def check(self, certificate: Certificate) -> None:
        """As ``clientcert = "verify-ca"`` does."""
        check_client(certificate, b"x", clientcert=ClientCert.VERIFY_CA)

    def test_their_session_goes_on_and_the_log_has_them(self) -> None:
        startup = StartupMessage.build({b"user": b"localhost"}, 3, 0)
        taken = []
        for name, certificate in odd_certificates(self.signer).items():
            if not readable(certificate) or self.connected(certificate).server_error:
                continue
            tls = describe(self.connected(certificate).server)
            self.assertEqual(tls.certificate, certificate, name)
            self.assertIn(f"client_serial={certificate.serial_hex} ", tls_text(tls), name)
            logged = _fields(startup, tls)
            self.assertEqual(logged["issuer_dn"], "/CN=odd root", name)
            self.assertEqual(logged["client_dn"], certificate.subject_line, name)
            taken.append(name)
            if b"\0" in (certificate.subject.first(COMMON_NAME) or b""):  # CVE-2009-4034
                self.assertRaises(ClientNotVerified, self.check, certificate)
                continue
            self.check(certificate)
            if not name.startswith("subject_"):
                matched = check_client(
                    tls.certificate, b"localhost", clientcert=ClientCert.VERIFY_FULL
                )
                self.assertEqual(matched, "localhost", name)
        self.assertIn("version_2", taken)
        self.assertIn("version_4", taken)
        self.assertIn("subject_printable_string_with_ampersand", taken)
        self.assertGreater(len(taken), 30)

    def test_the_object_of_cryptography_is_missing_where_it_cannot_be_made(self) -> None:
        odd = odd_certificates(self.signer)
        self.assertIsNone(describe(self.connected(odd["version_2"]).server).peer_certificate)
        good = self.signer.sign({})
        shown = describe(self.connected(good).server).peer_certificate
        assert shown is not None
        self.assertEqual(Certificate.of(shown), good)


class ChainTests(OddCase):
    """Who signed what."""

    def test_an_authority_and_what_it_signed(self) -> None:
        signer = Signer(self.authority)
        root, other = self.authority.issued.shown, Authority("odd root").issued.shown
        for name, certificate in odd_certificates(signer).items():
            if "malformed" in name or "second_" in name or not readable(certificate):
                continue
            self.assertTrue(signed_by(certificate, root), name)
            self.assertFalse(signed_by(certificate, other), name)
        self.assertTrue(signed_by(root, root))
        self.assertFalse(signed_by(root, other))
        broken = Certificate(root.der[:-1] + bytes([root.der[-1] ^ 1]))
        self.assertFalse(signed_by(broken, broken))

    def test_a_chain_that_cannot_be_read_is_not_verified(self) -> None:
        nonsense = Certificate(b"\x30\x00")
        failure = verify_chain([nonsense], [self.authority.issued.shown])
        assert failure is not None
        self.assertIn("cannot read", failure.reason)


class KeyPairsTests(OddCase):
    """A server's own."""

    def test_a_key_fits_its_odd_certificate(self) -> None:
        signer = Signer(self.authority)
        for name, certificate in odd_certificates(signer).items():
            if readable(certificate) and not name.startswith(("malformed", "basic_constraints_m")):
                pair = load_key_pair(
                    self.files.write("odd.crt", pem_of(certificate.der)),
                    self.files.write("odd.key", signer.key.pem()),
                )
                self.assertEqual(pair.chain.certificates, (certificate,), name)
