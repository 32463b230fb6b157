"""Which of Twisted's transports become fast ones.

Twisted leaves no place to say which class a connection gets. So :func:`speed_up` gives another one
to a connection that was accepted and to its port, whose next ones are then fast from the start;
:func:`client_class` is for sockets that have been connected. Where that cannot serve (no epoll, a
wrapper such as haproxy's, another kind of transport, a TLS context that is not ours), everything
stays as Twisted has it.
"""

from __future__ import annotations

import select
import socket
from functools import lru_cache
from typing import Any

from twisted.internet import tcp, unix
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.interfaces import IProtocol, ISSLTransport
from twisted.internet.posixbase import PosixReactorBase
from zope.interface import implementer

from pgtls.transport.fast_tls import FastTLS
from pgtls.transport.fast_transport import Fast
from pgtls.transport.poller import poller


def _equip(transport: Any, connection: socket.socket, protocol: IProtocol, reactor: Any) -> None:
    """What the initializers of Twisted's classes do together, which ask more, and call each other.

    :param connection: does not block.
    """
    transport.socket = connection
    transport.fileno = connection.fileno
    transport.protocol = protocol
    transport.reactor = reactor
    transport._tempDataBuffer = []
    transport._tempDataLen = 0


class _Connected(tcp.BaseClient):
    """Twisted's, around a socket that has been connected without a connector."""

    connectionLost = tcp.Connection.connectionLost

    def __init__(
        self, connection: socket.socket, address: Any, protocol: IProtocol, reactor: Any
    ) -> None:
        _equip(self, connection, protocol, reactor)
        self.realAddress = self.addr = address
        self.connected = 1
        self.startReading()  # type: ignore[no-untyped-call]


class _TCPClientBase(_Connected, tcp.Client):
    def getPeer(self) -> IPv4Address | IPv6Address:
        return _server_address(self.realAddress)

    def getHost(self) -> IPv4Address | IPv6Address:
        return _ip_address(self.socket.getsockname())


def _ip_address(address: tuple[Any, ...]) -> IPv4Address | IPv6Address:
    return (IPv6Address if len(address) == 4 else IPv4Address)("TCP", *address)


_server_address = lru_cache(maxsize=64)(_ip_address)  # servers are few


class _UNIXClientBase(_Connected, unix.Client):
    def __init__(self, *arguments: Any) -> None:
        self._sendmsgQueue: list[int] = []
        super().__init__(*arguments)


class _Accepted(Fast):
    """Knows whom it was accepted from, if it is fast from the start."""

    _peer: IPv4Address | IPv6Address | UNIXAddress | None = None

    def getPeer(self) -> Any:
        return self._peer or self._twisted_class.getPeer(self)


@implementer(ISSLTransport)
class _ServerTLS(_Accepted, FastTLS, tcp.Server):  # type: ignore[misc]
    _twisted_class = tcp.Server
    _server_side = True


@implementer(ISSLTransport)
class _ClientTLS(FastTLS, _TCPClientBase):  # type: ignore[misc]
    _twisted_class = _TCPClientBase
    _last_words_matter = True  # a server's: why it ends the session


class _Server(_Accepted, tcp.Server):  # type: ignore[misc]
    _twisted_class = tcp.Server
    _tls_class = _ServerTLS

    def __init__(
        self,
        connection: socket.socket,
        protocol: IProtocol,
        client: tuple[Any, ...],
        server: tcp.Port,
        sessionno: int,
        reactor: Any,
    ) -> None:
        connection.setblocking(False)
        _equip(self, connection, protocol, reactor)
        if len(client) != 2:
            self._addressType = IPv6Address
        self.client = client
        self.hostname = client[0]
        self.server = server
        self.sessionno = sessionno
        name = type(protocol).__name__
        self.logstr = f"{name},{sessionno},{client[0]}"
        self.repstr = f"<{name} #{sessionno} on {server._realPortNumber}>"
        self.connected = 1
        self.startReading()


class _TCPClient(Fast, _TCPClientBase):  # type: ignore[misc]
    _twisted_class = _TCPClientBase
    _read_anything = True  # no server begins with a ClientHello
    _tls_class = _ClientTLS


class _UNIXServer(_Accepted, unix.Server):  # type: ignore[misc]
    _twisted_class = unix.Server


class _UNIXClient(Fast, _UNIXClientBase):  # type: ignore[misc]
    _twisted_class = _UNIXClientBase
    _read_anything = True


class _Accepting(tcp.Port):
    """A port whose connections are fast from the start, and which is itself where they are."""

    _watched = False

    def startReading(self) -> None:
        if not self._watched:
            self._watched = True
            poller(self.reactor).watch(self, 0, select.EPOLLIN)

    def stopReading(self) -> None:
        if self._watched:
            self._watched = False
            poller(self.reactor).watch(self, select.EPOLLIN, 0)

    def ready(self, events: int) -> None:
        """Somebody wants to connect. If more do, epoll says so again."""
        listening: Any = self.socket
        try:
            descriptor, address = listening._accept()
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self.doRead()  # type: ignore[no-untyped-call] # Twisted knows what to do
            return
        # As socket.accept() does, which asks three enumerations for what is known here.
        connection = socket.socket(self.addressFamily, socket.SOCK_STREAM, 0, descriptor)
        if self.addressFamily == socket.AF_INET6:
            # With the name of the interface that a link-local address belongs to.
            flags = socket.NI_NUMERICHOST | socket.NI_NUMERICSERV
            address = (socket.getnameinfo(address, flags)[0], *address[1:])
        self._begin(connection, address)

    def _begin(self, connection: socket.socket, address: Any) -> None:
        factory: Any = self.factory
        peer = self._buildAddr(address)  # type: ignore[no-untyped-call]
        protocol = factory.buildProtocol(peer)
        if protocol is None:
            connection.close()
            return
        number, self.sessionno = self.sessionno, self.sessionno + 1
        transport: Any = self.transport(connection, protocol, address, self, number, self.reactor)
        transport._peer = peer
        protocol.makeConnection(transport)


class _TCPPort(_Accepting):
    transport: Any = _Server


class _UNIXPort(_Accepting, unix.Port):
    transport = _UNIXServer


_CLASSES: dict[type, type[Any]] = {
    tcp.Server: _Server,
    _TCPClientBase: _TCPClient,
    tcp.Port: _TCPPort,
    unix.Server: _UNIXServer,
    _UNIXClientBase: _UNIXClient,
    unix.Port: _UNIXPort,
}


def _fast(kind: type) -> type[Any] | None:
    return _CLASSES.get(kind) if hasattr(select, "epoll") else None


def speed_up(transport: Any) -> None:
    """Make an accepted connection a fast one, if it can be, and its port one whose connections are
    fast from the start."""
    if _change(transport):
        _change(transport.server)


def _change(descriptor: Any) -> bool:
    fast = _fast(type(descriptor))
    if fast is None:
        return False
    descriptor.stopReading()
    descriptor.__class__ = fast
    descriptor.startReading()
    return True


def client_class(reactor: Any, *, unix: bool) -> type[Any] | None:
    """What to make around a connected socket of the client's side: called with the socket, the
    address that it is connected to, the protocol and the reactor. None where there is nothing
    faster than Twisted's endpoints."""
    if not isinstance(reactor, PosixReactorBase):
        return None  # one of memory, in somebody's tests
    return _fast(_UNIXClientBase if unix else _TCPClientBase)
