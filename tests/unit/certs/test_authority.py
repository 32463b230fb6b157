"""The authority and its server certificates, and that openssl thinks of them what we do."""

from __future__ import annotations

import ipaddress
import multiprocessing
import os
import re
import stat
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from pgtls.certs.authority import Authority
from pgtls.certs.files import PRIVATE, locked, write_file
from pgtls.certs.keys import KeyType
from pgtls.certs.names import general_names
from pgtls.certs.server_files import mkcert
from pgtls.errors import ConfigurationError


def openssl(*arguments: str | Path) -> str:
    """What openssl says; an error if it fails."""
    return subprocess.run(
        ["openssl", *arguments], check=True, capture_output=True, text=True
    ).stdout


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


class DirectoryCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.directory = Path(self.mktemp()).absolute()
        self.directory.mkdir()

    def contents(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in self.directory.iterdir() if path.is_file()}


class WholeFiles(DirectoryCase):
    def test_an_existing_file_stays(self) -> None:
        path = self.directory / "server.crt"
        path.write_text("old")
        with self.assertRaises(FileExistsError):
            write_file(path, b"new")
        self.assertEqual(self.contents(), {"server.crt": b"old"})

    def test_overwriting_replaces_the_whole_file(self) -> None:
        path = self.directory / "server.crt"
        path.write_text("something longer")
        write_file(path, b"new", overwrite=True)
        self.assertEqual(self.contents(), {"server.crt": b"new"})

    def test_a_key_does_not_replace_a_symbolic_link(self) -> None:
        elsewhere = self.directory / "elsewhere"
        elsewhere.write_text("precious")
        link = self.directory / "server.key"
        link.symlink_to(elsewhere)
        with self.assertRaisesRegex(ConfigurationError, "symbolic link"):
            write_file(link, b"key", PRIVATE, overwrite=True)
        self.assertEqual(elsewhere.read_text(), "precious")

    def test_a_public_file_can_be_read_whatever_the_umask(self) -> None:
        self.addCleanup(os.umask, os.umask(0o077))
        write_file(self.directory / "root.crt", b"")
        self.assertEqual(mode(self.directory / "root.crt"), 0o644)

    def test_what_a_killed_writer_left_is_cleared_away(self) -> None:
        (self.directory / ".server.key.0123.pgtls-unfinished").write_text("half a key")
        with locked(self.directory):
            self.assertEqual(list(self.contents()), [".pgtls.lock"])


class Authorities(DirectoryCase):
    def test_the_root_is_an_authority_for_end_entities_only(self) -> None:
        Authority.create(self.directory)
        text = openssl("x509", "-in", self.directory / "root.crt", "-noout", "-text")
        self.assertRegex(text, r"Basic Constraints: critical\s+CA:TRUE, pathlen:0")
        self.assertRegex(text, r"Key Usage: critical\s+Certificate Sign, CRL Sign\n")

    def test_the_root_identifies_its_key(self) -> None:
        Authority.create(self.directory)
        text = openssl("x509", "-in", self.directory / "root.crt", "-noout", "-text")
        identifiers = re.findall(r"(?:[0-9A-F]{2}:){19}[0-9A-F]{2}", text)
        self.assertEqual(len(identifiers), 2)
        self.assertEqual(len(set(identifiers)), 1)

    def test_the_root_is_good_for_ten_years(self) -> None:
        root = Authority.create(self.directory).certificate
        self.assertGreater(root.not_valid_after_utc, datetime.now(UTC) + timedelta(days=3649))

    def test_its_key_is_for_its_owner_only(self) -> None:
        Authority.create(self.directory)
        self.assertEqual(mode(self.directory / "root.key"), 0o600)

    def test_it_is_never_overwritten(self) -> None:
        Authority.create(self.directory)
        before = self.contents()
        with self.assertRaisesRegex(ConfigurationError, "root.crt.* is there already"):
            Authority.create(self.directory)
        self.assertEqual(self.contents(), before)

    def test_its_name(self) -> None:
        authority = Authority.create(self.directory, name="Example Inc. database authority")
        self.assertEqual(
            authority.certificate.subject.rfc4514_string(), "CN=Example Inc. database authority"
        )

    def test_a_creation_that_was_interrupted_is_finished_with_the_same_key(self) -> None:
        Authority.create(self.directory)
        key = (self.directory / "root.key").read_bytes()
        (self.directory / "root.crt").unlink()
        Authority.create(self.directory)
        Authority.load(self.directory)
        self.assertEqual((self.directory / "root.key").read_bytes(), key)

    def test_an_encrypted_key_needs_its_password(self) -> None:
        Authority.create(self.directory, password=b"secret")
        Authority.load(self.directory, b"secret")
        with self.assertRaisesRegex(ConfigurationError, "encrypted"):
            Authority.load(self.directory)

    def test_a_wrong_password(self) -> None:
        Authority.create(self.directory, password=b"secret")
        with self.assertRaisesRegex(ConfigurationError, "password"):
            Authority.load(self.directory, b"guess")

    def test_a_key_that_is_a_symbolic_link_is_refused(self) -> None:
        Authority.create(self.directory)
        key = self.directory / "root.key"
        key.symlink_to(key.rename(self.directory / "elsewhere"))
        with self.assertRaisesRegex(ConfigurationError, "symbolic link"):
            Authority.load(self.directory)

    def test_a_key_that_others_can_read_is_refused(self) -> None:
        Authority.create(self.directory)
        (self.directory / "root.key").chmod(0o644)
        with self.assertRaisesRegex(ConfigurationError, "group or world access"):
            Authority.load(self.directory)

    def test_a_server_certificate_is_no_authority(self) -> None:
        mkcert(self.directory, ["localhost"])
        for end in ("crt", "key"):
            (self.directory / f"server.{end}").replace(self.directory / f"root.{end}")
        with self.assertRaisesRegex(ConfigurationError, "not an authority's certificate"):
            Authority.load(self.directory)


