"""One authority's directory, worked on by pgtls and by the real ``openssl ca``."""

from __future__ import annotations

from pathlib import Path

from cryptography import x509

from tests.support.authorities import AuthorityCase, certificate, hex_serial, openssl

CONF = Path(__file__).parents[3] / "conf"


class OpenSSLCase(AuthorityCase):
    def setUp(self) -> None:
        super().setUp()
        self.make_authority()

    def ca_command(self, *arguments: str | Path) -> str:
        """``openssl ca`` in the authority's directory, with the configuration that we ship."""
        return openssl("ca", "-batch", "-config", CONF / "root.conf", *arguments, cwd=self.ca)

    def openssl_request(self, *more: str, name: str = "postgresql.csr") -> Path:
        """A key and a request, made with the client.conf that we ship."""
        self.dot.mkdir(exist_ok=True)
        out, key = self.dot / name, self.dot / "postgresql.key"
        new = ("-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1")
        conf = ("-config", CONF / "client.conf")
        openssl("req", *conf, *new, "-keyout", key, "-out", out, *more, ROLE="alice")
        return out

    def signed_by_openssl(self) -> Path:
        out = self.top / "openssl.crt"
        self.ca_command("-in", self.make_request(), "-out", out, "-notext")
        return out

    def crl(self) -> x509.CertificateRevocationList:
        return x509.load_pem_x509_crl((self.ca / "root.crl").read_bytes())

    def revoked(self) -> dict[int, tuple[object, object]]:
        """What the CRL says, and since when and why."""
        return {
            entry.serial_number: (
                entry.revocation_date_utc,
                [extension.value for extension in entry.extensions],
            )
            for entry in self.crl()
        }


class SignedByOpenSSL(OpenSSLCase):
    def test_it_is_listed(self) -> None:
        crt = self.signed_by_openssl()
        listed = self.listed()[-1]
        self.assertEqual(listed["serial"], hex_serial(crt))
        self.assertEqual(
            (listed["kind"], listed["status"], listed["subject"]), ("client", "valid", "CN=alice")
        )

    def test_it_can_be_installed(self) -> None:
        self.pgtls("install", self.signed_by_openssl())
        self.assertEqual(
            certificate(self.dot / "postgresql.crt").subject.rfc4514_string(), "CN=alice"
        )

    def test_it_can_be_renewed_by_pgtls(self) -> None:
        crt = self.signed_by_openssl()
        before = hex_serial(crt)
        self.pgtls("sign", "-D", self.ca, "--yes", "--renew", crt)
        self.assertNotEqual(hex_serial(crt), before)

    def test_pgtls_revokes_it_and_openssl_knows(self) -> None:
        crt = self.signed_by_openssl()
        self.pgtls("revoke", "-D", self.ca, crt, "--reason", "keyCompromise")
        ours = self.revoked()
        self.ca_command("-gencrl", "-out", "root.crl")
        self.assertEqual(self.revoked(), ours)
        self.assertEqual(list(ours), [certificate(crt).serial_number])
        with self.assertRaisesRegex(AssertionError, "Already revoked"):
            self.ca_command("-revoke", crt)

    def test_a_self_signed_certificate_is_a_request(self) -> None:
        pem = self.openssl_request("-x509", name="postgresql.pem")
        self.ca_command("-ss_cert", pem, "-out", self.dot / "postgresql.crt", "-notext")
        self.assertEqual(self.listed()[-1]["subject"], "CN=alice")

    def test_extensions_that_are_asked_for_are_not_given(self) -> None:
        csr = self.openssl_request("-addext", "basicConstraints=CA:TRUE")
        self.ca_command("-in", csr, "-out", self.top / "x.crt", "-notext")
        text = openssl("x509", "-in", self.top / "x.crt", "-noout", "-text")
        self.assertIn("CA:FALSE", text)
        self.assertIn("TLS Web Client Authentication", text)


