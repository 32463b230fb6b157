"""Requests and certificates that a strict parser stumbles over: ``sign`` and ``install``."""

from __future__ import annotations

import shutil
import warnings

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from pgtls.tls.der import INTEGER, SEQUENCE, SET, encoded, first, inner
from pgtls.tls.pem import blocks
from pgtls.tls.sources import pem_of
from tests.support.authorities import AuthorityCase, certificate, openssl
from tests.support.certificates import Authority, Files, Key, Kind
from tests.support.odd_certificates import (
    EXTENSIONS,
    SUBJECTS,
    Signer,
    common_name,
    name,
    odd_certificates,
    oid,
    sequence,
)

ALICE = common_name(b"alice")


def request(key: Key, subject: bytes, *extensions: bytes, version: int = 0) -> bytes:
    """A certificate request, in PEM."""
    plain = x509.CertificateSigningRequestBuilder(x509.Name([]))
    signed = plain.sign(key.private, None if key.kind == "ed25519" else hashes.SHA256())  # type: ignore[arg-type]
    algorithm = inner(signed.public_bytes(Encoding.DER))[1].whole
    asked = sequence(oid("1.2.840.113549.1.9.14"), encoded(SET, sequence(*extensions)))
    info = sequence(
        encoded(INTEGER, bytes([version])), subject, key.public_der(), encoded(0xA0, asked)
    )
    return pem_of(
        sequence(info, algorithm, encoded(3, b"\0" + key.sign(info))), "CERTIFICATE REQUEST"
    )


class RequestTests(AuthorityCase):
    """``pgtls sign``."""

    def setUp(self) -> None:
        super().setUp()
        self.pgtls("mkcert", "-D", self.ca, "localhost")
        self.csr = self.top / "alice.csr"

    def signed(self, pem: bytes) -> x509.Certificate:
        self.csr.write_bytes(pem)
        self.pgtls("sign", "-D", self.ca, "--yes", "--force", self.csr)
        return certificate(self.csr.with_suffix(".crt"))

    def test_extensions_that_make_no_sense_are_left_out(self) -> None:
        key = Key.generate("ecdsa")
        for kind, extensions in EXTENSIONS.items():
            made = self.signed(request(key, name(ALICE), *extensions))
            self.assertEqual(made.subject.rfc4514_string(), "CN=alice", kind)

    def test_names_by_the_rules_of_openssl(self) -> None:
        kinds: tuple[Kind, ...] = ("ecdsa", "rsa", "ed25519")
        for kind in kinds:
            subject = sequence(
                first(SUBJECTS["printable_string_with_ampersand"], SEQUENCE).content,
                encoded(SET, ALICE),
            )
            made = self.signed(request(Key.generate(kind), subject))
            self.assertEqual(made.subject.rfc4514_string(), "CN=alice,O=AT&T @_*", kind)

    def test_a_version_that_is_none(self) -> None:
        made = self.signed(request(Key.generate("ecdsa"), name(ALICE), version=5))
        self.assertEqual(made.subject.rfc4514_string(), "CN=alice")

    def test_a_signature_of_another_key_is_refused_as_ever(self) -> None:
        """Also where ``cryptography`` cannot read the request."""
        for subject in (name(ALICE), SUBJECTS["printable_string_with_ampersand"]):
            pem = request(Key.generate("ecdsa"), subject)
            der = blocks(pem)[0].der
            _, _, key, *_ = inner(first(der, SEQUENCE).content)
            other = Key.generate("ecdsa").public_der()
            self.csr.write_bytes(pem_of(der.replace(key.whole, other), "CERTIFICATE REQUEST"))
            self.refused("not signed by the key", "sign", "-D", self.ca, "--yes", self.csr)

    def test_a_signature_of_no_kind(self) -> None:
        pem = request(Key.generate("ecdsa"), name(ALICE))
        info, _, signature = inner(blocks(pem)[0].der)
        for parts in ((info.whole, sequence(), signature.whole), (info.whole, signature.whole)):
            self.csr.write_bytes(pem_of(sequence(*parts), "CERTIFICATE REQUEST"))
            self.refused("could not read request", "sign", "-D", self.ca, "--yes", self.csr)

    def test_a_switched_off_request_is_none(self) -> None:
        self.csr.write_bytes(b"#" + request(Key.generate("ecdsa"), name(ALICE)))
        self.refused("no certificate request", "sign", "-D", self.ca, "--yes", self.csr)


class AuthorityTests(AuthorityCase):
    """An authority that somebody else made."""

    def make(self, subject: bytes, serial: bytes) -> Signer:
        """Its files."""
        authority = Authority("made elsewhere")
        signer = Signer(authority)
        self.ca.mkdir()
        files = Files(self.ca)
        root = signer.own_authority(subject, serial=encoded(INTEGER, serial))
        files.write("root.crt", pem_of(root.der))
        files.write("root.key", authority.issued.key.pem())
        return signer

    def test_with_a_serial_number_that_is_not_positive(self) -> None:
        """It works, and says nothing of it."""
        for serial in (b"\x00", b"\xff"):
            self.make(name(common_name(b"site")), serial)
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                self.pgtls("mkcert", "-D", self.ca, "localhost")
                self.pgtls("list", "-D", self.ca)
            said = openssl("verify", "-CAfile", self.ca / "root.crt", self.ca / "server.crt")
            self.assertIn("OK", said)
            shutil.rmtree(self.ca)

    def test_whose_subject_cannot_be_taken_over(self) -> None:
        """What it would sign would have another issuer: refused, with the reason."""
        self.make(SUBJECTS["printable_string_with_ampersand"], b"\x05")
        self.refused(
            "is not one that certificates can be made with here", "mkcert", "-D", self.ca, "db"
        )

    def test_what_it_signed_with_such_a_serial_number_cannot_be_revoked(self) -> None:
        signer = self.make(name(common_name(b"made elsewhere")), b"\x05")
        odd = self.top / "odd.crt"
        odd.write_bytes(pem_of(odd_certificates(signer)["serial_negative"].der))
        self.refused("not positive", "revoke", "-D", self.ca, odd)


class InstallTests(AuthorityCase):
    """``pgtls install``."""

    def test_what_openssl_verifies(self) -> None:
        authority = Authority("odd root")
        signer = Signer(authority, client=True)
        self.dot.mkdir(mode=0o700)
        files = Files(self.dot)
        files.write("postgresql.key", signer.key.pem())
        files.write("root.crt", authority.pem())
        for kind, odd in odd_certificates(signer).items():
            others = ("unknown_extension_twice", "serial_zero", "indefinite_length")
            if kind.startswith("version_") or kind in others:
                crt = self.top / f"{kind}.crt"
                crt.write_bytes(pem_of(odd.der))
                self.pgtls("install", "--force", crt)
                self.assertEqual((self.dot / "postgresql.crt").read_bytes(), pem_of(odd.der))
