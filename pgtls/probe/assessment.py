"""What to think of a survey: each answer as ok, weak or broken, and what to do about it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from enum import StrEnum

import attrs

from pgtls.probe.pacing import CONCURRENT
from pgtls.probe.survey import Survey, Tried
from pgtls.tls.certificate import UNREADABLE_PART
from pgtls.wire.attempts import SSLMode

#: Days before a certificate's end at which it should be renewed.
RENEW_DAYS = 30

_OLD = ("TLSv1", "TLSv1.1")

#: Where an error happened: the survey says that once.
_PLACE = re.compile(r"connection to server (at|on socket) [^;]*? failed: ")

_GATEWAY = 'twistd pgtls --upstream "..." in front of it'


class Status(StrEnum):
    """How good an answer is."""

    OK = "ok"
    WEAK = "weak"
    BROKEN = "broken"
    #: Neither good nor bad, or not asked.
    NOTE = "note"


@attrs.frozen
class Finding:
    """One line of the survey.

    :ivar name: what was asked.
    :ivar found: the answer.
    :ivar next: what to do; empty where nothing is to be done.
    """

    name: str
    status: Status
    found: str
    next: str = ""


def assess(survey: Survey) -> list[Finding]:
    """What a survey found, in the order in which it is shown.

    :param survey: the survey.
    :returns: the findings.
    """
    return [
        *_ssl_request(survey),
        *_gssenc_request(survey),
        *_direct_tls(survey),
        *_versions(survey),
        *_key_exchange(survey),
        *_client_certificate(survey),
        *_certificate(survey),
        *_session(survey),
        *_connections(survey),
        *_sslmodes(survey),
    ]


def days_left(survey: Survey, now: datetime | None = None) -> int | None:
    """Whole days until the first certificate of the chain expires.

    :param survey: the survey.
    :param now: the time, in UTC; None for the present one.
    :returns: the days, negative after the expiry; None without a certificate.
    """
    ends = [
        datetime.fromisoformat(each["not_after"])
        for each in survey.chain
        if each["not_after"] != UNREADABLE_PART
    ]
    return (min(ends) - (now or datetime.now(UTC))).days if ends else None


def _ssl_request(survey: Survey) -> Iterator[Finding]:
    name, answer = "SSLRequest", survey.ssl_request
    if survey.unix_socket:
        yield Finding(name, Status.OK, f"{answer or 'closed'}: a Unix socket never has TLS")
    elif answer == "S":
        yield Finding(name, Status.OK, "S: TLS")
    elif answer == "N":
        steps = f"ssl = on and a certificate (pgtls mkcert); or {_GATEWAY}"
        yield Finding(name, Status.BROKEN, "N: no TLS", steps)
    else:
        what = f"{answer}: not an answer of the protocol's" if answer else "it closes, or is silent"
        yield Finding(name, Status.BROKEN, what, "is this a PostgreSQL server? look at its log")


def _gssenc_request(survey: Survey) -> Iterator[Finding]:
    name, answer = "GSSENCRequest", survey.gssenc_request
    if answer in ("N", "G"):
        words = "no GSSAPI encryption" if answer == "N" else "GSSAPI encryption"
        yield Finding(name, Status.OK, f"{answer}: {words}")
    else:
        yield Finding(
            name,
            Status.WEAK,
            f"{answer or 'it closes, or is silent'}: PostgreSQL 12 and later say G or N",
            "clients with a Kerberos ticket lose a connection: gssencmode=disable there",
        )


def _direct_tls(survey: Survey) -> Iterator[Finding]:
    if survey.direct_tls is None:
        return
    if survey.direct_tls.accepted:
        yield Finding("direct TLS", Status.OK, "yes (sslnegotiation=direct)")
    else:
        yield Finding("direct TLS", Status.NOTE, f"no ({survey.direct_tls.reason})")


def _versions(survey: Survey) -> Iterator[Finding]:
    tried = survey.tls_versions
    for version in sorted(tried):
        yield _version(version, tried[version])
    if tried and not any(each.accepted for each in tried.values()):
        yield Finding(
            "TLS", Status.BROKEN, "no handshake succeeds", "the server's log says why: its key?"
        )


def _version(version: str, tried: Tried) -> Finding:
    if version in _OLD:
        if tried.accepted:
            step = "ssl_min_protocol_version = 'TLSv1.2'"
            return Finding(version, Status.WEAK, "accepted, and it is broken (RFC 8996)", step)
        return Finding(version, Status.OK, "refused, as it should be")
    if tried.accepted:
        return Finding(version, Status.OK, "accepted")
    if version == "TLSv1.3":
        step = "ssl_max_protocol_version = '' and OpenSSL 1.1.1 or later; or " + _GATEWAY
        return Finding(version, Status.WEAK, f"refused ({tried.reason})", step)
    return Finding(version, Status.NOTE, f"refused ({tried.reason})")


def _key_exchange(survey: Survey) -> Iterator[Finding]:
    keys = survey.key_exchange
    if keys is None:
        return
    how = f"{keys.version}, {keys.cipher}" + (f", {keys.group}" if keys.group else "")
    if not keys.forward_secret:
        step = "ssl_ciphers with ECDHE suites: with the key, recorded connections can be read later"
        yield Finding("forward secrecy", Status.BROKEN, f"none: {how}", step)
    elif survey.static_rsa:
        step = "ssl_ciphers = 'HIGH:!kRSA:!aNULL' takes RSA key exchange out"
        yield Finding(
            "forward secrecy", Status.WEAK, f"{how}; not for clients that ask for RSA", step
        )
    else:
        yield Finding("forward secrecy", Status.OK, how)
    if keys.post_quantum:
        yield Finding("post-quantum", Status.OK, f"{keys.group}")
    else:
        step = (
            "OpenSSL 3.5 or later and, in PostgreSQL 18, ssl_groups = 'X25519MLKEM768:X25519'; "
            f"or {_GATEWAY}"
        )
        yield Finding("post-quantum", Status.WEAK, f"no: {keys.group or keys.cipher}", step)


def _client_certificate(survey: Survey) -> Iterator[Finding]:
    asked = survey.client_certificate
    if asked is None:
        return
    found = "not asked for"
    if asked.requested:
        named = "; ".join(asked.authorities) or "any authority"
        found = f"asked for, issued by {named}"
    yield Finding("client certificate", Status.NOTE, found)


def _certificate(survey: Survey) -> Iterator[Finding]:
    if not survey.chain:
        return
    leaf = survey.chain[0]
    named = ", ".join(leaf["names"]) or "no name"
    yield Finding("certificate", Status.NOTE, f"for {named}, issued by {leaf['issuer']}")
    sent = f"{len(survey.chain)} sent, " + ("with" if survey.root_sent else "without") + " the root"
    step = "pgtls trust adds it to root.crt" if survey.root_sent else ""
    yield Finding("chain", Status.NOTE, sent, step)
    yield from _expiry(survey)


def _expiry(survey: Survey) -> Iterator[Finding]:
    left = days_left(survey)
    if left is None:
        return
    ends = min(each["not_after"] for each in survey.chain)[:10]
    if left < 0:
        yield Finding("expiry", Status.BROKEN, f"expired on {ends}", "renew it, and reload")
    elif left < RENEW_DAYS:
        yield Finding("expiry", Status.WEAK, f"{ends}, in {left} days", "renew it, and reload")
    else:
        yield Finding("expiry", Status.OK, f"{ends}, in {left} days")


_WEAK_METHODS = ("password", "md5")
_SCRAM = "password_encryption = 'scram-sha-256', new passwords, scram-sha-256 in pg_hba.conf"


def _session(survey: Survey) -> Iterator[Finding]:
    name, asked = "authentication", survey.authentication
    if asked is None:
        yield Finding(name, Status.NOTE, "not asked: name a user in the connection string")
        yield Finding("protocol 3.2", Status.NOTE, "not asked: name a user")
        return
    over = "over TLS" if asked.encrypted else "in plaintext"
    if asked.error is not None:
        yield Finding(name, Status.BROKEN, f"refused {over}: {asked.error}", "see pg_hba.conf")
    elif asked.method == "trust":
        step = "if that was not the client certificate: scram-sha-256 for trust in pg_hba.conf"
        yield Finding(name, Status.WEAK, f"nothing is asked for {over}", step)
    elif asked.method in _WEAK_METHODS:
        yield Finding(name, Status.WEAK, f"{asked.method} {over}", _SCRAM)
    else:
        offered = ", ".join(asked.mechanisms) or str(asked.method)
        yield Finding(name, Status.OK, f"{offered} {over}")
    if survey.protocol == "3.2":
        yield Finding("protocol 3.2", Status.OK, "yes: long cancel keys")
    elif survey.protocol:
        yield Finding("protocol 3.2", Status.NOTE, f"no, {survey.protocol}")


def _connections(survey: Survey) -> Iterator[Finding]:
    if survey.concurrent is None:
        return
    taken = "one" if survey.concurrent == 1 else f"fewer than {CONCURRENT}"
    yield Finding(
        "connections",
        Status.NOTE,
        f"it takes {taken} at a time, and refuses others or lets them wait: asked one by one",
        "a pool in the application with no more connections than that",
    )


def _sslmodes(survey: Survey) -> Iterator[Finding]:
    for sslmode in SSLMode:
        result = survey.sslmodes.get(sslmode)
        if result is None:
            continue
        name = f"sslmode={sslmode}"
        if result.error is not None:
            yield _failed(survey, sslmode, _PLACE.sub("", result.error))
        elif result.outcome == "plain":
            yield Finding(name, *_in_plaintext(survey, sslmode))
        else:
            yield Finding(name, *_in_tls(sslmode))


def _failed(survey: Survey, sslmode: SSLMode, error: str) -> Finding:
    name = f"sslmode={sslmode}"
    if sslmode is SSLMode.DISABLE:
        # Good only if it is the plaintext that is refused.
        refused = survey.authentication is not None and survey.authentication.error is not None
        return Finding(name, Status.NOTE if refused else Status.OK, f"refused: {error}")
    return Finding(name, Status.BROKEN, error, next_step(survey, error))


def _in_plaintext(survey: Survey, sslmode: SSLMode) -> tuple[Status, str, str]:
    if survey.unix_socket:
        return Status.OK, "plaintext, inside this machine", ""
    if survey.authentication is None:
        return Status.NOTE, "plaintext, as far as it was tried", "name a user to try a session"
    if sslmode is SSLMode.DISABLE:
        return Status.WEAK, "plaintext is not refused", "hostssl in place of host in pg_hba.conf"
    return Status.WEAK, "ends in plaintext", "sslmode=verify-full in the client"


def _in_tls(sslmode: SSLMode) -> tuple[Status, str, str]:
    if sslmode is SSLMode.VERIFY_FULL:
        return Status.OK, "TLS with the server that was named", ""
    if sslmode is SSLMode.VERIFY_CA:
        step = "verify-full, unless the authority issues to this server only"
        return Status.OK, "TLS with a server of a trusted authority", step
    if sslmode is SSLMode.REQUIRE:
        step = "verify-full, which detects a man in the middle"
        return Status.WEAK, "TLS with any server, unless a root.crt is there", step
    return Status.WEAK, "TLS, unless a man in the middle refuses it", "verify-full in the client"


def next_step(survey: Survey, error: str) -> str:
    """What to do about an error, as far as its text tells.

    :param survey: the survey.
    :param error: the error message.
    :returns: a sentence; empty where nothing is known to help.
    """
    trust = f"pgtls trust {survey.host}:{survey.port}"
    for words, step in (
        ("root certificate file", trust if survey.root_sent else "its root into root.crt"),
        ("self-signed certificate", f"another authority than root.crt's: {trust}"),
        ("self signed certificate", f"another authority than root.crt's: {trust}"),
        ("unable to get", "another authority than root.crt's: ask the DBA for its root.crt"),
        ("has expired", "renew it, and reload the server"),
        ("does not match host name", "a certificate with this name (pgtls mkcert), or its name"),
        ("does not support SSL", f"ssl = on; or {_GATEWAY}"),
        ("certificate required", "a client certificate: sslcert and sslkey (pgtls keygen)"),
        ("weak sslmode", "the connection string forbids it"),
        ("pg_hba.conf", "the server's pg_hba.conf decides that"),
    ):
        if words in error:
            return step
    return "the server's log says more"
