"""An upstream made ready from its connection string: parsed, and its files read."""

from __future__ import annotations

import os
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
    return attrs.evolve(gateway, upstream=_parsed_upstream(gateway.settings.upstream))


def _parsed_upstream(upstream: str) -> ConnInfo:
    try:
        conninfo = ConnInfo.parse(upstream, os.environ)
    except ConfigurationError:
        found = upstream_mistakes(upstream)
        raise ConfigurationError(*(f"upstream: {each}" for each in found)) from None
    missing = [h.unix_path for h in conninfo.hosts if _missing_socket(h.unix_path)]
    if not upstream and missing:
        raise ConfigurationError(
            f"no PostgreSQL is at {missing[0]}: name a server with --upstream, "
            "or have one started with --embedded DIR"
        )
    return conninfo


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
    endpoint.check()
    return endpoint
