"""The commands for certificates: what they make, say and refuse."""

from __future__ import annotations

import inspect
import json
import os
import re
import shlex
import stat
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from hypothesis import given, settings
from hypothesis import strategies as st

from pgtls.certs.authority import Authority
from pgtls.certs.client_conf import read_client_conf
from pgtls.certs.database import Entry
from pgtls.commands.main import _COMMANDS, main
from pgtls.errors import ConfigurationError
from tests.support.authorities import AuthorityCase, certificate, hex_serial, openssl
from tests.support.processes import environment

COMMANDS = ("mkcert", "client-conf", "keygen", "sign", "install", "list", "revoke", "crl")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def days_left(path: Path) -> int:
    return (certificate(path).not_valid_after_utc - datetime.now(UTC)).days + 1


def _command(name: str) -> click.Command:
    found = main.get_command(click.Context(main), name)
    assert found is not None
    return found


class Every(AuthorityCase):
    def test_the_list_of_commands_has_the_beginning_of_each_ones_help(self) -> None:
        """It is written down apart from them, so that the list needs no import of them all."""
        for name in main.list_commands(click.Context(main)):
            text = _COMMANDS[name][1]
            self.assertEqual(_command(name).get_short_help_str(1000), text)
            self.assertEqual(_command(name).name, name)

    def test_the_list_of_commands_imports_none_of_them(self) -> None:
        code = (
            "import sys; from pgtls.commands.main import main; "
            "main(['--help'], standalone_mode=False); "
            "print(sorted(name for name in sys.modules if name in ('twisted', 'OpenSSL')))"
        )
        out = subprocess.run(
            [sys.executable, "-c", code],
            env=environment(),
            capture_output=True,
            text=True,
            check=True,
        )
        self.assertTrue(out.stdout.endswith("\n[]\n"), out.stdout)

    def test_each_has_an_example_that_can_be_given_as_it_is(self) -> None:
        Path("pgtls.toml").touch()  # the file in the examples
        for name in main.list_commands(click.Context(main)):
            command = _command(name)
            text = inspect.cleandoc(command.help or "").partition("Examples:\n")[2]
            lines = [
                line.strip() for line in text.replace("\\\n", " ").splitlines() if line.strip()
            ]
            self.assertGreaterEqual(len(lines), 2, name)
            for line in lines:
                words = [
                    each for each in shlex.split(re.split(r"\||&&", line)[0]) if "PG" not in each
                ]
                self.assertEqual(words[:2], ["pgtls", name], line)
                command.make_context(name, words[2:])

    def test_the_list_of_commands_is_not_cut(self) -> None:
        out = self.pgtls("--help")
        for name in main.list_commands(click.Context(main)):
            self.assertIn(_COMMANDS[name][1], out)

    def test_each_has_help_that_says_what_it_does(self) -> None:
        for name in COMMANDS:
            out = self.pgtls(name, "--help")
            self.assertGreater(len(out.splitlines()), 12, name)
            self.assertIn("-D", out)

    def test_each_option_has_help(self) -> None:
        silent = [
            f"{name} {option.name}"
            for name in COMMANDS
            for option in _command(name).params
            if option.param_type_name == "option" and not getattr(option, "help", None)
        ]
        self.assertEqual(silent, [])

    def test_a_missing_directory_is_a_wrong_usage(self) -> None:
        for name in ("mkcert", "client-conf", "list", "crl"):
            self.refused("Missing (option|argument)", name, status=2)

    def test_there_is_no_authority(self) -> None:
        self.ca.mkdir()
        (self.top / "x.csr").write_text("")
        for command in (("list",), ("crl",), ("client-conf",), ("revoke", "01")):
            self.refused("root.crt.*No such file", *command, "-D", self.ca)

    def test_keys_are_never_printed(self) -> None:
        said = [
            self.pgtls("mkcert", "-D", self.ca, "localhost"),
            self.pgtls("client-conf", "-D", self.ca, "-o", self.conf),
            self.pgtls("keygen", "--conf", self.conf),
            self.pgtls("sign", "-D", self.ca, "--yes", self.dot / "postgresql.csr"),
            self.pgtls("list", "-D", self.ca, "--json"),
        ]
        secrets = [(self.ca / "root.key"), (self.ca / "server.key"), (self.dot / "postgresql.key")]
        for key in secrets:
            for line in key.read_text().splitlines()[1:-1]:
                self.assertNotIn(line, "".join(said))
        self.assertNotIn("PRIVATE", "".join(said) + self.conf.read_text())

    def test_it_is_a_program_too(self) -> None:
        code = "from pgtls.commands.main import main; main()"
        done = subprocess.run(
            [sys.executable, "-c", code, "list", "-D", self.top / "none"],
            env=environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        self.assertEqual(done.returncode, 1)
        self.assertEqual(len(done.stderr.splitlines()), 1)


class Mkcert(AuthorityCase):
    def test_the_lines_for_postgresql_conf(self) -> None:
        out = self.pgtls("mkcert", "-D", self.ca, "localhost")
        settings_lines = [line for line in out.splitlines() if not line.startswith("#")]
        self.assertEqual(
            settings_lines,
            [
                "ssl = on",
                f"ssl_cert_file = '{self.ca}/server.crt'",
                f"ssl_key_file = '{self.ca}/server.key'",
                f"ssl_ca_file = '{self.ca}/root.crt'",
            ],
        )

    def test_json(self) -> None:
        said = self.json("mkcert", "-D", self.ca, "localhost", "10.0.0.1")
        self.assertEqual(said["server"]["names"], ["localhost", "10.0.0.1"])
        self.assertEqual(said["server"]["serial"], hex_serial(self.ca / "server.crt"))
        self.assertIs(said["root_created"], True)
        self.assertTrue(said["next"])

    def test_what_is_no_name_is_a_wrong_usage(self) -> None:
        self.refused('"a b" is neither', "mkcert", "-D", self.ca, "a b", status=2)
        self.assertFalse(self.ca.exists())

    def test_what_is_there_stays(self) -> None:
        self.make_authority()
        before = (self.ca / "server.crt").read_bytes()
        self.refused("is there already: --renew", "mkcert", "-D", self.ca, "localhost")
        self.assertEqual((self.ca / "server.crt").read_bytes(), before)

    def test_renew_keeps_key_and_names(self) -> None:
        self.pgtls("mkcert", "-D", self.ca, "localhost", "10.0.0.1", "--key-type", "ed25519")
        key, serial = (self.ca / "server.key").read_bytes(), hex_serial(self.ca / "server.crt")
        said = self.json("mkcert", "-D", self.ca, "--renew")
        self.assertEqual((self.ca / "server.key").read_bytes(), key)
        self.assertNotEqual(hex_serial(self.ca / "server.crt"), serial)
        self.assertEqual(said["server"]["names"], ["localhost", "10.0.0.1"])
        self.assertEqual([one["kind"] for one in self.listed()], ["server", "server"])

    def test_renew_with_other_names(self) -> None:
        self.make_authority()
        said = self.json("mkcert", "-D", self.ca, "--renew", "db.example.com")
        self.assertEqual(said["server"]["names"], ["db.example.com"])

    def test_there_is_nothing_to_renew(self) -> None:
        self.refused("could not open .*server.crt", "mkcert", "-D", self.ca, "--renew")

    def test_force_replaces_key_and_certificate_and_not_the_authority(self) -> None:
        self.make_authority()
        before = {path.name: path.read_bytes() for path in self.ca.glob("*.*")}
        self.pgtls("mkcert", "-D", self.ca, "localhost", "--force", "--key-type", "rsa")
        after = {path.name: path.read_bytes() for path in self.ca.glob("*.*")}
        changed = {name for name in after if after[name] != before[name]}
        self.assertEqual(changed, {"server.crt", "server.key", "index.txt"})
        text = openssl("x509", "-in", self.ca / "server.crt", "-noout", "-text")
        self.assertIn("rsaEncryption", text)

    def test_an_interrupted_replacement_is_named(self) -> None:
        self.make_authority()
        self.pgtls("mkcert", "-D", self.top / "other", "localhost")
        (self.ca / "server.key").write_bytes((self.top / "other" / "server.key").read_bytes())
        self.refused("does not match.*--force", "mkcert", "-D", self.ca, "localhost")

    def test_an_encrypted_authority_asks_for_its_passphrase(self) -> None:
        secret = self.top / "secret"
        secret.write_text("correct horse\n")
        secret.chmod(0o600)
        file = ("--passphrase-file", secret)
        self.pgtls("mkcert", "-D", self.ca, "localhost", "--encrypt", *file)
        self.assertIn("ENCRYPTED", (self.ca / "root.key").read_text())
        self.assertNotIn("ENCRYPTED", (self.ca / "server.key").read_text())
        self.pgtls("crl", "-D", self.ca, *file)
        again = ("mkcert", "-D", self.ca, "--force", "localhost", "--encrypt", *file)
        self.refused("--encrypt is for a new one", *again)
        self.refused("no terminal.*--passphrase-file", "crl", "-D", self.ca)
        secret.write_text("wrong\n")
        self.refused("bad decrypt", "crl", "-D", self.ca, *file)


class ClientConf(AuthorityCase):
    def setUp(self) -> None:
        super().setUp()
        self.make_authority()

    def test_it_holds_what_the_site_says(self) -> None:
        fields = ("--subject", "O=Exämple Inc.", "--subject", "C=NO")
        text = self.pgtls("client-conf", "-D", self.ca, *fields, "--key-type", "rsa")
        self.assertIn((self.ca / "root.crt").read_text(), text)
        self.conf.write_text(text)
        conf = read_client_conf(self.conf)
        self.assertEqual(
            [field.rfc4514_string() for field in conf.subject], ["O=Exämple Inc.", "C=NO"]
        )
        self.assertEqual(conf.key_type, "rsa")

    def test_openssl_finds_the_root_in_it(self) -> None:
        self.assertEqual(hex_serial(self.conf), hex_serial(self.ca / "root.crt"))

    def test_a_file_that_is_there_stays(self) -> None:
        self.refused("is there already", "client-conf", "-D", self.ca, "-o", self.conf)
        self.pgtls("client-conf", "-D", self.ca, "-o", self.conf, "--force")

    def test_fields_that_cannot_be(self) -> None:
        for field, reason in (
            ("CN=alice", "the user's own"),
            ("C=Norway", "longer than 2"),
            ("O=" + "x" * 65, "longer than 64"),
            ("O=a\x1b[2J", "cannot be printed"),
            ("mail=x", "not a field of a subject"),
            ("O", "is not NAME=VALUE"),
        ):
            arguments = ("client-conf", "-D", self.ca, "--subject", field)
            self.refused(reason, *arguments, status=2)

    def changed(self, old: str, new: str, reason: str) -> None:
        """keygen refuses a client.conf with this change."""
        text = self.conf.read_text()
        self.assertIn(old, text)
        hostile = self.top / "hostile.conf"
        hostile.write_bytes(text.replace(old, new).encode("utf-8", "surrogateescape"))
        self.refused(reason, "keygen", "--conf", hostile)
        self.assertFalse(self.dot.exists())

    def test_hostile_ones_are_refused_before_anything_is_made(self) -> None:
        pem = (self.ca / "root.crt").read_text()
        leaf = (self.ca / "server.crt").read_text()
        for old, new, reason in (
            ("[subject]\n", "[subject]\nO = a\nO = b\n", "option .* already exists"),
            ("[subject]\n", "[subject]\nO = a\norganizationName = b\n", "there twice"),
            ("[subject]\n", "[subject]\nO = " + "x" * 65 + "\n", "longer than 64"),
            ("[subject]\n", "[subject]\ncommonName = postgres\n", "the user's own"),
            ("[subject]\n", "[subject]\nO = \n", "is empty"),
            ("[subject]\n", "[subject]\nO = a\x1b]0;x\x07\n", "cannot be printed"),
            ("[subject]\n", "[subject]\nO = \u202eevil\n", "cannot be printed"),
            ("[subject]\n", "[subject]\n.include /etc/passwd\n", "parsing errors"),
            ("[subject]\n", "[subject\n", "(parsing errors|no section)"),
            ("[subject]\n", "[subject]\n\udcff\n", "not text in UTF-8"),
            ("[key]", "[keys]", r"no section \[keys\]"),
            ("type = ecdsa", "type = dsa", "type, one of ecdsa, rsa, ed25519"),
            ("type = ecdsa", "type = rsa\nbits = 512", "just one setting"),
            (pem, "", "must end with the authority's certificate"),
            (pem, pem + pem, "must end with the authority's certificate"),
            (pem, pem + "type = rsa\n", "must end with the authority's certificate"),
            (pem, leaf, "not an authority's own"),
            (pem[100:110], "!!!!!!!!!!", "damaged"),
            ("# For", "#" * 70000, "more than 65536 bytes"),
        ):
            with self.subTest(new[:50]):
                self.changed(old, new, reason)

    def test_one_that_was_edited_on_windows(self) -> None:
        text = self.conf.read_text().replace("[subject]\n", "[subject]\nO = Example Inc.\n")
        self.conf.write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
        self.assertEqual(read_client_conf(self.conf).subject[0].value, "Example Inc.")

    def test_a_fifo_does_not_hang(self) -> None:
        os.mkfifo(self.top / "fifo")
        self.refused("not a regular file", "keygen", "--conf", self.top / "fifo")

    @given(st.binary(max_size=400))
    @settings(deadline=None, max_examples=50)
    def test_any_bytes_are_refused_in_one_way(self, garbage: bytes) -> None:
        path = self.top / "garbage"
        path.write_bytes(garbage)
        with self.assertRaises(ConfigurationError):
            read_client_conf(path)


class Keygen(AuthorityCase):
    def setUp(self) -> None:
        super().setUp()
        self.make_authority()

    def test_the_files(self) -> None:
        self.make_request()
        self.assertEqual(mode(self.dot), 0o700)
        self.assertEqual(
            {path.name: mode(path) for path in self.dot.iterdir()},
            {
                ".pgtls.lock": 0o600,
                "postgresql.key": 0o600,
                "postgresql.csr": 0o644,
                "root.crt": 0o644,
            },
        )

    def test_openssl_takes_the_request(self) -> None:
        csr = self.make_request()
        text = openssl("req", "-in", csr, "-noout", "-verify", "-text")
        self.assertIn("Subject: CN = alice", text)
        self.assertIn("prime256v1", text)

    def test_the_role_is_PGUSER_unless_named(self) -> None:
        self.pgtls("keygen", "--conf", self.conf, PGUSER="carol")
        csr = x509.load_pem_x509_csr((self.dot / "postgresql.csr").read_bytes())
        self.assertEqual(csr.subject.rfc4514_string(), "CN=carol")

    def test_a_role_that_cannot_be(self) -> None:
        for role, reason in (("x" * 64, "at most 63 bytes"), ("a\nb", "cannot be printed")):
            self.refused(reason, "keygen", "--conf", self.conf, "--user", role, status=2)

    def test_a_key_that_is_there_stays(self) -> None:
        self.make_request()
        before = (self.dot / "postgresql.key").read_bytes()
        self.refused("is there already: send", "keygen", "--conf", self.conf)
        self.assertEqual((self.dot / "postgresql.key").read_bytes(), before)
        self.make_request("--force")
        self.assertNotEqual((self.dot / "postgresql.key").read_bytes(), before)

    def test_one_that_was_interrupted_is_finished_with_the_same_key(self) -> None:
        csr = self.make_request()
        key = (self.dot / "postgresql.key").read_bytes()
        csr.unlink()
        self.assertIn("Key (it was there)", self.pgtls("keygen", "--conf", self.conf))
        self.assertEqual((self.dot / "postgresql.key").read_bytes(), key)

    def test_another_root_stays_and_is_warned_of(self) -> None:
        self.pgtls("mkcert", "-D", self.top / "other", "localhost")
        self.dot.mkdir(mode=0o700)
        other = (self.top / "other" / "root.crt").read_bytes()
        (self.dot / "root.crt").write_bytes(other)
        (warning,) = self.json("keygen", "--conf", self.conf)["warnings"]
        self.assertIn("does not have the authority", warning)
        self.assertEqual((self.dot / "root.crt").read_bytes(), other)

    def test_an_encrypted_key(self) -> None:
        secret = self.top / "secret"
        secret.write_text("correct horse\n")
        secret.chmod(0o600)
        csr = self.make_request("--encrypt", "--passphrase-file", secret)
        load_pem_private_key((self.dot / "postgresql.key").read_bytes(), b"correct horse")
        crt = self.sign(csr)
        self.pgtls("install", crt, "--passphrase-file", secret)


class Sign(AuthorityCase):
    def setUp(self) -> None:
        super().setUp()
        self.make_authority()

    def csr(
        self,
        key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | dsa.DSAPrivateKey | None = None,
        subject: str = "CN=alice",
        *extensions: x509.ExtensionType,
    ) -> Path:
        builder = x509.CertificateSigningRequestBuilder(x509.Name.from_rfc4514_string(subject))
        for extension in extensions:
            builder = builder.add_extension(extension, critical=False)
        request = builder.sign(key or ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())
        path = self.top / "alice.csr"
        path.write_bytes(request.public_bytes(Encoding.PEM))
        return path

    def test_it_shows_and_asks(self) -> None:
        csr = self.csr(None, "CN=alice,O=Example Inc.")
        result = self.run_pgtls("sign", "-D", self.ca, csr, input="n\n")
        self.assertEqual(result.exit_code, 1)
        self.assertIn("Subject: CN=alice,O=Example Inc.", result.stdout)
        self.assertIn("pgtls sign: not signed", result.stderr)
        self.assertFalse(csr.with_suffix(".crt").exists())
        self.assertEqual(len(self.listed()), 1)
        self.assertIn("Signed: ", self.pgtls("sign", "-D", self.ca, csr, input="y\n"))

    def test_no_answer_is_no(self) -> None:
        self.refused("not signed", "sign", "-D", self.ca, self.csr(), input="")

    def test_what_openssl_says_of_it(self) -> None:
        crt = self.sign(self.make_request())
        text = openssl("x509", "-in", crt, "-noout", "-text")
        self.assertIn("Subject: CN = alice", text)
        self.assertRegex(text, r"Basic Constraints: critical\s+CA:FALSE")
        self.assertRegex(text, r"X509v3 Key Usage: critical\s+Digital Signature\n")
        self.assertRegex(text, r"Extended Key Usage: \n\s+TLS Web Client Authentication\n")
        options = ("-x509_strict", "-purpose", "sslclient", "-CAfile", self.ca / "root.crt")
        self.assertIn(": OK", openssl("verify", *options, crt))

    def test_json_says_the_same(self) -> None:
        csr = self.make_request()
        said = self.json("sign", "-D", self.ca, "--yes", csr)
        self.assertEqual(said["certificate"]["serial"], hex_serial(csr.with_suffix(".crt")))
        self.assertEqual(said["left_out"], [])

    def test_every_kind_of_key(self) -> None:
        for kind in ("ecdsa", "rsa", "ed25519"):
            csr = self.make_request("--key-type", kind, "--force")
            self.pgtls("install", self.sign(csr, "--force"), "--force")

    def test_extensions_are_left_out_and_named(self) -> None:
        csr = self.csr(
            None,
            "CN=alice,UID=0",
            x509.BasicConstraints(ca=True, path_length=None),
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]),
            x509.SubjectAlternativeName([x509.DNSName("db.example.com")]),
        )
        said = self.json("sign", "-D", self.ca, "--yes", csr)
        self.assertEqual(
            said["left_out"],
            [
                "subject field UID",
                "extension basicConstraints",
                "extension extendedKeyUsage",
                "extension subjectAltName",
            ],
        )
        text = openssl("x509", "-in", csr.with_suffix(".crt"), "-noout", "-text")
        self.assertNotIn("CA:TRUE", text)
        self.assertNotIn("db.example.com", text)
        self.assertNotIn("Server Authentication", text)

    def test_the_sender_must_have_the_key(self) -> None:
        csr = self.csr()
        der = bytearray(x509.load_pem_x509_csr(csr.read_bytes()).public_bytes(Encoding.DER))
        der[der.index(b"alice")] ^= 1
        csr.write_bytes(der)
        self.refused("not signed by the key", "sign", "-D", self.ca, "--yes", csr)

    def test_so_must_that_of_a_self_signed_certificate(self) -> None:
        root = x509.load_pem_x509_certificate((self.ca / "root.crt").read_bytes())
        der = bytearray(root.public_bytes(Encoding.DER))
        der[-1] ^= 1
        path = self.top / "alice.pem"
        path.write_bytes(der)
        self.refused("not signed by the key", "sign", "-D", self.ca, "--yes", path)

    def test_weak_keys_are_refused(self) -> None:
        for key, reason in (
            (rsa.generate_private_key(65537, 1024), "RSA key of 1024 bits; 2048"),
            (ec.generate_private_key(ec.SECP192R1()), "curve secp192r1; 256 bits"),
            (dsa.generate_private_key(2048), "a DSA key"),
        ):
            self.refused(reason, "sign", "-D", self.ca, "--yes", self.csr(key))

    def test_it_needs_one_role(self) -> None:
        for subject, reason in (
            ("O=Example Inc.", "has no common name"),
            ("CN=alice,CN=postgres", "has 2 common names"),
        ):
            self.refused(reason, "sign", "-D", self.ca, "--yes", self.csr(None, subject))

    def test_a_role_that_only_looks_like_another_is_refused(self) -> None:
        for name in ("alice\u200b", "ali\x00ce", "alice\u202e"):
            subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
            key = ec.generate_private_key(ec.SECP256R1())
            csr = x509.CertificateSigningRequestBuilder(subject).sign(key, hashes.SHA256())
            path = self.top / "x.csr"
            path.write_bytes(csr.public_bytes(Encoding.PEM))
            self.refused("cannot be printed", "sign", "-D", self.ca, "--yes", path)

    def test_what_is_no_request(self) -> None:
        self.csr()
        for content, reason in (
            (b"", "no certificate request"),
            (b"-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n", "no certificate request"),
            ((self.ca / "root.key").read_bytes(), "no certificate request"),
            ((self.ca / "server.crt").read_bytes(), "signed by another key"),
            (b"x" * 70000, "more than 65536 bytes"),
        ):
            (self.top / "x.csr").write_bytes(content)
            self.refused(reason, "sign", "-D", self.ca, "--yes", self.top / "x.csr")

    def test_a_certificate_that_is_there_stays(self) -> None:
        csr = self.make_request()
        crt = self.sign(csr)
        before = crt.read_bytes()
        self.refused("is there already", "sign", "-D", self.ca, "--yes", csr)
        self.assertEqual(crt.read_bytes(), before)
        self.assertEqual(len(self.listed()), 2)

    def test_renew_takes_the_old_certificate(self) -> None:
        crt = self.sign(self.make_request(), "--days", "10")
        self.assertEqual(days_left(crt), 10)
        self.pgtls("sign", "-D", self.ca, "--yes", "--renew", crt)
        self.assertEqual(days_left(crt), 365)
        self.pgtls("install", crt)

    def test_renew_takes_no_other_certificate(self) -> None:
        other = self.top / "other"
        self.pgtls("mkcert", "-D", other, "localhost")
        for path, reason in (
            (other / "server.crt", "of another authority"),
            (self.ca / "server.crt", "not a client certificate"),
        ):
            self.refused(
                reason, "sign", "-D", self.ca, "--yes", "--renew", path, "-o", self.top / "x"
            )

    def test_a_revoked_key_is_not_signed_again(self) -> None:
        csr = self.make_request()
        crt = self.sign(csr)
        self.pgtls("revoke", "-D", self.ca, crt)
        self.refused("was revoked on", "sign", "-D", self.ca, "--yes", "--renew", crt)
        self.refused("was revoked on", "sign", "-D", self.ca, "--yes", "--force", csr)

    def test_a_superseded_one_may_be(self) -> None:
        csr = self.make_request()
        self.pgtls("revoke", "-D", self.ca, self.sign(csr), "--reason", "superseded")
        self.sign(csr, "--force")

    def test_it_does_not_outlive_the_authority(self) -> None:
        crt = self.sign(self.make_request(), "--days", "3650")
        root = certificate(self.ca / "root.crt")
        self.assertEqual(certificate(crt).not_valid_after_utc, root.not_valid_after_utc)

    @given(st.binary(max_size=300))
    @settings(deadline=None, max_examples=50)
    def test_any_bytes_are_refused(self, garbage: bytes) -> None:
        path = self.top / "garbage.csr"
        path.write_bytes(garbage)
        self.refused("request", "sign", "-D", self.ca, "--yes", path)


class Install(AuthorityCase):
    def setUp(self) -> None:
        super().setUp()
        self.make_authority()
        csr = self.make_request()
        self.crt = self.top / "alice.crt"
        self.pgtls("sign", "-D", self.ca, "--yes", csr, "-o", self.crt)

    def test_it_is_put_where_libpq_looks(self) -> None:
        out = self.pgtls("install", self.crt)
        self.assertEqual((self.dot / "postgresql.crt").read_bytes(), self.crt.read_bytes())
        self.assertIn("user=alice sslmode=verify-full", out)

    def test_elsewhere_libpq_has_to_be_told(self) -> None:
        self.dot.rename(self.top / "else")
        out = self.pgtls("install", "-D", self.top / "else", self.crt)
        self.assertIn(f"sslkey={self.top}/else/postgresql.key", out)

    def test_once_more_is_no_mistake(self) -> None:
        self.pgtls("install", self.crt)
        self.pgtls("install", self.crt)
        self.pgtls("install", self.dot / "postgresql.crt")

    def test_another_one_stays_without_force(self) -> None:
        self.pgtls("install", self.crt)
        self.pgtls("sign", "-D", self.ca, "--yes", "--renew", self.crt)
        self.refused("--force replaces it", "install", self.crt)
        self.pgtls("install", "--force", self.crt)

    def test_somebody_elses_key(self) -> None:
        self.make_request("--force")
        self.refused("does not match private key file", "install", self.crt)

    def test_no_key(self) -> None:
        (self.dot / "postgresql.key").unlink()
        self.refused("begin with pgtls keygen", "install", self.crt)
        self.refused("begin with pgtls keygen", "install", "-D", self.top / "none", self.crt)

    def test_another_authority(self) -> None:
        self.pgtls("mkcert", "-D", self.top / "other", "localhost")
        (self.dot / "root.crt").write_bytes((self.top / "other" / "root.crt").read_bytes())
        self.refused("does not verify by .*unable to get local issuer", "install", self.crt)

    def test_one_root_of_several_will_do(self) -> None:
        self.pgtls("mkcert", "-D", self.top / "other", "localhost")
        both = (self.top / "other" / "root.crt").read_bytes() + (self.ca / "root.crt").read_bytes()
        (self.dot / "root.crt").write_bytes(both)
        self.pgtls("install", self.crt)

    def other_dates(self, begin: int, end: int, *, server: bool = False) -> Path:
        """A certificate for Alice's key with other dates, by the same authority."""
        good = certificate(self.crt)
        purpose = ExtendedKeyUsageOID.SERVER_AUTH if server else ExtendedKeyUsageOID.CLIENT_AUTH
        now = datetime.now(UTC)
        key = load_pem_private_key((self.ca / "root.key").read_bytes(), None)
        made = (
            x509.CertificateBuilder(good.issuer, good.subject, good.public_key(), 5)
            .not_valid_before(now + timedelta(days=begin))
            .not_valid_after(now + timedelta(days=end))
            .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
            .sign(key, hashes.SHA256())  # type: ignore[arg-type]
        )
        path = self.top / "dates.crt"
        path.write_bytes(made.public_bytes(Encoding.PEM))
        return path

    def test_its_time(self) -> None:
        self.refused("certificate has expired", "install", self.other_dates(-9, -1))
        self.refused("not yet valid", "install", self.other_dates(1, 9))
        (warning,) = self.json("install", self.other_dates(-1, 9))["warnings"]
        self.assertIn("ask your DBA to renew", warning)

    def test_a_servers_certificate(self) -> None:
        self.refused("not a client certificate", "install", self.other_dates(-1, 9, server=True))


