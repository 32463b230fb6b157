"""What an authority has issued: the database of ``openssl ca``, so that both can work on it.

``index.txt`` has a line for each certificate, ``newcerts/SERIAL.pem`` is the certificate itself,
``crlnumber`` the number of the next CRL. ``serial`` is for an openssl that is configured to count;
here, and under ``conf/root.conf``, serial numbers are random. The format of ``index.txt``
(``apps/ca.c`` and ``crypto/txt_db/txt_db.c`` of OpenSSL): fields separated by tabs - V, R or E for
valid, revoked, expired; end; time and reason of revocation; serial number in hexadecimal;
``unknown``; subject.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509

from pgtls.certs.files import clear_unfinished, refuse_foreign, refuse_symlink, write_file
from pgtls.errors import ConfigurationError
from pgtls.tls.certificate import Certificate
from pgtls.tls.certificate import serial_hex as serial_text
from pgtls.tls.chain import signed_by
from pgtls.tls.distinguished_name import DistinguishedName
from pgtls.tls.sources import parse_chain, pem_of

_TIME = re.compile(r"(\d\d){6,7}Z")
_SERIAL = re.compile(r"([0-9A-Fa-f]{2})+")
_TAB = re.compile(r"(?<!\\)\t")

#: The reasons of ``index.txt``, in small letters, as RFC 5280 has them. Two are openssl's ways to
#: give a time of compromise too, and one is a suspension.
_REASONS = {
    **{flag.value.lower(): flag for flag in x509.ReasonFlags},
    "keytime": x509.ReasonFlags.key_compromise,
    "cakeytime": x509.ReasonFlags.ca_compromise,
    "holdinstruction": x509.ReasonFlags.certificate_hold,
}
#: No reason is better than these in a CRL (RFC 5280, 5.3.1), and one is of delta CRLs only.
_UNSAID = (x509.ReasonFlags.unspecified, x509.ReasonFlags.remove_from_crl)


@dataclass(frozen=True, slots=True)
class Entry:
    """A line of ``index.txt``.

    :ivar status: ``V``, ``R`` or ``E``; openssl writes ``E`` only when it is told to look.
    :ivar revocation: time and reason, as they stand in the file; empty for none.
    :ivar subject: as ``X509_NAME_oneline`` of OpenSSL writes it.
    """

    status: str
    end: str
    revocation: str
    serial: int
    file: str
    subject: str

    @classmethod
    def parse(cls, line: str) -> Entry:
        """Read a line of ``index.txt``.

        :param line: the line, without its end.
        :returns: the entry.
        :raises ValueError: the line is no entry.
        """
        status, end, revocation, serial, file, subject = _TAB.split(line)
        time = revocation.partition(",")[0]
        if (
            status not in ("V", "R", "E")
            or not _SERIAL.fullmatch(serial)
            or not _TIME.fullmatch(end)
            or bool(time) != (status == "R")
        ):
            raise ValueError(line)
        _moment(end)
        if time:
            _moment(time)
        return cls(status, end, revocation, int(serial, 16), file, subject)

    @classmethod
    def of(cls, certificate: Certificate) -> Entry:
        """The line of a certificate that was just issued.

        :param certificate: the certificate.
        :returns: its entry, valid.
        :raises ValueError: its serial number, its subject or its end cannot be read.
        """
        serial = certificate.serial
        # So does openssl where there is no subject.
        subject = _oneline(certificate.subject) or serial_text(serial)
        end = _time_text(certificate.not_after)
        return cls("V", end, "", serial, "unknown", subject)

    def line(self) -> str:
        """As it stands in the file."""
        serial = serial_text(self.serial)
        fields = (self.status, self.end, self.revocation, serial, self.file, self.subject)
        return "\t".join(fields) + "\n"

    @property
    def not_after(self) -> datetime:
        """When the certificate ends."""
        return _moment(self.end)

    @property
    def revoked_at(self) -> datetime | None:
        """When it was revoked; None if it was not."""
        return _moment(self.revocation.partition(",")[0]) if self.status == "R" else None

    @property
    def reason(self) -> x509.ReasonFlags | None:
        """Why it was revoked; None where that was not said, or not in words that we know."""
        reason = _REASONS.get(self.revocation.partition(",")[2].partition(",")[0].lower())
        return None if reason in _UNSAID else reason

    def revoked(self) -> x509.RevokedCertificate:
        """The entry of a CRL, for one whose status is ``R``."""
        builder = x509.RevokedCertificateBuilder(self.serial, self.revoked_at)
        if self.reason:
            builder = builder.add_extension(x509.CRLReason(self.reason), critical=False)
        return builder.build()


class Database:
    """The record of an authority. A writer holds the directory's lock.

    :param directory: the authority's.
    :ivar entries: all of it, in the order of issue.
    """

    def __init__(self, directory: Path, entries: list[Entry]) -> None:
        self.directory = directory
        self.entries = entries

    @classmethod
    def create(cls, directory: Path) -> Database:
        """The record of ``directory``, made if there is none, for a writer.

        :param directory: the authority's.
        :returns: the record.
        :raises ConfigurationError: see :meth:`read`; or ``newcerts`` is not ours alone.
        """
        # Before anything is done: a revocation whose CRL is then refused would be half a one.
        for name in ("index.txt", "crlnumber", "newcerts", "root.crl"):
            refuse_symlink(directory / name, "file")
        # The record is there before the first certificate, so that it is never missed unnoticed.
        database = cls.read(directory)
        for name, content in (
            ("index.txt.attr", "unique_subject = no\n"),
            ("crlnumber", "01\n"),
            ("serial", f"{serial_text(secrets.randbits(158) | 1 << 157)}\n"),
            ("index.txt", ""),
        ):
            if not (directory / name).exists():
                write_file(directory / name, content.encode())
        newcerts = directory / "newcerts"
        newcerts.mkdir(mode=0o755, exist_ok=True)
        refuse_foreign(newcerts)
        clear_unfinished(newcerts)
        return database

    @classmethod
    def read(cls, directory: Path) -> Database:
        """Read the record. Certificates in ``newcerts`` without an entry, because their issue was
        interrupted, are added.

        :param directory: the authority's.
        :returns: the record.
        :raises ConfigurationError: ``index.txt`` is not there although it was, or damaged.
        """
        path = directory / "index.txt"
        try:
            text = path.read_text("latin-1")
        except FileNotFoundError:
            _refuse_lost(directory)
            text = ""
        except OSError as error:
            raise ConfigurationError(f'could not open "{path}": {error.strerror}') from error
        entries = []
        for number, line in enumerate(text.split("\n"), 1):
            if line and not line.startswith("#"):
                try:
                    entries.append(Entry.parse(line))
                except ValueError as error:
                    raise ConfigurationError(
                        f'"{path}", line {number}: not a line of openssl ca\'s database'
                    ) from error
        return cls(directory, entries)._with_interrupted()

    def _with_interrupted(self) -> Database:
        known = {entry.serial for entry in self.entries}
        try:
            names = sorted(path.stem for path in self._newcerts.glob("*.pem"))
            root = _first(self.directory / "root.crt")
        except (OSError, ConfigurationError):
            return self
        for name in names:
            if _SERIAL.fullmatch(name) and int(name, 16) not in known:
                certificate = self.certificate(int(name, 16))
                if certificate and signed_by(certificate, root) and _is_current(certificate):
                    self.entries.append(Entry.of(certificate))
        return self

    @property
    def _newcerts(self) -> Path:
        return self.directory / "newcerts"

    def find(self, serial: int) -> Entry | None:
        """The entry with that serial number.

        :param serial: the serial number.
        :returns: the entry, None without one.
        """
        return next((entry for entry in self.entries if entry.serial == serial), None)

    def certificate(self, serial: int) -> Certificate | None:
        """The certificate itself, where its file is in ``newcerts``.

        :param serial: the serial number.
        :returns: the certificate; None where the file is missing or has another one.
        """
        try:
            certificate = _first(self._newcerts / f"{serial_text(serial)}.pem")
            return certificate if certificate.serial == serial else None
        except (OSError, ConfigurationError, ValueError):
            return None

    def with_key(self, public_key_der: bytes) -> Iterator[tuple[Entry, Certificate]]:
        """The certificates that were issued for a key.

        :param public_key_der: the key, as SubjectPublicKeyInfo in DER.
        :returns: entries and certificates.
        """
        for entry in self.entries:
            certificate = self.certificate(entry.serial)
            if certificate and certificate.public_key_der == public_key_der:
                yield entry, certificate

    def add(self, certificate: Certificate) -> None:
        """Record a certificate, on the disk, before it is given out.

        :param certificate: the certificate that was just issued.
        :raises ValueError: its serial number, its subject or its end cannot be read.
        """
        path = self._newcerts / f"{serial_text(certificate.serial)}.pem"
        write_file(path, pem_of(certificate.der), overwrite=True)
        self.entries.append(Entry.of(certificate))
        self.write()

    def revoke(self, entry: Entry, reason: x509.ReasonFlags, when: datetime) -> Entry:
        """Record a revocation, on the disk.

        :param entry: the certificate's entry.
        :param reason: why it is revoked (RFC 5280, section 5.3.1).
        :param when: the time of the revocation, in UTC.
        :returns: the new entry.
        """
        said = "" if reason in _UNSAID else f",{reason.value}"
        revoked = replace(entry, status="R", revocation=_time_text(when) + said)
        self.entries[self.entries.index(entry)] = revoked
        self.write()
        return revoked

    def write(self) -> None:
        """Put all entries on the disk."""
        text = "".join(entry.line() for entry in self.entries)
        write_file(self.directory / "index.txt", text.encode("latin-1"), overwrite=True)

    def next_crl_number(self) -> int:
        """The number for a new CRL. It is used up, whatever becomes of the CRL.

        :raises ConfigurationError: ``crlnumber`` has none.
        """
        path = self.directory / "crlnumber"
        try:
            number = int(path.read_text("latin-1"), 16)
        except (OSError, ValueError) as error:
            raise ConfigurationError(f'"{path}" has no number in hexadecimal') from error
        write_file(path, f"{serial_text(number + 1)}\n".encode(), overwrite=True)
        return number


def _first(path: Path) -> Certificate:
    """The first certificate of a file.

    :raises OSError: it cannot be read.
    :raises ConfigurationError: there is none in it.
    """
    return parse_chain(path.read_bytes(), f'"{path}"').certificates[0]


def _is_current(certificate: Certificate) -> bool:
    try:
        return datetime.now(UTC) < certificate.not_after
    except ValueError:
        return False


def _refuse_lost(directory: Path) -> None:
    """openssl moves ``index.txt`` away before it moves the new one there: killed in between, it
    leaves none, and to begin a new record would forget every revocation."""
    left = [directory / name for name in ("index.txt.new", "index.txt.old")]
    found = [path for path in left if path.exists()]
    if found:
        raise ConfigurationError(
            f'"{directory / "index.txt"}" is missing, but "{found[0]}" is there: openssl ca was '
            "interrupted; look at it and rename it to index.txt"
        )
    if any((directory / "newcerts").glob("*.pem")):
        raise ConfigurationError(
            f'"{directory / "index.txt"}" is missing, but there are certificates in '
            f'"{directory / "newcerts"}": the record of revocations is lost; get it from a backup'
        )


def _time_text(moment: datetime) -> str:
    """UTCTime until 2049 and GeneralizedTime from then on, as in certificates."""
    return moment.astimezone(UTC).strftime(
        "%y%m%d%H%M%SZ" if moment.year < 2050 else "%Y%m%d%H%M%SZ"
    )


def _moment(text: str) -> datetime:
    """:raises ValueError: it is no time."""
    if len(text) == len("YYMMDDHHMMSSZ"):
        text = ("20" if text < "50" else "19") + text
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC)


def _oneline(name: DistinguishedName) -> str:
    """As OpenSSL's ``X509_NAME_oneline``: ``/C=NO/CN=b\\xC3\\xBC``, ASCII only."""
    return "".join(
        f"/{attribute.short_name}={_escaped(attribute.value)}"
        for rdn in name.rdns
        for attribute in rdn
    )


def _escaped(data: bytes) -> str:
    return "".join(
        f"\\{chr(byte)}" if byte in b"/+" else chr(byte) if 32 <= byte < 127 else f"\\x{byte:02X}"
        for byte in data
    )
