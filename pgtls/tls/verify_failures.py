"""Why a peer's certificate failed verification: at which depth, of which certificate.

The error that a failed handshake raises says no more than "certificate verify failed".
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from weakref import WeakKeyDictionary

from cryptography import x509
from OpenSSL import SSL, crypto

from pgtls.tls.facts import serial
from pgtls.tls.openssl import verify_error_text

#: Characters of a peer's name that are shown, as in PostgreSQL's ``prepare_cert_name``.
_SHOWN = 71


@dataclass(frozen=True, slots=True)
class VerifyFailure:
    """The first certificate of a chain that failed. Names are escaped and cut for a log.

    :ivar depth: its place in the chain: 0 for the peer's own certificate.
    :ivar reason: OpenSSL's words, for example ``certificate has expired``.
    """

    depth: int
    reason: str
    subject: str
    serial: str
    issuer: str

    def __str__(self) -> str:
        """One line, in the words of PostgreSQL's ``verify_cb``."""
        return (
            f"certificate verification failed at depth {self.depth}: {self.reason}; failed "
            f'certificate data (unverified): subject "{self.subject}", serial number '
            f'{self.serial}, issuer "{self.issuer}"'
        )


# Not app_data: that is where Twisted keeps its protocol.
_failures: WeakKeyDictionary[SSL.Connection, VerifyFailure] = WeakKeyDictionary()


def note_failure(
    connection: SSL.Connection, certificate: crypto.X509, error: int, depth: int, passed: int
) -> bool:
    """A callback for ``Context.set_verify`` that changes no result and keeps the failure.

    Costs about 6 µs for each certificate of a chain.
    """
    if not passed:
        _failures[connection] = _failure(certificate, error, depth)
    return bool(passed)


def failure_of(connection: SSL.Connection) -> VerifyFailure | None:
    """What failed on a connection whose context has :func:`note_failure`; None where nothing."""
    return _failures.get(connection)


def _failure(certificate: crypto.X509, error: int, depth: int) -> VerifyFailure:
    reason = verify_error_text(error)
    try:
        with warnings.catch_warnings():
            # cryptography warns of names longer than RFC 5280 allows, which we cut anyway
            warnings.simplefilter("ignore")
            readable = certificate.to_cryptography()
            subject, issuer = _shown(readable.subject), _shown(readable.issuer)
        return VerifyFailure(depth, reason, subject, serial(readable.serial_number), issuer)
    except ValueError:  # cryptography is stricter than OpenSSL
        return VerifyFailure(depth, reason, "unreadable", "unreadable", "unreadable")


def _shown(name: x509.Name) -> str:
    text = name.rfc4514_string().encode("unicode_escape").decode("ascii")
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."
