"""Certificates, keys and CRLs for the tests: an :class:`Authority` issues whatever a row needs.

Nothing is checked here: a certificate may carry names that no authority should sign, since
that is what has to be refused elsewhere.
"""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Literal, cast

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from OpenSSL import crypto

from pgtls.tls.certificate import Certificate

Kind = Literal["ecdsa", "rsa", "rsa-pss", "ed25519", "dsa"]
PrivateKey = (
    ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey | dsa.DSAPrivateKey
)

_GENERATE: dict[Kind, Callable[[], PrivateKey]] = {
    "ecdsa": lambda: ec.generate_private_key(ec.SECP256R1()),
    "rsa": lambda: rsa.generate_private_key(65537, 2048),
    "rsa-pss": lambda: rsa.generate_private_key(65537, 2048),
    "ed25519": ed25519.Ed25519PrivateKey.generate,
    "dsa": lambda: dsa.generate_private_key(2048),
}
_PSS = padding.PSS(padding.MGF1(hashes.SHA256()), hashes.SHA256.digest_size)

# AlgorithmIdentifiers of RFC 8017, appendix C, in DER: rsaEncryption with its NULL parameters,
# and id-RSASSA-PSS without any (RFC 4055, section 1.2: a key for whatever hash).
_RSA_ENCRYPTION = bytes.fromhex("300d06092a864886f70d0101010500")
_RSASSA_PSS = bytes.fromhex("300b06092a864886f70d01010a")


def days(number: float) -> datetime:
    """That many days from now; negative for the past."""
    return datetime.now(UTC) + timedelta(days=number)


@dataclass(frozen=True)
class Key:
    """A private key. cryptography has no RSA-PSS keys of their own, hence the kind beside it."""

    kind: Kind
    private: PrivateKey

    @classmethod
    def generate(cls, kind: Kind) -> Key:
        return cls(kind, _GENERATE[kind]())

    def pem(self, password: str | None = None) -> bytes:
        """PKCS #8, encrypted where a password is given."""
        return self._encoded(Encoding.PEM, password)

    def der(self, password: str | None = None) -> bytes:
        """PKCS #8 in DER, encrypted where a password is given."""
        return self._encoded(Encoding.DER, password)

    def openssl(self) -> crypto.PKey:
        """For pyOpenSSL."""
        return crypto.load_privatekey(crypto.FILETYPE_PEM, self.pem())

    def public_der(self) -> bytes:
        """The SubjectPublicKeyInfo."""
        spki = self.private.public_key().public_bytes(
            Encoding.DER, PublicFormat.SubjectPublicKeyInfo
        )
        return _as_pss(spki) if self.kind == "rsa-pss" else spki

    def sign(self, content: bytes) -> bytes:
        if self.kind == "rsa-pss":
            return cast(rsa.RSAPrivateKey, self.private).sign(content, _PSS, hashes.SHA256())
        match self.private:
            case ec.EllipticCurvePrivateKey() as private:
                return private.sign(content, ec.ECDSA(hashes.SHA256()))
            case rsa.RSAPrivateKey() as private:
                return private.sign(content, padding.PKCS1v15(), hashes.SHA256())
            case ed25519.Ed25519PrivateKey() as private:
                return private.sign(content)
            case dsa.DSAPrivateKey() as private:
                return private.sign(content, hashes.SHA256())

    def signing(self) -> dict[str, Any]:
        """The arguments for the ``sign()`` of cryptography's builders."""
        return {
            "private_key": self.private,
            "algorithm": None if self.kind == "ed25519" else hashes.SHA256(),
            "rsa_padding": _PSS if self.kind == "rsa-pss" else None,
        }

    def _encoded(self, encoding: Encoding, password: str | None) -> bytes:
        if self.kind == "rsa-pss":
            return self._encoded_pss(encoding, password)
        encryption = BestAvailableEncryption(password.encode()) if password else NoEncryption()
        return self.private.private_bytes(encoding, PrivateFormat.PKCS8, encryption)

    def _encoded_pss(self, encoding: Encoding, password: str | None) -> bytes:
        plain = self.private.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
        key = crypto.load_privatekey(crypto.FILETYPE_ASN1, _as_pss(plain))
        secret = password.encode() if password else None
        cipher = "aes-256-cbc" if password else None
        pem = crypto.dump_privatekey(crypto.FILETYPE_PEM, key, cipher, secret)
        # pyOpenSSL encrypts no DER, but PEM is nothing but DER in base64.
        return pem if encoding is Encoding.PEM else b64decode(b"".join(pem.splitlines()[1:-1]))


