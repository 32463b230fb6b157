"""``pgtls list``, ``pgtls revoke`` and ``pgtls crl``: certificates after their issue."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path

import click
from cryptography import x509

from pgtls.certs import expiry, issuing
from pgtls.certs.authority import CRL_DAYS, Authority
from pgtls.certs.database import Database
from pgtls.certs.files import refuse_foreign
from pgtls.certs.issuing import Listed
from pgtls.commands.reporting import (
    CertificateCommand,
    authority_option,
    days_option,
    json_option,
    passphrase_of,
    passphrase_option,
    postgresql_conf_value,
    report,
)
from pgtls.tls.certificate import serial_hex as serial_text
from pgtls.tls.sources import read_chain
from pgtls.tls.tls_info import certificate_facts

#: The reasons that ``openssl ca`` knows too, but for a suspension, which nothing here takes back.
REASONS = {
    flag.value: flag
    for flag in (
        x509.ReasonFlags.unspecified,
        x509.ReasonFlags.key_compromise,
        x509.ReasonFlags.affiliation_changed,
        x509.ReasonFlags.superseded,
        x509.ReasonFlags.cessation_of_operation,
    )
}


@click.command(cls=CertificateCommand)
@authority_option
@click.argument("which", metavar="CERT-OR-SERIAL")
@click.option(
    "--reason",
    type=click.Choice(list(REASONS), case_sensitive=False),
    metavar="REASON",
    default="unspecified",
    help=f"What the revocation list is to say: {', '.join(REASONS)}. keyCompromise is for a key "
    "that was lost or stolen.",
)
@days_option(CRL_DAYS, "How long the new revocation list is good for.")
@passphrase_option
@json_option
def revoke(
    directory: Path,
    which: str,
    reason: str,
    days: int,
    passphrase_file: Path | None,
    as_json: bool,
) -> None:
    """Revoke a certificate, for good, and make root.crl anew.

    Name it by its file or by its serial number in hexadecimal, as "pgtls list" shows it. The
    server refuses it as soon as it has read the new root.crl; sessions that are open stay.

    \b
    Examples:
        pgtls revoke -D ca --reason keyCompromise alice.crt
        pgtls revoke -D ca 4D2A1F0C33E1B7A9
    """
    refuse_foreign(directory)
    authority = Authority.load(directory, passphrase_of(directory / "root.key", passphrase_file))
    entry, crl, before = issuing.revoke(authority, which, REASONS[reason], days)
    serial, moment = serial_text(entry.serial), entry.revoked_at
    facts = {
        "serial": serial,
        "subject": entry.subject,
        "revoked_at": moment.isoformat() if moment else None,
        "reason": entry.reason.value if entry.reason else None,
        "revoked_before": before,
        **_crl_facts(directory, crl),
    }
    line = f"{'Was revoked before' if before else 'Revoked'}: {serial}, {entry.subject}"
    others = issuing.others_of(directory, entry)
    found = [
        f"{one.subject} has another certificate, {serial_text(one.serial)}, until "
        f"{one.not_after:%Y-%m-%d}: it is not revoked"
        for one in others
    ]
    _report_crl(directory, facts, [line], crl, as_json, found)


@click.command(cls=CertificateCommand)
@authority_option
@days_option(CRL_DAYS, "How long it is good for.")
@passphrase_option
@json_option
def crl(directory: Path, days: int, passphrase_file: Path | None, as_json: bool) -> None:
    """Make root.crl, the list of revoked certificates, anew.

    A server that uses it refuses every client once it has expired: run this from cron, well
    within --days, and have the server reload.

    \b
    Examples:
        pgtls crl -D ca
        pgtls crl -D ca --days 90
    """
    refuse_foreign(directory)
    authority = Authority.load(directory, passphrase_of(directory / "root.key", passphrase_file))
    with authority.record() as database:
        made = authority.write_crl(database, days)
    _report_crl(directory, _crl_facts(directory, made), [], made, as_json)


def _crl_facts(directory: Path, made: x509.CertificateRevocationList) -> dict[str, object]:
    number = made.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
    return {
        "root_crl": str(directory / "root.crl"),
        "crl_number": number,
        "next_update": made.next_update_utc.isoformat() if made.next_update_utc else None,
        "revoked": [serial_text(entry.serial_number) for entry in made],
    }


def _report_crl(
    directory: Path,
    facts: dict[str, object],
    lines: list[str],
    made: x509.CertificateRevocationList,
    as_json: bool,
    found: Iterable[str] = (),
) -> None:
    root_crl = directory / "root.crl"
    lines.append(
        f"{root_crl}: number {facts['crl_number']}, {len(made)} revoked, "
        f"good until {made.next_update_utc:%Y-%m-%d}"
    )
    steps = [
        f"postgresql.conf: ssl_crl_file = {postgresql_conf_value(root_crl)} (once); "
        "then SELECT pg_reload_conf()",
        f"before {made.next_update_utc:%Y-%m-%d}, and on: "
        f"pgtls crl -D {shlex.quote(str(directory))}",
    ]
    found = [*found, *expiry.warnings(directory, Database.read(directory))]
    report(facts, lines, as_json=as_json, next_steps=steps, warnings=found)


@click.command("list", cls=CertificateCommand)
@authority_option
@click.option(
    "--days",
    type=click.IntRange(0, 3650),
    default=expiry.SOON.days,
    show_default=True,
    help="A certificate that ends within so many days is marked as expiring.",
)
@json_option
def list_issued(directory: Path, days: int, as_json: bool) -> None:
    """List the certificates issued: to whom, until when, revoked.

    What "openssl ca" issued or revoked in the directory is in it too. Warnings on standard error
    name what expires soon.

    \b
    Examples:
        pgtls list -D ca
        pgtls list -D ca --days 60 --json
    """
    root = read_chain(directory / "root.crt").certificates[0]
    database = Database.read(directory)
    certificates = list(issuing.listed(database, timedelta(days=days)))
    facts = {
        "root": certificate_facts(root),
        "certificates": [_listed_facts(one) for one in certificates],
    }
    rows = [("SERIAL", "FOR", "STATUS", "UNTIL", "SUBJECT"), *map(_row, certificates)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    found = [*expiry.warnings(directory, database), *_expiring(directory, certificates)]
    report(facts, lines, as_json=as_json, warnings=found)


def _listed_facts(one: Listed) -> dict[str, object]:
    return {
        **asdict(one),
        "not_after": one.not_after.isoformat(),
        "revoked_at": one.revoked_at.isoformat() if one.revoked_at else None,
    }


def _row(one: Listed) -> tuple[str, ...]:
    status = one.status
    if one.revoked_at:
        status = f"revoked {one.revoked_at:%Y-%m-%d}"
    return one.serial, one.kind or "?", status, f"{one.not_after:%Y-%m-%d}", one.subject


def _expiring(directory: Path, certificates: list[Listed]) -> Iterator[str]:
    for one in certificates:
        # The server's own is warned of by its file; its predecessors are no concern.
        if one.status == "expiring" and one.kind != "server":
            pem = shlex.quote(str(directory / "newcerts" / f"{one.serial}.pem"))
            yield (
                f"{one.subject} expires on {one.not_after:%Y-%m-%d}: pgtls sign "
                f"-D {shlex.quote(str(directory))} --renew -o postgresql.crt {pem}"
            )
