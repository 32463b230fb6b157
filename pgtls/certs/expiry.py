"""What in an authority's directory is about to end, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from pgtls.certs.database import Database
from pgtls.errors import ConfigurationError
from pgtls.tls.certificate import serial_hex as serial_text
from pgtls.tls.revocation import read_crls
from pgtls.tls.sources import read_chain

#: How long before its end there is something to do. Each client has to get a new root.
ROOT_SOON = timedelta(days=365)
SOON = timedelta(days=30)
CRL_SOON = timedelta(days=7)


def warnings(directory: Path, database: Database) -> Iterator[str]:
    """What in an authority's directory expires soon, or has expired.

    :param directory: the authority's.
    :param database: its record.
    :returns: a sentence for each, for the DBA.
    """
    now = datetime.now(UTC)
    root_crt, server_crt = directory / "root.crt", directory / "server.crt"
    for path, soon, remedy in (
        (root_crt, ROOT_SOON, "plan a new authority, whose root.crt every client needs before"),
        (server_crt, SOON, f'run "pgtls mkcert -D {directory} --renew"'),
    ):
        end = _end(path)
        if end and end < now + soon:
            yield f'"{path}" {_when(end, now)}: {remedy}'
    yield from _crl_warnings(directory / "root.crl", database, now)


def _crl_warnings(path: Path, database: Database, now: datetime) -> Iterator[str]:
    remedy = f'run "pgtls crl -D {path.parent}" and have the servers read it'
    revoked = {entry.serial for entry in database.entries if entry.status == "R"}
    try:
        _, crl = read_crls(path, "root.crl")[0]
        listed, end = set(crl.serials()), crl.next_update
    except (ConfigurationError, ValueError):
        if revoked or path.exists():
            yield f'"{path}" is missing or damaged: {remedy}'
        return
    for serial in sorted(revoked - listed):
        yield f'{serial_text(serial)} is revoked, but not yet in "{path}": {remedy}'
    if end and end < now + CRL_SOON:
        yield f'"{path}" {_when(end, now)}, and servers then refuse every client: {remedy}'


def _end(path: Path) -> datetime | None:
    try:
        return read_chain(path).certificates[0].not_after
    except (ConfigurationError, ValueError):
        return None


def _when(end: datetime, now: datetime) -> str:
    return f"{'expired' if end <= now else 'expires'} on {end:%Y-%m-%d}"
