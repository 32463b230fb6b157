"""A listening socket that several processes accept from.

Twisted's own ``adoptStreamPort`` is for a socket's only owner: it sets the permissions of a Unix
socket's file and the length of the queue anew, and removes the file at the end.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from contextlib import suppress

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import (
    IAddress,
    IListeningPort,
    IProtocolFactory,
    IReadDescriptor,
    IStreamServerEndpoint,
)
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from pgtls.errors import ConfigurationError
from pgtls.transport.addresses import socket_address
from pgtls.transport.lifecycle import READABLE
from pgtls.transport.listening import BATCH, Acceptor
from pgtls.transport.listening_sockets import HAPROXY
from pgtls.transport.poller import poller
from pgtls.transport.reactor import IReactor, has_epoll

_log = Logger(namespace="pgtls.transport")

#: Endpoints of which nothing but their socket is needed.
_SHAREABLE = ("tcp", "tcp6", "unix", "systemd")

#: accept(2): the machine has no more of something. Seconds until it is tried again.
_NO_MORE = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_PAUSE = 1.0

#: EPOLLEXCLUSIVE, which the module select has only where there is an epoll.
_EXCLUSIVE = 1 << 28

#: How many connections more than another process are too many, and the seconds that it then gets.
_FAR = 2
_TURN = 0.001


def check_shareable(listen: str) -> None:
    """See that several processes can accept from what an endpoint string opens.

    :param listen: the endpoint string.
    :raises ConfigurationError: they cannot.
    """
    kind = listen.removeprefix(HAPROXY).partition(":")[0]
    if kind not in _SHAREABLE:
        raise ConfigurationError(
            f'listen: "{listen}" is for workers = 1; several workers can share tcp:, tcp6:, unix: '
            "and systemd:, and haproxy: in front of one of them"
        )


def shared_endpoint(
    reactor: IReactor, descriptor: int, excess: Callable[[], int]
) -> IStreamServerEndpoint:
    """The endpoint of one of the processes.

    :param reactor: Twisted's.
    :param descriptor: the listening socket.
    :param excess: tells how many connections more than another process this one has.
    :returns: listens on the socket.
    """
    return _SharedEndpoint(reactor, socket.socket(fileno=descriptor), excess)


@implementer(IStreamServerEndpoint)
class _SharedEndpoint:
    def __init__(
        self, reactor: IReactor, listening: socket.socket, excess: Callable[[], int]
    ) -> None:
        self._reactor = reactor
        self._socket = listening
        self._excess = excess

    def listen(self, protocolFactory: IProtocolFactory) -> Deferred[IListeningPort]:
        """Accept connections."""
        port = SharedPort(self._reactor, self._socket, protocolFactory, self._excess)
        port.startListening()
        return succeed(port)


class _Adopting:
    """Accepts as :class:`~pgtls.transport.listening.Acceptor` does: Twisted's own transports."""

    def __init__(
        self, listening: socket.socket, factory: IProtocolFactory, reactor: IReactor
    ) -> None:
        self._socket = listening
        self._factory = factory
        self._reactor = reactor

    def accept(self) -> bool:
        try:
            connection, _ = self._socket.accept()
        except (BlockingIOError, InterruptedError):
            return False
        except (ConnectionAbortedError, PermissionError):
            return True
        with connection:
            try:
                self._reactor.adoptStreamConnection(
                    connection.fileno(),
                    connection.family,
                    self._factory,  # type: ignore[arg-type] # any will do
                )
            except OSError as error:
                if error.errno != errno.ENOTCONN:  # it has been reset already
                    raise
        return True


