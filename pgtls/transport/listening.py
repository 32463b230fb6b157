"""Listening sockets whose connections are ours from the start.

Twisted's endpoints open them, and its ports keep them: with their rules for addresses, lock files,
permissions and log lines. Only the waiting and the accepting are done here. The ``transport``
attribute of a port, which may be replaced as the documentation of ``tcp.Port`` says, is set too:
for the connections that Twisted accepts where an error is to be dealt with.
"""

from __future__ import annotations

import errno
import os
import re
import select
import socket
from typing import Any, cast

from twisted.internet import tcp
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import (
    IAddress,
    IListeningPort,
    IProtocol,
    IProtocolFactory,
    IStreamServerEndpoint,
)
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from pgtls.transport.accepting import accept
from pgtls.transport.addresses import socket_address
from pgtls.transport.connection import Connection
from pgtls.transport.poller import poller
from pgtls.transport.reactor import IReactor, has_epoll
from pgtls.transport.tcp_connection import TCPConnection

_log = Logger(namespace="pgtls.transport")

#: accept(2): the client has gone already, a firewall does not want it, or there is another error of
#: that connection alone; the next one may be there.
_OF_THE_CONNECTION = (
    *(errno.ECONNABORTED, errno.EPERM, errno.EPROTO, errno.ENOPROTOOPT, errno.EOPNOTSUPP),
    *(errno.ENETDOWN, errno.ENETUNREACH, errno.EHOSTDOWN, errno.EHOSTUNREACH),
)

#: Connections that are accepted at a time, at most: sessions that are open have their turn too.
BATCH = 32


def listen(
    endpoint: IStreamServerEndpoint,
    factory: IProtocolFactory,
    reactor: IReactor,
    backlog: int | None = None,
) -> Deferred[IListeningPort]:
    """Listen, with connections of ours where they can be had.

    :param endpoint: says where; any of Twisted's, and what wraps them.
    :param factory: makes a protocol for each connection.
    :param reactor: the endpoint's.
    :param backlog: how many connections may wait to be accepted; None for as many as the endpoint
        says.
    :returns: fires with the port, fails as the endpoint does.
    """
    return endpoint.listen(factory).addCallback(_ours, reactor, backlog)


def _ours(port: IListeningPort, reactor: IReactor, backlog: int | None) -> IListeningPort:
    if not isinstance(port, tcp.Port):  # which those of Unix sockets are, too
        return port
    if backlog is not None:
        port.socket.listen(backlog)
    return ListeningPort(port, reactor) if has_epoll(reactor) else port


#: How many connections may wait to be accepted, at least: where few may be open, those that will be
#: refused, and cancel requests, come all the same.
LEAST_BACKLOG = 1000

#: An endpoint string that names a number, and one whose socket something else has opened.
_NAMES_BACKLOG = re.compile(r"(?<!\\):backlog=")
_OPENED_ELSEWHERE = re.compile(r"(^|:)systemd:")


def backlog_for(description: str, connections: int) -> int | None:
    """How many connections may wait to be accepted.

    :param description: the endpoint string.
    :param connections: how many may be open at a time.
    :returns: twice as many, since clients that will be refused wait too (``ListenServerPort`` in
        PostgreSQL's ``src/backend/libpq/pqcomm.c``), and at least :data:`LEAST_BACKLOG`; None where
        the string names a number, or something else opens the socket. The kernel has a limit of its
        own (``net.core.somaxconn``).
    """
    if _NAMES_BACKLOG.search(description) or is_opened_elsewhere(description):
        return None
    return max(2 * connections, LEAST_BACKLOG)


def is_opened_elsewhere(description: str) -> bool:
    """Whether an endpoint string means a socket that systemd opens.

    :param description: the endpoint string.
    :returns: True if so.
    """
    return _OPENED_ELSEWHERE.search(description) is not None


def set_backlog(descriptor: int, backlog: int) -> None:
    """Change how many connections may wait; those that do go on waiting.

    :param descriptor: a listening socket's.
    :param backlog: how many.
    """
    with socket.socket(fileno=os.dup(descriptor)) as listening:
        listening.listen(backlog)


