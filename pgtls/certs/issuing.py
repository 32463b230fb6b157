"""What the DBA does with the authority: sign, revoke, look."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

from pgtls.certs.authority import Authority
from pgtls.certs.database import Database, Entry
from pgtls.certs.files import clear_output, write_file
from pgtls.certs.request import Request
from pgtls.errors import ConfigurationError
from pgtls.text import printable
from pgtls.tls.certificate import Certificate
from pgtls.tls.certificate import serial_hex as serial_text
from pgtls.tls.chain import signed_by
from pgtls.tls.sources import read_chain

#: A key whose certificate was revoked for one of these reasons was not compromised.
_HARMLESS = (x509.ReasonFlags.superseded, x509.ReasonFlags.affiliation_changed)

_PURPOSES = {
    ExtendedKeyUsageOID.SERVER_AUTH.dotted_string: "server",
    ExtendedKeyUsageOID.CLIENT_AUTH.dotted_string: "client",
}


def sign(
    authority: Authority, request: Request, output: Path, days: int, *, overwrite: bool = False
) -> Certificate:
    """Issue, record, write: in this order, so that no certificate is given out that is not
    recorded.

    :param authority: which signs.
    :param request: what was asked for.
    :param output: the file for the certificate.
    :param days: how long it is valid, at least 1.
    :param overwrite: replace an existing file.
    :returns: the certificate.
    :raises ConfigurationError: ``output`` exists and ``overwrite`` is false; or a certificate of
        the request's key was revoked.
    """
    clear_output(output, overwrite=overwrite)
    with authority.record() as database:
        _refuse_revoked(database, request)
        made = authority.certify_client(request.subject, request.public_key, days)
        certificate = Certificate.of(made)
        database.add(certificate)
        pem = made.public_bytes(Encoding.PEM)
        try:
            write_file(output, pem, overwrite=overwrite)
        except OSError as error:
            copy = authority.directory / "newcerts" / f"{certificate.serial_hex}.pem"
            raise ConfigurationError(
                f'"{output}" cannot be written: {error.strerror}; the certificate is "{copy}"'
            ) from error
    return certificate


def _refuse_revoked(database: Database, request: Request) -> None:
    for entry, _ in database.with_key(request.public_key_der):
        if entry.revoked_at and entry.reason not in _HARMLESS:
            raise ConfigurationError(
                f"this key's certificate {serial_text(entry.serial)} was revoked on "
                f"{entry.revoked_at:%Y-%m-%d}: the user needs a new key (pgtls keygen)"
            )


def current_certificates(directory: Path, request: Request) -> list[Certificate]:
    """The certificates for the key of a request that are neither expired nor revoked.

    :param directory: the authority's.
    :param request: the request.
    :returns: the certificates.
    """
    now = datetime.now(UTC)
    return [
        certificate
        for entry, certificate in Database.read(directory).with_key(request.public_key_der)
        if entry.status == "V" and entry.not_after > now
    ]


def revoke(
    authority: Authority, which: str, reason: x509.ReasonFlags, days: int
) -> tuple[Entry, x509.CertificateRevocationList, bool]:
    """Revoke a certificate and make ``root.crl`` anew. One that was revoked before stays as it is.

    :param authority: which has issued it.
    :param which: a file with the certificate, or its serial number in hexadecimal.
    :param reason: why (RFC 5280, section 5.3.1).
    :param days: until the next CRL is due, at least 1.
    :returns: its entry, the CRL, and whether it was revoked before.
    :raises ConfigurationError: the authority has not issued it.
    """
    with authority.record() as database:
        entry = _find(database, authority.shown, which)
        before = entry.status == "R"
        if not before:
            entry = database.revoke(entry, reason, datetime.now(UTC))
        return entry, authority.write_crl(database, days), before


def others_of(directory: Path, revoked: Entry) -> list[Entry]:
    """The certificates with the same subject that are neither expired nor revoked.

    :param directory: the authority's.
    :param revoked: the certificate that they are compared with.
    :returns: their entries.
    """
    now = datetime.now(UTC)
    return [
        entry
        for entry in Database.read(directory).entries
        if entry.subject == revoked.subject and entry.status == "V" and entry.not_after > now
    ]


def _find(database: Database, root: Certificate, which: str) -> Entry:
    path = Path(which)
    if path.exists():
        certificate = read_chain(path).certificates[0]
        try:
            if certificate.self_issued or not signed_by(certificate, root):
                raise ConfigurationError(
                    f'"{path}" is not a certificate that this authority issued'
                )
            if certificate.serial <= 0:
                raise ConfigurationError(
                    f'"{path}" has the serial number {certificate.serial}, and no CRL can name one '
                    "that is not positive"
                )
            known = database.find(certificate.serial)
            if known is None:  # made by other means; on record before it is revoked
                database.add(certificate)
        except ValueError as error:
            raise ConfigurationError(f'"{path}" cannot be put on record: {error}') from error
        return known or database.entries[-1]
    try:
        serial = int(which.replace(":", ""), 16)
    except ValueError:
        raise ConfigurationError(
            f'"{printable(which)}" is neither a file nor a serial number in hexadecimal'
        ) from None
    entry = database.find(serial)
    if entry is None:
        raise ConfigurationError(f"no certificate with serial number {which} is on record")
    return entry


@dataclass(frozen=True, slots=True)
class Listed:
    """A certificate as ``pgtls list`` shows it.

    :ivar kind: ``server``, ``client``; None where the certificate is not there to be asked.
    :ivar status: ``valid``, ``expiring``, ``expired`` or ``revoked``.
    """

    serial: str
    kind: str | None
    status: str
    subject: str
    not_after: datetime
    revoked_at: datetime | None
    reason: str | None


def listed(database: Database, soon: timedelta) -> Iterator[Listed]:
    """What is on record, for ``pgtls list``.

    :param database: the record.
    :param soon: how long before its expiry a certificate is ``expiring``.
    :returns: a line for each certificate.
    """
    now = datetime.now(UTC)
    for entry in database.entries:
        certificate = database.certificate(entry.serial)
        yield Listed(
            serial=serial_text(entry.serial),
            kind=_kind(certificate),
            status=_status(entry, now, soon),
            subject=_subject(entry, certificate),
            not_after=entry.not_after,
            revoked_at=entry.revoked_at,
            reason=entry.reason.value if entry.reason else None,
        )


def _status(entry: Entry, now: datetime, soon: timedelta) -> str:
    if entry.status == "R":
        return "revoked"
    if entry.status == "E" or entry.not_after <= now:
        return "expired"
    return "expiring" if entry.not_after <= now + soon else "valid"


def _kind(certificate: Certificate | None) -> str | None:
    oids = (certificate and certificate.purposes) or ()
    found = [_PURPOSES[oid] for oid in oids if oid in _PURPOSES]
    return "+".join(found) or None


def _subject(entry: Entry, certificate: Certificate | None) -> str:
    """In RFC 2253 order, or as it is on record."""
    subject = certificate.subject_text if certificate else ""
    return printable(subject or entry.subject)
