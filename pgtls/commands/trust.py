"""``pgtls trust``: trust on first use, for every libpq client."""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from pgtls.certs import trust_on_first_use as trusting
from pgtls.certs.client_files import default_directory
from pgtls.certs.trust_on_first_use import CertificateChanged, RootFile, chosen_root, roots_of
from pgtls.commands.reporting import (
    CertificateCommand,
    json_option,
    psql_line,
    report,
    say,
    user_option,
)
from pgtls.commands.running import run
from pgtls.conninfo.connection_string import ConnInfo
from pgtls.errors import CertificateNotVerified, ConfigurationError
from pgtls.probe.server_chain import ServerChain, failure, failure_with_roots, fetch_chain
from pgtls.text import printable
from pgtls.tls.certificate import Certificate
from pgtls.tls.tls_info import certificate_facts
from pgtls.transport.reactor import IReactor

#: What of the environment counts: where the server is, and no file or sslmode.
_PLACE = ("HOME", "PGHOSTADDR", "PGPORT", "PGCONNECT_TIMEOUT")

_HOST_AND_PORT = re.compile(
    r"\[(?P<v6>[^]]+)\](:(?P<v6port>\d+))?|(?P<host>[^:]+)(:(?P<port>\d+))?"
)


class _Place(click.ParamType[tuple[str, str]]):
    """``HOST[:PORT]``; an IPv6 address with a port in brackets."""

    name = "HOST[:PORT]"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, str]:
        """Take it apart."""
        if isinstance(value, tuple):
            return value
        text = str(value)
        if text.count(":") > 1 and not text.startswith("["):
            text = f"[{text}]"
        found = _HOST_AND_PORT.fullmatch(text)
        if found is None or re.search(r"[\s,]", text) or not text.isprintable():
            self.fail(f'"{printable(text)}" is not HOST or HOST:PORT', param, ctx)
        if text.startswith(("/", "@")):
            self.fail("a Unix socket never has TLS: there is nothing to trust", param, ctx)
        return found["host"] or found["v6"], found["port"] or found["v6port"] or ""


class _Fingerprint(click.ParamType[bytes]):
    name = "SHA256:..."

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> bytes:
        """Read it."""
        if isinstance(value, bytes):
            return value
        try:
            return trusting.parse_fingerprint(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


@click.command(cls=CertificateCommand)
@click.argument("place", metavar="HOST[:PORT]", type=_Place())
@user_option
@click.option(
    "--fingerprint",
    type=_Fingerprint(),
    help="Do not ask: trust it if the server's certificate, or its root, has this SHA-256 "
    "fingerprint. Hexadecimal, with colons or without, or base64.",
)
@json_option
def trust(
    place: tuple[str, str], directory: Path | None, fingerprint: bytes | None, as_json: bool
) -> None:
    """Trust the server HOST from now on (trust on first use).

    This is what ssh does with a host that it meets first. Fetches the server's certificates over
    PostgreSQL's own negotiation, shows their names, dates and fingerprints, asks, and adds the root
    to ~/.postgresql/root.crt. That is the file by which libpq verifies: psql, and every driver that
    is made with libpq, verifies the server from then on wherever there is TLS. sslmode=verify-full
    makes sure that there is, and that the server is the one you named; under prefer, what does not
    verify ends in plaintext.

    An attacker between you and the server could, at this moment, show you another certificate.
    So compare the fingerprint with one that came another way: by telephone, or from the server's
    own machine, where this prints it:

    \b
        openssl x509 -in server.crt -noout -fingerprint -sha256

    Without a terminal to ask at, --fingerprint is needed. A server that was trusted and shows
    another certificate now is refused. Where a server does not send its root certificate, nothing
    can be added: ask its DBA for that file.

    \b
    Examples:
        pgtls trust db.example.com
        pgtls trust db.example.com:6432 -D here \\
            --fingerprint SHA256:k3JfLlZ0nTwEwS4HPdZyZHlSs2F8q2m9x0Qb1rVgYtA
    """
    where = directory or default_directory()
    host, port = place
    parameters = {"host": host, "port": port, "sslmode": "require", "sslnegotiation": "postgres"}
    environ = {name: os.environ[name] for name in _PLACE if name in os.environ}
    try:
        conninfo = ConnInfo.from_parameters(parameters, environ)
    except ConfigurationError as error:
        raise click.UsageError(str(error)) from None

    async def main(reactor: IReactor) -> None:
        shown = await fetch_chain(reactor, conninfo)
        facts = _facts(shown)
        _show(shown, as_json=as_json)
        file = RootFile.read(where / "root.crt")
        roots = _candidates(shown, file)
        how, added = chosen_root(shown.chain, roots, fingerprint, shown.place)
        content = file.content_with(added, shown.place)
        if refused := await failure_with_roots(reactor, conninfo, content):
            raise CertificateNotVerified(
                f"no client could verify this server: {refused}; nothing was written"
            )
        if not how:
            how = _ask(shown, file) if added else "root.crt"
        root_crt = trusting.trust_root(where, shown.place, shown.chain, added)
        refused = await _refused(reactor, place, directory and root_crt)
        facts |= {"trusted_by": how, "added": added is not None, "root_crt": str(root_crt)}
        _report(shown, facts, refused, as_json=as_json, default=directory is None)

    run(main)


async def _refused(reactor: IReactor, place: tuple[str, str], root_crt: Path | None) -> str | None:
    """Connect as psql will from now on, with all the files and variables that libpq reads.

    :param root_crt: None for libpq's default.
    :returns: why verify-full fails; None where it succeeds.
    """
    host, port = place
    parameters = {"host": host, "port": port, "sslmode": "verify-full"}
    if root_crt is not None:
        parameters["sslrootcert"] = str(root_crt)
    try:
        conninfo = ConnInfo.from_parameters(parameters, os.environ)
    except ConfigurationError as error:
        return str(error)
    return await failure(reactor, conninfo)


def _candidates(shown: ServerChain, file: RootFile) -> list[Certificate]:
    """The roots that could be added; none where ``root.crt`` verifies the server already.

    :raises PgTLSError: it is not to be trusted.
    """
    try:
        known = trusting.known(file, shown.chain, shown.place)
    except CertificateChanged as error:
        _warn_of_change(shown, file.path)
        raise CertificateNotVerified(
            f"the certificate of {shown.place} has changed: {error.reason}; nothing was written"
        ) from error
    return [] if known else roots_of(shown.chain)


def _ask(shown: ServerChain, file: RootFile) -> str:
    if not sys.stdin.isatty():
        raise ConfigurationError(
            "there is no terminal to ask at, and nothing was written; compare the fingerprint "
            "with what the server's DBA says, and give it with --fingerprint"
        )
    if shown.name_error:
        say(f"Note: {shown.name_error}: verify-full will refuse it.", err=True)
    if file.content.strip():
        say(f"Note: no root in {file.path} verifies this server.", err=True)
    with _interruptible():
        if not click.confirm(f"Trust {shown.place} from now on?", err=True):
            raise CertificateNotVerified("not trusted; nothing was written")
    return "you"


@contextmanager
def _interruptible() -> Iterator[None]:
    """Ctrl-C ends a question at once: Twisted's way waits for the reactor, which waits for us."""
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)