class Acceptor:
    """Makes connections of what a listening socket has. Those over TCP have TCP_NODELAY and
    SO_KEEPALIVE, which they inherit from it.

    :param listening: the socket; it does not block.
    :param factory: makes the protocols.
    :param reactor: Twisted's.
    """

    def __init__(
        self, listening: socket.socket, factory: IProtocolFactory, reactor: IReactor
    ) -> None:
        self._socket = listening
        self._factory = factory
        self._reactor = reactor
        self._poller = poller(reactor)
        self._family: int = listening.family
        if self._family != socket.AF_UNIX:
            listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)

    def accept(self) -> bool:
        """Accept one connection.

        :returns: False where none is waiting.
        :raises OSError: the system has no more descriptors, for example.
        """
        try:
            connection, address = accept(self._socket, self._family)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError as error:
            if error.errno in _OF_THE_CONNECTION:
                return True
            raise
        peer = socket_address(self._family, address)
        protocol = self._factory.buildProtocol(peer)
        if protocol is None:
            connection.close()
        else:
            protocol.makeConnection(self.transport(connection, protocol, peer))
        return True

    def transport(
        self, connection: socket.socket, protocol: IProtocol, peer: IAddress
    ) -> Connection:
        """A connection.

        :param connection: accepted; it does not block.
        :param protocol: what gets its bytes.
        :param peer: the client's address.
        :returns: what is to be the protocol's transport.
        """
        if self._family == socket.AF_UNIX:
            return Connection(connection, protocol, self._reactor, self._poller, peer)
        return TCPConnection(connection, protocol, self._reactor, self._poller, peer, client=False)


@implementer(IListeningPort)
class ListeningPort:
    """A port of Twisted's whose connections are ours.

    :param port: it listens, and has accepted nothing yet.
    :param reactor: the port's.
    """

    def __init__(self, port: tcp.Port, reactor: IReactor) -> None:
        self._port = port
        factory = cast(IProtocolFactory, port.factory)  # haproxy's, say: what wraps the endpoint
        self._acceptor = Acceptor(port.socket, factory, reactor)
        self._poller = poller(reactor)
        self._batch = 1
        self._turn = 0
        port.transport = self._transport  # type: ignore[assignment]
        port.stopReading()
        self._watching = True
        self._poller.watch(self, 0, select.EPOLLIN)

    def _transport(
        self, connection: socket.socket, protocol: IProtocol, address: Any, *_: object
    ) -> Connection:
        """With the arguments that Twisted's port has."""
        connection.setblocking(False)
        peer = socket_address(connection.family, connection.getpeername())
        return self._acceptor.transport(connection, protocol, peer)

    def ready(self, events: int) -> None:
        """Clients want to connect.

        :param events: that there are some.
        """
        # One at a time, unless they come one after the other: to find none costs, too.
        turn = self._poller.turns
        self._batch = min(2 * self._batch, BATCH) if turn - self._turn <= 1 else 1
        self._turn = turn
        try:
            for _ in range(self._batch):
                if not self._acceptor.accept():
                    return
        except OSError:
            self._port.doRead()  # Twisted knows what to do

    def stopReading(self) -> None:
        """Accept nothing more; the socket stays as it is."""
        if self._watching:
            self._watching = False
            self._poller.watch(self, select.EPOLLIN, 0)

    def startListening(self) -> None:
        """Accept connections, which it does from the beginning."""
        if not self._watching:
            self._watching = True
            self._poller.watch(self, 0, select.EPOLLIN)

    def stopListening(self) -> Deferred[None]:
        """Close the socket.

        :returns: fires when it is closed.
        """
        self.stopReading()
        return maybeDeferred(self._port.stopListening)

    def getHost(self) -> IAddress:
        """Where it listens.

        :returns: the address.
        """
        address: IAddress = self._port.getHost()
        return address

    def fileno(self) -> int:
        """The socket's number.

        :returns: a file descriptor.
        """
        descriptor: int = self._port.fileno()
        return descriptor

    def connectionLost(self, reason: Failure) -> None:
        """The reactor has ended.

        :param reason: says so.
        """
        self.stopReading()
        self._port.connectionLost(reason)