class Afterwards(AuthorityCase):
    def setUp(self) -> None:
        super().setUp()
        self.make_authority()
        self.crt = self.sign(self.make_request())
        self.crl = self.ca / "root.crl"

    def verify(self) -> str:
        options = ("-crl_check", "-CRLfile", self.crl, "-CAfile", self.ca / "root.crt")
        return openssl("verify", *options, self.crt)

    def test_a_revoked_one_is_revoked_for_openssl(self) -> None:
        self.assertIn(": OK", self.verify())
        self.pgtls("revoke", "-D", self.ca, self.crt)
        with self.assertRaisesRegex(AssertionError, "certificate revoked"):
            self.verify()

    def test_by_serial_number(self) -> None:
        serial = hex_serial(self.crt)
        colons = ":".join(serial[i : i + 2] for i in range(0, len(serial), 2)).lower()
        said = self.json("revoke", "-D", self.ca, colons, "--reason", "keycompromise")
        self.assertEqual((said["serial"], said["reason"]), (serial, "keyCompromise"))
        text = openssl("crl", "-in", self.crl, "-noout", "-text")
        self.assertIn(serial, text)
        self.assertIn("Key Compromise", text)

    def test_twice_is_no_mistake_and_keeps_the_first_date(self) -> None:
        first = self.json("revoke", "-D", self.ca, self.crt, "--reason", "keyCompromise")
        second = self.json("revoke", "-D", self.ca, self.crt, "--reason", "superseded")
        self.assertIs(second["revoked_before"], True)
        for name in ("revoked_at", "reason", "serial"):
            self.assertEqual(second[name], first[name])

    def test_a_second_certificate_of_the_same_user_is_warned_of(self) -> None:
        old = self.crt.rename(self.top / "old.crt")
        new = self.sign(self.dot / "postgresql.csr")
        (warning,) = self.json("revoke", "-D", self.ca, old)["warnings"]
        self.assertIn(f"/CN=alice has another certificate, {hex_serial(new)}", warning)

    def test_none_of_this_authority(self) -> None:
        self.pgtls("mkcert", "-D", self.top / "other", "localhost")
        for which, reason in (
            (self.top / "other" / "server.crt", "not a certificate that this authority issued"),
            (self.ca / "root.crt", "not a certificate that this authority issued"),
            ("0A", "no certificate with serial number 0A"),
            ("alice", "neither a file nor a serial number"),
        ):
            self.refused(reason, "revoke", "-D", self.ca, which)

    def test_the_crl_says_until_when(self) -> None:
        said = self.json("crl", "-D", self.ca, "--days", "3")
        self.assertEqual(said["revoked"], [])
        crl = x509.load_pem_x509_crl(self.crl.read_bytes())
        assert crl.next_update_utc
        self.assertEqual((crl.next_update_utc - datetime.now(UTC)).days, 2)
        text = openssl("crl", "-in", self.crl, "-noout", "-text", "-CAfile", self.ca / "root.crt")
        self.assertIn("X509v3 CRL Number", text)
        (warning,) = said["warnings"]
        self.assertRegex(warning, "root.crl.*refuse every client.*pgtls crl -D")

    def test_what_expires_soon_is_marked_and_said(self) -> None:
        self.sign(self.dot / "postgresql.csr", "--force", "--days", "10")
        said = self.json("list", "-D", self.ca)
        statuses = [one["status"] for one in said["certificates"]]
        self.assertEqual(statuses, ["valid", "valid", "expiring"])
        (warning,) = said["warnings"]
        self.assertRegex(warning, "^CN=alice expires on .*pgtls sign .*--renew")
        out = self.pgtls("list", "-D", self.ca, "--days", "5")
        self.assertNotIn("expiring", out)

    def test_a_server_certificate_that_expires_soon_is_said_by_every_command(self) -> None:
        key = certificate(self.ca / "server.crt").public_key()
        soon = Authority.load(self.ca).certify_server(["localhost"], key, days=10)
        (self.ca / "server.crt").write_bytes(soon.public_bytes(Encoding.PEM))
        for command in ("list", "crl"):
            (warning,) = self.json(command, "-D", self.ca)["warnings"]
            self.assertRegex(warning, "server.crt. expires on .*pgtls mkcert -D .* --renew")
        self.assertEqual(self.json("mkcert", "-D", self.ca, "--renew")["warnings"], [])

    def test_the_list_for_people(self) -> None:
        self.pgtls("revoke", "-D", self.ca, self.crt)
        lines = self.pgtls("list", "-D", self.ca).splitlines()
        self.assertEqual(lines[0].split(), ["SERIAL", "FOR", "STATUS", "UNTIL", "SUBJECT"])
        server, client = hex_serial(self.ca / "server.crt"), hex_serial(self.crt)
        self.assertRegex(lines[1], rf"^{server} +server  valid .* CN=localhost$")
        self.assertRegex(lines[2], rf"^{client} +client  revoked 20\S+  20\S+  CN=alice$")
        self.assertEqual(lines[1].index("server"), lines[2].index("client"))

    def test_an_issue_that_was_interrupted_is_on_record(self) -> None:
        index = self.ca / "index.txt"
        index.write_text("".join(index.read_text().splitlines(keepends=True)[:-1]))
        self.assertEqual(self.listed()[-1]["serial"], hex_serial(self.crt))
        self.pgtls("revoke", "-D", self.ca, hex_serial(self.crt))

    def test_a_line_of_the_record_comes_back_as_it_was(self) -> None:
        for line in (
            "V\t291122004410Z\t\t1D25\tunknown\t/CN=a\\\tb",
            "R\t20591122004410Z\t261122004410Z,keyTime,20261101000000Z\t00\tunknown\t/CN=x",
            "E\t491122004410Z\t\t01\tfile.pem\t",
        ):
            self.assertEqual(Entry.parse(line).line(), line + "\n")
        self.assertEqual(Entry.parse(line).not_after.year, 2049)

    @given(st.text(alphabet="VRE\t0123456789Z,/=\\", max_size=60))
    @settings(deadline=None)
    def test_any_line_is_an_entry_or_a_ValueError(self, line: str) -> None:
        try:
            entry = Entry.parse(line)
        except ValueError:
            return
        json.dumps([str(entry.not_after), str(entry.revoked_at), str(entry.reason)])