@dataclass(frozen=True)
class Issued:
    """A certificate with its key, and the intermediates that lead to its root."""

    certificate: x509.Certificate
    key: Key
    intermediates: tuple[x509.Certificate, ...] = ()

    @property
    def shown(self) -> Certificate:
        """The certificate as a peer sees it."""
        return Certificate.of(self.certificate)

    def pem(self) -> bytes:
        """The certificate alone."""
        return self.certificate.public_bytes(Encoding.PEM)

    def chain(self) -> bytes:
        """The certificate and the intermediates behind it, as ``ssl_cert_file`` takes them."""
        return b"".join(each.public_bytes(Encoding.PEM) for each in self._all())

    def _all(self) -> tuple[x509.Certificate, ...]:
        return (self.certificate, *self.intermediates)


class Authority:
    """A root, or an intermediate, that issues certificates and revokes them.

    :param name: its CN. Two authorities of one name differ in their keys.
    :ivar issued: its own certificate, with the intermediates above it and the key.
    """

    def __init__(
        self,
        name: str,
        key: Kind = "ecdsa",
        *,
        not_before: datetime | None = None,
        not_after: datetime | None = None,
        above: Authority | None = None,
    ) -> None:
        self.issued = _issue(
            above,
            Key.generate(key),
            _name(name),
            _validity(not_before, not_after),
            _authority_extensions(),
        )

    def pem(self) -> bytes:
        """Its own certificate."""
        return self.issued.pem()

    def certify(
        self,
        other: Authority,
        *,
        not_before: datetime | None = None,
        not_after: datetime | None = None,
    ) -> x509.Certificate:
        """Cross-sign: a certificate for another authority's name and key."""
        subject = other.issued.certificate.subject
        validity = _validity(not_before, not_after)
        return _issue(
            self, other.issued.key, subject, validity, _authority_extensions()
        ).certificate

    def intermediate(self, name: str, key: Kind = "ecdsa", **validity: datetime) -> Authority:
        """Another authority, whose certificate this one signs."""
        return Authority(name, key, above=self, **validity)

    def issue(
        self,
        names: Sequence[str] = (),
        *,
        cn: str | None = None,
        subject: x509.Name | None = None,
        ips: Sequence[str] = (),
        san: Sequence[x509.GeneralName] = (),
        client: bool = False,
        key: Kind | Key = "ecdsa",
        not_before: datetime | None = None,
        not_after: datetime | None = None,
    ) -> Issued:
        """A certificate for a server, or for a client.

        :param names: dNSName SANs, as they are: ``"192.0.2.1"`` here is no iPAddress.
        :param cn: the CN; without it the subject is empty.
        :param subject: the whole subject, instead of a CN.
        :param ips: iPAddress SANs.
        :param key: its private key, or of which kind a new one is.
        :param san: further SANs of any kind.
        :param not_before: its first moment (a day ago), and ``not_after`` its last (in a year).
        """
        return _issue(
            self,
            key if isinstance(key, Key) else _leaf_key(key),
            subject or _name(cn),
            _validity(not_before, not_after),
            _leaf_extensions(names, ips, san, client),
        )

    def crl(self, revoked: Iterable[Issued] = (), *, expired: bool = False) -> bytes:
        """A CRL with those certificates; ``expired``: its nextUpdate is past."""
        issuer = self.issued.certificate
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(issuer.subject)
            .last_update(days(-30))
            .next_update(days(-1 if expired else 30))
            .add_extension(_key_identifier(self.issued), critical=False)
            .add_extension(x509.CRLNumber(1), critical=False)
        )
        for each in revoked:
            entry = x509.RevokedCertificateBuilder()
            entry = entry.serial_number(each.certificate.serial_number).revocation_date(days(-2))
            builder = builder.add_revoked_certificate(entry.build())
        return builder.sign(**self.issued.key.signing()).public_bytes(Encoding.PEM)

    def hashed(self, suffix: str) -> str:
        """OpenSSL's name for it in a directory: the hash of its subject, and ``.0`` or ``.r0``."""
        own = crypto.X509.from_cryptography(self.issued.certificate)
        return f"{own.subject_name_hash():08x}{suffix}"


