"""The activity of all gateways of a process."""

from __future__ import annotations

from prometheus_client import CollectorRegistry
from twisted.internet.interfaces import IReactorTime

from pgtls.gateway.activity import ActivityObserver, GatewayActivity
from pgtls.gateway.gateway import Gateway
from pgtls.gateway.session_metrics import SessionMetrics
from pgtls.transport.listening_sockets import is_unix_socket
from pgtls.transport.reactor import EPOLL


class ProcessActivity:
    """Has the gateways of a process observed.

    :param clock: the reactor.
    :ivar registry: where the metrics of the process are; where they are in files, nowhere else.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self.registry = CollectorRegistry()
        self._clock = clock
        self._metrics = SessionMetrics(self.registry)
        self._observers: dict[Gateway, ActivityObserver] = {}

    def observe(self, gateway: Gateway) -> None:
        """Observe a gateway from now on.

        :param gateway: its port is not open yet.
        """
        self._forget_those_that_are_gone()
        observer = ActivityObserver(
            lambda: gateway.label,
            self._metrics,
            self._clock,
            counts_bytes=_kernel_counts_not(gateway),
        )
        self._observers[gateway] = observer
        gateway.observe(observer)

    def report(self, most: int) -> list[GatewayActivity]:
        """What there is to know, at this moment.

        :param most: how many sessions are listed, of all gateways together.
        :returns: of each gateway.
        """
        self._forget_those_that_are_gone()
        found = []
        for gateway, observer in list(self._observers.items()):
            found.append(observer.activity(gateway.sessions, most))
            most -= len(found[-1]["sessions"])
        return found

    def _forget_those_that_are_gone(self) -> None:
        for gateway in [each for each in self._observers if each.is_gone]:
            del self._observers[gateway]


def _kernel_counts_not(gateway: Gateway) -> bool:
    """Whether both ends are Unix sockets, or the system is one that does not count."""
    configuration = gateway.loaded.configuration
    upstream = configuration.upstream
    servers = upstream.hosts if upstream is not None else ()
    between_unix_sockets = is_unix_socket(configuration.settings.listen) and any(
        host.unix_path is not None for host in servers
    )
    return between_unix_sockets or not EPOLL
