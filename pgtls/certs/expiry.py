"""What in an authority's directory is about to end, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509

from pgtls.certs.database import Database
from pgtls.errors import ConfigurationError
from pgtls.tls.key_file import load_certificate_chain
from pgtls.tls.tls_info import serial as serial_text

#: How long before its end there is something to do. Each client has to get a new root.
ROOT_SOON = timedelta(days=365)
SOON = timedelta(days=30)
CRL_SOON = timedelta(days=7)


def warnings(directory: Path, database: Database) -> Iterator[str]:
    """One sentence for each thing that needs the DBA."""
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
        crl = x509.load_pem_x509_crl(path.read_bytes())
    except (OSError, ValueError):
        if revoked or path.exists():
            yield f'"{path}" is missing or damaged: {remedy}'
        return
    for serial in sorted(revoked - {entry.serial_number for entry in crl}):
        yield f'{serial_text(serial)} is revoked, but not yet in "{path}": {remedy}'
    end = crl.next_update_utc
    if end and end < now + CRL_SOON:
        yield f'"{path}" {_when(end, now)}, and servers that use it then refuse everybody: {remedy}'


def _end(path: Path) -> datetime | None:
    try:
        return load_certificate_chain(path)[0].not_valid_after_utc
    except ConfigurationError:
        return None


def _when(end: datetime, now: datetime) -> str:
    return f"{'expired' if end <= now else 'expires'} on {end:%Y-%m-%d}"