def self_signed(
    cn: str, names: Sequence[str] = (), *, key: Kind = "ecdsa", client: bool = False
) -> Issued:
    """A certificate that nobody else signed and that is no authority."""
    extensions = _leaf_extensions(names, (), (), client)
    return _issue(None, Key.generate(key), _name(cn), _validity(None, None), extensions)


@cache
def authority() -> Authority:
    """The root behind :func:`localhost`, the same for the whole run."""
    return Authority("pgtls test root")


@cache
def localhost() -> Issued:
    """A good certificate for ``localhost``, ``127.0.0.1`` and ``::1``."""
    return authority().issue(["localhost"], cn="localhost", ips=["127.0.0.1", "::1"])


class Files:
    """Writes PEM and DER files into a directory, keys with mode 0600; each gives the path."""

    def __init__(self, directory: str | Path) -> None:
        self.directory = Path(directory)
        self.directory.mkdir(parents=True, exist_ok=True)

    def write(self, name: str, *content: bytes, mode: int | None = None) -> str:
        """One file of all that content.

        :param mode: its permissions; without it 0600 for ``*.key``, 0644 for the rest.
        """
        path = self.directory / name
        path.unlink(missing_ok=True)
        path.touch(mode=0o600)
        path.write_bytes(b"".join(content))
        path.chmod(mode if mode is not None else 0o600 if path.suffix == ".key" else 0o644)
        return str(path)

    def pair(self, stem: str, issued: Issued, password: str | None = None) -> tuple[str, str]:
        """``stem.crt`` with the chain and ``stem.key``."""
        certificate = self.write(f"{stem}.crt", issued.chain())
        return certificate, self.write(f"{stem}.key", issued.key.pem(password))

    def crl_dir(self, name: str, crls: Iterable[tuple[Authority, bytes]]) -> str:
        """A directory for ``sslcrldir``: each authority's CRL under its hashed name."""
        inner = Files(self.directory / name)
        for issuer, crl in crls:
            inner.write(issuer.hashed(".r0"), crl)
        return str(inner.directory)


@cache
def _slow_key(kind: Kind) -> Key:
    return Key.generate(kind)


def _leaf_key(kind: Kind) -> Key:
    # RSA and DSA keys take long to make and leaves may share one. Authorities may not: a chain to
    # the wrong authority would verify.
    return Key.generate(kind) if kind in ("ecdsa", "ed25519") else _slow_key(kind)


def _issue(
    issuer: Authority | None,
    key: Key,
    subject: x509.Name,
    validity: tuple[datetime, datetime],
    extensions: Iterable[tuple[x509.ExtensionType, bool]],
) -> Issued:
    """Sign a certificate for ``key``: by ``issuer``, or by itself."""
    signer = issuer.issued.key if issuer else key
    public = key.private.public_key()
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.issued.certificate.subject if issuer else subject)
        .not_valid_before(validity[0])
        .not_valid_after(validity[1])
        .serial_number(x509.random_serial_number())
        .public_key(public)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
    )
    if issuer:
        builder = builder.add_extension(_key_identifier(issuer.issued), critical=False)
    for extension, critical in extensions:
        # RFC 5280, section 4.2.1.6: a SAN beside an empty subject is critical.
        sole = isinstance(extension, x509.SubjectAlternativeName) and not list(subject)
        builder = builder.add_extension(extension, critical=critical or sole)
    certificate = builder.sign(**signer.signing())
    if key.kind == "rsa-pss":
        certificate = _with_pss_key(certificate, key, signer)
    above = issuer.issued if issuer else None
    # A root is not part of what a server sends.
    sent = above._all() if above and _has_issuer(above.certificate) else ()
    return Issued(certificate, key, sent)


