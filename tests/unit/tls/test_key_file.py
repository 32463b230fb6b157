"""Key files: whose they must be, what they may hold, and whether a certificate goes with them."""

from __future__ import annotations

import os

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from OpenSSL import crypto
from twisted.trial.unittest import SynchronousTestCase

from pgtls.errors import ConfigurationError
from pgtls.tls.certificate import Certificate
from pgtls.tls.key_file import Password, Path, load_private_key, parse_private_key
from pgtls.tls.sources import load_key_pair, read_chain
from tests.support.certificates import Authority, Files, Key, self_signed
from tests.support.encrypted_keys import ENCRYPTIONS, LEGACY, encrypted_key

KEY = Key.generate("ecdsa")
PUBLIC = KEY.public_der()


def public(key: crypto.PKey) -> bytes:
    """Its public half."""
    return crypto.dump_publickey(crypto.FILETYPE_ASN1, key)


class KeyFileTestCase(SynchronousTestCase):
    """A directory for the files, and what is said against a key in it."""

    def setUp(self) -> None:
        self.files = Files(self.mktemp())

    def key_file(self, mode: int = 0o600, content: bytes | None = None) -> str:
        """A key file."""
        return self.files.write("some.key", KEY.pem() if content is None else content, mode=mode)

    def complaint(self, path: Path, password: Password = None) -> str:
        """Why this key file is not taken."""
        return str(self.assertRaises(ConfigurationError, load_private_key, path, password))


class Permissions(KeyFileTestCase):
    """Who may be able to read a key file."""

    def test_modes_of_the_users_own_file(self) -> None:
        """Nobody but the owner has any right in it."""
        path = self.given_to_another_user(self.key_file())
        for mode in (0o600, 0o400, 0o700):
            os.chmod(path, mode)
            self.assertEqual(public(load_private_key(path)), PUBLIC, oct(mode))
        for mode in (0o640, 0o620, 0o610, 0o604, 0o602, 0o601, 0o777):
            os.chmod(path, mode)
            self.assertEqual(
                self.complaint(path),
                f'private key file "{path}" has group or world access; file must have permissions '
                "u=rw (0600) or less if owned by the current user, or permissions u=rw,g=r (0640) "
                "or less if owned by root",
                oct(mode),
            )

    def given_to_another_user(self, path: str) -> str:
        """Where the tests run as root, whose files may have more: as user 1, with a file of his."""
        if os.geteuid() == 0:
            os.chown(path, 1, 1)
            self.patch(os, "geteuid", lambda: 1)
        return path

    def test_modes_of_roots_file(self) -> None:
        """Root's file may be readable for its group, and so for a server in that group."""
        path = self.key_file()
        by_mode = {0o640: os.stat(path).st_uid == 0, 0o600: True, 0o660: False, 0o644: False}
        for mode, accepted in by_mode.items():
            os.chmod(path, mode)
            if accepted:
                self.assertEqual(public(load_private_key(path)), PUBLIC, oct(mode))
            else:
                self.assertIn("has group or world access", self.complaint(path), oct(mode))

    def test_file_of_somebody_else(self) -> None:
        """A file that is neither the user's nor root's is refused, whatever its mode."""
        path = self.given_to_another_user(self.key_file())
        self.patch(os, "geteuid", lambda: 2)
        self.assertIn(
            f'private key file "{path}" must be owned by the database user or root',
            self.complaint(path),
        )

    def test_no_regular_file(self) -> None:
        """A FIFO does not make us wait, and neither it nor a directory nor a device is a key."""
        fifo = str(self.files.directory / "fifo.key")
        os.mkfifo(fifo, 0o600)
        for path in (fifo, str(self.files.directory), os.devnull):
            self.assertEqual(
                self.complaint(path), f'private key file "{path}" is not a regular file'
            )

    def test_symbolic_link(self) -> None:
        """What a link points to is judged."""
        link = str(self.files.directory / "link.key")
        os.symlink(os.path.abspath(self.key_file()), link)
        self.assertEqual(public(load_private_key(link)), PUBLIC)
        self.key_file(mode=0o644)
        self.assertIn("has group or world access", self.complaint(link))

    def test_no_file(self) -> None:
        """A missing file is named."""
        path = str(self.files.directory / "none.key")
        self.assertEqual(
            self.complaint(path),
            f'could not open private key file "{path}": No such file or directory',
        )


