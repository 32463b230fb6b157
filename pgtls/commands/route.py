"""``pgtls route``: which server a session would go to, and why."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import attrs
import click

from pgtls.commands.reporting import json_option, report, say
from pgtls.conninfo.connection_string import ConnInfo
from pgtls.conninfo.grammar import format_text, parse_text
from pgtls.conninfo.keywords import OPTIONS
from pgtls.conninfo.template import ConnInfoTemplate
from pgtls.daemon.configuration import Configuration
from pgtls.daemon.mistakes import Mistakes
from pgtls.daemon.route_tables import parsed_routes
from pgtls.errors import ConfigurationError
from pgtls.gateway.gateway_configuration import GatewayConfiguration
from pgtls.gateway.route_upstream import database_of
from pgtls.gateway.routed_upstreams import DEFAULT, no_route
from pgtls.gateway.routes import Route, RouteTable

_HIDDEN = "********"


@dataclass(frozen=True)
class _Asked:
    """What a client asks for.

    :ivar sni: the host name; None for none.
    """

    sni: str | None
    database: str
    user: str


@dataclass(frozen=True)
class _Answer:
    """Where its session goes.

    :ivar route: the route's number, or ``default``; None where the client is refused.
    :ivar upstream: what is written there, filled in, its passwords hidden.
    :ivar database: the database asked for there.
    :ivar refused: why there is none.
    """

    route: str | None
    upstream: str | None = None
    hosts: tuple[str, ...] = ()
    database: str | None = None
    refused: str | None = None


@click.command()
@click.argument("config", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--sni", help="The host name that the client asks for in TLS; without it: none.")
@click.option("--user", required=True, help="The role that the client asks for.")
@click.option("--database", help="The database; by default the one named as the role.")
@click.option("--gateway", "number", type=int, help="Which [[gateway]] table, from 1.")
@json_option
def route(
    config: Path,
    sni: str | None,
    user: str,
    database: str | None,
    number: int | None,
    as_json: bool,
) -> None:
    """Say which server a session would go to, and why.

    CONFIG is the daemon's configuration, pgtls.toml. Nothing is connected to, no name is looked up,
    and no file of certificates is read. The upstream's password is not shown.

    Exit status: 0 if the session goes somewhere, 1 if it is refused, 2 if the configuration cannot
    be used.

    \b
    Examples:
        pgtls route pgtls.toml --sni acme.example.com --user alice --database app
        pgtls route pgtls.toml --user alice --json
    """
    asked = _Asked(sni, database or user, user)
    mistakes = Mistakes()
    try:
        configuration = Configuration.from_toml(config)
        configuration.mistakes.check()
        gateway = _gateway(configuration, number)
        routes = [each for _, each in parsed_routes(gateway, mistakes)]
        mistakes.check()
        answer = _answer(gateway, routes, asked)
    except ConfigurationError as error:
        for mistake in error.mistakes:
            say(mistake, err=True)
        sys.exit(2)
    passed_over = _passed_over(routes, asked)
    report(
        {
            "route": answer.route,
            "upstream": answer.upstream,
            "hosts": list(answer.hosts),
            "database": answer.database,
            "refused": answer.refused,
            "passed_over": passed_over,
        },
        [*passed_over, *_verdict(answer)],
        as_json=as_json,
    )
    sys.exit(0 if answer.refused is None else 1)


def _gateway(configuration: Configuration, number: int | None) -> GatewayConfiguration:
    """:raises ConfigurationError: it is not clear which one is meant."""
    gateways = configuration.gateways
    if number is not None:
        if not 0 < number <= len(gateways):
            raise ConfigurationError(f"there is no gateway {number}")
        chosen = gateways[number - 1]
    else:
        routed = [gateway for gateway in gateways if gateway.routes] or list(gateways)
        if len(routed) > 1:
            listed = ", ".join(str(gateway.number) for gateway in routed)
            raise ConfigurationError(f"which of the gateways {listed}? Say --gateway N")
        (chosen,) = routed
    embedded = bool(configuration.daemon.embedded) and not chosen.settings.upstream
    return attrs.evolve(chosen, embedded=embedded)


def _answer(
    gateway: GatewayConfiguration, routes: Sequence[Route[ConnInfoTemplate]], asked: _Asked
) -> _Answer:
    """:raises ConfigurationError: the gateway's own upstream cannot be used."""
    database, user = asked.database.encode(), asked.user.encode()
    match = RouteTable(routes).find(asked.sni, database, user)
    refused = no_route(asked.sni, database, user)
    if match is None:
        if not gateway.has_own_upstream:
            return _Answer(None, refused=refused)
        if gateway.embedded:
            return _Answer(DEFAULT, "the embedded PostgreSQL", database=asked.database)
        own = gateway.settings.upstream
        conninfo = ConnInfo.parse(own, os.environ)
        return _filled(DEFAULT, parse_text(own), conninfo, asked.database)
    template = match.route.upstream
    try:
        conninfo = template.fill(match.label) if template.takes_label else template.example()
    except ConfigurationError as error:
        return _Answer(
            None, refused=f"{refused} (route {match.number}: {'; '.join(error.mistakes)})"
        )
    named = database_of(conninfo)
    wanted = asked.database if named is None else named.decode(errors="replace")
    return _filled(str(match.number), template.parameters(match.label), conninfo, wanted)


def _filled(name: str, parameters: Mapping[str, str], conninfo: ConnInfo, database: str) -> _Answer:
    shown = {
        keyword: _HIDDEN if OPTIONS[keyword].secret else value
        for keyword, value in parameters.items()
    }
    hosts = tuple(host.unix_path or f"{host.name}:{host.port}" for host in conninfo.hosts)
    return _Answer(name, format_text(shown), hosts, database)


def _passed_over(routes: Sequence[Route[ConnInfoTemplate]], asked: _Asked) -> list[str]:
    said = []
    for number, each in enumerate(routes, 1):
        field = each.mismatch(asked.sni, asked.database.encode(), asked.user.encode())
        if field is None:
            break
        said.append(f"route {number}: {field} does not match")
    return said


def _verdict(answer: _Answer) -> list[str]:
    if answer.refused is not None:
        return ["No route matches.", f"FATAL:  {answer.refused}"]
    decides = (
        "No route matches; the gateway's own upstream is for all others"
        if answer.route == DEFAULT
        else f"route {answer.route} decides"
    )
    where = f" ({', '.join(answer.hosts)})" if answer.hosts else ""
    return [
        f"{decides}: {answer.upstream}{where}",
        f'The database asked for there: "{answer.database}"',
    ]
