"""The router of a gateway with one upstream."""

from __future__ import annotations

from zope.interface import implementer

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
