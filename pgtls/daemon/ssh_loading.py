"""``upstream_via``: the SSH tunnel of a gateway, made ready from its settings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pgtls.conninfo.connection_string import ConnInfo
from pgtls.errors import ConfigurationError
from pgtls.gateway.gateway_configuration import GatewayConfiguration
from pgtls.transport.reactor import IReactor

if TYPE_CHECKING:
    from pgtls.transport.ssh_tunnel import SSHTunnel


def ssh_tunnel(
    reactor: IReactor, gateway: GatewayConfiguration, before: SSHTunnel | None
) -> SSHTunnel | None:
    """The tunnel that a gateway's upstreams are reached through.

    :param reactor: Twisted's reactor.
    :param gateway: its configuration.
    :param before: at a reload, the tunnel as it is. It stays where its settings have not changed,
        with private keys read again.
    :returns: the tunnel; None without ``upstream_via``.
    :raises ConfigurationError: with every mistake in the settings and the keys.
    """
    settings = gateway.settings.ssh
    settings.check()
    if not settings.upstream_via:
        return None
    if gateway.embedded:
        raise ConfigurationError("upstream_via: the embedded PostgreSQL is on this machine")
    if before is not None and before.settings == settings:
        before.read_keys()
        return before
    # twisted.conch takes its time, and few gateways need it.
    from pgtls.transport.ssh_tunnel import SSHTunnel  # noqa: PLC0415

    return SSHTunnel(reactor, settings)


def check_reachable(conninfo: ConnInfo) -> None:
    """See whether an SSH server can reach an upstream.

    :param conninfo: the upstream's connection string.
    :raises ConfigurationError: it is one that only this machine can reach or check.
    """
    mistakes = [
        f"upstream: with upstream_via name a host (as the SSH server knows it), not {host.where}"
        for host in conninfo.hosts
        if host.unix_path is not None
    ]
    if conninfo.check_address:
        mistakes.append("upstream: with upstream_via check_address cannot be checked")
    if mistakes:
        raise ConfigurationError(*mistakes)
