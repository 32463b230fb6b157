"""``pgtls auth-file``: an ``auth_file`` from a server's ``pg_authid``."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from pgtls.certs.files import PRIVATE, write_file
from pgtls.commands.reporting import json_option, report, say
from pgtls.commands.running import run
from pgtls.conninfo.connection_string import ConnInfo
from pgtls.errors import ConfigurationError, PgTLSError
from pgtls.policy.auth_file import format_auth_file
from pgtls.protocols.server_login import Row
from pgtls.protocols.simple_query import simple_query
from pgtls.text import printable
from pgtls.wire.scram_secret import ScramSecret

_SQL = (
    "SELECT rolname, rolpassword FROM pg_catalog.pg_authid "
    'WHERE rolcanlogin ORDER BY rolname COLLATE pg_catalog."C"'
)


@click.command("auth-file")
@click.argument("conninfo")
@click.argument("roles", nargs=-1, metavar="[ROLE]...")
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="The file, with mode 0600; written whole or not at all.",
)
@click.option("--force", is_flag=True, help="Replace the file if it is there.")
@json_option
def auth_file(
    conninfo: str, roles: tuple[str, ...], output: Path, force: bool, as_json: bool
) -> None:
    """Write the SCRAM secrets of roles into an auth_file.

    CONNINFO is a libpq connection string, with a user who may read pg_authid: a superuser. Without
    a ROLE, every role that may log in and has a SCRAM secret. The password comes from PGPASSWORD
    or from CONNINFO.

    Exit status: 0 if the file is written, 1 if the server cannot be asked or a ROLE has no SCRAM
    secret, 2 if CONNINFO cannot be used.

    \b
    Examples:
        pgtls auth-file "host=/var/run/postgresql user=postgres" -o userlist.txt
        pgtls auth-file "service=production user=postgres" -o userlist.txt alice bob
        pgtls auth-file --force "host=/var/run/postgresql user=postgres" -o userlist.txt
    """
    try:
        parsed = ConnInfo.parse(conninfo, os.environ)
    except ConfigurationError as error:
        for mistake in error.mistakes:
            say(mistake, err=True)
        sys.exit(2)
    try:
        rows = run(lambda reactor: simple_query(reactor, parsed, _SQL))
        secrets, without = _secrets(rows, roles)
        write_file(output, format_auth_file(secrets), PRIVATE, overwrite=force)
    except FileExistsError:
        say(f"{output} exists: --force replaces it", err=True)
        sys.exit(1)
    except (PgTLSError, OSError, ValueError) as error:
        say(printable(str(error), None), err=True)
        sys.exit(1)
    names = [name.decode("utf-8", "replace") for name, _ in secrets]
    report(
        {"file": str(output), "roles": names},
        [f"{output}: {len(names)} roles"],
        as_json=as_json,
        next_steps=[
            f'auth_file = "{output}" and auth_type = "scram-sha-256" in pgtls.toml; after a change '
            "of a password, write it anew (--force) and reload"
        ],
        warnings=[f"{name} has no SCRAM secret" for name in without],
    )


def _secrets(
    rows: list[Row], roles: tuple[str, ...]
) -> tuple[list[tuple[bytes, ScramSecret]], list[str]]:
    """The entries to write, and the roles that have none.

    :raises ConfigurationError: one of the roles asked for has none.
    """
    found: dict[str, tuple[bytes, ScramSecret]] = {}
    without: list[str] = []
    for row in rows:
        name = (row[0] or b"").decode("utf-8", "surrogateescape")
        try:
            secret = ScramSecret.parse((row[1] or b"").decode("latin-1"))
        except ValueError:
            without.append(name)
        else:
            found[name] = (row[0] or b"", secret)
    if missing := [role for role in roles if role not in found]:
        raise ConfigurationError(
            *(f'role "{role}" has no SCRAM secret, or may not log in' for role in missing)
        )
    if not found:
        raise ConfigurationError("no role has a SCRAM secret")
    return [found[name] for name in roles or found], [] if roles else without
