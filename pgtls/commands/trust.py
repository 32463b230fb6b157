"""``pgtls trust``: trust on first use, for every libpq client."""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import click
from OpenSSL.SSL import Connection
from twisted.internet.protocol import Factory, Protocol

from pgtls.certs import trust_on_first_use as trusting
from pgtls.certs.client_files import default_directory
from pgtls.certs.names import printable
from pgtls.certs.trust_on_first_use import CertificateChanged, RootFile, root_of
from pgtls.commands.reporting import CertificateCommand, json_option, report, user_option
from pgtls.commands.running import run
from pgtls.conninfo.connection_string import ConnInfo
from pgtls.errors import CertificateNotVerified, ConfigurationError, PgTLSError
from pgtls.protocols.endpoint import PgTLSClientEndpoint
from pgtls.tls.certificate import Certificate
from pgtls.tls.chain import verify_chain
from pgtls.tls.server_identity import verify_server_name
from pgtls.tls.tls_info import certificate_facts, chain_of_peer
from pgtls.wire.attempts import SSLMode

#: Seconds for each of the two connections.
TIMEOUT = 15

#: What of the environment counts: where the server is, and no file or sslmode.
_PLACE = ("HOME", "PGHOSTADDR", "PGPORT", "PGCONNECT_TIMEOUT")

_HOST_AND_PORT = re.compile(
    r"\[(?P<v6>[^]]+)\](:(?P<v6port>\d+))?|(?P<host>[^:]+)(:(?P<port>\d+))?"
)