class Formats(KeyFileTestCase):
    """What a key file may hold."""

    def test_kinds_of_keys(self) -> None:
        """PEM and DER of every kind of key that a certificate may have."""
        for kind in ("ecdsa", "rsa", "ed25519", "dsa"):
            key = Key.generate(kind)
            for content in (key.pem(), key.der()):
                loaded = load_private_key(self.key_file(content=content))
                self.assertEqual(public(loaded), key.public_der(), kind)

    def test_traditional_pem(self) -> None:
        """OpenSSL's older form, plain and encrypted."""
        self.assertIsInstance(KEY.private, ec.EllipticCurvePrivateKey)
        for encryption in (NoEncryption(), BestAvailableEncryption(b"secret")):
            content = KEY.private.private_bytes(
                Encoding.PEM, PrivateFormat.TraditionalOpenSSL, encryption
            )
            loaded = load_private_key(self.key_file(content=content), b"secret")
            self.assertEqual(public(loaded), PUBLIC)

    def test_key_behind_other_text(self) -> None:
        """A key may stand behind comments, parameters (openssl ecparam) and its certificate."""
        parameters = (
            b"-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n"
        )
        for before in (b"the key:\n", parameters, self_signed("db").pem()):
            path = self.key_file(content=before + KEY.pem())
            self.assertEqual(public(load_private_key(path)), PUBLIC)

    def test_no_key(self) -> None:
        """What is no key, or a damaged one, is refused with the file's name."""
        damaged = (b"", b"no key", self_signed("db").pem(), KEY.pem()[:-60], KEY.der()[:-1])
        for content in damaged:
            path = self.key_file(content=content)
            self.assertIn(f'could not load private key file "{path}": ', self.complaint(path))

    @given(st.binary(max_size=200), st.booleans(), st.none() | st.binary(max_size=4))
    @settings(deadline=None)
    def test_any_content(self, content: bytes, pem: bool, password: bytes | None) -> None:
        """Any bytes are a key, or a ConfigurationError."""
        if pem:
            content = b"-----BEGIN PRIVATE KEY-----\n" + content + b"\n-----END PRIVATE KEY-----\n"
        with self.assertRaises(ConfigurationError):
            parse_private_key(content, "some.key", password)


class Passwords(KeyFileTestCase):
    """Encrypted keys."""

    def encrypted(self) -> list[str]:
        """An encrypted key in PEM: PKCS #8, and OpenSSL's older form."""
        older = KEY.private.private_bytes(
            Encoding.PEM, PrivateFormat.TraditionalOpenSSL, BestAvailableEncryption(b"secret")
        )
        return [
            self.files.write("pem.key", KEY.pem("secret")),
            self.files.write("older.key", older),
        ]

    def test_encrypted_der(self) -> None:
        """OpenSSL decrypts no DER, and so neither does libpq."""
        path = self.files.write("der.key", KEY.der("secret"))
        self.assertIn("decrypt no DER", self.complaint(path, b"secret"))

    def test_right_password(self) -> None:
        """The password, or a function that gives it, opens the key."""
        for path in self.encrypted():
            for password in (b"secret", lambda: b"secret"):
                self.assertEqual(public(load_private_key(path, password)), PUBLIC)

    def wrong_password(self, path: str) -> str:
        """What is said of a wrong one. One in 256 decrypts to what could be padding, and OpenSSL
        finds something else wrong: then, of another one."""
        complaints = (self.complaint(path, b"not it %d" % number) for number in range(4))
        return next((said for said in complaints if "bad decrypt" in said), "")

    def test_wrong_password(self) -> None:
        """libpq's words, and neither the password nor a traceback."""
        for path in self.encrypted():
            said = self.wrong_password(path)
            self.assertIn(f'could not load private key file "{path}": bad decrypt', said)
            self.assertNotIn("not it", said)

    def test_every_cipher(self) -> None:
        """The password opens it, and only where it does not is it called the wrong one."""
        for cipher, arguments in ENCRYPTIONS.items():
            path = self.key_file(content=encrypted_key(KEY, *arguments))
            self.assertEqual(public(load_private_key(path, b"secret")), PUBLIC, cipher)
            self.assertTrue(self.wrong_password(path), cipher)

    def test_what_openssl_3_has_left_behind(self) -> None:
        """libpq refuses them, and so do we, by the name of the cipher."""
        names = {
            "md5_des": "pbeWithMD5AndDES-CBC",
            "sha1_rc2": "pbeWithSHA1And128BitRC2-CBC",
            "sha1_rc4": "pbeWithSHA1And128BitRC4",
            "blowfish": "BF-CBC",
            "traditional_des": "DES-CBC",
        }
        for cipher, arguments in LEGACY.items():
            path = self.key_file(content=encrypted_key(KEY, *arguments))
            for password in (b"secret", b"not it", None):
                said = self.complaint(path, password)
                self.assertIn(f"it is encrypted with {names[cipher]}, which", said)
                self.assertNotIn("bad decrypt", said)

    def test_no_password(self) -> None:
        """Without a password, or with an empty one, the error says so; nobody is prompted."""
        for path in self.encrypted():
            for password in (None, b"", lambda: b""):
                self.assertIn(
                    "it is encrypted and there is no password", self.complaint(path, password)
                )

    def test_password_not_needed(self) -> None:
        """A key that is not encrypted opens with any password, and nobody is asked for one."""
        path = self.key_file()
        self.assertEqual(public(load_private_key(path, b"secret")), PUBLIC)
        self.assertEqual(public(load_private_key(path, self.fail)), PUBLIC)


