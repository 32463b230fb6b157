"""The ``pgtls`` command."""

from __future__ import annotations

import click

from pgtls.commands.client_certificate import install, keygen
from pgtls.commands.mkcert import mkcert
from pgtls.commands.probe import probe
from pgtls.commands.revocation import crl, list_issued, revoke
from pgtls.commands.signing import client_conf, sign


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="pgtls")
def main() -> None:
    """TLS for anything that speaks PostgreSQL.

    Certificates: mkcert for the server; client-conf, keygen, sign and install, in this order, for
    a user; list, revoke and crl afterwards.

    The gateway is run by twistd: see "twistd pgtls --help".
    """


for command in (mkcert, client_conf, keygen, sign, install, list_issued, revoke, crl, probe):
    main.add_command(command)