class ServerCertificates(DirectoryCase):
    def setUp(self) -> None:
        super().setUp()
        self.authority = Authority.create(self.directory)

    def alternatives(self, *names: str) -> x509.SubjectAlternativeName:
        certificate = self.authority.issue_server(names).certificate
        return certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value

    def text(self, key_type: KeyType = KeyType.ECDSA) -> str:
        path = self.directory / "issued.crt"
        issued = self.authority.issue_server(["db.example.com"], key_type=key_type)
        path.write_bytes(issued.certificate_pem)
        return openssl("x509", "-in", path, "-noout", "-text")

    def test_host_names_are_dns_names(self) -> None:
        names = self.alternatives("db.example.com", "*.db.example.com", "LOCALHOST.")
        self.assertEqual(
            names.get_values_for_type(x509.DNSName),
            ["db.example.com", "*.db.example.com", "localhost"],
        )

    def test_international_names_are_in_their_ascii_form(self) -> None:
        names = self.alternatives("Bücher.example", "*.bücher.example")
        self.assertEqual(
            names.get_values_for_type(x509.DNSName),
            ["xn--bcher-kva.example", "*.xn--bcher-kva.example"],
        )

    def test_addresses_are_ip_addresses(self) -> None:
        names = self.alternatives("127.0.0.1", "0:0::1")
        self.assertEqual(
            names.get_values_for_type(x509.IPAddress),
            [ipaddress.ip_address("127.0.0.1"), ipaddress.ip_address("::1")],
        )

    def test_the_first_name_is_the_common_name(self) -> None:
        issued = self.authority.issue_server(["db.example.com", "db"])
        self.assertEqual(issued.certificate.subject.rfc4514_string(), "CN=db.example.com")

    def test_a_name_too_long_for_a_common_name(self) -> None:
        long = "x" * 60 + ".example.com"
        issued = self.authority.issue_server([long])
        self.assertEqual(list(issued.certificate.subject), [])
        self.assertEqual(
            self.alternatives(long, "db").get_values_for_type(x509.DNSName), [long, "db"]
        )

    def test_every_unusable_name_is_named(self) -> None:
        with self.assertRaises(ConfigurationError) as caught:
            self.authority.issue_server(["db", "a b", "256.0.0.1", "fe80::1%eth0", "a..b", "*"])
        self.assertEqual(
            caught.exception.mistakes,
            tuple(
                f'"{name}" is neither a host name nor an IP address'
                for name in ("a b", "256.0.0.1", "fe80::1%eth0", "a..b", "*")
            ),
        )

    def test_no_name_at_all(self) -> None:
        with self.assertRaisesRegex(ConfigurationError, "needs a host name"):
            self.authority.issue_server([])

    def test_what_it_may_be_used_for(self) -> None:
        text = self.text()
        self.assertRegex(text, r"Basic Constraints: critical\s+CA:FALSE")
        self.assertRegex(text, r"Key Usage: critical\s+Digital Signature\n")
        self.assertRegex(text, r"Extended Key Usage: \n\s+TLS Web Server Authentication\n")

    def test_an_rsa_key_may_also_encipher(self) -> None:
        self.assertRegex(
            self.text(KeyType.RSA), r"Key Usage: critical\s+Digital Signature, Key Encipherment\n"
        )

    def test_the_kinds_of_key(self) -> None:
        for key_type, kind in (
            (KeyType.ECDSA, ec.EllipticCurvePrivateKey),
            (KeyType.RSA, rsa.RSAPrivateKey),
            (KeyType.ED25519, ed25519.Ed25519PrivateKey),
        ):
            issued = self.authority.issue_server(["db"], key_type=key_type)
            key = load_pem_private_key(issued.key_pem, None)
            self.assertIsInstance(key, kind)
            self.assertEqual(issued.certificate.public_key(), key.public_key())

    def test_it_is_good_from_an_hour_ago_for_825_days(self) -> None:
        certificate = self.authority.issue_server(["db"]).certificate
        length = certificate.not_valid_after_utc - certificate.not_valid_before_utc
        self.assertEqual(length, timedelta(days=825, hours=1))
        self.assertLess(certificate.not_valid_before_utc, datetime.now(UTC) - timedelta(minutes=59))

    def test_it_does_not_outlive_the_authority(self) -> None:
        certificate = self.authority.issue_server(["db"], days=10_000).certificate
        self.assertEqual(
            certificate.not_valid_after_utc, self.authority.certificate.not_valid_after_utc
        )

    def test_fingerprint_is_what_openssl_prints(self) -> None:
        printed = openssl(
            "x509", "-in", self.directory / "root.crt", "-noout", "-fingerprint", "-sha256"
        )
        self.assertEqual(printed.rstrip().partition("=")[2], self.authority.shown.fingerprint)

    @given(st.text(max_size=300))
    @settings(deadline=None)
    def test_any_text_is_a_name_or_refused(self, text: str) -> None:
        try:
            (name,) = general_names([text])
        except ConfigurationError:
            return
        # What was taken is taken again, to the same effect.
        self.assertEqual(general_names([str(name.value)]), [name])