class Certificates(KeyFileTestCase):
    """Certificate files, and certificates with their keys."""

    def test_chain(self) -> None:
        """PEM with several certificates, in their order."""
        issued = Authority("root").intermediate("between").issue(["db"])
        path = self.files.write("db.crt", b"the certificate:\n", issued.chain())
        expected = tuple(map(Certificate.of, issued._all()))
        self.assertEqual(read_chain(path).certificates, expected)
        self.assertEqual(len(issued.intermediates), 1)

    def test_der(self) -> None:
        """One certificate in DER: of an application's in memory, but no file of libpq's."""
        issued = self_signed("db")
        self.assertEqual(read_chain(issued.shown.der).certificates, (issued.shown,))
        path = self.files.write("db.crt", issued.shown.der)
        error = self.assertRaises(ConfigurationError, read_chain, path)
        self.assertIn("it is DER, and must be PEM", str(error))

    def test_no_certificate(self) -> None:
        """A missing file and a file without a certificate, or with half a one, are named."""
        good = self_signed("db").pem()
        for content in (b"", b"none", KEY.pem(), good[:-60], good + good[:-60]):
            path = self.files.write("db.crt", content)
            error = self.assertRaises(ConfigurationError, read_chain, path)
            self.assertIn(f'could not read certificate file "{path}": ', str(error))
        os.unlink(path)
        error = self.assertRaises(ConfigurationError, read_chain, path)
        self.assertEqual(
            str(error), f'could not open certificate file "{path}": No such file or directory'
        )

    def test_pair(self) -> None:
        """A certificate and its key, of every kind."""
        for kind in ("ecdsa", "rsa", "rsa-pss", "ed25519", "dsa"):
            issued = self_signed("db", key=kind)
            pair = load_key_pair(*self.files.pair("db", issued, "secret"), b"secret")
            self.assertEqual(pair.chain.certificates, (issued.shown,))
            self.assertEqual(public(pair.key), issued.key.public_der(), kind)

    def test_certificate_without_key(self) -> None:
        """libpq's words where the key is not there."""
        certificate, key = self.files.pair("db", self_signed("db"))
        os.unlink(key)
        error = self.assertRaises(ConfigurationError, load_key_pair, certificate, key)
        self.assertEqual(str(error), f'certificate present, but not private key file "{key}"')

    def test_certificate_of_another_key(self) -> None:
        """libpq's words where the key is another's, of the same kind or not."""
        for kind in ("ecdsa", "rsa"):
            certificate, _ = self.files.pair("db", self_signed("db", key=kind))
            key = self.key_file()
            error = self.assertRaises(ConfigurationError, load_key_pair, certificate, key)
            self.assertEqual(str(error), f'certificate does not match private key file "{key}"')
