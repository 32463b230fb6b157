"""The ``pgtls`` command."""

from __future__ import annotations

import gc
from importlib import import_module

import click

#: Where each command is, and the beginning of its help: what is not asked for is not imported.
_COMMANDS = {
    "auth-file": (
        "write_auth_file:auth_file",
        "Write the SCRAM secrets of roles into an auth_file.",
    ),
    "check": (
        "check:check",
        "Say what a start or a reload with CONFIG would say.",
    ),
    "client-conf": (
        "signing:client_conf",
        "Print client.conf for the users of this site (step 1 of 4).",
    ),
    "crl": ("issued:crl", "Make root.crl, the list of revoked certificates, anew."),
    "explain": (
        "explain:explain",
        "Say what a libpq client will do with CONNINFO, offline.",
    ),
    "hba": (
        "hba:hba",
        "Say which line of hba_file decides about a client, and why.",
    ),
    "install": (
        "client_certificate:install",
        "Check and install the certificate you got (step 4 of 4).",
    ),
    "keygen": (
        "client_certificate:keygen",
        "Make your private key and certificate request (step 2 of 4).",
    ),
    "list": (
        "issued:list_issued",
        "List the certificates issued: to whom, until when, revoked.",
    ),
    "mkcert": (
        "mkcert:mkcert",
        "Make an authority, and a certificate for the server NAME...",
    ),
    "probe": ("probe:probe", "Connect as a client would, and say what happened."),
    "revoke": ("issued:revoke", "Revoke a certificate, for good, and make root.crl anew."),
    "route": ("route:route", "Say which server a session would go to, and why."),
    "sign": ("signing:sign", "Sign a user's certificate request (step 3 of 4)."),
    "tunnel": (
        "tunnel:tunnel",
        "Reach a server behind an SSH server, from this machine.",
    ),
    "top": ("top:top", "Show what a gateway's daemon is doing."),
    "trust": (
        "trust:trust",
        "Trust the server HOST from now on (trust on first use).",
    ),
}


class _CommandsWhenAskedFor(click.Group):
    """The commands, each imported when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Their names."""
        return sorted(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """One of them."""
        if cmd_name not in _COMMANDS:
            return None
        module, _, name = _COMMANDS[cmd_name][0].partition(":")
        gc.disable()  # what is imported is not garbage, and there is much of it to go through
        try:
            command: click.Command = getattr(import_module(f"pgtls.commands.{module}"), name)
        finally:
            gc.enable()
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Their list, as click has it."""
        limit = formatter.width - 6 - max(map(len, _COMMANDS))
        with formatter.section("Commands"):
            formatter.write_dl(
                [
                    (name, click.Command(name, help=text).get_short_help_str(limit))
                    for name, (_, text) in sorted(_COMMANDS.items())
                ]
            )


@click.group(cls=_CommandsWhenAskedFor, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="pgtls")
def main() -> None:
    """TLS for anything that speaks PostgreSQL.

    Certificates: mkcert makes an authority and the server's certificate. For a user's, the DBA and
    the user take turns: client-conf, keygen, sign, install. Afterwards: list, revoke and crl. For a
    server that has a certificate already: trust.

    Connections: explain says what a client would do, without connecting; probe connects, probe
    --all surveys a server, and probe --check watches it.

    A server behind an SSH server: tunnel.

    A gateway's configuration: check says what is wrong with it, hba who may connect, and route
    where to.

    A gateway that runs: top shows what it does.

    The gateway is run by twistd: see "twistd pgtls --help".

    \b
    Examples:
        pgtls mkcert -D ca db.example.com
        pgtls probe --all "host=db.example.com user=alice"
        pgtls COMMAND --help

    Completion with Tab, for bash (zsh and fish: their name in place of bash):

    \b
        eval "$(_PGTLS_COMPLETE=bash_source pgtls)"
    """
