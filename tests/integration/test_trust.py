"""``pgtls trust``, against PostgreSQL, and what then counts: what psql makes of root.crt."""

from __future__ import annotations

import base64
import json
import os
import pty
import re
import stat
import subprocess
from functools import cache
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from pgtls.certs.trust_on_first_use import (
    CertificateChanged,
    RootFile,
    RootNotSent,
    fingerprint,
    known,
    parse_fingerprint,
    roots_of,
    trust_root,
)
from pgtls.errors import CertificateNotVerified, ConfigurationError
from pgtls.tls.certificate import Certificate
from tests.support import servers
from tests.support.certificates import Authority, Issued, days, self_signed
from tests.support.command_line import PGTLS, pgtls
from tests.support.gateway_daemon import Gateway
from tests.support.processes import TIMEOUT, environment
from tests.support.servers import Server

HOST = "db.example.com:5432"


def digest(issued: Issued) -> bytes:
    """The SHA-256 of a certificate."""
    return issued.shown.sha256


def with_root(issued: Issued, authority: Authority) -> list[Certificate]:
    """A chain as a server sends it that sends its root."""
    return [*map(Certificate.of, issued._all()), authority.issued.shown]


class FingerprintTests(SynchronousTestCase):
    """The forms in which a fingerprint can be given."""

    @settings(deadline=None)
    @given(st.binary(min_size=32, max_size=32))
    def test_every_form_is_the_same(self, raw: bytes) -> None:
        base = base64.b64encode(raw).decode()
        for text in (
            raw.hex(),
            raw.hex().upper(),
            raw.hex(":").upper(),
            base,
            base.rstrip("="),
            f"SHA256:{base.rstrip('=')}",
            f"sha256:{raw.hex()}",
            f"SHA256:{raw.hex(':')}",
            f"SHA-256:{raw.hex(':')}",
        ):
            self.assertEqual(parse_fingerprint(text), raw, text)

    def test_what_is_none_is_refused(self) -> None:
        for text in ("", "SHA256:", "ab" * 31, "ab" * 33, "md5:" + "a" * 32, "not one", "é" * 43):
            self.assertRaises(ValueError, parse_fingerprint, text)

    def test_as_openssl_has_it(self) -> None:
        issued = self_signed("localhost")
        path = Path(self.mktemp())
        path.write_bytes(issued.pem())
        said = subprocess.run(
            ["openssl", "x509", "-in", path, "-noout", "-fingerprint", "-sha256"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        self.assertEqual(parse_fingerprint(said.strip().partition("=")[2]), digest(issued))
        self.assertEqual(parse_fingerprint(fingerprint(issued.shown)), digest(issued))


class RootTests(SynchronousTestCase):
    """Which certificate of a chain is trusted."""

    def test_the_root_at_its_end(self) -> None:
        root = Authority("root")
        chain = with_root(root.intermediate("middle").issue(["db"]), root)
        self.assertEqual(roots_of(chain), [root.issued.shown])

    def test_in_any_order_and_among_others(self) -> None:
        root = Authority("root")
        leaf, *others = with_root(root.intermediate("middle").issue(["db"]), root)
        chain = [leaf, Authority("another").issued.shown, *reversed(others)]
        self.assertEqual(roots_of(chain), [root.issued.shown])

    def test_a_self_signed_certificate_itself(self) -> None:
        leaf = self_signed("db").shown
        self.assertEqual(roots_of([leaf]), [leaf])

    def test_a_root_of_that_name_with_another_key_is_none(self) -> None:
        chain = [Authority("root").issue(["db"]).shown, Authority("root").issued.shown]
        self.assertRaises(RootNotSent, roots_of, chain)

    def test_where_it_was_not_sent_its_issuer_is_named(self) -> None:
        leaf = Authority("root").intermediate("middle").issue(["db"])
        chain = [*map(Certificate.of, leaf._all())]
        error = self.assertRaises(RootNotSent, roots_of, chain)
        self.assertEqual(error.issuer, "CN=root")
        self.assertIn('"CN=root"', str(error))

    def test_a_cross_signed_root_before_the_self_signed_one(self) -> None:
        root, old = Authority("root"), Authority("old")
        leaf = root.issue(["db"]).shown
        cross = Certificate.of(old.certify(root))
        chain = [leaf, cross, root.issued.shown]
        self.assertEqual(roots_of(chain), [root.issued.shown])

    def test_an_expired_cross_sign(self) -> None:
        root, old = Authority("root"), Authority("old")
        leaf = root.issue(["db"]).shown
        cross = Certificate.of(old.certify(root, not_before=days(-9), not_after=days(-1)))
        chain = [leaf, cross, root.issued.shown, old.issued.shown]
        self.assertEqual(roots_of(chain), [root.issued.shown])

    def test_both_ends_of_a_cross_sign_will_do(self) -> None:
        root, old = Authority("root"), Authority("old")
        leaf = root.issue(["db"]).shown
        cross = Certificate.of(old.certify(root))
        chain = [leaf, cross, old.issued.shown, root.issued.shown]
        self.assertEqual(roots_of(chain), [old.issued.shown, root.issued.shown])

    def test_a_way_that_is_over_is_said_to_be(self) -> None:
        root = Authority("root", not_before=days(-9), not_after=days(-1))
        chain = [root.issue(["db"]).shown, root.issued.shown]
        error = self.assertRaises(CertificateNotVerified, roots_of, chain)
        self.assertIn("certificate has expired", str(error))


class RootFileTests(SynchronousTestCase):
    """root.crt before and after."""

    def setUp(self) -> None:
        self.directory = Path(self.mktemp())
        self.path = self.directory / "root.crt"
        self.authority = Authority("root")
        self.chain = with_root(self.authority.issue(["db.example.com"]), self.authority)

    def trust(self, host: str = HOST) -> None:
        """Trust the server of :attr:`chain`."""
        trust_root(self.directory, host, self.chain, self.chain[-1])

    def test_it_is_made_with_its_directory(self) -> None:
        self.trust()
        self.assertEqual(stat.S_IMODE(self.directory.stat().st_mode), 0o700)
        self.assertEqual(stat.S_IMODE(self.path.stat().st_mode), 0o644)
        self.assertEqual(RootFile.read(self.path).certificates, [self.chain[-1]])

    def test_what_is_in_it_stays_byte_for_byte(self) -> None:
        self.directory.mkdir(mode=0o700)
        before = b"# ours\r\n" + Authority("another").pem().rstrip(b"\n")
        self.path.write_bytes(before)
        self.path.chmod(0o600)
        self.trust()
        self.assertTrue(self.path.read_bytes().startswith(before + b"\n"))
        self.assertEqual(stat.S_IMODE(self.path.stat().st_mode), 0o600)
        self.assertEqual(len(RootFile.read(self.path).certificates), 2)

    def test_nothing_is_added_twice(self) -> None:
        self.trust()
        before = self.path.read_bytes()
        self.trust()
        self.assertEqual(self.path.read_bytes(), before)

    def test_a_second_server_of_an_authority_is_noted_and_the_root_is_not_added(self) -> None:
        self.trust()
        self.trust("other.example.com:5432")
        file = RootFile.read(self.path)
        self.assertEqual(len(file.certificates), 1)
        self.assertEqual(file.hosts, {HOST, "other.example.com:5432"})

    def test_nothing_else_is_left_in_the_directory(self) -> None:
        self.trust()
        self.assertEqual(
            {each.name for each in self.directory.iterdir()}, {"root.crt", ".pgtls.lock"}
        )

    def test_a_damaged_file_stays_as_it_is(self) -> None:
        self.directory.mkdir(mode=0o700)
        for content in (
            self.authority.issued.shown.der,
            self.authority.pem()[:200],
            b"no certificate",
        ):
            self.path.write_bytes(content)
            self.assertRaises(ConfigurationError, self.trust)
            self.assertEqual(self.path.read_bytes(), content)

    def test_a_symbolic_link_is_refused(self) -> None:
        self.directory.mkdir(mode=0o700)
        self.path.symlink_to("elsewhere")
        self.assertRaises(ConfigurationError, self.trust)

    def test_another_chain_is_a_changed_one_for_who_was_trusted(self) -> None:
        self.trust()
        other = Authority("other")
        chain = with_root(other.issue(["db.example.com"]), other)
        file = RootFile.read(self.path)
        self.assertRaises(CertificateChanged, known, file, chain, HOST)
        self.assertFalse(known(file, chain, "new.example.com:5432"))

    def test_an_authority_of_the_same_name_is_a_changed_one_for_everybody(self) -> None:
        self.trust()
        impostor = Authority("root")
        chain = with_root(impostor.issue(["new.example.com"]), impostor)
        file = RootFile.read(self.path)
        self.assertRaises(CertificateChanged, known, file, chain, "new.example.com:5432")

    def test_an_expired_certificate_is_not_a_changed_one(self) -> None:
        self.trust()
        expired = self.authority.issue(["db.example.com"], not_before=days(-3), not_after=days(-1))
        chain = with_root(expired, self.authority)
        file = RootFile.read(self.path)
        error = self.assertRaises(CertificateNotVerified, known, file, chain, HOST)
        self.assertNotIsInstance(error, CertificateChanged)
        self.assertIn("expired", str(error))


@cache
def server() -> Server:
    """A server whose certificate the tests change."""
    return Server(17, ssl=True)


def show(issued: Issued, root: Authority | None = None) -> None:
    """Have the server show a certificate, with its root if that is given."""
    chain = issued.chain() + (root.pem() if root else b"")
    server().reload(files={"server.crt": chain, "server.key": issued.key.pem()})


class TrustCase(SynchronousTestCase):
    """A user with an empty home directory."""

    def setUp(self) -> None:
        self.home = Path(self.mktemp()).absolute()
        self.home.mkdir()
        self.root_crt = self.home / ".postgresql" / "root.crt"
        self.place = f"localhost:{server().port}"
        self.authority = Authority("site root")
        self.leaf = self.authority.issue(["localhost"], cn="localhost")

    def trust(self, *arguments: str, place: str = "") -> subprocess.CompletedProcess[str]:
        """Run the command."""
        return pgtls("trust", place or self.place, *arguments, env={"HOME": str(self.home)})

    def psql(self, **parameters: str) -> subprocess.CompletedProcess[str]:
        """What any libpq client does, with nothing but ``~/.postgresql``."""
        conninfo = server().conninfo(host="localhost", **parameters)
        query = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
        return subprocess.run(
            [servers.psql(17), "-XAtq", "-d", conninfo, "-c", query],
            env=environment({"HOME": str(self.home)}),
            capture_output=True,
            text=True,
            check=False,
        )

    def assert_refused(self, done: subprocess.CompletedProcess[str], reason: str) -> None:
        """Exit status 1, the reason in the last line, and no file."""
        self.assertEqual(done.returncode, 1, done)
        self.assertRegex(done.stderr.splitlines()[-1], f"^pgtls trust: .*{reason}")
        self.assertNotIn("Traceback", done.stderr)
        self.assertFalse(self.root_crt.exists())


class TrustTests(TrustCase):
    """The command."""

    def test_by_the_fingerprint_of_the_root_and_psql_verifies_from_then_on(self) -> None:
        show(self.leaf, self.authority)
        self.assertNotEqual(self.psql(sslmode="verify-full").returncode, 0)
        root = self.authority.issued.shown
        done = self.trust("--fingerprint", root.sha256.hex(":"))
        self.assertEqual(done.returncode, 0, done)
        self.assertIn("by the fingerprint of the root", done.stdout)
        self.assertIn("sslmode=verify-full now succeeds", done.stdout)
        self.assertIn(fingerprint(root), done.stdout)
        self.assertEqual(self.psql(sslmode="verify-full").stdout, "t\n")

    def test_a_server_whose_files_mkcert_made(self) -> None:
        ca = self.home / "ca"
        made = json.loads(pgtls("mkcert", "-D", str(ca), "localhost", "--json").stdout)
        names = ("server.crt", "server.key", "root.crt")
        server().reload(
            conf={"ssl_ca_file": "root.crt"},
            files={name: (ca / name).read_bytes() for name in names},
        )
        self.addCleanup(server().reload, conf={"ssl_ca_file": ""})
        done = self.trust("--fingerprint", made["root"]["sha256"])
        self.assertEqual(done.returncode, 0, done)
        self.assertEqual(
            self.root_crt.read_text().partition("\n")[2], (ca / "root.crt").read_text()
        )
        self.assertEqual(self.psql(sslmode="verify-full").stdout, "t\n")

    def test_by_the_fingerprint_of_the_certificate_in_JSON(self) -> None:
        show(self.leaf, self.authority)
        done = self.trust("--json", "--fingerprint", fingerprint(self.leaf.shown))
        self.assertEqual(done.returncode, 0, done)
        found = json.loads(done.stdout)
        self.assertEqual(found["trusted_by"], "fingerprint of the server's own certificate")
        self.assertIs(found["added"], True)
        self.assertEqual(found["verify_full"], {"ok": True, "reason": None})
        self.assertEqual(found["chain"][0]["sha256"], digest(self.leaf).hex())
        self.assertEqual(found["root_crt"], str(self.root_crt))
        again = json.loads(self.trust("--json").stdout)
        self.assertEqual((again["trusted_by"], again["added"]), ("root.crt", False))

    def test_another_fingerprint_writes_nothing(self) -> None:
        show(self.leaf, self.authority)
        self.assert_refused(self.trust("--fingerprint", "00" * 32), "has that fingerprint")

    def test_without_a_terminal_and_a_fingerprint_nothing_is_written(self) -> None:
        show(self.leaf, self.authority)
        self.assert_refused(self.trust(), "no terminal to ask at.*--fingerprint")

    def test_at_a_terminal_it_asks(self) -> None:
        show(self.leaf, self.authority)
        for answer, status in (("n", 1), ("y", 0)):
            self.assertEqual(self.at_a_terminal(answer), status)
            self.assertEqual(self.root_crt.exists(), status == 0)
        self.assertEqual(self.psql(sslmode="verify-full").stdout, "t\n")

    def at_a_terminal(self, answer: str) -> int:
        """Answer the question; gives the exit status."""
        ours, theirs = pty.openpty()
        with subprocess.Popen(
            [*PGTLS, "trust", self.place],
            env=environment({"HOME": str(self.home)}),
            stdin=theirs,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        ) as child:
            os.close(theirs)
            assert child.stdout
            shown = b""
            while b"[y/N]" not in shown:
                more = os.read(child.stdout.fileno(), 4096)
                self.assertTrue(more, shown)
                shown += more
            self.assertIn(fingerprint(self.authority.issued.shown).encode(), shown)
            os.write(ours, f"{answer}\n".encode())
            child.stdout.read()
            status = child.wait(TIMEOUT)
        os.close(ours)
        return status

    def test_a_changed_certificate_is_refused_aloud(self) -> None:
        show(self.leaf, self.authority)
        self.trust("--fingerprint", digest(self.leaf).hex())
        before = self.root_crt.read_bytes()
        other = Authority("somebody else")
        impostor = other.issue(["localhost"])
        show(impostor, other)
        done = self.trust("--fingerprint", digest(impostor).hex())
        self.assertEqual(done.returncode, 1)
        self.assertIn(f"THE CERTIFICATE OF {self.place.upper()} HAS CHANGED!", done.stderr)
        self.assertEqual(self.root_crt.read_bytes(), before)
        self.assertNotEqual(self.psql(sslmode="verify-full").returncode, 0)

    def test_a_renewed_certificate_of_the_same_authority_is_none(self) -> None:
        show(self.leaf, self.authority)
        self.trust("--fingerprint", digest(self.leaf).hex())
        show(self.authority.issue(["localhost"]))
        done = self.trust()
        self.assertEqual(done.returncode, 0, done)
        self.assertIn("verifies this server already", done.stdout)

    def test_a_root_that_is_not_sent_is_to_be_asked_for(self) -> None:
        show(self.leaf)
        done = self.trust("--fingerprint", digest(self.leaf).hex())
        self.assert_refused(done, 'does not send its root certificate, "CN=site root": ask')

    def test_a_self_signed_certificate_is_its_own_root(self) -> None:
        leaf = self_signed("localhost", ["localhost"])
        show(leaf)
        done = self.trust("--fingerprint", digest(leaf).hex())
        self.assertEqual(done.returncode, 0, done)
        self.assertEqual(self.psql(sslmode="verify-full").stdout, "t\n")

    def test_a_certificate_for_another_name_is_said_to_be_so(self) -> None:
        leaf = self.authority.issue(["db.example.com"])
        show(leaf, self.authority)
        done = self.trust("--fingerprint", digest(leaf).hex())
        self.assertEqual(done.returncode, 0, done)
        self.assertNotIn("now succeeds", done.stdout)
        self.assertRegex(done.stderr, '"db.example.com" does not match host name "localhost"')
        self.assertIn("does not match", self.psql(sslmode="verify-full").stderr)
        self.assertEqual(self.psql(sslmode="verify-ca").stdout, "t\n")

    def test_an_expired_certificate_writes_nothing(self) -> None:
        leaf = self.authority.issue(["localhost"], not_before=days(-3), not_after=days(-1))
        show(leaf, self.authority)
        done = self.trust("--fingerprint", digest(leaf).hex())
        self.assert_refused(done, "certificate has expired")

    def test_a_cross_signed_root_that_is_over(self) -> None:
        old = Authority("old root")
        cross = old.certify(self.authority, not_before=days(-9), not_after=days(-1))
        self.show_pem(cross, self.authority.issued.certificate, old.issued.certificate)
        root = digest(self.authority.issued).hex()
        done = self.trust("--fingerprint", root)
        self.assertEqual(done.returncode, 0, done)
        self.assertIn(f"verify-full now succeeds with {self.place}", done.stdout)
        self.assertEqual(self.psql(sslmode="verify-full").stdout, "t\n")

    def test_a_trusted_root_whose_cross_sign_is_over_gives_way_to_another(self) -> None:
        old = Authority("old root")
        self.root_crt.parent.mkdir(mode=0o700)
        self.root_crt.write_bytes(old.pem())
        cross = old.certify(self.authority, not_before=days(-9), not_after=days(-1))
        self.show_pem(cross, self.authority.issued.certificate)
        done = self.trust("--fingerprint", digest(self.authority.issued).hex())
        self.assertEqual(done.returncode, 0, done)
        self.assertEqual(len(RootFile.read(self.root_crt).certificates), 2)
        self.assertEqual(self.psql(sslmode="verify-full").stdout, "t\n")

    def test_the_fingerprint_says_which_of_two_roots(self) -> None:
        old = Authority("old root")
        cross = old.certify(self.authority)
        self.show_pem(cross, self.authority.issued.certificate, old.issued.certificate)
        done = self.trust("--fingerprint", digest(old.issued).hex())
        self.assertEqual(done.returncode, 0, done)
        self.assertEqual(RootFile.read(self.root_crt).certificates, [old.issued.shown])
        self.assertEqual(self.psql(sslmode="verify-full").stdout, "t\n")

    def show_pem(self, *others: x509.Certificate) -> None:
        chain = b"".join(each.public_bytes(Encoding.PEM) for each in others)
        files = {"server.crt": self.leaf.pem() + chain, "server.key": self.leaf.key.pem()}
        server().reload(files=files)

    def test_a_certificate_that_is_not_for_servers_writes_nothing(self) -> None:
        leaf = self.authority.issue(["localhost"], client=True)
        show(leaf, self.authority)
        done = self.trust("--fingerprint", digest(leaf).hex())
        self.assert_refused(done, "no client could verify this server")
        self.assertFalse(self.root_crt.exists())

    def test_a_CRL_of_another_authority_in_the_way_is_said_to_be_so(self) -> None:
        show(self.leaf, self.authority)
        self.root_crt.parent.mkdir(mode=0o700)
        (self.root_crt.parent / "root.crl").write_bytes(Authority("another").crl())
        done = self.trust("--fingerprint", digest(self.leaf).hex())
        self.assertNotIn("now succeeds", done.stdout)
        self.assertIn("verify-full does not succeed", done.stderr)
        self.assertEqual(self.psql(sslmode="verify-full").stdout, "")

    def test_PGSSLROOTCERT_in_the_way_is_said_to_be_so(self) -> None:
        show(self.leaf, self.authority)
        other = self.home / "other.crt"
        other.write_bytes(Authority("another").pem())
        fingerprint_of = ("--fingerprint", digest(self.leaf).hex())
        env = {"HOME": str(self.home), "PGSSLROOTCERT": str(other)}
        done = pgtls("trust", self.place, *fingerprint_of, env=env)
        self.assertNotIn("now succeeds", done.stdout)
        self.assertIn("verify-full does not succeed", done.stderr)

    def test_another_directory(self) -> None:
        show(self.leaf, self.authority)
        directory = self.home / "here"
        fingerprint_of = ("--fingerprint", digest(self.leaf).hex())
        done = self.trust("-D", str(directory), *fingerprint_of)
        self.assertEqual(done.returncode, 0, done)
        self.assertIn(f"sslrootcert={directory / 'root.crt'}", done.stdout)
        self.assertFalse(self.root_crt.exists())

    def test_a_server_without_TLS(self) -> None:
        place = f"localhost:{servers.postgres(17).port}"
        self.assert_refused(self.trust(place=place), "does not support SSL")

    def test_nobody_there(self) -> None:
        place = f"localhost:{servers.free_port()}"
        self.assert_refused(self.trust(place=place), "Connection refused")

    def test_unusable_arguments(self) -> None:
        for arguments in (
            ("localhost:port",),
            ("/var/run/postgresql",),
            ("two words",),
            ("localhost", "--fingerprint", "SHA256:abc"),
            ("localhost:99999",),
        ):
            done = pgtls("trust", *arguments)
            self.assertEqual(done.returncode, 2, done)
            self.assertNotIn("Traceback", done.stderr)


class GatewayTests(SynchronousTestCase):
    """A gateway that made its certificate itself."""

    def test_the_fingerprint_that_it_prints_is_enough_to_trust_it(self) -> None:
        gateway = Gateway("--upstream", servers.postgres(18).conninfo())
        self.addCleanup(gateway.stop)
        (printed,) = re.findall(r"certificate \(SHA-256\): (\S+)", gateway.log())
        directory = self.mktemp()
        place = f"{gateway.host}:{gateway.port}"
        done = pgtls("trust", place, "-D", directory, "--fingerprint", printed)
        self.assertEqual(done.returncode, 0, done.stderr)
        conninfo = gateway.conninfo(sslrootcert=os.path.join(directory, "root.crt"))
        psql = subprocess.run(
            [servers.psql(17), conninfo, "-Atc", "SELECT 1"],
            env=environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        self.assertEqual(psql.stdout, "1\n", psql.stderr)