class MakingServerFiles(DirectoryCase):
    def verify(self) -> str:
        root, server = self.directory / "root.crt", self.directory / "server.crt"
        return openssl("verify", "-x509_strict", "-purpose", "sslserver", "-CAfile", root, server)

    def test_the_root_alone_verifies_the_server(self) -> None:
        for key_type in KeyType:
            with self.subTest(key_type):
                self.directory = self.directory / key_type
                mkcert(self.directory, ["db.example.com", "10.0.0.1"], key_type=key_type)
                self.assertTrue(self.verify().endswith(": OK\n"))

    def test_openssl_finds_each_name(self) -> None:
        mkcert(self.directory, ["db.example.com", "10.0.0.1"])
        server = self.directory / "server.crt"
        for check in (("-checkhost", "db.example.com"), ("-checkip", "10.0.0.1")):
            self.assertIn(
                "does match certificate", openssl("x509", "-in", server, "-noout", *check)
            )

    def test_the_files(self) -> None:
        files = mkcert(self.directory, ["db"])
        self.assertTrue(files.root_created)
        self.assertEqual(
            {path.name: mode(path) for path in self.directory.iterdir()},
            {
                ".pgtls.lock": 0o600,
                "crlnumber": 0o644,
                "index.txt": 0o644,
                "index.txt.attr": 0o644,
                "newcerts": 0o755,
                "root.crl": 0o644,
                "root.crt": 0o644,
                "root.key": 0o600,
                "serial": 0o644,
                "server.crt": 0o644,
                "server.key": 0o600,
            },
        )

    def test_nothing_is_overwritten(self) -> None:
        mkcert(self.directory, ["db"])
        before = self.contents()
        with self.assertRaisesRegex(ConfigurationError, "server.crt.* is there already"):
            mkcert(self.directory, ["other"])
        self.assertEqual(self.contents(), before)

    def test_force_makes_the_server_files_anew_and_keeps_the_authority(self) -> None:
        mkcert(self.directory, ["db"])
        before = self.contents()
        files = mkcert(self.directory, ["db"], force=True)
        after = self.contents()
        self.assertFalse(files.root_created)
        self.assertEqual(
            {name for name in after if after[name] != before[name]},
            {"server.crt", "server.key", "index.txt"},
        )
        self.verify()

    def test_one_that_was_interrupted_is_finished(self) -> None:
        mkcert(self.directory, ["db"])
        key = (self.directory / "server.key").read_bytes()
        (self.directory / "server.crt").unlink()
        mkcert(self.directory, ["db"])
        self.assertEqual((self.directory / "server.key").read_bytes(), key)
        self.verify()

    def test_an_unusable_name_leaves_no_trace(self) -> None:
        directory = self.directory / "new"
        with self.assertRaises(ConfigurationError):
            mkcert(directory, ["not a name"])
        self.assertFalse(directory.exists())

    def test_several_at_once_agree_on_one_authority(self) -> None:
        workers = [
            multiprocessing.get_context("spawn").Process(
                target=mkcert, args=(self.directory, ["db"]), kwargs={"force": True}
            )
            for _ in range(3)
        ]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        self.assertEqual([worker.exitcode for worker in workers], [0, 0, 0])
        self.verify()
        modulus = openssl("x509", "-in", self.directory / "server.crt", "-noout", "-pubkey")
        self.assertEqual(modulus, openssl("pkey", "-in", self.directory / "server.key", "-pubout"))
