"""An upstream made ready from its connection string: parsed, and its files read."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING

import attrs

from pgtls.conninfo.connection_string import ConnInfo
from pgtls.daemon.ssh_loading import check_reachable
from pgtls.daemon.upstream_mistakes import upstream_mistakes
from pgtls.errors import ConfigurationError
from pgtls.gateway.gateway_configuration import GatewayConfiguration
from pgtls.protocols.endpoint import PgTLSClientEndpoint
from pgtls.transport.reactor import IReactor

if TYPE_CHECKING:
    from pgtls.transport.ssh_tunnel import SSHTunnel


def with_upstream(gateway: GatewayConfiguration) -> GatewayConfiguration:
    """A gateway's configuration with its own upstream parsed.

    :param gateway: its configuration.
    :returns: the same, where there is nothing to parse.
    :raises ConfigurationError: the connection string cannot be used.
    """
    if not gateway.has_own_upstream:
        return gateway
    if gateway.embedded and gateway.preface:
        raise ConfigurationError(
            "upstream_proxy_protocol: the embedded PostgreSQL takes no PROXY headers"
        )
    if gateway.upstream is not None or gateway.embedded:
        return gateway
    conninfo = _parsed(gateway.settings.upstream)
    if not gateway.settings.upstream:
        _check_local(conninfo, in_file=gateway.number != 0)
    return attrs.evolve(gateway, upstream=conninfo)


def _parsed(upstream: str) -> ConnInfo:
    try:
        return ConnInfo.parse(upstream, os.environ)
    except ConfigurationError:
        raise _mistakes(upstream_mistakes(upstream)) from None


def _check_local(conninfo: ConnInfo, *, in_file: bool) -> None:
    """:raises ConfigurationError: the local server, which is the upstream where none is named, is
    not there."""
    missing = [host.unix_path for host in conninfo.hosts if _missing_socket(host.unix_path)]
    if missing and in_file:
        raise ConfigurationError(
            f"upstream: no PostgreSQL is at {missing[0]}: name a server, as in "
            'upstream = "host=db.example.com", or have one started by embedded = "DIR"'
        )
    if missing:
        raise ConfigurationError(
            f"no PostgreSQL is at {missing[0]}: name a server with --upstream, "
            "or have one started with --embedded DIR"
        )


def _missing_socket(path: str | None) -> bool:
    return path is not None and not path.startswith("@") and not os.path.exists(path)


def upstream_endpoint(
    reactor: IReactor,
    conninfo: ConnInfo | None,
    tunnel: SSHTunnel | None = None,
    preface: bytes = b"",
) -> PgTLSClientEndpoint | None:
    """What connects to the server, its files read.

    :param reactor: Twisted's reactor.
    :param conninfo: the server; None for the embedded PostgreSQL before it runs.
    :param tunnel: what it is reached through; None for this machine's network.
    :param preface: see :class:`~pgtls.protocols.endpoint.PgTLSClientEndpoint`.
    :returns: the endpoint; None as above.
    :raises ConfigurationError: a file cannot be used.
    """
    if conninfo is None:
        return None
    if tunnel is not None:
        check_reachable(conninfo)
    endpoint = PgTLSClientEndpoint(reactor, conninfo, dialer=tunnel, preface=preface)
    try:
        endpoint.check()
    except ConfigurationError as error:
        raise _mistakes(error.mistakes) from error
    return endpoint


def _mistakes(found: Iterable[str]) -> ConfigurationError:
    return ConfigurationError(*(f"upstream: {each}" for each in found))
