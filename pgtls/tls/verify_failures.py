"""Why a peer's certificate failed verification: at which depth, of which certificate.

The error that a failed handshake raises says no more than "certificate verify failed".
"""

from __future__ import annotations

from dataclasses import dataclass
from weakref import WeakKeyDictionary

from OpenSSL import SSL, crypto

from pgtls.tls.distinguished_name import issuer_line, serial_hex, subject_line
from pgtls.tls.openssl import verify_error_text


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
        readable = certificate.to_cryptography()
    except ValueError:  # cryptography is stricter than OpenSSL
        return VerifyFailure(depth, reason, "unreadable", "unreadable", "unreadable")
    return VerifyFailure(
        depth, reason, subject_line(readable), serial_hex(readable), issuer_line(readable)
    )