class SignedByPgtls(OpenSSLCase):
    def test_openssl_revokes_it_and_pgtls_knows(self) -> None:
        crt = self.sign(self.make_request())
        self.ca_command("-revoke", crt, "-crl_reason", "superseded")
        listed = self.listed()[-1]
        self.assertEqual((listed["status"], listed["reason"]), ("revoked", "superseded"))
        self.pgtls("crl", "-D", self.ca)
        self.assertEqual(list(self.revoked()), [certificate(crt).serial_number])

    def test_a_revocation_that_is_not_in_the_list_yet_is_warned_of(self) -> None:
        crt = self.sign(self.make_request())
        self.ca_command("-revoke", crt)
        (warning,) = self.json("list", "-D", self.ca)["warnings"]
        self.assertRegex(warning, f"^{hex_serial(crt)} is revoked, but not yet in")

    def test_the_crl_is_what_openssl_makes(self) -> None:
        for user in ("alice", "bob"):
            csr = self.make_request("--force", user=user)
            reason = {"alice": "unspecified", "bob": "cessationOfOperation"}[user]
            crt = self.sign(csr, "--force")
            self.pgtls("revoke", "-D", self.ca, crt, "--reason", reason)
        ours, number = self.revoked(), self.number()
        self.ca_command("-gencrl", "-out", "root.crl")
        self.assertEqual(self.revoked(), ours)
        self.assertEqual(len(ours), 2)
        self.assertEqual(self.number(), number + 1)
        self.pgtls("crl", "-D", self.ca)
        self.assertEqual(self.number(), number + 2)

    def number(self) -> int:
        return self.crl().extensions.get_extension_for_class(x509.CRLNumber).value.crl_number

    def test_the_record_is_the_one_that_openssl_writes(self) -> None:
        self.make_request("--user", "alice/b+c bücher")
        crt = self.sign(self.dot / "postgresql.csr")
        ours = (self.ca / "index.txt").read_text().split("\n")[-2].split("\t")
        again = self.top / "again.crt"
        self.ca_command("-in", self.dot / "postgresql.csr", "-out", again, "-notext")
        theirs = (self.ca / "index.txt").read_text().split("\n")[-2].split("\t")
        self.assertEqual(ours[3], hex_serial(crt))
        self.assertEqual(theirs[3], hex_serial(again))
        self.assertEqual([ours[0], ours[2], *ours[4:]], [theirs[0], theirs[2], *theirs[4:]])

    def test_the_subject_is_the_one_that_openssl_gives(self) -> None:
        fields = ("--subject", "O=Example Inc.", "--subject", "C=NO")
        self.pgtls("client-conf", "-D", self.ca, "--force", "-o", self.conf, *fields)
        crt = self.sign(self.make_request())
        self.ca_command("-in", crt.with_suffix(".csr"), "-out", self.top / "x.crt", "-notext")
        self.assertEqual(certificate(crt).subject, certificate(self.top / "x.crt").subject)
        self.assertEqual(certificate(crt).subject.rfc4514_string(), "CN=alice,O=Example Inc.,C=NO")

    def test_an_interrupted_openssl_ca_is_noticed(self) -> None:
        self.make_request()
        (self.ca / "index.txt").rename(self.ca / "index.txt.old")
        for command in (("list",), ("crl",), ("sign", "--yes", self.dot / "postgresql.csr")):
            self.refused(
                "index.txt.old.* is there: openssl ca was interrupted", *command, "-D", self.ca
            )

    def test_a_lost_record_is_not_begun_anew(self) -> None:
        (self.ca / "index.txt").unlink()
        self.refused("the record of revocations is lost", "crl", "-D", self.ca)

    def test_a_damaged_record_is_not_written_over(self) -> None:
        index = self.ca / "index.txt"
        index.write_text(index.read_text() + "V\tgarbage\n")
        damaged = index.read_bytes()
        self.refused('index.txt", line 2: not a line', "crl", "-D", self.ca)
        self.assertEqual(index.read_bytes(), damaged)

    def test_what_openssl_marks_as_expired_stays_on_record(self) -> None:
        index = self.ca / "index.txt"
        index.write_text(index.read_text() + "V\t200101000000Z\t\t0A\tunknown\t/CN=old\n")
        self.ca_command("-updatedb")
        self.assertIn("E\t200101000000Z", index.read_text())
        self.sign(self.make_request())
        statuses = {one["subject"]: one["status"] for one in self.listed()}
        self.assertEqual(statuses.pop("/CN=old"), "expired")
        self.assertEqual(statuses, {"CN=localhost": "valid", "CN=alice": "valid"})


class ClientsWithOpenSSL(OpenSSLCase):
    def test_their_request_is_signed_and_installed(self) -> None:
        csr = self.openssl_request()
        (self.dot / "root.crt").write_bytes((self.ca / "root.crt").read_bytes())
        self.pgtls("install", self.sign(csr))
        chain = ("-CAfile", self.ca / "root.crt", self.dot / "postgresql.crt")
        self.assertIn(": OK", openssl("verify", "-purpose", "sslclient", *chain))

    def test_so_is_their_self_signed_certificate(self) -> None:
        more = ("-addext", "basicConstraints=critical,CA:TRUE")
        pem = self.openssl_request("-x509", *more, name="postgresql.pem")
        out = self.pgtls("sign", "-D", self.ca, "--yes", pem)
        self.assertIn("sender of the self-signed certificate has the private one", out)
        self.assertIn("Left out: extension basicConstraints", out)
        self.assertIn(
            "CA:FALSE", openssl("x509", "-in", self.dot / "postgresql.crt", "-noout", "-text")
        )
