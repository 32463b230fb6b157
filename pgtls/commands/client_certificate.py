"""``pgtls keygen`` and ``pgtls install``: the user's steps to a client certificate."""

from __future__ import annotations

import getpass
import os
import shlex
from datetime import UTC, datetime
from pathlib import Path

import click

from pgtls.certs import client_files
from pgtls.certs.client_conf import read_client_conf
from pgtls.certs.expiry import SOON
from pgtls.certs.keys import KeyType
from pgtls.certs.names import role_field
from pgtls.commands.reporting import (
    CertificateCommand,
    force_option,
    json_option,
    key_type_option,
    new_passphrase,
    passphrase_of,
    passphrase_option,
    psql_line,
    report,
    user_option,
)
from pgtls.errors import ConfigurationError
from pgtls.text import printable
from pgtls.tls.tls_info import certificate_facts


@click.command(cls=CertificateCommand)
@click.option(
    "--conf",
    "conf_path",
    type=click.Path(path_type=Path),
    required=True,
    help="The client.conf that the DBA gave you (pgtls client-conf).",
)
@click.option("--user", metavar="ROLE", help="The role; default: $PGUSER, or your own name.")
@user_option
@key_type_option(None, "The kind of key, if not client.conf's: ecdsa, rsa or ed25519.")
@click.option("--encrypt", is_flag=True, help="Encrypt the key with a passphrase.")
@force_option
@passphrase_option
@json_option
def keygen(
    conf_path: Path,
    user: str | None,
    directory: Path | None,
    key_type: KeyType | None,
    encrypt: bool,
    force: bool,
    passphrase_file: Path | None,
    as_json: bool,
) -> None:
    """Make your private key and certificate request (step 2 of 4).

    In ~/.postgresql are then postgresql.key, which you give to no one, postgresql.csr for
    your DBA, and, unless there is one, root.crt, by which your clients verify the server.
    Compare the SHA-256 that is shown with what your DBA tells you: client.conf may have been
    changed on its way.

    A passphrase protects the key if the file is stolen; clients then need the parameter
    sslpassword.

    \b
    Examples:
        pgtls keygen --conf client.conf
        pgtls keygen --conf client.conf --user alice --encrypt
    """
    role = user or os.environ.get("PGUSER") or getpass.getuser()
    try:
        role_field(role)
    except ConfigurationError as error:
        raise click.UsageError(str(error)) from None
    conf = read_client_conf(conf_path)
    where = directory or client_files.default_directory()
    key_path = where / "postgresql.key"
    files = client_files.keygen(
        where,
        conf,
        role,
        key_type=key_type,
        password=passphrase_of(key_path, passphrase_file),
        new_password=new_passphrase(key_path, passphrase_file) if encrypt else None,
        force=force,
    )
    subject = files.subject.rfc4514_string()
    facts: dict[str, object] = {
        "key": str(files.key),
        "csr": str(files.csr),
        "root_crt": str(files.root_crt),
        "subject": subject,
        "key_created": files.key_created,
        "root_created": files.root_created,
        "root_sha256": conf.root.fingerprint,
    }
    lines = [
        f"{'Key' if files.key_created else 'Key (it was there)'}: {files.key}",
        f"Request for {printable(subject)}: {files.csr}",
        f"Authority {printable(conf.root.subject_text)}"
        f"{', now in ' + str(files.root_crt) if files.root_created else ''}",
        f"  SHA-256 {conf.root.fingerprint}",
    ]
    steps = [
        f"compare the SHA-256 with your DBA's; send {files.csr} to the DBA, who runs: "
        "pgtls sign -D DIR postgresql.csr",
        f"with the certificate that comes back: pgtls install{_in(directory)} postgresql.crt",
    ]
    found = [] if files.root_known else [_unknown_root(files.root_crt)]
    report(facts, lines, as_json=as_json, next_steps=steps, warnings=found)


def _unknown_root(root_crt: Path) -> str:
    return (
        f'"{root_crt}" was there already and does not have the authority of client.conf: add '
        "that by hand, or servers of this site will not verify"
    )


@click.command(cls=CertificateCommand)
@click.argument("certificate", metavar="postgresql.crt", type=click.Path(path_type=Path))
@user_option
@force_option
@passphrase_option
@json_option
def install(
    certificate: Path,
    directory: Path | None,
    force: bool,
    passphrase_file: Path | None,
    as_json: bool,
) -> None:
    """Check and install the certificate you got (step 4 of 4).

    It must belong to ~/.postgresql/postgresql.key, be for clients, verify by
    ~/.postgresql/root.crt, and its time must have come and not be over. A certificate that is
    there is replaced only by --force: as when it was renewed.

    \b
    Examples:
        pgtls install postgresql.crt
        pgtls install --force alice.crt
    """
    where = directory or client_files.default_directory()
    password = passphrase_of(where / "postgresql.key", passphrase_file)
    target, installed = client_files.install(certificate, where, password=password, force=force)
    facts = certificate_facts(installed)
    end = installed.not_after
    soon = end < datetime.now(UTC) + SOON
    found = [f"it expires on {end:%Y-%m-%d}: ask your DBA to renew it"] if soon else []
    role = facts["names"][0] if facts["names"] else "ROLE"
    files = {} if directory is None else _parameters(where)
    line = psql_line(host="HOST", dbname="DB", user=role, sslmode="verify-full", **files)
    report(
        {"postgresql_crt": str(target), "certificate": facts},
        [f"{target}: {printable(facts['subject'])}, until {end:%Y-%m-%d}"],
        as_json=as_json,
        next_steps=[line],
        warnings=found,
    )


def _in(directory: Path | None) -> str:
    return f" -D {shlex.quote(str(directory))}" if directory else ""


def _parameters(where: Path) -> dict[str, str]:
    """What libpq has to be told where the files are not where it looks."""
    names = {
        "sslcert": where / "postgresql.crt",
        "sslkey": where / "postgresql.key",
        "sslrootcert": where / "root.crt",
    }
    return {name: str(path) for name, path in names.items()}
