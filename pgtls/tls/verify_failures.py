"""Why a peer's certificate failed verification: at which depth, of which certificate.

The error that a failed handshake raises says no more than "certificate verify failed".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from weakref import WeakKeyDictionary

from OpenSSL import SSL, crypto

from pgtls.errors import ConfigurationError
from pgtls.text import log_name
from pgtls.tls.certificate import Certificate
from pgtls.tls.openssl import verify_error_text
from pgtls.tls.revocation_list import RevocationList

#: OpenSSL's X509_V_ERR_CRL_HAS_EXPIRED.
CRL_HAS_EXPIRED = 12

#: Gives the CRLs in use, as they are now.
CurrentCRLs = Callable[[], Iterable[RevocationList]]

#: What ``Context.set_verify`` calls for each certificate of a chain.
VerifyCallback = Callable[[SSL.Connection, crypto.X509, int, int, int], bool]


@dataclass(frozen=True, slots=True)
class VerifyFailure:
    """The first certificate of a chain that failed. Names are escaped and cut for a log.

    :ivar depth: its place in the chain: 0 for the peer's own certificate.
    :ivar reason: OpenSSL's words, for example ``certificate has expired``.
    :ivar serial: in hexadecimal, as openssl prints it.
    """

    depth: int
    reason: str
    subject: str
    serial: str
    issuer: str

    def __str__(self) -> str:
        """A client's, in one line and in the words of PostgreSQL's ``verify_cb``."""
        return (
            f"Client certificate verification failed at depth {self.depth}: {self.reason}. "
            f'Failed certificate data (unverified): subject "{self.subject}", serial number '
            f'{self._decimal_serial()}, issuer "{self.issuer}".'
        )

    def _decimal_serial(self) -> str:
        try:
            return str(int(self.serial, 16))
        except ValueError:
            return self.serial


# Not app_data: that is where Twisted keeps its protocol.
_failures: WeakKeyDictionary[SSL.Connection, VerifyFailure] = WeakKeyDictionary()


def failure_noting(current_crls: CurrentCRLs) -> VerifyCallback:
    """Make a callback for ``Context.set_verify`` that changes no result and keeps the failure.

    It costs about 6 µs for each certificate of a chain.

    :param current_crls: is asked when a CRL has expired, to say when that was.
    :returns: the callback.
    """

    def note(
        connection: SSL.Connection, certificate: crypto.X509, error: int, depth: int, passed: int
    ) -> bool:
        if not passed:
            _failures[connection] = _failure(certificate, error, depth, current_crls)
        return bool(passed)

    return note


#: The callback of a context without CRLs.
note_failure = failure_noting(lambda: ())


def failure_of(connection: SSL.Connection) -> VerifyFailure | None:
    """Why verification failed on a connection whose context has such a callback.

    :param connection: the connection.
    :returns: the failure; None where there was none.
    """
    return _failures.get(connection)


def _failure(
    certificate: crypto.X509, error: int, depth: int, current_crls: CurrentCRLs
) -> VerifyFailure:
    reason = verify_error_text(error)
    shown = Certificate.of_openssl(certificate)
    if error == CRL_HAS_EXPIRED:
        reason += _since_when(shown, current_crls)
    return VerifyFailure(depth, reason, shown.subject_line, shown.serial_text, shown.issuer_line)


def _since_when(certificate: Certificate, current_crls: CurrentCRLs) -> str:
    """When the CRL expired that the certificate's issuer is to keep up to date."""
    try:
        dates = [
            crl.next_update for crl in current_crls() if crl.issuer_der == certificate.issuer_der
        ]
    except (ValueError, ConfigurationError):  # a date or a file that cannot be read (any more)
        return ""
    expired = [date for date in dates if date and date < datetime.now(UTC)]
    if not expired:
        return ""
    name = log_name(certificate.issuer_text)
    return f" (the one of {name} at {max(expired):%Y-%m-%d %H:%M:%S} UTC)"
