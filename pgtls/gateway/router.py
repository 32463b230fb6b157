"""The router that a gateway's configuration asks for."""

from __future__ import annotations

from collections.abc import Callable

from pgtls.errors import ConfigurationError
from pgtls.gateway.gateway_configuration import GatewayConfiguration, LoadedGateway
from pgtls.gateway.routed_upstreams import RoutedUpstreams
from pgtls.gateway.single_upstream import SingleUpstream
from pgtls.protocols.stages import Client
from pgtls.transport.reactor import IReactor

Router = SingleUpstream | RoutedUpstreams


def router_of(reactor: IReactor, loaded: LoadedGateway) -> Router:
    """Make it.

    :param reactor: Twisted's reactor.
    :param loaded: the gateway's configuration, all files read.
    :returns: the router.
    :raises ConfigurationError: the upstream is the embedded PostgreSQL, which does not run.
    """
    if loaded.upstream is None and loaded.configuration.has_own_upstream:
        raise ConfigurationError("the embedded PostgreSQL does not run")
    if loaded.routes or loaded.upstream is None:
        return RoutedUpstreams(reactor, loaded.routes, loaded.upstream)
    return SingleUpstream(loaded.upstream)


def route_name(router: Router) -> Callable[[Client], str | None] | None:
    """What a session's line in the log calls its route.

    :param router: a gateway's.
    :returns: says it of a client; None where the gateway has no routes.
    """
    return router.route_name if isinstance(router, RoutedUpstreams) else None


def leads_elsewhere(now: GatewayConfiguration, before: GatewayConfiguration) -> bool:
    """Whether a reload has changed where sessions go.

    :param now: a gateway's configuration.
    :param before: the one before the reload.
    :returns: True if so.
    """
    return (now.upstream, now.routes) != (before.upstream, before.routes)
