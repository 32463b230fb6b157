"""Certificate revocation lists: what they refuse, and which of them are refused themselves."""

from __future__ import annotations

import os
from datetime import timedelta

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from OpenSSL import SSL, crypto
from twisted.trial.unittest import SynchronousTestCase

from pgtls.errors import ConfigurationError
from pgtls.tls.der import elements, encoded, inner
from pgtls.tls.pem import blocks
from pgtls.tls.revocation import add_crl_directory, add_crl_file, read_crls
from pgtls.tls.sources import pem_of
from tests.support.certificates import Authority, Files, Issued, days
from tests.support.odd_certificates import SUBJECTS, sequence


class RevocationTestCase(SynchronousTestCase):
    """A root, an authority below it, and two certificates of that one, the second revoked."""

    def setUp(self) -> None:
        self.files = Files(self.mktemp())
        self.root = Authority("root")
        self.below = self.root.intermediate("below")
        self.good = self.below.issue(["good"])
        self.bad = self.below.issue(["bad"])
        self.context = SSL.Context(SSL.TLS_METHOD)
        self.store().add_cert(crypto.X509.from_cryptography(self.root.issued.certificate))

    def store(self) -> crypto.X509Store:
        """The store of the context."""
        store = self.context.get_cert_store()
        assert store is not None
        return store

    def verified(self, issued: Issued) -> str:
        """What OpenSSL says about a certificate: ``ok`` or the reason why it is refused."""
        try:
            crypto.X509StoreContext(
                self.store(),
                crypto.X509.from_cryptography(issued.certificate),
                [crypto.X509.from_cryptography(each) for each in issued.intermediates],
            ).verify_certificate()
        except crypto.X509StoreContextError as error:
            return str(error)
        return "ok"


class CRLFile(RevocationTestCase):
    """``sslcrl`` and ``ssl_crl_file``."""

    def use(self, *crls: bytes) -> None:
        """Have the context use a file of these CRLs."""
        add_crl_file(self.context, self.files.write("root.crl", *crls))

    def test_revoked(self) -> None:
        """A revoked certificate is refused, another one of the same authority is not."""
        self.assertEqual(self.verified(self.bad), "ok")
        self.use(self.root.crl(), self.below.crl([self.bad]))
        self.assertEqual(self.verified(self.bad), "certificate revoked")
        self.assertEqual(self.verified(self.good), "ok")

    def test_revoked_authority(self) -> None:
        """The whole chain is checked."""
        self.use(self.root.crl([self.below.issued]), self.below.crl())
        self.assertEqual(self.verified(self.good), "certificate revoked")

    def test_der(self) -> None:
        """One CRL in DER: in memory, but not in a file, where libpq reads PEM only."""
        crl = x509.load_pem_x509_crl(self.root.crl([self.below.issued]))
        der = crl.public_bytes(Encoding.DER)
        error = self.assertRaises(ConfigurationError, self.use, der)
        self.assertIn("it is DER, and must be PEM", str(error))
        add_crl_file(self.context, der)
        self.assertEqual(self.verified(self.root.issue(["other"])), "ok")
        self.assertNotEqual(self.verified(self.good), "ok")

    def test_authority_without_crl(self) -> None:
        """A CRL of another authority only, or not of every authority in the chain: refused."""
        self.use(self.below.crl(), Authority("other").crl())
        self.assertEqual(self.verified(self.good), "unable to get certificate CRL")

    def test_crl_signed_by_another_key(self) -> None:
        """A CRL by an authority that only has the right name does not count."""
        self.use(self.root.crl(), Authority("below").crl())
        self.assertNotEqual(self.verified(self.good), "ok")

    def test_expired(self) -> None:
        """An expired CRL refuses everybody."""
        self.use(self.root.crl(), self.below.crl(expired=True))
        self.assertEqual(self.verified(self.good), "CRL has expired")

    def test_certificate_in_the_file(self) -> None:
        """A certificate beside the CRLs does not become a trusted one."""
        other = Authority("other")
        self.use(self.root.crl(), other.crl(), other.pem())
        self.assertNotEqual(self.verified(other.issue(["db"])), "ok")

    def test_unusable(self) -> None:
        """Missing, empty, no CRL, half a CRL: an error that names the option and the file."""
        good = self.root.crl()
        path = str(self.files.directory / "bad.crl")
        with self.assertRaises(ConfigurationError) as raised:
            add_crl_file(self.context, path, "ssl_crl_file")
        self.assertEqual(
            str(raised.exception),
            f'ssl_crl_file: could not load CRLs from "{path}": No such file or directory',
        )
        for content in (
            b"",
            b"none",
            self.root.pem(),
            good[:-60],
            good + good[:-60],
            good + _broken(good),
        ):
            self.files.write("bad.crl", content)
            with self.assertRaises(ConfigurationError) as raised:
                add_crl_file(self.context, path)
            self.assertIn(f'sslcrl: could not load CRLs from "{path}": ', str(raised.exception))


def _broken(pem: bytes) -> bytes:
    """PEM with a line missing in the middle."""
    lines = pem.splitlines(keepends=True)
    return b"".join(lines[:2] + lines[3:])


