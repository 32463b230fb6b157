"""The ``pgtls`` command."""

from __future__ import annotations

import click

from pgtls.commands.probe import probe


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="pgtls")
def main() -> None:
    """TLS for anything that speaks PostgreSQL.

    The gateway is run by twistd: see "twistd pgtls --help".
    """


main.add_command(probe)
