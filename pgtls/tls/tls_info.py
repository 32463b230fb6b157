"""What a handshake agreed on, and what a certificate says, as facts for logs, JSON and callers."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import TypedDict

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import NameOID
from OpenSSL.SSL import Connection

from pgtls.tls.openssl import version_cipher_alpn


@dataclass(frozen=True, slots=True)
class NegotiatedTLS:
    """What both ends of a connection agreed on.

    :ivar version: ``TLSv1.3`` or ``TLSv1.2``, as PostgreSQL's ``pg_stat_ssl`` spells it.
    :ivar cipher: OpenSSL's name of the cipher suite.
    :ivar bits: the strength of its encryption.
    :ivar group: the key exchange by its name in the IANA registry, which OpenSSL uses:
        ``X25519MLKEM768``, ``x25519``, ``secp256r1``, ``ffdhe3072``. None where there was none,
        or where TLS 1.2 used Diffie-Hellman parameters of the server's own.
    :ivar alpn: the protocol that ALPN selected.
    :ivar forward_secret: whether the key exchange was ephemeral: who gets hold of the private
        key later can't decrypt what was recorded today.
    :ivar peer_certificate: the other end's certificate. That it is here does not say that it
        was verified: the context decides that. None also for one that cryptography, which is
        stricter than OpenSSL, cannot read.
    """

    version: str
    cipher: str
    bits: int
    group: str | None
    alpn: str | None
    forward_secret: bool
    peer_certificate: x509.Certificate | None


def describe(connection: Connection) -> NegotiatedTLS:
    """The facts of a connection whose handshake is complete."""
    version, cipher, bits, alpn = version_cipher_alpn(connection)
    return _facts(version, cipher, bits, _group(connection), alpn, peer_certificate(connection))


@lru_cache(maxsize=64)  # most are alike
def _facts(
    version: str,
    cipher: str,
    bits: int,
    group: str | None,
    alpn: bytes,
    peer_certificate: x509.Certificate | None,
) -> NegotiatedTLS:
    return NegotiatedTLS(
        version=version,
        cipher=cipher,
        bits=bits,
        group=group,
        alpn=alpn.decode("ascii", "backslashreplace") or None,
        forward_secret=version == "TLSv1.3" or is_ephemeral(cipher),
        peer_certificate=peer_certificate,
    )


def is_ephemeral(cipher: str) -> bool:
    """Whether a TLS 1.2 cipher suite, by OpenSSL's name, makes a new key for each connection."""
    return cipher.startswith(("ECDHE-", "DHE-", "ADH-", "AECDH-"))


def _group(connection: Connection) -> str | None:
    try:
        return connection.get_group_name()
    except NotImplementedError:  # OpenSSL before 3.2
        return None


def peer_certificate(connection: Connection) -> x509.Certificate | None:
    try:
        return connection.get_peer_certificate(as_cryptography=True)
    except ValueError:
        return None


class CertificateFacts(TypedDict):
    """A certificate as ``pgtls probe --json`` shows it. All of it is its issuer's claim."""

    subject: str
    issuer: str
    names: list[str]
    not_before: str
    not_after: str
    sha256: str
    serial: str


def certificate_facts(certificate: x509.Certificate) -> CertificateFacts:
    """What a certificate says.

    Names are distinguished names in RFC 2253 order; times are ISO 8601 in UTC; the SHA-256
    fingerprint is in lowercase hexadecimal; the serial number is in hexadecimal as openssl
    prints it.

    :raises ValueError: its subject, issuer or dates cannot be read.
    """
    return {
        "subject": certificate.subject.rfc4514_string(),
        "issuer": certificate.issuer.rfc4514_string(),
        "names": names(certificate),
        "not_before": _iso(certificate.not_valid_before_utc),
        "not_after": _iso(certificate.not_valid_after_utc),
        "sha256": certificate.fingerprint(hashes.SHA256()).hex(),
        "serial": serial(certificate.serial_number),
    }


def names(certificate: x509.Certificate) -> list[str]:
    """Whom it is for: DNS names, IP addresses, e-mail addresses and URIs of the subject
    alternative name, in their order; the CNs where it has none of them.
    """
    try:
        san = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):  # ValueError: extensions that cannot be read
        san = x509.SubjectAlternativeName([])
    readable = (x509.DNSName, x509.IPAddress, x509.RFC822Name, x509.UniformResourceIdentifier)
    found = [str(name.value) for name in san if isinstance(name, readable)]
    return found or [
        attribute.value if isinstance(attribute.value, str) else attribute.value.hex()
        for attribute in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    ]


def serial(number: int) -> str:
    """A serial number as ``openssl x509 -serial`` prints it: hexadecimal, whole bytes."""
    digits = f"{abs(number):X}"
    return "-" * (number < 0) + digits.zfill(len(digits) + len(digits) % 2)


def _iso(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def fingerprint(certificate: x509.Certificate) -> str:
    """The SHA-256 fingerprint as ``openssl x509 -fingerprint -sha256`` prints it."""
    return certificate.fingerprint(hashes.SHA256()).hex(":").upper()
