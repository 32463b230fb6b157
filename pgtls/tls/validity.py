"""Certificates and CRLs whose time is over, has not come, or ends soon: what, where, until when,
and what follows from it.

A TLS context takes them all without a word; it is each handshake that then fails.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from pgtls.conninfo.connection_string import ConnInfo
from pgtls.conninfo.keywords import SSLCertMode
from pgtls.errors import ConfigurationError
from pgtls.text import log_name
from pgtls.tls.certificate import Certificate
from pgtls.tls.libpq_files import crl_sources, file_of
from pgtls.tls.revocation import CRLSource, read_crls
from pgtls.tls.revocation_list import RevocationList
from pgtls.tls.sources import CertificateSource, read_chain, read_roots

#: How long before its end the log begins to warn of a certificate or a CRL, where nobody says.
EXPIRY_WARNING = timedelta(days=30)

#: What follows where the time of something is over or has not come.
NOT_ACCEPTED_BY_CLIENTS = "clients that verify it refuse to connect"
NOT_ACCEPTED_BY_SERVERS = "servers that verify it refuse the connection"
CLIENTS_REFUSED = "no client certificate that leads to it is accepted"
SERVER_REFUSED = "no server certificate that leads to it is accepted"
CLIENTS_WITHOUT_CRL = "without a newer one no client certificate of this issuer is accepted"
SERVERS_WITHOUT_CRL = "without a newer one no server certificate of this issuer is accepted"
NOT_VERIFIED = "connections that verify it fail"

#: Bytes of a name that a warning shows.
_NAME_LIMIT = 200


class Kind(StrEnum):
    """What ends some time: of a listener, or of the connections to an upstream."""

    CERTIFICATE = "certificate"
    CA = "ca"
    CRL = "crl"
    CLIENT_CERTIFICATE = "upstream_client_certificate"
    UPSTREAM_CA = "upstream_ca"
    UPSTREAM_CRL = "upstream_crl"
    SERVER_CERTIFICATE = "upstream_certificate"


@dataclass(frozen=True, slots=True)
class Validity:
    """How long something is valid.

    :ivar what: what it is: ``certificate "CN=db"``, ``the CRL of CN=authority``.
    :ivar file: the file that it is in, as it was named; None for one that is in none.
    :ivar not_before: its first moment; None where it does not say.
    :ivar not_after: its last; None where it does not say.
    :ivar consequence: what follows when it is over, or has not begun.
    :ivar kind: what it is for.
    :ivar name: the subject of a certificate, the issuer of a CRL.
    :ivar upstream: host and port of the upstream whose connections need it; empty for a listener's.
    :ivar route: the route that leads there; empty for a gateway's own upstream.
    """

    what: str
    file: str | None
    not_before: datetime | None
    not_after: datetime | None
    consequence: str
    kind: Kind = Kind.CERTIFICATE
    name: str = ""
    upstream: str = ""
    route: str = ""

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
        if self.kind is Kind.SERVER_CERTIFICATE:
            place = "shown by the server"
        time = f"{moment:%Y-%m-%d %H:%M:%S} UTC"
        whose = f"upstream {self.upstream}: " if self.upstream else ""
        if self.route:
            whose = f"route {self.route}: {whose}"
        return f"{whose}{self.what} {verb} {time} ({place}): {self.consequence}"


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
        found += _of_certificates(source, _chain, Kind.CERTIFICATE)
    for source in roots:
        found += _of_certificates(source, read_roots, Kind.CA)
    found += of_crls(crls, Kind.CRL)
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
        found += _of_certificates(own, _chain, Kind.CLIENT_CERTIFICATE)
    roots = file_of(conninfo, conninfo.sslrootcert, "root.crt")
    if roots is not None and conninfo.sslrootcert != "system":
        found += _of_certificates(roots, read_roots, Kind.UPSTREAM_CA)
    found += of_crls(crl_sources(conninfo), Kind.UPSTREAM_CRL)
    return found


def _chain(source: CertificateSource) -> Sequence[Certificate]:
    return read_chain(source).certificates


def _of_certificates(
    source: CertificateSource,
    read: Callable[[CertificateSource], Sequence[Certificate]],
    kind: Kind,
) -> Iterator[Validity]:
    try:
        certificates = read(source)
    except ConfigurationError:
        return
    for certificate in certificates:
        yield of_certificate(certificate, _file(source), kind)


_CONSEQUENCES = {
    Kind.CERTIFICATE: NOT_ACCEPTED_BY_CLIENTS,
    Kind.CA: CLIENTS_REFUSED,
    Kind.CRL: CLIENTS_WITHOUT_CRL,
    Kind.CLIENT_CERTIFICATE: NOT_ACCEPTED_BY_SERVERS,
    Kind.UPSTREAM_CA: SERVER_REFUSED,
    Kind.UPSTREAM_CRL: SERVERS_WITHOUT_CRL,
    Kind.SERVER_CERTIFICATE: NOT_VERIFIED,
}


def of_certificate(certificate: Certificate, file: str | None, kind: Kind) -> Validity:
    """How long a certificate is valid.

    :param certificate: it.
    :param file: what it was read from; None where that is no file.
    :param kind: what it is for.
    :returns: the facts.
    """
    name = log_name(certificate.subject_text, _NAME_LIMIT)
    what = f'certificate "{name}"'
    if not name:  # as public authorities issue them
        issuer = log_name(certificate.issuer_text, _NAME_LIMIT)
        name = f"{certificate.serial_text} of {issuer}"
        what = f"certificate {name}"
    return Validity(
        what,
        file,
        _read(lambda: certificate.not_before),
        _read(lambda: certificate.not_after),
        _CONSEQUENCES[kind],
        kind,
        name,
    )


def of_crls(sources: Iterable[CRLSource], kind: Kind) -> list[Validity]:
    """How long CRLs are valid: for each issuer the newest, since OpenSSL takes that one.

    :param sources: files, directories, or CRLs in memory; what cannot be read is left out.
    :param kind: which certificates they are for.
    :returns: the facts of each.
    """
    places: dict[RevocationList, CRLSource] = {}
    for source in sources:
        try:
            places |= {crl: file for file, crl in read_crls(source)}
        except ConfigurationError:
            continue
    return [_of_crl(crl, places[crl], kind) for crl in newest_crls(places)]


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


def _of_crl(crl: RevocationList, source: CRLSource, kind: Kind) -> Validity:
    name = log_name(crl.issuer_text, _NAME_LIMIT)
    return Validity(
        f"the CRL of {name}",
        _file(source),
        _read(lambda: crl.this_update),
        _read(lambda: crl.next_update),
        _CONSEQUENCES[kind],
        kind,
        name,
    )


def _read(date: Callable[[], datetime | None]) -> datetime | None:
    try:
        return date()
    except ValueError:  # not a date that OpenSSL compares with: the handshake says so
        return None


def _file(source: CertificateSource | CRLSource) -> str | None:
    return os.fspath(source) if isinstance(source, str | os.PathLike) else None
