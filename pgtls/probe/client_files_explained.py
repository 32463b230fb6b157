"""The files of a libpq client, and what they lead to: roots, CRLs, certificate and key."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

import attrs

from pgtls.conninfo.connection_string import ConnInfo
from pgtls.conninfo.keywords import SSLCertMode
from pgtls.errors import ConfigurationError
from pgtls.tls.certificate import Certificate
from pgtls.tls.libpq_files import file_of, password_of, roots_of
from pgtls.tls.revocation import read_crls
from pgtls.tls.sources import load_key_pair
from pgtls.tls.validity import newest_crls
from pgtls.wire.attempts import SSLMode

#: How many roots are named.
_NAMED = 3


@attrs.define
class Sentences:
    """What the files of one kind lead to."""

    verified: list[str] = attrs.field(factory=list)
    not_protected: list[str] = attrs.field(factory=list)
    traps: list[str] = attrs.field(factory=list)
    fails: list[str] = attrs.field(factory=list)


class Roots(Sentences):
    """``verified`` is empty where no chain is verified."""


def roots(conninfo: ConnInfo) -> Roots:
    """The root certificates that the server's chain is verified by.

    :param conninfo: the connection string.
    :returns: the roots, and what is to be said of them.
    """
    if conninfo.sslrootcert == "system":
        return Roots(["The server's chain, by the system's collection of authorities."])
    path = file_of(conninfo, conninfo.sslrootcert, "root.crt")
    try:
        certificates = roots_of(conninfo)
    except ConfigurationError as error:
        return Roots(fails=[f"{error}."])
    if certificates is None:
        return Roots(traps=_missing_roots(conninfo, path))
    names = [certificate.subject_text for certificate in certificates]
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    found = Roots([f'The server\'s chain, by "{path}" ({"; ".join(names[:_NAMED])}{more}).'])
    ends = [(each.subject_text, end) for each in certificates if (end := _expired(each))]
    found.traps.extend(f'In "{path}", {name} expired on {end:%F}.' for name, end in ends[:_NAMED])
    return found


def _missing_roots(conninfo: ConnInfo, path: Path | None) -> list[str]:
    if conninfo.sslrootcert is None:
        return []
    found = [
        f'sslrootcert names "{path}", which is not there; with sslmode={conninfo.sslmode} that is '
        "no error: nothing is verified."
    ]
    return found + _tilde(conninfo.sslrootcert)


def _tilde(path: str) -> list[str]:
    if path.startswith("~"):
        return [f'"{path}": libpq does not take "~" for your home directory.']
    return []


def revocation(conninfo: ConnInfo) -> Sentences:
    """The CRLs that a chain is checked against.

    :param conninfo: the connection string.
    :returns: what is to be said of them.
    """
    named = [each for each in (conninfo.sslcrl, conninfo.sslcrldir) if each is not None]
    default = file_of(conninfo, None, "root.crl")
    if not named and default is not None and default.exists():
        named = [str(default)]
    if conninfo.sslrootcert == "system":
        if not named:
            return Sentences(not_protected=["A revoked certificate is accepted: no CRL is read."])
        return Sentences(
            not_protected=["A revoked certificate is accepted: libpq reads no CRL here."],
            traps=[
                f"sslrootcert=system: libpq ignores CRLs, {_quoted(named)} included, and says "
                "nothing. (pgtls reads sslcrl and sslcrldir.)"
            ],
        )
    if not named:
        return Sentences(not_protected=["A revoked certificate is accepted: there is no CRL."])
    found = Sentences()
    for path in named:
        _add_crl(found, path)
    if not found.verified:
        found.not_protected.append("A revoked certificate is accepted: no CRL can be read.")
    return found


def _add_crl(found: Sentences, path: str) -> None:
    try:
        crls = [crl for _, crl in read_crls(path)]
    except ConfigurationError as error:
        missing = "is not there" if not os.path.exists(path) else f"cannot be used ({error})"
        found.traps.append(
            f'The CRL "{path}" {missing}: libpq goes on without it and says nothing. (pgtls '
            "refuses.)"
        )
        found.traps.extend(_tilde(path))
        return
    found.verified.append(f'That no certificate of the chain is revoked, by "{path}".')
    found.traps.extend(
        f'In "{path}", the CRL of {crl.issuer_text} expired on {crl.next_update:%F}: every '
        "certificate of that authority is refused until a new one is there."
        for crl in newest_crls(crls)
        if crl.next_update is not None and crl.next_update < datetime.now(UTC)
    )


def client_certificate(conninfo: ConnInfo) -> Sentences:
    """The certificate that the client sends.

    :param conninfo: the connection string.
    :returns: what is to be said of it.
    """
    path = file_of(conninfo, conninfo.sslcert, "postgresql.crt")
    if conninfo.sslcertmode is SSLCertMode.DISABLE:
        traps = ["sslcertmode=disable: sslcert is not sent."] if conninfo.sslcert else []
        return Sentences(["No client certificate is sent (sslcertmode=disable)."], traps=traps)
    if path is None or not path.exists():
        found = Sentences(["No client certificate is there to be sent."])
        if conninfo.sslcert is not None:
            found.traps.append(f'sslcert names "{path}", which is not there: none is sent.')
            found.traps.extend(_tilde(conninfo.sslcert))
        if conninfo.sslcertmode is SSLCertMode.REQUIRE:
            found.fails.append("sslcertmode=require, and there is no client certificate.")
        return found
    return _certificate_there(conninfo, path)


def _certificate_there(conninfo: ConnInfo, path: Path) -> Sentences:
    key = file_of(conninfo, conninfo.sslkey, "postgresql.key")
    try:
        if key is None:
            raise ConfigurationError("certificate present, but not private key file")
        own = load_key_pair(path, key, password_of(conninfo)).chain.certificates[0]
    except ConfigurationError as error:
        return Sentences(fails=[f"The client certificate cannot be used: {error}."])
    subject = own.subject_text
    found = Sentences([f'If the server asks: "{path}" ({subject}), proven by "{key}".'])
    if conninfo.sslmode not in (SSLMode.VERIFY_CA, SSLMode.VERIFY_FULL):
        found.traps.append("The client certificate is shown to any server that asks for it.")
    found.traps.extend(_dates(own, path))
    return found


def _dates(certificate: Certificate, path: Path) -> list[str]:
    end = _expired(certificate)
    if end is None:
        return []
    return [f'The client certificate in "{path}" expired on {end:%F}: servers refuse it.']


def _expired(certificate: Certificate) -> datetime | None:
    """When it expired; None where it has not, or where its end cannot be read."""
    try:
        end = certificate.not_after
    except ValueError:
        return None
    return end if end < datetime.now(UTC) else None


def _quoted(paths: list[str]) -> str:
    return ", ".join(f'"{path}"' for path in paths)
