"""The gateways of a daemon: opened, changed and retired, here and in its workers."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta

from twisted.application.service import MultiService
from twisted.internet.defer import Deferred, DeferredLock, gatherResults
from twisted.logger import Logger
from twisted.python.failure import Failure

from pgtls.daemon.configuration import DaemonSettings
from pgtls.daemon.listener_keys import is_same
from pgtls.daemon.mistakes import Mistakes
from pgtls.daemon.port_check import why_not_opened
from pgtls.daemon.worker_tasks import WorkerTasks
from pgtls.daemon.workers import ANSWER_TIMEOUT, Workers
from pgtls.errors import ConfigurationError
from pgtls.gateway.gateway import Gateway
from pgtls.gateway.gateway_configuration import LoadedGateway
from pgtls.gateway.key_holders import KeyHolder
from pgtls.transport.listening_sockets import Address, listening_address
from pgtls.transport.reactor import IReactor

_log = Logger(namespace="pgtls.gateway")

#: The ports that only root may open.
_LOW_PORTS = 1024
_NEEDS_RIGHTS = (
    " (a port below 1024: only a start by root, or with CAP_NET_BIND_SERVICE, opens it; after "
    "twistd --uid that takes a restart)"
)


class ServedGateways(MultiService):
    """Each gateway is a service below this one. One that a reload has taken away stays until its
    sessions have ended.

    :param reactor: Twisted's reactor.
    :param settings: the daemon's.
    :param directory: where the names of files count from.
    :param made: is called with each gateway when it is made: its port is not open yet.
    :ivar settings: the daemon's, as they are now.
    :ivar elsewhere: has sessions that cancel requests may be for.
    :ivar workers: the processes that accept connections in place of this one; None where there are
        none.
    """

    def __init__(
        self,
        reactor: IReactor,
        settings: DaemonSettings,
        directory: str,
        made: Callable[[Gateway], None],
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._reactor = reactor
        self.settings = settings
        self.workers: Workers | None = None
        self.elsewhere: KeyHolder | None = None
        self._tasks = WorkerTasks(reactor, directory)
        self._made = made
        self._served: list[Gateway] = []
        self._changing = DeferredLock()

    @property
    def served(self) -> list[Gateway]:
        """The gateways, in the order of the configuration."""
        return list(self._served)

    @property
    def with_sessions(self) -> list[Gateway]:
        """The same, and those that are taken away and still have sessions."""
        return [service for service in self.services if isinstance(service, Gateway)]

    @property
    def sessions(self) -> int:
        """How many connections of clients are open, in all processes."""
        if self.workers is not None:
            return self.workers.connections()
        return sum(gateway.sessions for gateway in self.with_sessions)

    def make(self, loaded: LoadedGateway) -> Gateway:
        """Make a gateway, which is not one of these yet.

        :param loaded: what it is to be.
        :returns: the gateway.
        """
        gateway = Gateway(
            self._reactor,
            loaded,
            shutdown_timeout=self.settings.shutdown_timeout,
            expiry_warning=timedelta(days=self.settings.expiry_warning),
            elsewhere=self.elsewhere,
        )
        self._made(gateway)
        return gateway

    def add_first(self, loaded: Iterable[LoadedGateway]) -> None:
        """Have gateways from the beginning.

        :param loaded: what they are to be.
        """
        for each in loaded:
            gateway = self.make(each)
            gateway.setServiceParent(self)  # type: ignore[no-untyped-call]
            self._served.append(gateway)

    async def open_ports(self, gateways: Iterable[Gateway]) -> None:
        """Open those that are not open yet.

        :param gateways: which ones.
        :raises ConfigurationError: with every port that cannot be opened.
        """
        mistakes = Mistakes()
        closed = [gateway for gateway in gateways if not gateway.is_open]
        await gatherResults([self._open_port(gateway, mistakes) for gateway in closed])
        mistakes.check()

    def _open_port(self, gateway: Gateway, mistakes: Mistakes) -> Deferred[None]:
        def not_opened(failure: Failure) -> None:
            configuration = gateway.loaded.configuration
            listen = configuration.settings.listen
            reason = why_not_opened(failure.value)
            if address := listening_address(listen):
                reason += self._explain(reason, address)
            mistakes.add(f"{configuration.location}{listen}: {reason}")

        return gateway.open_port().addErrback(not_opened)

    def _explain(self, reason: str, address: Address) -> str:
        if reason == os.strerror(errno.EACCES) and 0 < address.port < _LOW_PORTS:
            return _NEEDS_RIGHTS
        if reason == os.strerror(errno.EADDRINUSE):
            for gateway in self._served:
                listen = gateway.loaded.configuration.settings.listen
                other = listening_address(listen)
                if gateway.is_open and other is not None and is_same(address, other):
                    return f' (by the gateway "{listen}": to change its address takes a restart)'
        return ""

    def close_ports(self) -> None:
        """Close those that are open: the daemon cannot start, or another process serves them."""
        for gateway in self._served:
            gateway.close_port()

    def start_workers(
        self, stop_requested: Callable[[], bool], metrics_directory: str, elsewhere: KeyHolder
    ) -> None:
        """Have other processes accept what comes to the ports. Nothing has been accepted here.

        :param stop_requested: tells whether the daemon is to stop, meanwhile.
        :param metrics_directory: where they count for the status; empty where there is none.
        :param elsewhere: has sessions beside theirs that cancel requests may be for.
        :raises ConfigurationError: a worker cannot work.
        """
        self._tasks.metrics_directory = metrics_directory
        served = {gateway: gateway.loaded for gateway in self._served}
        task, sockets = self._tasks.make(self.settings, served, ())
        self.workers = Workers(self._reactor, task, sockets, stop_requested, elsewhere)
        self.workers.start()
        self._tasks.in_use(task)

    async def renew(
        self, gateway: Gateway, before: LoadedGateway, loaded: LoadedGateway
    ) -> list[str] | None:
        """Serve new connections of a gateway by files that have been read again. The settings are
        the same.

        :param gateway: whose files they are.
        :param before: what it was when they were read.
        :param loaded: what it is to be.
        :returns: what is to be said of workers that are hung; None where the gateway has become
            another one since, or has gone: nothing has changed then.
        :raises ConfigurationError: a worker finds a mistake; nothing has changed then.
        """
        async with self._changing:
            if gateway not in self._served or gateway.loaded is not before:
                return None
            served = {each: each.loaded for each in self._served} | {gateway: loaded}
            return await self._replace(self.settings, served, {gateway: loaded})

    async def replace(
        self,
        settings: DaemonSettings,
        served: Mapping[Gateway, LoadedGateway],
        read_again: Mapping[Gateway, LoadedGateway],
    ) -> list[str]:
        """Serve other gateways from now on, or the same ones in another way. Sessions go on.

        :param settings: the daemon's.
        :param served: the gateways, in their order, with what each of them is to be. New ones are
            made by :meth:`make`. Those that are not among them are taken away.
        :param read_again: those of them whose files have been read again; new ones are not among
            them.
        :returns: what is to be said of workers that are hung.
        :raises ConfigurationError: a port cannot be opened, or a worker finds a mistake; nothing
            has changed then.
        """
        async with self._changing:
            return await self._replace(settings, served, read_again)

    async def _replace(
        self,
        settings: DaemonSettings,
        served: Mapping[Gateway, LoadedGateway],
        read_again: Mapping[Gateway, LoadedGateway],
    ) -> list[str]:
        """As :meth:`replace`, one after the other."""
        added = [gateway for gateway in served if gateway not in self._served]
        try:
            await self.open_ports(added)
            await self._prepare_workers(settings, served, read_again)
        except ConfigurationError:
            for gateway in added:
                gateway.close_port()
            raise
        removed = [gateway for gateway in self._served if gateway not in served]
        self.settings = settings
        self._served = list(served)
        for gateway, loaded in read_again.items():
            gateway.renew(loaded)
        for gateway in served:
            gateway.shutdown_timeout = settings.shutdown_timeout
            gateway.expiry_watch.soon = timedelta(days=settings.expiry_warning)
        for gateway in added:
            gateway.setServiceParent(self)  # type: ignore[no-untyped-call]
        for gateway in removed:
            await gateway.close_port()  # before it is said that the reload is over
            self._retire(gateway)
        return await self._use_workers()

    async def _prepare_workers(
        self,
        settings: DaemonSettings,
        served: Mapping[Gateway, LoadedGateway],
        read_again: Mapping[Gateway, LoadedGateway],
    ) -> None:
        """:raises ConfigurationError: a worker finds a mistake."""
        if self.workers is None:
            return
        task, sockets = self._tasks.make(settings, served, read_again)
        mistakes = await self.workers.prepare(task, sockets)
        if not self.running:
            mistakes.append("the daemon is being stopped")
        if mistakes:
            self.workers.forget()
            raise ConfigurationError(*mistakes)
        self._tasks.in_use(task)

    async def _use_workers(self) -> list[str]:
        if self.workers is None:
            return []
        return [
            f"{name} has not answered for {ANSWER_TIMEOUT:g} s: until it does, it goes on with "
            "what it has read before"
            for name in await self.workers.use()
        ]

    def _retire(self, gateway: Gateway) -> None:
        _log.info(
            "no longer listening on {address}; open sessions go on until they end",
            address=gateway.label,
        )
        gateway.retire().addCallback(_retired, gateway)

    def stop_workers(self, timeout: float, *, leave: bool) -> Deferred[None] | None:
        """Let the workers begin no more sessions, and end when those that are open have.

        :param timeout: seconds that sessions have.
        :param leave: whether another process serves the listeners.
        :returns: fires when none is left; None where there are none.
        """
        if self.workers is None:
            return None
        return self.workers.stop(timeout, leave=leave).addCallback(self._workers_stopped)

    def _workers_stopped(self, _: None) -> None:
        self.workers = None

    def end_sessions(self) -> None:
        """Close all connections at once."""
        if self.workers is not None:
            self.workers.kill()
        for gateway in self.with_sessions:
            gateway.abort_sessions()


def _retired(_: None, gateway: Gateway) -> None:
    gateway.disownServiceParent()  # type: ignore[no-untyped-call]
