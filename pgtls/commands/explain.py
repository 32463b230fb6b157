"""``pgtls explain``: what a libpq client will do with a connection string."""

from __future__ import annotations

import json
import os
import shutil
import sys
import textwrap

import attrs
import click

from pgtls.commands.reporting import json_option
from pgtls.probe.explanation import Explanation, explain_conninfo
from pgtls.text import printable


@click.command()
@click.argument("conninfo", default="")
@json_option
def explain(conninfo: str, as_json: bool) -> None:
    """Say what a libpq client will do with CONNINFO, offline.

    Reads what psql and every driver made with libpq would read: the connection string, the
    service file, PG* environment variables, and the files in ~/.postgresql. Then says in plain
    words which attempts are made in which order, what is verified against which file, what is not
    protected, and where libpq goes on silently: a CRL that is not there, a root.crt that is not
    there, prefer's way back to plaintext, system roots without CRLs. Passwords are not shown.

    Exit status: 0 if a client can try, 1 if TLS is certain to fail for a file, 2 if libpq refuses
    the connection string.

    \b
    Examples:
        pgtls explain "host=db.example.com user=alice"
        PGSERVICE=production pgtls explain
        pgtls explain --json postgresql://db.example.com/?sslmode=verify-full
    """
    found = explain_conninfo(conninfo, os.environ)
    if as_json:
        click.echo(json.dumps(attrs.asdict(found)))
    else:
        for line in _lines(found):
            click.echo(_fitted(printable(line, None)))
    sys.exit(2 if found.refused else 1 if found.fails else 0)


def _lines(found: Explanation) -> list[str]:
    lines = [found.protection]
    parameters = [f"{each.keyword}={each.value}  ({each.origin})" for each in found.parameters]
    for heading, sentences in (
        ("Refused", found.refused),
        ("TLS is certain to fail", found.fails),
        ("What counts", parameters),
        ("Attempts, in this order", found.attempts),
        ("Verified, and shown", found.verified),
        ("Not protected", found.not_protected),
        ("Traps", found.traps),
    ):
        if sentences:
            lines += ["", f"{heading}:", *(f"  * {sentence}" for sentence in sentences)]
    return lines


def _fitted(line: str) -> str:
    """At a terminal, broken between words."""
    if not sys.stdout.isatty():
        return line
    width = shutil.get_terminal_size().columns
    indent = "    " if line.startswith("  * ") else ""
    return textwrap.fill(
        line, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )
