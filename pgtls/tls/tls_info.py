"""What a handshake agreed on, and what a certificate says, as facts for logs, JSON and callers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from ipaddress import ip_address
from typing import TypedDict

from cryptography import x509
from OpenSSL.SSL import Connection

from pgtls.tls.certificate import UNREADABLE_PART, AlternativeName, Certificate, NameType
from pgtls.tls.distinguished_name import COMMON_NAME
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
    :ivar forward_secret: whether the key exchange was ephemeral, so that what is recorded today
        cannot be decrypted with a private key that is stolen later.
    :ivar certificate: the other end's certificate, None where it showed none. That it is here does
        not say that it was verified: the context decides that.
    """

    version: str
    cipher: str
    bits: int
    group: str | None
    alpn: str | None
    forward_secret: bool
    certificate: Certificate | None

    @property
    def peer_certificate(self) -> x509.Certificate | None:
        """The other end's certificate as an object of ``cryptography``'s, made anew each time.

        None also for a certificate that ``cryptography``, which is stricter than OpenSSL, cannot
        read: :attr:`certificate` has that one too.
        """
        try:
            return self.certificate.cryptography() if self.certificate is not None else None
        except ValueError:
            return None


def describe(connection: Connection) -> NegotiatedTLS:
    """The TLS of a connection whose handshake is complete.

    :param connection: the connection, of either end.
    :returns: version, cipher, group, ALPN and the peer's certificate.
    """
    version, cipher, bits, alpn = version_cipher_alpn(connection)
    return _facts(version, cipher, bits, _group(connection), alpn, shown_by_peer(connection))


@lru_cache(maxsize=64)  # most are alike
def _facts(
    version: str,
    cipher: str,
    bits: int,
    group: str | None,
    alpn: bytes,
    certificate: Certificate | None,
) -> NegotiatedTLS:
    return NegotiatedTLS(
        version=version,
        cipher=cipher,
        bits=bits,
        group=group,
        alpn=alpn.decode("ascii", "backslashreplace") or None,
        forward_secret=version == "TLSv1.3" or is_ephemeral(cipher),
        certificate=certificate,
    )


def is_ephemeral(cipher: str) -> bool:
    """Whether a TLS 1.2 cipher suite, by OpenSSL's name, makes a new key for each connection.

    :param cipher: the suite's name.
    :returns: whether it is forward secret.
    """
    return cipher.startswith(("ECDHE-", "DHE-", "ADH-", "AECDH-"))


def _group(connection: Connection) -> str | None:
    try:
        return connection.get_group_name()
    except NotImplementedError:  # OpenSSL before 3.2
        return None


def shown_by_peer(connection: Connection) -> Certificate | None:
    """The certificate of the other end.

    :param connection: the connection.
    :returns: the certificate; None where it sent none.
    """
    shown = connection.get_peer_certificate()
    return Certificate.of_openssl(shown) if shown is not None else None


def chain_of_peer(connection: Connection) -> list[Certificate]:
    """All certificates that a server sent.

    :param connection: a client's connection.
    :returns: the certificates, the server's own first.
    """
    return [Certificate.of_openssl(each) for each in connection.get_peer_cert_chain() or []]


class CertificateFacts(TypedDict):
    """A certificate as ``pgtls probe --json`` shows it. All of it is its issuer's claim."""

    subject: str
    issuer: str
    names: list[str]
    not_before: str
    not_after: str
    sha256: str
    serial: str


def certificate_facts(certificate: Certificate) -> CertificateFacts:
    """What a certificate says; what cannot be read says so.

    Names are distinguished names in RFC 2253 order; times are ISO 8601 in UTC; the SHA-256
    fingerprint is in lowercase hexadecimal; the serial number is in hexadecimal as openssl
    prints it.

    :param certificate: the certificate.
    :returns: the fields, for JSON.
    """
    return {
        "subject": certificate.subject_text,
        "issuer": certificate.issuer_text,
        "names": names(certificate),
        "not_before": _read(lambda: _iso(certificate.not_before)),
        "not_after": _read(lambda: _iso(certificate.not_after)),
        "sha256": certificate.sha256.hex(),
        "serial": certificate.serial_text,
    }


def names(certificate: Certificate) -> list[str]:
    """What a certificate is for: DNS names, IP addresses, e-mail addresses and URIs of the subject
    alternative name, in their order; the common names where it has none of them.

    :param certificate: the certificate.
    :returns: the names, as text.
    """
    try:
        found = [alternative_text(name) for name in certificate.alternative_names]
    except ValueError:
        found = []
    readable = [name for name in found if name is not None]
    try:
        return readable or [
            attribute.legible_value()
            for rdn in certificate.subject.rdns
            for attribute in rdn
            if attribute.oid == COMMON_NAME
        ]
    except ValueError:
        return []


def alternative_text(name: AlternativeName) -> str | None:
    """An alternative name as text; None for one that is none.

    :param name: one of the subject alternative names.
    :returns: the text; None for a kind without one.
    """
    if name.type is NameType.ADDRESS:
        try:
            return str(ip_address(name.value))
        except ValueError:
            return None
    if name.type in (NameType.DNS, NameType.EMAIL, NameType.URI):
        return name.value.decode("utf-8", "backslashreplace")
    return None


def _read(text: Callable[[], str]) -> str:
    try:
        return text()
    except ValueError:
        return UNREADABLE_PART


def _iso(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