@implementer(IListeningPort, IReadDescriptor)
class SharedPort:
    """This process's share of a listening socket.

    A connection wakes one process of those that wait with ``EPOLLEXCLUSIVE``, the first of them in
    the socket's queue; so one that has taken some goes to the end of it. It takes as many as are
    waiting, until it has far more than another process. Then it waits without ``EPOLLEXCLUSIVE``:
    it is woken beside one of the others, and leaves the connection to that one for a moment: a
    short one, since the others may be busy or hung, in which case it is better served here.

    :param reactor: Twisted's.
    :param listening: the socket; it does not block.
    :param factory: makes a protocol for each connection.
    :param excess: tells how many connections more than another process this one has.
    """

    def __init__(
        self,
        reactor: IReactor,
        listening: socket.socket,
        factory: IProtocolFactory,
        excess: Callable[[], int],
    ) -> None:
        self._reactor = reactor
        self._socket = listening
        self._factory = factory
        self._excess = excess
        self._watched_for = 0
        self._fast = has_epoll(reactor)
        self._acceptor = (Acceptor if self._fast else _Adopting)(listening, factory, reactor)

    def startListening(self) -> None:
        """Begin to accept connections."""
        self._factory.doStart()
        self._watch()

    def stopListening(self) -> Deferred[None]:
        """Accept what is waiting, and no more. Other processes may go on.

        :returns: fires at once.
        """
        if self._socket.fileno() >= 0:
            if self._watched_for:
                self._unwatch()
                self._take_last()
            self._socket.close()
            self._factory.doStop()
        return succeed(None)

    def getHost(self) -> IAddress:
        """Where it listens.

        :returns: the address.
        """
        return socket_address(self._socket.family, self._socket.getsockname())

    def fileno(self) -> int:
        """The socket's number.

        :returns: a file descriptor, -1 when it is closed.
        """
        return self._socket.fileno()

    def _watch(self) -> None:
        if self._watched_for:
            return
        self._watched_for = READABLE
        if self._fast:
            if self._excess() <= _FAR:
                self._watched_for |= _EXCLUSIVE
            poller(self._reactor).watch(self, 0, self._watched_for)
        else:
            self._reactor.addReader(self)

    def _unwatch(self) -> None:
        if not self._watched_for:
            return
        if self._fast:
            poller(self._reactor).watch(self, self._watched_for, 0)
        else:
            self._reactor.removeReader(self)
        self._watched_for = 0

    def ready(self, events: int) -> None:
        """Clients want to connect.

        :param events: that there are some.
        """
        if self._excess() > _FAR and not self._watched_for & _EXCLUSIVE:
            self._pause(_TURN, self._take)
        else:
            self._take()
            if self._fast and self._watched_for:
                self._unwatch()
                self._watch()  # behind the others

    def doRead(self) -> None:
        """The same, from the reactor."""
        self.ready(0)

    def _take(self) -> None:
        """Accept what is waiting and was not taken by another process."""
        try:
            for _ in range(BATCH):
                if not self._acceptor.accept() or self._excess() > _FAR:
                    return
        except OSError as error:
            if error.errno == errno.EINVAL:  # another process has shut the socket down
                self._unwatch()
                return
            if error.errno not in _NO_MORE:
                raise
            _log.error("no connection can be accepted: {error}", error=error.strerror)
            self._pause(_PAUSE, lambda: None)

    def _take_last(self) -> None:
        """Accept what is waiting: no other process may have been woken for it."""
        with suppress(OSError):  # what cannot be accepted is no reason to stay open
            for _ in range(BATCH):
                if not self._acceptor.accept():
                    return

    def _pause(self, seconds: float, then: Callable[[], None]) -> None:
        self._unwatch()
        self._reactor.callLater(seconds, self._go_on, then)

    def _go_on(self, then: Callable[[], None]) -> None:
        if self._socket.fileno() >= 0:
            self._watch()
            then()

    def connectionLost(self, reason: Failure) -> None:
        """The reactor has ended.

        :param reason: says so.
        """
        self._unwatch()
        self._socket.close()

    def logPrefix(self) -> str:
        """For the reactor's log.

        :returns: a name.
        """
        return "pgtls"