def _has_issuer(certificate: x509.Certificate) -> bool:
    return any(
        isinstance(each.value, x509.AuthorityKeyIdentifier) for each in certificate.extensions
    )


def _name(cn: str | None) -> x509.Name:
    # Not validated: CNs longer than RFC 5280 allows are among the tests.
    attributes = [x509.NameAttribute(NameOID.COMMON_NAME, cn, _validate=False)] if cn else []
    return x509.Name(attributes)


def _validity(not_before: datetime | None, not_after: datetime | None) -> tuple[datetime, datetime]:
    return not_before or days(-1), not_after or days(365)


def _key_identifier(issuer: Issued) -> x509.AuthorityKeyIdentifier:
    own = issuer.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own.value)


def _authority_extensions() -> Iterable[tuple[x509.ExtensionType, bool]]:
    yield x509.BasicConstraints(ca=True, path_length=None), True
    yield _usage(key_cert_sign=True, crl_sign=True), True


def _leaf_extensions(
    names: Iterable[str], ips: Iterable[str], san: Iterable[x509.GeneralName], client: bool
) -> Iterable[tuple[x509.ExtensionType, bool]]:
    yield x509.BasicConstraints(ca=False, path_length=None), True
    yield _usage(digital_signature=True), True
    purpose = ExtendedKeyUsageOID.CLIENT_AUTH if client else ExtendedKeyUsageOID.SERVER_AUTH
    yield x509.ExtendedKeyUsage([purpose]), False
    addresses = [x509.IPAddress(ip_address(ip)) for ip in ips]
    every = [*map(x509.DNSName, names), *addresses, *san]
    if every:
        yield x509.SubjectAlternativeName(every), False


def _usage(**usages: bool) -> x509.KeyUsage:
    nothing = dict.fromkeys(
        (
            "digital_signature",
            "content_commitment",
            "key_encipherment",
            "data_encipherment",
            "key_agreement",
            "key_cert_sign",
            "crl_sign",
            "encipher_only",
            "decipher_only",
        ),
        False,
    )
    return x509.KeyUsage(**(nothing | usages))


# RSA-PSS keys: cryptography writes them as RSA, so their algorithm is put in afterwards. ---------


def _with_pss_key(certificate: x509.Certificate, key: Key, signer: Key) -> x509.Certificate:
    """The certificate again with ``key`` named as RSA-PSS, and signed again."""
    tbs = certificate.tbs_certificate_bytes
    as_rsa = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    changed = _sequence(_content(tbs).replace(as_rsa, key.public_der(), 1))
    rest = _content(certificate.public_bytes(Encoding.DER))[len(tbs) :]
    algorithm = rest[: 2 + rest[1]]
    signature = _tagged(0x03, b"\0" + signer.sign(changed))
    return x509.load_der_x509_certificate(_sequence(changed + algorithm + signature))


def _as_pss(der: bytes) -> bytes:
    """A PKCS #8 key or a SubjectPublicKeyInfo of RSA, as one of RSA-PSS."""
    return _sequence(_content(der).replace(_RSA_ENCRYPTION, _RSASSA_PSS, 1))


def _sequence(content: bytes) -> bytes:
    return _tagged(0x30, content)


def _tagged(tag: int, content: bytes) -> bytes:
    length = len(content)
    if length < 0x80:
        return bytes([tag, length]) + content
    octets = length.to_bytes((length.bit_length() + 7) // 8)
    return bytes([tag, 0x80 | len(octets)]) + octets + content


def _content(der: bytes) -> bytes:
    """What is behind the tag and the length."""
    return der[2 + (der[1] & 0x7F if der[1] & 0x80 else 0) :]
