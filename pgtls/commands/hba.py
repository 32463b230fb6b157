"""``pgtls hba``: which line of an ``hba_file`` decides about a client, and why."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Sequence
from ipaddress import ip_address
from pathlib import Path

import click

from pgtls.commands.reporting import json_option, report, say
from pgtls.daemon.configuration import Configuration
from pgtls.errors import ConfigurationError
from pgtls.gateway.gateway_configuration import GatewayConfiguration
from pgtls.policy.client_identity import ClientCert
from pgtls.policy.hba_file import load_hba_file
from pgtls.policy.hba_rules import (
    AuthMethod,
    ConnectionRequest,
    HbaLine,
    HbaRules,
    HbaUndecided,
    HostNameNeeded,
    IPAddress,
    RemoteHost,
    refusal,
)
from pgtls.protocols.hba_policy import interfaces

#: What a client still has to do where a line lets it in.
_METHODS = {
    AuthMethod.TRUST: "the gateway asks for nothing; the server asks for what it likes",
    AuthMethod.CERT: "the client certificate must name the role",
    AuthMethod.SCRAM_SHA_256: "the gateway asks for the password (SCRAM)",
}
_CLIENTCERT = {
    ClientCert.VERIFY_CA: "a valid client certificate is required",
    ClientCert.VERIFY_FULL: "a client certificate that names the role is required",
}


class _Address(click.ParamType[IPAddress | None]):
    """An IP address, or ``local``."""

    name = "address"

    def convert(
        self, value: str, param: click.Parameter | None, ctx: click.Context | None
    ) -> IPAddress | None:
        """None for ``local``."""
        if value == "local":
            return None
        try:
            return ip_address(value)
        except ValueError:
            self.fail(f'"{value}" is neither an IP address nor "local"', param, ctx)


@click.command()
@click.argument("config", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--user", required=True, help="The role that the client asks for.")
@click.option("--database", help="The database; by default the one named as the role.")
@click.option(
    "--address", type=_Address(), required=True, help='Where it comes from; "local": Unix socket.'
)
@click.option("--no-ssl", is_flag=True, help="It comes in plaintext.")
@click.option("--replication", is_flag=True, help="It asks for physical replication.")
@click.option("--gateway", "number", type=int, help="Which [[gateway]] table, from 1.")
@json_option
def hba(
    config: Path,
    user: str,
    database: str | None,
    address: IPAddress | None,
    no_ssl: bool,
    replication: bool,
    number: int | None,
    as_json: bool,
) -> None:
    """Say which line of hba_file decides about a client, and why.

    CONFIG is the daemon's configuration, pgtls.toml; names of files in it count from here, as for
    the daemon. Nothing is connected to, and no port is opened; where a line has a host name, the
    address is looked up as the gateway would.

    Exit status: 0 if the client may connect, 1 if it is refused, 2 if the configuration or the
    file cannot be used.

    \b
    Examples:
        pgtls hba pgtls.toml --user alice --database app --address 192.0.2.7
        pgtls hba pgtls.toml --user bob --address 2001:db8::1 --no-ssl
        pgtls hba pgtls.toml --user postgres --address local --json
    """
    try:
        configuration = Configuration.from_toml(config)
        configuration.mistakes.check()
        path = _hba_file(configuration.gateways, number)
        rules = load_hba_file(path, interfaces)
    except ConfigurationError as error:
        for mistake in error.mistakes:
            say(mistake, err=True)
        sys.exit(2)
    request = ConnectionRequest(
        address=address,
        tls=not no_ssl and address is not None,
        database=os.fsencode(database or user),
        user=os.fsencode(user),
        replication=replication,
    )
    sys.exit(_explain(rules, request, as_json=as_json))


def _hba_file(gateways: Sequence[GatewayConfiguration], number: int | None) -> str:
    """:raises ConfigurationError: it is not clear which one is meant."""
    named = {
        place: gateway.settings.listener.hba_file
        for place, gateway in enumerate(gateways, 1)
        if gateway.settings.listener.hba_file and number in (None, place)
    }
    if not named:
        raise ConfigurationError("no such gateway has an hba_file")
    if len(set(named.values())) > 1:
        listed = ", ".join(map(str, named))
        raise ConfigurationError(f"gateways {listed} have an hba_file each: say --gateway N")
    return next(iter(named.values()))


def _explain(rules: HbaRules, request: ConnectionRequest, *, as_json: bool) -> int:
    """:returns: the exit status."""
    looked_up: list[str] = []
    line, undecided = None, ""
    try:
        try:
            line = rules.find(request)
        except HostNameNeeded:
            assert request.address is not None  # noqa: S101 - a local client has no host name
            remote = _remote_host(request.address)
            looked_up.append(_host_text(request.address, remote))
            request = request._replace(remote_host=remote)
            line = rules.find(request)
    except HbaUndecided as slow:
        undecided = str(slow)
    error = refusal(request, line)
    passed_over = [] if undecided else _passed_over(rules, request, line)
    report(
        {
            "file": line.file_name if line is not None else None,
            "line": line.line_number if line is not None else None,
            "text": line.text if line is not None else None,
            "method": line.method if line is not None else None,
            "refused": error.message if error is not None else None,
            "passed_over": passed_over,
        },
        [*passed_over, *looked_up, *([undecided] if undecided else []), *_verdict(line)]
        + ([f"FATAL:  {error.message}"] if error is not None else []),
        as_json=as_json,
    )
    return 0 if error is None else 1


def _passed_over(rules: HbaRules, request: ConnectionRequest, line: HbaLine | None) -> list[str]:
    said = []
    for each in rules.lines:
        if each is line:
            break
        field = rules.mismatch(each, request)
        said.append(f"{each.file_name}:{each.line_number}: the {field} does not match: {each.text}")
    return said


def _verdict(line: HbaLine | None) -> list[str]:
    if line is None:
        return ["No line matches."]
    said = [f"{line.file_name}:{line.line_number} decides: {line.text}"]
    needs = [_METHODS.get(line.method, "")]
    if line.method is not AuthMethod.CERT:
        needs.append(_CLIENTCERT.get(line.clientcert, ""))
    return said + [f"{line.method}: {'; '.join(filter(None, needs))}"] * any(needs)


def _host_text(address: IPAddress, remote: RemoteHost) -> str:
    if remote.name is None:
        return f"{address} has no host name."
    back = "resolves" if remote.confirmed else "does not resolve"
    return f"{address} has the host name {remote.name}, which {back} to it."


def _remote_host(address: IPAddress) -> RemoteHost:
    """The double lookup, as :mod:`pgtls.transport.remote_host` does it without waiting."""
    try:
        name, _ = socket.getnameinfo((str(address), 0), socket.NI_NAMEREQD)
        found = socket.getaddrinfo(name, None)
    except OSError:
        return RemoteHost(None, confirmed=False)
    return RemoteHost(name, confirmed=str(address) in {each[4][0] for each in found})