def _facts(shown: ServerChain) -> dict[str, object]:
    return {
        "host": shown.host,
        "port": shown.conninfo.hosts[0].port,
        "chain": [
            {**certificate_facts(each), "fingerprint": trusting.fingerprint(each)}
            for each in shown.chain
        ],
    }


def _show(shown: ServerChain, *, as_json: bool) -> None:
    """What the server sent, before anything is asked; never where JSON goes."""
    say(f"{shown.place} shows:", err=as_json)
    for number, certificate in enumerate(shown.chain):
        facts = certificate_facts(certificate)
        names = ", ".join(facts["names"]) if number == 0 else facts["subject"]
        for line in (
            f"  {'its certificate' if number == 0 else 'signed by'}: {printable(names)}",
            f"    issuer  {printable(facts['issuer'])}",
            f"    valid   {facts['not_before']} to {facts['not_after']}",
            f"    {trusting.fingerprint(certificate)}",
            f"    SHA-256 {certificate.fingerprint}",
        ):
            say(line, err=as_json)


def _warn_of_change(shown: ServerChain, path: Path) -> None:
    edge = "@" * 75
    click.echo(
        f"{edge}\nWARNING: THE CERTIFICATE OF {shown.place.upper()} HAS CHANGED!\n{edge}\n"
        "An attacker may be between you and the server, reading and changing everything.\n"
        "It may also be that the DBA has a new authority. Ask, and compare the\n"
        "fingerprint. If it is so: take the old one, it follows the line\n"
        f'"# pgtls trust: {shown.place} ...", out of {path}, and run this again.',
        err=True,
    )


def _report(
    shown: ServerChain,
    facts: dict[str, object],
    refused: str | None,
    *,
    as_json: bool,
    default: bool,
) -> None:
    by = facts["trusted_by"]
    if facts["added"]:
        done = f"Added to {facts['root_crt']}" + ("" if by == "you" else f", by the {by}")
    else:
        done = f"{facts['root_crt']} verifies this server already" + (
            "" if by == "root.crt" else f"; and the {by} is right"
        )
    facts["verify_full"] = {"ok": refused is None, "reason": refused}
    lines = [f"{done}."]
    lines += [] if refused else [f"sslmode=verify-full now succeeds with {shown.place}."]
    port = shown.conninfo.hosts[0].port
    file = {} if default else {"sslrootcert": str(facts["root_crt"])}
    server = {"host": shown.host, "port": str(port), "dbname": "DB", "user": "ROLE"}
    steps = [psql_line(**server, sslmode="verify-full", **file)]
    found = []
    if refused:
        found = [f"sslmode=verify-full does not succeed: {refused}"]
        steps = ["ask the DBA for a certificate that is for the name you use; or use its name"]
        if shown.name_error is None:
            steps = []
    report(facts, lines, as_json=as_json, next_steps=steps, warnings=found)
