"""``pgtls client-conf`` and ``pgtls sign``: the DBA's steps to a user's certificate."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from pgtls.certs import expiry, issuing
from pgtls.certs.authority import CLIENT_DAYS, Authority
from pgtls.certs.client_conf import ClientConf, fields_of, subject_of
from pgtls.certs.database import Database
from pgtls.certs.files import clear_output, refuse_foreign, write_file
from pgtls.certs.keys import KeyType, describe_key
from pgtls.certs.request import Request, read_request
from pgtls.commands.reporting import (
    CertificateCommand,
    SubjectField,
    authority_option,
    days_option,
    force_option,
    json_option,
    key_type_option,
    output_option,
    passphrase_of,
    passphrase_option,
    report,
    say,
)
from pgtls.errors import ConfigurationError
from pgtls.text import printable
from pgtls.tls.sources import read_chain
from pgtls.tls.tls_info import certificate_facts


@click.command("client-conf", cls=CertificateCommand)
@authority_option
@output_option
@click.option(
    "--subject",
    "fields",
    type=SubjectField(),
    multiple=True,
    help="A field of every client certificate, such as 'O=Example Inc.': C, ST, L, O or OU. "
    "Without any: those of the authority.",
)
@key_type_option(KeyType.ECDSA, "The kind of key that users make: ecdsa (the default), rsa, ...")
@force_option
def client_conf(
    directory: Path,
    output: Path | None,
    fields: tuple[tuple[str, str], ...],
    key_type: KeyType,
    force: bool,
) -> None:
    """Print client.conf for the users of this site (step 1 of 4).

    It holds the fields that all client certificates share, the kind of key, and root.crt. None
    of it is secret; but changed on its way to a user it can name another authority, so
    tell your users the SHA-256 of root.crt by other means.

    \b
    Examples:
        pgtls client-conf -D ca -o client.conf
        pgtls client-conf -D ca --subject "O=Example Inc." --key-type rsa
    """
    root = read_chain(directory / "root.crt").certificates[0]
    try:
        subject = subject_of(fields or fields_of(root))
    except ConfigurationError as error:
        raise click.UsageError(str(error)) from None
    text = ClientConf(subject, key_type, root).text()
    if output is None:
        click.echo(text, nl=False)
    else:
        clear_output(output, overwrite=force)
        write_file(output, text.encode(), overwrite=force)
    name = output or "client.conf"
    say(f"SHA-256 of root.crt, for your users to compare: {root.fingerprint}", err=True)
    say(f"Next: users run: pgtls keygen --conf {shlex.quote(str(name))}", err=True)


@click.command(cls=CertificateCommand)
@authority_option
@click.argument("request", metavar="postgresql.csr", type=click.Path(path_type=Path))
@output_option
@click.option("--yes", is_flag=True, help="Sign without asking.")
@click.option(
    "--renew",
    is_flag=True,
    help="Replace the certificate that is there; it can stand for the request itself.",
)
@days_option(CLIENT_DAYS, "How long the certificate is good for.")
@force_option
@passphrase_option
@json_option
def sign(
    directory: Path,
    request: Path,
    output: Path | None,
    yes: bool,
    renew: bool,
    days: int,
    force: bool,
    passphrase_file: Path | None,
    as_json: bool,
) -> None:
    """Sign a user's certificate request (step 3 of 4).

    What comes out is postgresql.crt, beside the request. The request is a certificate request or a
    self-signed certificate, PEM or DER. Its signature must show that the sender has the private
    key. You are shown what will be certified, and asked: above all, make sure that it comes from
    the one who may use that role. Of the request count only the key and the subject; extensions
    that it asks for are left out, and named.

    With --renew the old postgresql.crt can be given in place of the request.

    \b
    Examples:
        pgtls sign -D ca postgresql.csr
        pgtls sign -D ca --renew --days 90 -o alice.crt alice.crt
    """
    refuse_foreign(directory)
    authority = Authority.load(directory, passphrase_of(directory / "root.key", passphrase_file))
    authority.refuse_expired()
    asked = read_request(request, authority.shown, renew=renew)
    target = output or request.expanduser().absolute().with_suffix(".crt")
    clear_output(target, overwrite=renew or force)
    _show(directory, asked, quiet=as_json)
    if not yes and not _agreed():
        raise ConfigurationError("not signed")
    certificate = issuing.sign(authority, asked, target, days, overwrite=renew or force)
    facts = certificate_facts(certificate)
    again = " --force" if renew else ""
    report(
        {"postgresql_crt": str(target), "certificate": facts, "left_out": asked.left_out},
        [
            f"Signed: {target}",
            f"  serial {facts['serial']}, until {certificate.not_after:%Y-%m-%d}",
        ],
        as_json=as_json,
        next_steps=[
            f"send {target} to the user, who runs: pgtls install{again} {shlex.quote(target.name)}"
        ],
        warnings=expiry.warnings(directory, Database.read(directory)),
    )


def _show(directory: Path, asked: Request, *, quiet: bool) -> None:
    """What will be signed; on standard error where JSON goes to standard output."""
    lines = [
        f"Role:    {printable(asked.role)}",
        f"Subject: {printable(asked.subject.rfc4514_string())}",
        f"Key:     {describe_key(asked.public_key)}; "
        f"the sender of the {asked.kind} has the private one",
        "For:     TLS clients (clientAuth)",
    ]
    lines += [f"Left out: {printable(one)}" for one in asked.left_out]
    for certificate in issuing.current_certificates(directory, asked):
        end = certificate.not_after
        lines.append(
            f"Note: this key has certificate {certificate.serial_hex} until {end:%Y-%m-%d}"
        )
    for line in lines:
        say(line, err=quiet)


def _agreed() -> bool:
    try:
        return click.confirm("Sign it?", err=True)
    except click.Abort:
        click.echo(err=True)
        return False
