"""The router of a gateway with routes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from functools import lru_cache

from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from pgtls.errors import ConfigurationError
from pgtls.gateway.route_upstream import RouteUpstream, security_of
from pgtls.gateway.routes import Match, Route, RouteTable
from pgtls.protocols.endpoint import PgTLSClientEndpoint
from pgtls.protocols.interfaces import IRouter
from pgtls.protocols.stages import Client, Refuse, Upstream
from pgtls.text import log_text
from pgtls.wire.messages import ErrorResponse

#: The name of the gateway's own upstream, among the numbers of routes.
DEFAULT = "default"

#: Combinations of host name, database and role whose route is remembered.
REMEMBERED = 256

#: Endpoints that are kept for labels, and the seconds without a session after which one is not.
MAX_LABELS = 1000
LABEL_SECONDS = 600.0


class _LabelCache:
    """The servers of labels that came lately. What is dropped is made again when it is asked for;
    open sessions do not need it."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._kept: OrderedDict[tuple[int, str], tuple[Upstream, float]] = OrderedDict()

    def upstream(self, match: Match[RouteUpstream]) -> Upstream:
        """:raises ConfigurationError: the label is none that can stand there."""
        key = match.number, match.label
        now = self._clock.seconds()
        kept = self._kept.pop(key, None)
        found = kept[0] if kept else match.route.upstream.upstream(str(match.number), match.label)
        self._drop_old(now)
        self._kept[key] = found, now
        return found

    def _drop_old(self, now: float) -> None:
        kept = self._kept  # the one that was asked for longest ago comes first
        while kept:
            key, (_, used) = next(iter(kept.items()))
            if len(kept) < MAX_LABELS and now - used <= LABEL_SECONDS:
                return
            del kept[key]


@implementer(IRouter)
class RoutedUpstreams:
    """Sends each session where the first route that matches says.

    :param clock: the reactor.
    :param routes: in their order.
    :param own: connects to the gateway's own upstream, for sessions without a route; None where
        they are refused.
    """

    def __init__(
        self,
        clock: IReactorTime,
        routes: Sequence[Route[RouteUpstream]],
        own: PgTLSClientEndpoint | None,
    ) -> None:
        self._table = RouteTable(routes)
        self._find = lru_cache(maxsize=REMEMBERED)(self._table.find)
        self._own = Upstream(own, DEFAULT) if own is not None else None
        self._fixed = {
            number: route.upstream.upstream(str(number), "")
            for number, route in enumerate(routes, 1)
            if not route.upstream.takes_label
        }
        self._labels = _LabelCache(clock)
        endpoints = [route.upstream.endpoint for route in routes]
        endpoints += [own] if own is not None else []
        self._renewed = {security_of(each.conninfo): each for each in endpoints}

    def upstream(self, client: Client) -> Upstream | Refuse:
        """Choose a client's server.

        :param client: all that is known of it.
        :returns: the server; or FATAL 08004 that names what was asked for.
        """
        startup = client.startup
        match = self._find(client.sni, startup.database, startup.user)
        if match is None:
            return self._own or _refused(client)
        try:
            return self._matched(match)
        except ConfigurationError as error:
            return _refused(client, f"route {match.number}: {'; '.join(error.mistakes)}")

    def route_name(self, client: Client) -> str | None:
        """The route of a client, for the log.

        :param client: all that is known of it.
        :returns: its number, or :data:`DEFAULT`; None where there is none.
        """
        startup = client.startup
        match = self._find(client.sni, startup.database, startup.user)
        if match is not None:
            return str(match.number)
        return DEFAULT if self._own is not None else None

    def renewed(self, endpoint: PgTLSClientEndpoint) -> PgTLSClientEndpoint:
        """What to connect with to a session's server now.

        :param endpoint: what the session was connected with.
        :returns: one with the same files as they are now; the old one where no route has them.
        """
        return self._renewed.get(security_of(endpoint.conninfo), endpoint)

    def by_name(self, sni: str) -> PgTLSClientEndpoint | None:
        """Where every session with a host name goes.

        :param sni: the host name that the client asks for in TLS.
        :returns: connects to the server of the one route that may be; None where there is none, or
            it depends on database or role as well.
        """
        match = self._table.find_by_name(sni)
        if not isinstance(match, Match):
            return None
        try:
            return self._matched(match).endpoint
        except ConfigurationError:
            return None

    def for_unknown_key(self, sni: str | None, *, sure: bool) -> PgTLSClientEndpoint | None:
        """Where a request goes that has no better place: the gateway's own upstream, unless the
        session may be one of a route's server.

        :param sni: the host name that the client asks for; None for none, or no TLS.
        :param sure: whether its session is surely none of this daemon.
        :returns: connects to the server; None for nowhere.
        """
        own = self._own.endpoint if self._own is not None else None
        if sni is not None:
            return own if self._table.find_by_name(sni) is None else None
        return own if sure else None

    def _matched(self, match: Match[RouteUpstream]) -> Upstream:
        """:raises ConfigurationError: the label is none that can stand there."""
        return self._fixed.get(match.number) or self._labels.upstream(match)


def no_route(sni: str | None, database: bytes, user: bytes) -> str:
    """What a client without a route is told: what it asks for, and nothing of what there is.

    :param sni: the host name that it asks for; None for none.
    :param database: the database that it asks for.
    :param user: the role that it asks for.
    :returns: the message.
    """
    name = f'host name "{log_text(sni)}"' if sni is not None else "no host name"
    return f'no route for {name}, database "{log_text(database)}", user "{log_text(user)}"'


def _refused(client: Client, detail: str = "") -> Refuse:
    startup = client.startup
    message = no_route(client.sni, startup.database, startup.user)
    return Refuse(ErrorResponse.fatal("08004", message), f"{message} ({detail})" if detail else "")
