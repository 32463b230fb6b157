"""Private keys: the kinds that are made here, and which public keys are too weak to certify."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes as PublicKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from OpenSSL import crypto

from pgtls.certs.files import PRIVATE, refuse_symlink, write_file
from pgtls.errors import ConfigurationError
from pgtls.tls.key_file import Password, load_private_key

IssuerKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey

#: What NIST SP 800-57 asks of RSA keys until 2030; and where OpenSSL ceases to verify.
_RSA_BITS = range(2048, 16384 + 1)
_LEAST_CURVE_BITS = 256


class KeyType(StrEnum):
    """The kinds of key that are made here."""

    ECDSA = "ecdsa"
    RSA = "rsa"
    ED25519 = "ed25519"

    def generate(self) -> IssuerKey:
        """A new key: P-256, 3072 bits, or Ed25519 (all of about 128 bits of security)."""
        match self:
            case KeyType.ECDSA:
                return ec.generate_private_key(ec.SECP256R1())
            case KeyType.RSA:
                return rsa.generate_private_key(public_exponent=65537, key_size=3072)
            case KeyType.ED25519:
                return ed25519.Ed25519PrivateKey.generate()


def key_in(
    path: Path,
    key_type: KeyType,
    new_password: bytes | None,
    *,
    password: Password = None,
    overwrite: bool = False,
) -> IssuerKey:
    """The key in ``path`` that has no certificate yet, or else a new one, written there.

    :param path: the key file.
    :param key_type: the kind of a new key.
    :param new_password: to encrypt a new one with; None leaves it unencrypted.
    :param password: of the existing one.
    :param overwrite: replace an existing key.
    :returns: the key.
    :raises ConfigurationError: ``path`` is something else, or it is not private.
    """
    refuse_symlink(path)
    if path.exists() and not overwrite:
        return issuer_key(path, password)
    new = key_type.generate()
    write_file(path, key_pem(new, new_password), PRIVATE, overwrite=overwrite)
    return new


def issuer_key(path: Path, password: Password = None) -> IssuerKey:
    """Read the key in ``path``.

    :param path: the key file.
    :param password: of the key.
    :returns: the key.
    :raises ConfigurationError: it cannot be read, or is not ECDSA, RSA or Ed25519.
    """
    refuse_symlink(path)
    return signing_key(load_private_key(path, password), path)


def signing_key(key: crypto.PKey, path: Path) -> IssuerKey:
    """A key that OpenSSL has read, to make certificates and requests with.

    :param key: the key.
    :param path: where it is from, for the error message.
    :returns: the same, as cryptography has it.
    :raises ConfigurationError: it is not ECDSA, RSA or Ed25519.
    """
    try:
        usable = key.to_cryptography_key()
    except (*UNREADABLE_KEY, TypeError, crypto.Error):
        usable = None
    if not isinstance(usable, IssuerKey):
        raise ConfigurationError(
            f'"{path}" is not an ECDSA, RSA or Ed25519 key, and cannot sign certificates'
        )
    return usable


def public_key_der(key: IssuerKey) -> bytes:
    """The public key as SubjectPublicKeyInfo.

    :param key: the private key.
    :returns: it in DER.
    """
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def key_pem(key: IssuerKey, password: bytes | None) -> bytes:
    """The key as it goes into a file.

    :param key: the key.
    :param password: to encrypt it with, None leaves it unencrypted.
    :returns: PKCS#8 in PEM.
    """
    encryption = BestAvailableEncryption(password) if password else NoEncryption()
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)


def signing_hash(key: IssuerKey) -> hashes.SHA256 | None:
    """The hash that a signature by the key is made with.

    :param key: the key.
    :returns: SHA-256; None for Ed25519, which has one built in.
    """
    return None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()


def describe_key(key: PublicKey) -> str:
    """A key's kind and size.

    :param key: the key.
    :returns: a text for people, such as ``RSA, 2048 bits``.
    """
    match key:
        case rsa.RSAPublicKey():
            return f"RSA, {key.key_size} bits"
        case ec.EllipticCurvePublicKey():
            return f"ECDSA, {key.curve.name}"
        case ed25519.Ed25519PublicKey():
            return "Ed25519"
        case ed448.Ed448PublicKey():
            return "Ed448"
    return type(key).__name__.removesuffix("PublicKey")


def refuse_weak(key: PublicKey) -> None:
    """Refuse a key that is too weak to be certified.

    :param key: the key of a request.
    :raises ConfigurationError: it is too small, or of a kind that is not certified.
    """
    match key:
        case rsa.RSAPublicKey() if key.key_size not in _RSA_BITS:
            least, most = _RSA_BITS[0], _RSA_BITS[-1]
            reason = f"an RSA key of {key.key_size} bits; {least} are the least, {most} the most"
        case ec.EllipticCurvePublicKey() if key.curve.key_size < _LEAST_CURVE_BITS:
            reason = f"a key on the curve {key.curve.name}; {_LEAST_CURVE_BITS} bits are the least"
        case (
            rsa.RSAPublicKey()
            | ec.EllipticCurvePublicKey()
            | ed25519.Ed25519PublicKey()
            | ed448.Ed448PublicKey()
        ):
            return
        case _:
            reason = f"a {describe_key(key)} key; PostgreSQL's clients use ECDSA, RSA or Ed25519"
    raise ConfigurationError(f"the request is for {reason}: have it made anew with pgtls keygen")


UNREADABLE_KEY = (ValueError, UnsupportedAlgorithm)
"""What cryptography raises for a public key that it does not know."""
