"""``pgtls tunnel``: a gateway of this machine's own, to a server behind an SSH server."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path

import click
from twisted.internet.endpoints import quoteStringArgument
from twisted.scripts import twistd

from pgtls.commands.reporting import say
from pgtls.conninfo.connection_string import ConnInfo
from pgtls.conninfo.grammar import format_text
from pgtls.daemon.startup_notice import print_line
from pgtls.errors import ConfigurationError
from pgtls.transport.ssh_settings import parse_ssh_server

DEFAULT_PORT = 6432
#: The port in the name of a Unix socket, which clients take where none is named.
SOCKET_PORT = 5432


@click.command()
@click.argument("ssh")
@click.argument("conninfo")
@click.option(
    "--port",
    type=click.IntRange(1, 65535),
    help=f"Listen on this port of 127.0.0.1 [default: {DEFAULT_PORT}].",
)
@click.option(
    "--socket",
    "directory",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Listen on a Unix-domain socket in this directory instead, for your user alone.",
)
@click.option(
    "--identity-file",
    "-i",
    type=click.Path(path_type=Path),
    help="The private key for SSH [default: the usual ones in ~/.ssh, and the agent's].",
)
@click.option(
    "--known-hosts",
    type=click.Path(path_type=Path),
    help="The file with the SSH server's host key [default: ~/.ssh/known_hosts].",
)
@click.option("--passphrase-command", help="A command that prints the private key's passphrase.")
def tunnel(
    ssh: str,
    conninfo: str,
    port: int | None,
    directory: Path | None,
    identity_file: Path | None,
    known_hosts: Path | None,
    passphrase_command: str | None,
) -> None:
    """Reach a server behind an SSH server, from this machine.

    SSH is the SSH server, ssh://user@bastion:22. CONNINFO is a libpq connection string: the
    PostgreSQL server as the SSH server reaches it, and what is asked of its TLS, which goes on
    inside the tunnel. Clients on this machine connect without TLS to 127.0.0.1, or to a socket.

    One SSH connection is for all sessions; it is made again when it is lost. The SSH server's host
    key must be known. Ctrl-C ends the tunnel, when its sessions have ended; once more, at once.

    \b
    Examples:
        pgtls tunnel ssh://alice@bastion.example.com "host=db.internal sslmode=verify-full"
        pgtls tunnel ssh://alice@bastion.example.com "host=db.internal" --socket .
    """
    from twisted.internet import reactor  # noqa: PLC0415 - importing it installs it

    try:
        parse_ssh_server(ssh)
        ConnInfo.parse(conninfo, os.environ)
        if directory is not None and port is not None:
            raise ConfigurationError("--port or --socket, not both")
    except ConfigurationError as error:
        for mistake in error.mistakes:
            say(mistake, err=True)
        sys.exit(2)
    client, listen = _place(port or DEFAULT_PORT, directory)
    options = {
        "listen": listen,
        "ssl": "off",
        "upstream": conninfo,
        "upstream-via": ssh,
        "ssh-identity-file": identity_file,
        "ssh-known-hosts-file": known_hosts,
        "ssh-passphrase-command": passphrase_command,
    }
    line = shlex.join(["psql", format_text(client)])
    # It runs when the port is open: twistd ends before that where it cannot be.
    reactor.callWhenRunning(print_line, f"connect with:\n\n    {line}\n")
    given = [f"--{name}={value}" for name, value in options.items() if value is not None]
    sys.argv = ["twistd", "--pidfile=", "--nodaemon", "pgtls", *given]
    twistd.run()


def _place(port: int, directory: Path | None) -> tuple[dict[str, str], str]:
    """Where to connect to, and the endpoint string for it."""
    if directory is None:
        client = {"host": "127.0.0.1", "port": str(port)}
        return {**client, "sslmode": "disable"}, f"tcp:{port}:interface=127.0.0.1"
    path = directory.absolute() / f".s.PGSQL.{SOCKET_PORT}"
    return {"host": str(path.parent)}, f"unix:{quoteStringArgument(str(path))}:mode=600"