class _Place(click.ParamType[tuple[str, str]]):
    """``HOST[:PORT]``; an IPv6 address with a port in brackets."""

    name = "HOST[:PORT]"

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[str, str]:
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

    def convert(self, value: Any, param: Any, ctx: Any) -> bytes:
        """Read it."""
        if isinstance(value, bytes):
            return value
        try:
            return trusting.parse_fingerprint(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


@dataclass(frozen=True)
class Shown:
    """What a server shows, and where it was.

    :ivar chain: the certificates that it sent, its own first.
    """

    conninfo: ConnInfo
    chain: list[Certificate]

    @property
    def host(self) -> str:
        """The name that a certificate must be for."""
        return self.conninfo.hosts[0].name

    @property
    def place(self) -> str:
        """As ``root.crt`` records it."""
        name = f"[{self.host}]" if ":" in self.host else self.host.lower()
        return f"{name}:{self.conninfo.hosts[0].port}"

    @property
    def name_error(self) -> str | None:
        """Why verify-full would refuse it for its name."""
        try:
            verify_server_name(self.chain[0], self.host)
        except CertificateNotVerified as error:
            return error.reason
        return None


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
    """Trust the server HOST from now on, as ssh does with a host that it meets first.

    Fetches the server's certificates over PostgreSQL's own negotiation, shows their names, dates
    and fingerprints, asks, and adds the root to ~/.postgresql/root.crt. That is the file by which
    libpq verifies: psql, and every driver that is made with libpq, verifies the server from then
    on wherever there is TLS. sslmode=verify-full makes sure that there is, and that the server is
    the one you named; under prefer, what does not verify ends in plaintext.

    Whoever is between you and the server at this moment could show you a certificate of theirs.
    So compare the fingerprint with one that came another way: by telephone, or from the server's
    own machine, where this prints it:

    \b
        openssl x509 -in server.crt -noout -fingerprint -sha256

    Without a terminal to ask at, --fingerprint is needed. A server that was trusted and shows
    another certificate now is refused. Where a server does not send its root certificate, nothing
    can be added: ask whoever runs it for that file.

    Exit status: 0 when the server is trusted, 1 when not (the reason on standard error; nothing
    was written), 2 for arguments that cannot be used.

    \b
    Examples:
        pgtls trust db.example.com
        pgtls trust db.example.com:6432 --fingerprint 7E:31:4C:...:9F
    """
    where = directory or default_directory()
    host, port = place
    parameters = {"host": host, "port": port, "sslmode": "require", "sslnegotiation": "postgres"}
    environ = {name: os.environ[name] for name in _PLACE if name in os.environ}
    try:
        conninfo = ConnInfo.from_parameters(parameters, environ)
    except ConfigurationError as error:
        raise click.UsageError(str(error)) from None

    async def main(reactor: Any) -> None:
        shown = await _fetch(reactor, conninfo)
        facts = _facts(shown)
        how, added = _decide(shown, where, fingerprint, as_json=as_json)
        root_crt = trusting.trust_root(where, shown.place, shown.chain, added)
        refused = await _verify(reactor, conninfo, root_crt)
        facts |= {"trusted_by": how, "added": added is not None, "root_crt": str(root_crt)}
        _report(shown, facts, refused, as_json=as_json, default=directory is None)

    run(main)


async def _fetch(reactor: Any, conninfo: ConnInfo) -> Shown:
    """Connect without verifying anything, and without showing a certificate of ours."""
    # Without a home directory there is no root.crt that would decide, and no postgresql.crt.
    bare = replace(conninfo, home=None, connect_timeout=conninfo.connect_timeout or TIMEOUT)
    protocol = await PgTLSClientEndpoint(reactor, bare).connect(Factory.forProtocol(Protocol))
    transport = cast(Any, protocol).transport
    connection = cast(Connection, transport.getHandle())
    try:
        return Shown(conninfo, chain_of_peer(connection))
    finally:
        transport.abortConnection()


def _decide(
    shown: Shown, where: Path, fingerprint: bytes | None, *, as_json: bool
) -> tuple[str, Certificate | None]:
    """Whether the server is to be trusted.

    :returns: by what, and the root to add; None for one that is in ``root.crt`` already.
    :raises PgTLSError: it is not.
    """
    _show(shown, as_json=as_json)
    file = RootFile.read(where / "root.crt")
    try:
        known = trusting.known(file, shown.chain, shown.place)
    except CertificateChanged as error:
        _warn_of_change(shown, file.path)
        raise CertificateNotVerified(
            f"the certificate of {shown.place} has changed: {error.reason}; nothing was written"
        ) from error
    root = None if known else root_of(shown.chain)
    if root and (failure := verify_chain(shown.chain, [root])):
        raise CertificateNotVerified(f"no client could verify this server: {failure.reason}")
    if fingerprint is not None:
        return f"fingerprint of the {_matching(shown, root, fingerprint)}", root
    if known:
        return "root.crt", None
    return _ask(shown, file), root


def _matching(shown: Shown, root: Certificate | None, fingerprint: bytes) -> str:
    """:returns: which certificate it was. :raises CertificateNotVerified: none."""
    candidates = {"server's own certificate": shown.chain[0], "root": root}
    if root is None and len(shown.chain) > 1:  # known already, and it need not be sent then
        candidates["root"] = shown.chain[-1]
    for name, certificate in candidates.items():
        if certificate and certificate.sha256 == fingerprint:
            return name
    raise CertificateNotVerified(
        f"neither the server's certificate nor its root has that fingerprint: {shown.place} is "
        "another server, or somebody is between you and it; nothing was written"
    )


def _ask(shown: Shown, file: RootFile) -> str:
    if not sys.stdin.isatty():
        raise ConfigurationError(
            "there is no terminal to ask at, and nothing was written; compare the fingerprint "
            "with what the server's DBA says, and give it with --fingerprint"
        )
    if shown.name_error:
        click.echo(f"Note: {printable(shown.name_error)}: verify-full will refuse it.", err=True)
    if file.content.strip():
        click.echo(f"Note: no root in {file.path} verifies this server.", err=True)
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


async def _verify(reactor: Any, conninfo: ConnInfo, root_crt: Path) -> str | None:
    """Connect as a client will from now on.

    :returns: why verify-full fails, None where it succeeds.
    """
    full = replace(
        conninfo,
        sslmode=SSLMode.VERIFY_FULL,
        sslrootcert=str(root_crt),
        home=None,
        connect_timeout=conninfo.connect_timeout or TIMEOUT,
    )
    try:
        protocol = await PgTLSClientEndpoint(reactor, full).connect(Factory.forProtocol(Protocol))
    except PgTLSError as error:
        return error.reason
    cast(Any, protocol).transport.abortConnection()
    return None


def _facts(shown: Shown) -> dict[str, Any]:
    return {
        "host": shown.host,
        "port": shown.conninfo.hosts[0].port,
        "chain": [
            {**certificate_facts(each), "fingerprint": trusting.fingerprint(each)}
            for each in shown.chain
        ],
    }


def _show(shown: Shown, *, as_json: bool) -> None:
    """What the server sent, before anything is asked; never where JSON goes."""
    click.echo(f"{shown.place} shows:", err=as_json)
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
            click.echo(line, err=as_json)


def _warn_of_change(shown: Shown, path: Path) -> None:
    edge = "@" * 75
    click.echo(
        f"{edge}\nWARNING: THE CERTIFICATE OF {shown.place.upper()} HAS CHANGED!\n{edge}\n"
        "Somebody may be between you and the server, reading and changing everything.\n"
        "It may also be that the DBA has a new authority. Ask, and compare the\n"
        "fingerprint. If it is so: take the old one, it follows the line\n"
        f'"# pgtls trust: {shown.place} ...", out of {path}, and run this again.',
        err=True,
    )


def _report(
    shown: Shown, facts: dict[str, Any], refused: str | None, *, as_json: bool, default: bool
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
    file = "" if default else f" sslrootcert={facts['root_crt']}"
    steps = [f'psql "host={shown.host} port={port} dbname=DB user=ROLE sslmode=verify-full{file}"']
    found = []
    if refused:
        found = [f"sslmode=verify-full does not succeed: {printable(refused)}"]
        steps = ["ask the DBA for a certificate that is for the name you use; or use its name"]
        if shown.name_error is None:
            steps = []
    report(facts, lines, as_json=as_json, next_steps=steps, warnings=found)
