"""The router of a gateway with one upstream."""

from __future__ import annotations

from zope.interface import implementer

from pgtls.gateway.route_upstream import security_of
from pgtls.protocols.endpoint import PgTLSClientEndpoint
from pgtls.protocols.interfaces import IRouter
from pgtls.protocols.stages import Client, Upstream


@implementer(IRouter)
class SingleUpstream:
    """Sends every session to the same server.

    :param endpoint: connects to it.
    """

    def __init__(self, endpoint: PgTLSClientEndpoint) -> None:
        self._upstream = Upstream(endpoint)

    def upstream(self, client: Client) -> Upstream:
        """Choose a client's server.

        :param client: any.
        :returns: the only one there is.
        """
        return self._upstream

    def renewed(self, endpoint: PgTLSClientEndpoint) -> PgTLSClientEndpoint:
        """What to connect with to a session's server now.

        :param endpoint: what the session was connected with.
        :returns: the same as read anew; the old one where it is for another connection string.
        """
        current = self._upstream.endpoint
        same = security_of(endpoint.conninfo) == security_of(current.conninfo)
        return current if same else endpoint

    def by_name(self, sni: str) -> None:
        """Where every session with a host name goes.

        :param sni: any.
        :returns: None: no name leads anywhere.
        """

    def for_unknown_key(self, sni: str | None, *, sure: bool) -> PgTLSClientEndpoint:
        """Where a request goes that has no better place.

        :param sni: any.
        :param sure: whether its session is surely none of this daemon.
        :returns: the only server that there is.
        """
        return self._upstream.endpoint
