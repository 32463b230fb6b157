"""The addresses of hosts, kept for a moment."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeout

from pgtls.conninfo.hosts import Host
from pgtls.errors import ConnectFailed
from pgtls.transport.dial import TIMEOUT_EXPIRED
from pgtls.transport.name_resolution import places
from pgtls.transport.reactor import IReactor

#: Seconds for which a name's addresses are used again. A gateway may connect a thousand times in
#: one, and a lookup costs as much as the rest.
NAME_LIFETIME = 1.0


class ResolvedNames:
    """Looks names up, and remembers their addresses for NAME_LIFETIME.

    :param reactor: Twisted's reactor, whose resolver is asked.
    """

    def __init__(self, reactor: IReactor) -> None:
        self._reactor = reactor
        self._known: dict[Host, tuple[float, list[Host]]] = {}

    def addresses(self, host: Host, timeout: float) -> Deferred[list[Host]]:
        """Look a host up.

        :param host: as the connection string has it.
        :param timeout: seconds that the lookup may take.
        :returns: fires with the host once for each of its addresses; fails with ConnectFailed where
            it has none.
        """
        return Deferred.fromCoroutine(self._addresses(host, timeout))

    async def _addresses(self, host: Host, timeout: float) -> list[Host]:
        now: float = self._reactor.seconds()
        resolved, found = self._known.get(host, (now - NAME_LIFETIME, []))
        if now - resolved >= NAME_LIFETIME:
            lookup = Deferred.fromCoroutine(places(self._reactor, host))
            try:
                found = await lookup.addTimeout(timeout, self._reactor)
            except DeferredTimeout:
                raise ConnectFailed(TIMEOUT_EXPIRED) from None
            self._known[host] = now, found
        return found
