"""The ``pgtls`` command."""

from __future__ import annotations

import click

from pgtls.commands.client_certificate import install, keygen
from pgtls.commands.explain import explain
from pgtls.commands.issued import crl, list_issued, revoke
from pgtls.commands.mkcert import mkcert
from pgtls.commands.probe import probe
from pgtls.commands.signing import client_conf, sign
from pgtls.commands.trust import trust


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="pgtls")
def main() -> None:
    """TLS for anything that speaks PostgreSQL.

    Certificates: mkcert for the server; client-conf, keygen, sign and install, in this order, for
    a user; list, revoke and crl afterwards. A server that has one already: trust.

    What happens: explain says what a client would do, without connecting; probe connects;
    probe --all surveys a server, and probe --check watches it.

    The gateway is run by twistd: see "twistd pgtls --help".

    Completion with Tab, for bash (zsh and fish: their name in place of bash):

    \b
        eval "$(_PGTLS_COMPLETE=bash_source pgtls)"
    """


for command in (
    *(mkcert, client_conf, keygen, sign, install, list_issued, revoke, crl, trust),
    *(explain, probe),
):
    main.add_command(command)
