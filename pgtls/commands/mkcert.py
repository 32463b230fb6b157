"""``pgtls mkcert``: an authority, and a certificate for the server."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from pgtls.certs import expiry, server_files
from pgtls.certs.database import Database
from pgtls.certs.keys import KeyType
from pgtls.certs.names import general_names
from pgtls.certs.server_files import ServerFiles
from pgtls.commands.reporting import (
    CertificateCommand,
    authority_option,
    force_option,
    json_option,
    key_type_option,
    new_passphrase,
    passphrase_of,
    passphrase_option,
    postgresql_conf_value,
    psql_line,
    report,
)
from pgtls.errors import ConfigurationError
from pgtls.tls.sources import read_chain
from pgtls.tls.tls_info import certificate_facts


@click.command(cls=CertificateCommand)
@authority_option
@click.argument("names", metavar="NAME...", nargs=-1)
@click.option("--renew", is_flag=True, help="A new server.crt for the key and names of this one.")
@click.option("--encrypt", is_flag=True, help="Encrypt a new root.key with a passphrase.")
@force_option
@key_type_option(KeyType.ECDSA, "The kind of new keys: ecdsa (the default), rsa or ed25519.")
@passphrase_option
@json_option
def mkcert(
    directory: Path,
    names: tuple[str, ...],
    renew: bool,
    encrypt: bool,
    force: bool,
    key_type: KeyType,
    passphrase_file: Path | None,
    as_json: bool,
) -> None:
    """Make an authority, and a certificate for the server NAME...

    NAMEs are the host names and addresses that clients connect to; "*.example.com" covers one
    level. In the directory are then server.crt and server.key for the server, root.crt for its
    clients, and root.key, which signs: its holder can act as any server and any user.

    An authority that is there is used, and never replaced. A server certificate that is there is
    replaced by --renew (same key; same names unless others are given) or --force (new key).

    What it prints can go into postgresql.conf as it is. The server's own user must run this:
    PostgreSQL refuses another user's key file.

    \b
    Examples:
        pgtls mkcert -D ca db.example.com 192.0.2.10
        pgtls mkcert -D ca db.example.com | tee -a "$PGDATA/postgresql.conf"
        pgtls mkcert -D ca --renew
    """
    if not names and not renew:
        raise click.UsageError("a server certificate needs a host name or an IP address")
    _refuse_unusable(names)
    root_key = directory / "root.key"
    password = passphrase_of(root_key, passphrase_file)
    if renew:
        files = server_files.renew(directory, names, password)
    else:
        new = None
        if encrypt and (directory / "root.crt").exists():
            raise ConfigurationError(
                f'"{root_key}" is there already: --encrypt is for a new one; to encrypt this one, '
                "openssl pkey -aes256"
            )
        if encrypt and not root_key.exists():
            new = new_passphrase(root_key, passphrase_file)
        files = server_files.mkcert(
            directory, names, force=force, key_type=key_type, password=password, new_password=new
        )
    _report(directory, files, as_json)


def _refuse_unusable(names: tuple[str, ...]) -> None:
    if names:
        try:
            general_names(names)
        except ConfigurationError as error:
            raise click.UsageError(str(error)) from None


def _report(directory: Path, files: ServerFiles, as_json: bool) -> None:
    root = read_chain(files.root_crt).certificates[0]
    conf = {
        "ssl": "on",
        "ssl_cert_file": postgresql_conf_value(files.server_crt),
        "ssl_key_file": postgresql_conf_value(files.server_key),
        "ssl_ca_file": postgresql_conf_value(files.root_crt),
    }
    settings = [f"{name} = {value}" for name, value in conf.items()]
    facts: dict[str, object] = {
        "directory": str(directory),
        "root_created": files.root_created,
        "root": certificate_facts(root),
        "server": certificate_facts(files.certificate),
        "postgresql.conf": settings,
    }
    end = files.certificate.not_after
    lines = [
        f"# {'New authority' if files.root_created else 'Authority'}: {files.root_crt}",
        f"#   SHA-256 {root.fingerprint}",
        f"# Certificate for {', '.join(server_files.names_of(files.certificate))}, "
        f"until {end:%Y-%m-%d}: {files.server_crt}",
        "# These lines are for postgresql.conf:",
        *settings,
        "# Revoked certificates; this file must be renewed before it expires (pgtls crl):",
        f"#ssl_crl_file = {postgresql_conf_value(directory / 'root.crl')}",
    ]
    steps = [
        "put these lines into postgresql.conf; reload the server: SELECT pg_reload_conf()",
        "clients verify it by root.crt: "
        + psql_line(host="HOST", sslmode="verify-full", sslrootcert=str(files.root_crt)),
        "for users with certificates, pg_hba.conf: hostssl all all all cert",
        f"and for them: pgtls client-conf -D {shlex.quote(str(directory))} -o client.conf",
    ]
    found = expiry.warnings(directory, Database.read(directory))
    report(facts, lines, as_json=as_json, next_steps=steps, warnings=found, mark="# ")