class CRLDirectory(RevocationTestCase):
    """``sslcrldir`` and ``ssl_crl_dir``."""

    def use(self, *crls: tuple[Authority, bytes]) -> str:
        """Have the context use a directory of these CRLs."""
        path = self.files.crl_dir("crls", crls)
        add_crl_directory(self.context, path)
        return path

    def test_revoked(self) -> None:
        """OpenSSL finds the CRL of each authority under its hashed name."""
        self.use((self.root, self.root.crl()), (self.below, self.below.crl([self.bad])))
        self.assertEqual(self.verified(self.bad), "certificate revoked")
        self.assertEqual(self.verified(self.good), "ok")

    def test_authority_without_crl(self) -> None:
        """The whole chain is checked, and an authority without a CRL is refused."""
        self.use((self.below, self.below.crl()))
        self.assertEqual(self.verified(self.good), "unable to get certificate CRL")

    def test_crl_that_comes_later(self) -> None:
        """A CRL under the next number is found by a context that is in use."""
        path = self.use((self.root, self.root.crl()), (self.below, self.below.crl(expired=True)))
        self.assertEqual(self.verified(self.good), "CRL has expired")
        Files(path).write(self.below.hashed(".r1"), self.below.crl([self.bad]))
        self.assertEqual(self.verified(self.good), "ok")
        self.assertEqual(self.verified(self.bad), "certificate revoked")

    def test_no_directory(self) -> None:
        """A directory that is not there, or is a file, is an error."""
        for path in (str(self.files.directory / "none"), self.files.write("file", b"")):
            with self.assertRaises(ConfigurationError) as raised:
                add_crl_directory(self.context, path, "ssl_crl_dir")
            self.assertIn(
                f'ssl_crl_dir: could not load CRLs from "{path}": ', str(raised.exception)
            )

    def test_no_hashed_name(self) -> None:
        """CRLs under other names are not found by OpenSSL, so the error says what to run."""
        directory = Files(self.files.directory / "plain")
        directory.write("root.crl", self.root.crl())
        with self.assertRaises(ConfigurationError) as raised:
            add_crl_directory(self.context, directory.directory)
        self.assertIn(f'run "openssl rehash {directory.directory}"', str(raised.exception))

    def test_unusable(self) -> None:
        """A file that OpenSSL would pass over is an error: damaged, empty, or DER."""
        der = x509.load_pem_x509_crl(self.root.crl()).public_bytes(Encoding.DER)
        for content in (b"", b"none", _broken(self.root.crl()), der):
            path = self.files.crl_dir("crls", [(self.root, content)])
            with self.assertRaises(ConfigurationError) as raised:
                add_crl_directory(self.context, path)
            self.assertIn(os.path.join(path, self.root.hashed(".r0")), str(raised.exception))

    def test_odd_issuer_beside_a_good_one(self) -> None:
        """A CRL whose issuer a strict parser cannot read stands in nobody's way."""
        path = Files(
            self.use((self.root, self.root.crl()), (self.below, self.below.crl([self.bad])))
        )
        odd = crl_of(self.root, SUBJECTS["printable_string_with_ampersand"])
        path.write(self.root.hashed(".r1"), odd)
        add_crl_directory(self.context, path.directory)
        self.assertEqual(self.verified(self.bad), "certificate revoked")
        self.assertEqual(self.verified(self.good), "ok")
        names = {crl.issuer_text for _, crl in read_crls(path.directory)}
        self.assertEqual(names, {"CN=root", "CN=below", "O=AT&T @_*"})


def crl_of(authority: Authority, issuer: bytes) -> bytes:
    """A CRL of an authority under another name."""
    body, algorithm, _ = inner(blocks(authority.crl())[0].der)
    fields = [field.whole for field in elements(body.content)]
    fields[2] = issuer
    changed = sequence(*fields)
    signature = encoded(3, b"\0" + authority.issued.key.sign(changed))
    return pem_of(sequence(changed, algorithm.whole, signature), "X509 CRL")


class SwitchedOff(RevocationTestCase):
    """PEM is read as OpenSSL reads it."""

    def test_a_crl_that_is_switched_off_is_none(self) -> None:
        crl = self.root.crl() + self.below.crl([self.bad])
        path = self.files.write("root.crl", crl, b"#", Authority("other").crl())
        self.assertEqual(len(read_crls(path)), 2)
        for content in (b"#" + self.root.crl(), crl.replace(b"\n", b"\r"), b" " + self.root.crl()):
            path = self.files.write("root.crl", content)
            self.assertRaises(ConfigurationError, add_crl_file, self.context, path)

    def test_prose_that_mentions_one(self) -> None:
        begin = b"# here -----BEGIN X509 CRL-----\n"
        path = self.files.write(
            "root.crl", begin, self.root.crl(), begin, self.below.crl([self.bad])
        )
        add_crl_file(self.context, path)
        self.assertEqual(self.verified(self.bad), "certificate revoked")
        self.assertEqual(self.verified(self.good), "ok")


class Expiry(RevocationTestCase):
    """When the CRLs expire, for the log."""

    def test_file(self) -> None:
        """Issuer and nextUpdate of each CRL in a file."""
        path = self.files.write("root.crl", self.root.crl(), self.below.crl(expired=True))
        (file, root), (_, below) = read_crls(path)
        self.assertEqual(file, path)
        self.assertEqual((root.issuer_text, below.issuer_text), ("CN=root", "CN=below"))
        later, earlier = root.next_update, below.next_update
        assert later is not None
        assert earlier is not None
        self.assertTrue(abs(later - days(30)) < timedelta(minutes=1))
        self.assertTrue(abs(earlier - days(-1)) < timedelta(minutes=1))

    def test_directory(self) -> None:
        """The same of all CRLs in a directory."""
        path = self.files.crl_dir(
            "crls", [(self.root, self.root.crl()), (self.below, self.below.crl())]
        )
        self.assertEqual({crl.issuer_text for _, crl in read_crls(path)}, {"CN=root", "CN=below"})
