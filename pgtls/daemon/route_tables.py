"""The ``[[gateway.route]]`` tables of ``pgtls.toml``: what is in them, and where they lead."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from pgtls import settings
from pgtls.conninfo.connection_string import ConnInfo
from pgtls.conninfo.template import PLACE, ConnInfoTemplate
from pgtls.daemon.mistakes import Mistakes
from pgtls.daemon.ssh_loading import check_reachable
from pgtls.daemon.upstream_mistakes import upstream_mistakes
from pgtls.errors import ConfigurationError
from pgtls.gateway.gateway_configuration import GatewayConfiguration, RouteSettings
from pgtls.gateway.route_upstream import RouteUpstream, security_of
from pgtls.gateway.routes import Route
from pgtls.protocols.endpoint import PgTLSClientEndpoint
from pgtls.transport.reactor import IReactor

if TYPE_CHECKING:
    from pgtls.transport.ssh_tunnel import SSHTunnel


def read_toml(path: Path) -> dict[str, object]:
    """Read a configuration file.

    :param path: the file.
    :returns: what is in it.
    :raises ConfigurationError: it cannot be read.
    """
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror}") from error
    except ValueError as error:  # TOML's grammar, or UTF-8's
        raise ConfigurationError(f"{path}: {error}") from error


def without_routes(table: Mapping[str, object]) -> dict[str, object]:
    """The settings of a gateway.

    :param table: its table.
    :returns: the same without its routes.
    """
    return {name: value for name, value in table.items() if name != "route"}


def read_routes(
    table: Mapping[str, object], location: str, mistakes: Mistakes
) -> tuple[RouteSettings, ...]:
    """The routes of a gateway.

    :param table: its table.
    :param location: where that stands.
    :param mistakes: takes those that are found.
    :returns: the routes, in their order.
    """
    tables = table.get("route", [])
    if not isinstance(tables, list) or not all(isinstance(each, dict) for each in tables):
        mistakes.add(f"{location}write each route as a table [[gateway.route]]")
        return ()
    routes = []
    for number, each in enumerate(tables, 1):
        place = f"{location}route {number}: "
        route, wrong = settings.read_all(RouteSettings, each)
        for name, mistake in wrong.items():
            mistakes.add(f"{place}{mistake}", setting=name, location=place)
        if not route.upstream and "upstream" not in wrong:
            mistakes.add(f"{place}upstream is missing: a libpq connection string")
        routes.append(route)
    return tuple(routes)


def parsed_routes(
    gateway: GatewayConfiguration, mistakes: Mistakes
) -> list[tuple[str, Route[ConnInfoTemplate]]]:
    """The routes with their connection strings taken apart.

    :param gateway: the gateway's configuration.
    :param mistakes: takes those that are found.
    :returns: those routes that can be used, each with where it stands.
    """
    routes = []
    for number, route in enumerate(gateway.routes, 1):
        location = f"{gateway.location}route {number}: "
        with mistakes.at(location):
            if route.upstream:  # else that has been found already
                routes.append((location, _parsed(route)))
    return routes


def _parsed(route: RouteSettings) -> Route[ConnInfoTemplate]:
    """:raises ConfigurationError: with every mistake in the connection string."""
    try:
        template = ConnInfoTemplate.parse(route.upstream, os.environ)
    except ConfigurationError as error:
        found = dict.fromkeys([*error.mistakes, *upstream_mistakes(route.upstream)])
        raise ConfigurationError(*(f"upstream: {each}" for each in found)) from None
    if template.takes_label and not (
        route.sni and all(name.startswith("*.") for name in route.sni)
    ):
        raise ConfigurationError(
            rf'upstream: "{PLACE}" needs an sni that begins with "*.", and no other: '
            "it stands for that label"
        )
    return Route(
        route.sni,
        tuple(name.encode() for name in route.database),
        tuple(name.encode() for name in route.user),
        template,
    )


def loaded_routes(
    reactor: IReactor,
    gateway: GatewayConfiguration,
    mistakes: Mistakes,
    tunnel: SSHTunnel | None = None,
) -> tuple[Route[RouteUpstream], ...]:
    """The routes with all files of their upstreams read; those with the same parameters share them.

    :param reactor: Twisted's reactor.
    :param gateway: the gateway's configuration.
    :param mistakes: takes those that are found.
    :param tunnel: what they are reached through; None for this machine's network.
    :returns: those routes that can be used.
    """
    first: dict[ConnInfo, PgTLSClientEndpoint] = {}
    routes = []
    for location, parsed in parsed_routes(gateway, mistakes):
        security = security_of(parsed.upstream.example())
        shared = first.get(security)
        upstream = RouteUpstream(
            reactor,
            parsed.upstream,
            shared.tls if shared else None,
            dialer=tunnel,
            preface=gateway.preface,
        )
        first.setdefault(security, upstream.endpoint)
        if tunnel is not None:
            with mistakes.at(location):
                check_reachable(upstream.endpoint.conninfo)
        with mistakes.at(f"{location}upstream: "):
            upstream.endpoint.check()
        routes.append(Route(parsed.sni, parsed.database, parsed.user, upstream))
    return tuple(routes)


def upstreams_with_files(
    routes: tuple[Route[RouteUpstream], ...],
) -> Iterator[tuple[str, RouteUpstream]]:
    """The upstreams of routes, those once that use the same files.

    :param routes: the routes.
    :returns: the name of the first route for each, and where it leads.
    """
    seen: set[ConnInfo] = set()
    for number, route in enumerate(routes, 1):
        conninfo = route.upstream.endpoint.conninfo
        if security_of(conninfo) not in seen:
            seen.add(security_of(conninfo))
            yield str(number), route.upstream
