"""A gateway's port: opened once, changed while it is open, left to workers, closed."""

from __future__ import annotations

from typing import Protocol, cast

from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.interfaces import (
    IAddress,
    IListeningPort,
    IProtocolFactory,
    IStreamServerEndpoint,
)

from pgtls.gateway.gateway_configuration import GatewaySettings
from pgtls.transport.listening import backlog_for, is_opened_elsewhere, listen, set_backlog
from pgtls.transport.listening_sockets import server_endpoint
from pgtls.transport.reactor import IReactor


class _SocketPort(Protocol):
    """A port of Twisted's, or of ours: a socket that a reactor reads from."""

    def fileno(self) -> int: ...
    def stopReading(self) -> None: ...


class ListenerPort:
    """The port of one gateway.

    :param reactor: Twisted's reactor.
    :param endpoint: what it listens on; None for what the settings say.
    """

    def __init__(self, reactor: IReactor, endpoint: IStreamServerEndpoint | None) -> None:
        self._reactor = reactor
        self._endpoint = endpoint
        self._port: IListeningPort | None = None
        self._backlog: int | None = None
        self._is_systemds = False

    @property
    def is_open(self) -> bool:
        """Whether it is open."""
        return self._port is not None

    @property
    def address(self) -> IAddress:
        """Where it listens, once it is open."""
        if self._port is None:
            raise RuntimeError("its port is not open")
        return self._port.getHost()

    @property
    def descriptor(self) -> int:
        """The listening socket's; -1 where it is closed."""
        return cast(_SocketPort, self._port).fileno() if self._port is not None else -1

    def open(self, settings: GatewaySettings, factory: IProtocolFactory) -> Deferred[None]:
        """Open it.

        :param settings: the gateway's.
        :param factory: makes a protocol for each connection.
        :returns: fires when it is open, and fails with what the endpoint says.
        """
        self._is_systemds = is_opened_elsewhere(settings.listen)
        return maybeDeferred(self._listen, settings, factory).addCallback(self._opened)

    def _listen(
        self, settings: GatewaySettings, factory: IProtocolFactory
    ) -> Deferred[IListeningPort]:
        if self._endpoint is not None:
            return self._endpoint.listen(factory)
        endpoint = server_endpoint(self._reactor, settings.listen)
        self._backlog = _backlog(settings)
        return listen(endpoint, factory, self._reactor, self._backlog)

    def _opened(self, port: IListeningPort) -> None:
        self._port = port

    def renew(self, settings: GatewaySettings) -> None:
        """Have as many connections wait as the settings say now; those that do go on waiting.

        :param settings: the gateway's, with the same address.
        """
        backlog = _backlog(settings)
        if self._port is not None and self._backlog not in (None, backlog) and backlog is not None:
            self._backlog = backlog
            set_backlog(self.descriptor, backlog)

    def leave_to_workers(self) -> int:
        """Keep it open, and accept nothing here.

        :returns: the listening socket's descriptor.
        """
        cast(_SocketPort, self._port).stopReading()  # of a kind that check_shareable() has allowed
        return self.descriptor

    def stays_open(self) -> bool:
        """Whether it stays open while the sessions end. One of systemd's does not: it is closed,
        and clients wait in its queue for the next start.

        :returns: True if it does.
        """
        if self._is_systemds:
            self.close()
        return self.is_open

    def close(self) -> Deferred[None]:
        """Accept no more connections; those that are open stay.

        :returns: fires when it is closed.
        """
        port, self._port = self._port, None
        return (port.stopListening() if port is not None else None) or succeed(None)


def _backlog(settings: GatewaySettings) -> int | None:
    return backlog_for(settings.listen, settings.listener.max_connections)
