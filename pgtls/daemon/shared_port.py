"""A listening socket that several processes accept from.

Twisted's own ``adoptStreamPort`` is for a socket's only owner: it sets the permissions of a Unix
socket's file and the length of the queue anew, and removes the file at the end.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import (
    IAddress,
    IListeningPort,
    IProtocolFactory,
    IReadDescriptor,
    IStreamServerEndpoint,
)
from twisted.logger import Logger
from twisted.protocols.haproxy import proxyEndpoint
from twisted.python.failure import Failure
from zope.interface import implementer

from pgtls.errors import ConfigurationError

_log = Logger(namespace="pgtls.gateway")

#: Endpoints of which nothing but their socket is needed.
_SHAREABLE = ("tcp", "tcp6", "unix", "systemd")
_HAPROXY = "haproxy:"

#: accept(2): the machine has no more of something. Seconds until it is tried again.
_NO_MORE = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_PAUSE = 1.0

#: How often, within these seconds, a connection is left to others: each time is a turn of the
#: reactor, in which a process that has nothing to do takes it.
_PASSES = 4
_MOMENT = 0.02

#: How many connections more than another process are too many, and the seconds that it then gets.
_FAR = 2
_TURN = 0.001


def check_shareable(listen: str) -> None:
    """:raises ConfigurationError: what this endpoint string makes is nothing to be shared."""
    kind = listen.removeprefix(_HAPROXY).partition(":")[0]
    if kind not in _SHAREABLE:
        raise ConfigurationError(
            f'listen: "{listen}" is for workers = 1; several workers can share tcp:, tcp6:, unix: '
            "and systemd:, and haproxy: in front of one of them"
        )


def shared_endpoint(
    reactor: Any, descriptor: int, listen: str, ahead: Callable[[], int]
) -> IStreamServerEndpoint:
    """The endpoint of one of the processes.

    :param descriptor: the listening socket.
    :param listen: the endpoint string that it was opened by.
    :param ahead: tells how many connections more than another process this one has.
    """
    endpoint = _SharedEndpoint(reactor, socket.socket(fileno=descriptor), ahead)
    if listen.startswith(_HAPROXY):
        wrapped: IStreamServerEndpoint = proxyEndpoint(endpoint)
        return wrapped
    return endpoint


@implementer(IStreamServerEndpoint)
class _SharedEndpoint:
    def __init__(self, reactor: Any, listening: socket.socket, ahead: Callable[[], int]) -> None:
        self._reactor = reactor
        self._socket = listening
        self._ahead = ahead

    def listen(self, protocolFactory: IProtocolFactory) -> Deferred[IListeningPort]:
        """Accept connections."""
        port = SharedPort(self._reactor, self._socket, protocolFactory, self._ahead)
        port.startListening()
        return succeed(port)


@implementer(IListeningPort, IReadDescriptor)
class SharedPort:
    """This process's share of a listening socket.

    The kernel wakes the same process first, time and again. So one that has more connections than
    another leaves the next one to it for a moment: a short one, since the other may be busy, in
    which case it is better served here. And nobody takes more than one at a time.

    :param ahead: tells how many connections more than another process this one has.
    """

    def __init__(
        self,
        reactor: Any,
        listening: socket.socket,
        factory: IProtocolFactory,
        ahead: Callable[[], int],
    ) -> None:
        self._reactor = reactor
        self._socket = listening
        self._factory = factory
        self._ahead = ahead
        self._passed = 0

    def startListening(self) -> None:
        """Begin to accept connections."""
        self._factory.doStart()
        self._reactor.addReader(self)

    def stopListening(self) -> Deferred[None]:
        """Accept no more. Other processes may go on."""
        if self._socket.fileno() >= 0:
            self._reactor.removeReader(self)
            self._socket.close()
            self._factory.doStop()
        return succeed(None)

    def getHost(self) -> IAddress:
        """Where it listens."""
        name = self._socket.getsockname()
        if self._socket.family == socket.AF_UNIX:
            return UNIXAddress(name)
        kind = IPv6Address if self._socket.family == socket.AF_INET6 else IPv4Address
        return kind("TCP", *name[:2])

    def fileno(self) -> int:
        """The socket."""
        return self._socket.fileno()

    def doRead(self) -> None:
        """There is a connection."""
        ahead = self._ahead()
        if ahead <= 0:
            self._take()
        elif ahead > _FAR:
            self._pause(_TURN, self._take)
        elif not self._passed:
            self._passed = 1
            self._reactor.callLater(_MOMENT, self._moment_over)
        elif self._passed < _PASSES:
            self._passed += 1
        else:
            self._take()

    def _moment_over(self) -> None:
        self._passed = 0
        if self._socket.fileno() >= 0:
            self._take()

    def _take(self) -> None:
        """Accept the connection, unless another process was quicker."""
        try:
            connection, _ = self._socket.accept()
        except OSError as error:
            if error.errno in _NO_MORE:
                self._wait(error)
            return
        with connection:
            try:
                self._reactor.adoptStreamConnection(
                    connection.fileno(), connection.family, self._factory
                )
            except OSError as error:
                if error.errno != errno.ENOTCONN:  # it has been reset already
                    self._wait(error)

    def _wait(self, error: OSError) -> None:
        _log.error("no connection can be accepted: {error}", error=error.strerror)
        self._pause(_PAUSE, lambda: None)

    def _pause(self, seconds: float, then: Callable[[], None]) -> None:
        self._reactor.removeReader(self)
        self._reactor.callLater(seconds, self._go_on, then)

    def _go_on(self, then: Callable[[], None]) -> None:
        if self._socket.fileno() >= 0:
            self._reactor.addReader(self)
            then()

    def connectionLost(self, reason: Failure) -> None:
        """The reactor has ended."""
        self._socket.close()

    def logPrefix(self) -> str:
        """For the reactor's log."""
        return "pgtls"
