"""Whether the upstreams can be reached.

Each is connected to every few seconds, and nothing is asked of it, so that servers log nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from time import time

from twisted.internet.defer import CancelledError, Deferred, DeferredSemaphore
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from pgtls.gateway.gateway import Gateway
from pgtls.gateway.upstream_check import reach
from pgtls.protocols.endpoint import PgTLSClientEndpoint
from pgtls.text import printable
from pgtls.tls.certificate import Certificate

#: Seconds between two looks at an upstream, where there are not very many, and for each look.
INTERVAL = 5.0
TIMEOUT = 5.0

#: Looks at a time, and in a second, at most.
_AT_ONCE = 50
_PER_SECOND = 50


@dataclass(slots=True)
class UpstreamState:
    """What is known of an upstream.

    :ivar gateway: the gateway's label.
    :ivar name: ``default`` or the route's number.
    :ivar hosts: where it is.
    :ivar upstream_via: the SSH server that it is reached through; empty for none.
    :ivar reached: whether the last look reached it; None before there was one.
    :ivar checked: when that was, in seconds since 1970.
    :ivar error: why it did not; empty where it did.
    :ivar place: the host that was reached.
    :ivar certificate: what the server there has shown.
    """

    gateway: str
    name: str
    hosts: str
    upstream_via: str
    reached: bool | None = None
    checked: float | None = None
    error: str = ""
    place: str = ""
    certificate: Certificate | None = field(default=None, repr=False)


class UpstreamWatch:
    """Looks at the upstreams of all gateways.

    :param clock: the reactor.
    :param gateways: gives those there are.
    """

    def __init__(self, clock: IReactorTime, gateways: Callable[[], Iterable[Gateway]]) -> None:
        self._clock = clock
        self._gateways = gateways
        self._states: dict[tuple[str, str], UpstreamState] = {}
        self._turns = DeferredSemaphore(_AT_ONCE)
        self._timer: IDelayedCall | None = None
        self._looks: set[Deferred[None]] = set()
        self._running = False

    def states(self) -> list[UpstreamState]:
        """What is known.

        :returns: of each upstream of each gateway.
        """
        return [state for state, _ in self._upstreams()]

    def start(self) -> None:
        """Begin, with the first look at once."""
        self._running = True
        self._look()

    def stop(self) -> None:
        """Look no more."""
        self._running = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for look in list(self._looks):
            look.cancel()

    def _upstreams(self) -> list[tuple[UpstreamState, PgTLSClientEndpoint]]:
        r"""Those that are known before a client comes: without the ones of routes with ``\1``."""
        found = []
        for gateway in self._gateways():
            loaded = gateway.loaded
            if loaded.upstream is not None:
                found.append(("default", loaded.upstream, gateway))
            found += [
                (str(number), route.upstream.endpoint, gateway)
                for number, route in enumerate(loaded.routes, 1)
                if not route.upstream.takes_label
            ]
        return [(self._state(gateway, name, each), each) for name, each, gateway in found]

    def _state(self, gateway: Gateway, name: str, endpoint: PgTLSClientEndpoint) -> UpstreamState:
        hosts = ",".join(host.place for host in endpoint.conninfo.hosts)
        via = gateway.loaded.configuration.settings.ssh.upstream_via
        state = self._states.get((gateway.label, name))
        if state is None or (state.hosts, state.upstream_via) != (hosts, via):
            state = UpstreamState(gateway.label, name, hosts, via)
            self._states[gateway.label, name] = state
        return state

    def _look(self) -> None:
        upstreams = self._upstreams()
        pause = max(INTERVAL, len(upstreams) / _PER_SECOND)
        self._timer = self._clock.callLater(pause, self._look)
        if self._looks:
            return  # they take their time, but not for ever
        for state, endpoint in upstreams:
            look = Deferred.fromCoroutine(self._look_at(endpoint, state))
            self._looks.add(look)
            look.addBoth(self._over, look)

    async def _look_at(self, endpoint: PgTLSClientEndpoint, state: UpstreamState) -> None:
        await self._turns.acquire()
        try:
            connecting = Deferred.fromCoroutine(reach(endpoint))
            host, tls = await connecting.addTimeout(TIMEOUT, self._clock)
        except CancelledError:
            return
        except Exception as error:
            timeout = isinstance(error, DeferredTimeout)
            reason = "timeout expired" if timeout else printable(str(error))
            state.reached, state.checked, state.error = False, time(), reason
        else:
            state.reached, state.checked, state.error = True, time(), ""
            state.place = host.place if host is not None else ""
            state.certificate = tls.certificate if tls is not None else None
        finally:
            self._turns.release()

    def _over(self, _: object, look: Deferred[None]) -> None:
        self._looks.discard(look)
