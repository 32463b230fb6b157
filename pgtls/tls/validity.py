"""Certificates and CRLs whose time is over, has not come, or ends soon: what, where, until when,
and what follows from it.

A TLS context takes them all without a word; it is each handshake that then fails.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from pgtls.conninfo.connection_string import ConnInfo
from pgtls.conninfo.keywords import SSLCertMode
from pgtls.errors import ConfigurationError
from pgtls.text import log_name
from pgtls.tls.certificate import Certificate
from pgtls.tls.libpq_files import crl_sources, file_of
from pgtls.tls.revocation import CRLSource, read_crls
from pgtls.tls.revocation_list import RevocationList
from pgtls.tls.sources import CertificateSource, read_chain, read_roots

#: What follows where the time of something is over or has not come.
NOT_ACCEPTED_BY_CLIENTS = "clients that verify it refuse to connect"
NOT_ACCEPTED_BY_SERVERS = "servers that verify it refuse the connection"
CLIENTS_REFUSED = "no client certificate that leads to it is accepted"
SERVER_REFUSED = "no server certificate that leads to it is accepted"

#: Bytes of a name that a warning shows.
_NAME_LIMIT = 200


@dataclass(frozen=True, slots=True)
class Validity:
    """How long something is valid.

    :ivar what: what it is: ``certificate "CN=db"``, ``the CRL of CN=authority``.
    :ivar file: the file that it is in, as it was named; None for one in memory.
    :ivar not_before: its first moment; None where it does not say.
    :ivar not_after: its last; None where it does not say.
    :ivar consequence: what follows when it is over, or has not begun.
    """

    what: str
    file: str | None
    not_before: datetime | None
    not_after: datetime | None
    consequence: str

    def warning(self, soon: timedelta = timedelta(0), now: datetime | None = None) -> str | None:
        """One sentence, if there is reason for one.

        :param soon: how long before the end there is.
        :param now: the time in UTC, if not this moment.
        :returns: None where it is valid, and for longer than ``soon``.
        """
        now = now or datetime.now(UTC)
        if self.not_after is not None and self.not_after < now:
            return self._sentence("has expired at", self.not_after)
        if self.not_before is not None and now < self.not_before:
            return self._sentence("is not valid before", self.not_before)
        if self.not_after is not None and self.not_after < now + soon:
            return self._sentence("expires at", self.not_after)
        return None

    def _sentence(self, verb: str, moment: datetime) -> str:
        place = "in memory" if self.file is None else f'in "{self.file}"'
        time = f"{moment:%Y-%m-%d %H:%M:%S} UTC"
        return f"{self.what} {verb} {time} ({place}): {self.consequence}"


def warnings(
    validities: Iterable[Validity], soon: timedelta = timedelta(0), now: datetime | None = None
) -> list[str]:
    """A sentence for each that is over, has not begun, or ends soon.

    :param validities: what to look at.
    :param soon: how long before the end.
    :param now: the time in UTC, if not this moment.
    :returns: the sentences, in the order of ``validities``.
    """
    found = [validity.warning(soon, now) for validity in validities]
    return [each for each in found if each is not None]


def listener_validities(
    certificates: Sequence[CertificateSource],
    roots: Sequence[CertificateSource],
    crls: Sequence[CRLSource],
) -> list[Validity]:
    """What a listener shows its clients, and what it verifies theirs by.

    :param certificates: ``ssl_cert_file``, each with its intermediates.
    :param roots: ``ssl_ca_file``.
    :param crls: ``ssl_crl_file`` and ``ssl_crl_dir``, those that are set.
    :returns: each certificate, and for each issuer the newest CRL.
    """
    found: list[Validity] = []
    for source in certificates:
        found += _of_certificates(source, _chain, NOT_ACCEPTED_BY_CLIENTS)
    for source in roots:
        found += _of_certificates(source, read_roots, CLIENTS_REFUSED)
    found += of_crls(crls, "client")
    return found


def upstream_validities(conninfo: ConnInfo) -> list[Validity]:
    """What a connection string's client shows servers, and what it verifies theirs by.

    Files that are not there, or that cannot be read, are passed over: other checks name them.

    :param conninfo: with ``sslrootcert=system`` the system's authorities are not looked at.
    :returns: each certificate, and for each issuer the newest CRL.
    """
    found: list[Validity] = []
    own = file_of(conninfo, conninfo.sslcert, "postgresql.crt")
    if own is not None and conninfo.sslcertmode is not SSLCertMode.DISABLE:
        found += _of_certificates(own, _chain, NOT_ACCEPTED_BY_SERVERS)
    roots = file_of(conninfo, conninfo.sslrootcert, "root.crt")
    if roots is not None and conninfo.sslrootcert != "system":
        found += _of_certificates(roots, read_roots, SERVER_REFUSED)
    found += of_crls(crl_sources(conninfo), "server")
    return found


def _chain(source: CertificateSource) -> Sequence[Certificate]:
    return read_chain(source).certificates


def _of_certificates(
    source: CertificateSource,
    read: Callable[[CertificateSource], Sequence[Certificate]],
    consequence: str,
) -> Iterator[Validity]:
    try:
        certificates = read(source)
    except ConfigurationError:
        return
    for certificate in certificates:
        yield of_certificate(certificate, source, consequence)


def of_certificate(
    certificate: Certificate, source: CertificateSource, consequence: str
) -> Validity:
    """How long a certificate is valid.

    :param certificate: it.
    :param source: what it was read from.
    :param consequence: what follows when it is over.
    :returns: the facts.
    """
    return Validity(
        _described(certificate),
        _file(source),
        _read(lambda: certificate.not_before),
        _read(lambda: certificate.not_after),
        consequence,
    )


def _described(certificate: Certificate) -> str:
    """Its subject; where that is empty, as public authorities issue them, something else."""
    if name := log_name(certificate.subject_text, _NAME_LIMIT):
        return f'certificate "{name}"'
    issuer = log_name(certificate.issuer_text, _NAME_LIMIT)
    return f"certificate {certificate.serial_text} of {issuer}"


def of_crls(sources: Iterable[CRLSource], whose: str) -> list[Validity]:
    """How long CRLs are valid: for each issuer the newest, since OpenSSL takes that one.

    :param sources: files, directories, or CRLs in memory; what cannot be read is left out.
    :param whose: certificates they are for: ``client`` or ``server``.
    :returns: the facts of each.
    """
    places: dict[RevocationList, CRLSource] = {}
    for source in sources:
        try:
            places |= {crl: file for file, crl in read_crls(source)}
        except ConfigurationError:
            continue
    return [_of_crl(crl, places[crl], whose) for crl in newest_crls(places)]


def newest_crls(crls: Iterable[RevocationList]) -> list[RevocationList]:
    """For each issuer, and each of its keys, the CRL that is valid the longest.

    :param crls: all of them.
    :returns: those; what cannot be read is left out.
    """
    newest: dict[tuple[bytes, bytes | None], tuple[datetime, RevocationList]] = {}
    for crl in crls:
        try:
            key = (crl.issuer_der, crl.authority_key_identifier)
            end = crl.next_update or datetime.max.replace(tzinfo=UTC)
        except ValueError:
            continue
        if key not in newest or end > newest[key][0]:
            newest[key] = (end, crl)
    return [crl for _, crl in newest.values()]


def _of_crl(crl: RevocationList, source: CRLSource, whose: str) -> Validity:
    name = log_name(crl.issuer_text, _NAME_LIMIT)
    return Validity(
        f"the CRL of {name}",
        _file(source),
        _read(lambda: crl.this_update),
        _read(lambda: crl.next_update),
        f"without a newer one no {whose} certificate of this issuer is accepted",
    )


def _read(date: Callable[[], datetime | None]) -> datetime | None:
    try:
        return date()
    except ValueError:  # not a date that OpenSSL compares with: the handshake says so
        return None


def _file(source: CertificateSource | CRLSource) -> str | None:
    return os.fspath(source) if isinstance(source, str | os.PathLike) else None
