"""One connection to one address.

Twisted's endpoints stand on a connector, a factory and two turns of the reactor for each
connection. Here a socket is connected, and a connection of ours made around it; where those cannot
be had (:func:`pgtls.transport.reactor.has_epoll`), Twisted's endpoint does it.
"""

from __future__ import annotations

import os
import select
import socket
from errno import EAGAIN, EALREADY, EINPROGRESS
from functools import partial
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP6ClientEndpoint, UNIXClientEndpoint
from twisted.internet.error import ConnectError, ConnectingCancelledError, TCPTimedOutError
from twisted.internet.error import TimeoutError as ConnectTimeout
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from pgtls.conninfo.connection_string import Host
from pgtls.errors import ConnectFailed
from pgtls.transport.addresses import server_address
from pgtls.transport.connection import Connection
from pgtls.transport.poller import Poller, poller
from pgtls.transport.reactor import IReactor, has_epoll
from pgtls.transport.tcp_connection import TCPConnection

#: Seconds between two attempts at a Unix socket whose queue is full: of that the kernel says
#: nothing when it changes.
_QUEUE_FULL = 0.01

TIMEOUT_EXPIRED = "timeout expired"


class OneProtocol(Factory):
    """Hands out the one Protocol of a connection, and logs neither its own start nor its stop."""

    noisy = False


def dial(
    reactor: IReactor, host: Host, protocol: Protocol, timeout: float
) -> Deferred[None] | None:
    """Connect ``protocol`` to a host's address.

    :param reactor: Twisted's.
    :param host: has a ``hostaddr``, or is a Unix socket.
    :param protocol: is given its transport, and from then on what comes.
    :param timeout: seconds that the connection may take.
    :returns: None where there is a connection already; else fires when there is one, fails with
        ConnectFailed where there is none.
    """
    if not has_epoll(reactor):
        return Deferred.fromCoroutine(_through_endpoint(reactor, host, protocol, timeout))
    try:
        family, address = _address(host)
        connection = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    except OSError as error:
        return fail(ConnectFailed(error.strerror or str(error)))
    try:
        at_once = _connected_at_once(connection, address)
    except OSError as error:
        connection.close()
        return fail(ConnectFailed(os.strerror(error.errno or 0)))

    def connected(_: object) -> None:
        peer = server_address(family, address)
        make = Connection if family == socket.AF_UNIX else _client
        protocol.makeConnection(make(connection, protocol, reactor, poller(reactor), peer))

    if at_once:
        connected(None)
        return None
    connecting = Deferred.fromCoroutine(_connected(reactor, connection, address))
    connecting.addTimeout(timeout, reactor)
    return connecting.addCallbacks(connected, _not_connected, errbackArgs=(connection,))


_client = partial(TCPConnection, client=True)


def _not_connected(failure: Failure, connection: socket.socket) -> Failure:
    connection.close()
    error = failure.value
    if isinstance(error, DeferredTimeout):
        raise ConnectFailed(TIMEOUT_EXPIRED) from None
    if isinstance(error, OSError):
        raise ConnectFailed(os.strerror(error.errno or 0)) from error
    return failure


def _address(host: Host) -> tuple[socket.AddressFamily, Any]:
    """As sockets want it."""
    if host.unix_path is not None:
        return socket.AF_UNIX, _unix_path(host.unix_path)
    if ":" not in host.hostaddr:
        return socket.AF_INET, (host.hostaddr, host.port)
    # With the number of the interface that a zone such as %eth0 names.
    found = socket.getaddrinfo(host.hostaddr, host.port, flags=socket.AI_NUMERICHOST)
    return socket.AF_INET6, found[0][4]


def _unix_path(path: str) -> str:
    return "\0" + path[1:] if path.startswith("@") else path  # an abstract socket of Linux


def _connected_at_once(connection: socket.socket, address: Any) -> bool:
    """Begin; a server on the same machine is often there when one looks again.

    :param connection: does not block.
    :raises OSError: it cannot be.
    """
    number = connection.connect_ex(address)
    if number == EINPROGRESS:
        number = connection.connect_ex(address)
    if number in (EALREADY, EINPROGRESS, EAGAIN):
        return False
    if number:
        raise OSError(number, os.strerror(number))
    return True


async def _connected(reactor: IReactor, connection: socket.socket, address: Any) -> None:
    """:raises OSError: it cannot be."""
    while isinstance(address, str):  # a Unix socket
        await deferLater(reactor, _QUEUE_FULL, lambda: None)
        if _connected_at_once(connection, address):
            return
    await _Connecting(poller(reactor), connection).over
    if number := connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
        raise OSError(number, os.strerror(number))


class _Connecting:
    """A socket that is being connected, watched until it is, or cannot be.

    :ivar over: fires then.
    """

    def __init__(self, poller: Poller, connection: socket.socket) -> None:
        self._poller = poller
        self.fileno = connection.fileno
        self.over: Deferred[None] = Deferred(lambda _: self._stop())
        poller.watch(self, 0, select.EPOLLOUT)

    def _stop(self) -> None:
        self._poller.watch(self, select.EPOLLOUT, 0)

    def ready(self, events: int) -> None:
        """It is over, one way or the other.

        :param events: that there are some.
        """
        self._stop()
        self.over.callback(None)

    def connectionLost(self, reason: Failure) -> None:
        """The reactor has ended, and its timers with it.

        :param reason: says so.
        """
        self._stop()


async def _through_endpoint(
    reactor: IReactor, host: Host, protocol: Protocol, timeout: float
) -> None:
    try:
        await _endpoint(reactor, host, timeout).connect(OneProtocol.forProtocol(lambda: protocol))
    except ConnectingCancelledError as error:
        raise CancelledError from error
    except (ConnectError, OSError) as error:
        raise ConnectFailed(connect_error(error)) from error


def _endpoint(reactor: IReactor, host: Host, timeout: float) -> IStreamClientEndpoint:
    if host.unix_path is not None:
        return UNIXClientEndpoint(reactor, _unix_path(host.unix_path), timeout=timeout)
    kind = TCP6ClientEndpoint if ":" in host.hostaddr else TCP4ClientEndpoint
    return kind(reactor, host.hostaddr, host.port, timeout=timeout)


def connect_error(error: BaseException) -> str:
    """Why a connection could not be made, in the system's words, as libpq has it.

    :param error: of one of Twisted's endpoints.
    :returns: the reason.
    """
    if isinstance(error, TCPTimedOutError | ConnectTimeout):
        return TIMEOUT_EXPIRED
    number = getattr(error, "osError", None) or getattr(error, "errno", None)
    if isinstance(number, int):
        return os.strerror(number)
    return str(error) or type(error).__name__
