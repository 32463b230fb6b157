"""A connection over TCP, which may get TLS."""

from __future__ import annotations

import socket
from functools import cache
from typing import Any, cast

from OpenSSL import SSL
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import (
    IAddress,
    IHandshakeListener,
    IOpenSSLClientConnectionCreator,
    IOpenSSLContextFactory,
    IOpenSSLServerConnectionCreator,
    IProtocol,
    IReactorTime,
    ISSLTransport,
    ITLSTransport,
)
from twisted.python.failure import Failure
from zope.interface import implementer
from zope.interface.declarations import Provides

from pgtls.tls.records import Records
from pgtls.transport.connection import Connection
from pgtls.transport.idle_memory import idle_memory
from pgtls.transport.lifecycle import READABLE, WRITABLE
from pgtls.transport.poller import Poller
from pgtls.transport.states import OPEN
from pgtls.transport.tls_layer import TLS, Handshake

#: What ``startTLS`` takes.
ContextFactory = (
    IOpenSSLClientConnectionCreator | IOpenSSLServerConnectionCreator | IOpenSSLContextFactory
)


class _OfNoFactory:
    """Twisted's own contexts ask for the factory of the protocol that they make TLS for, and for
    its ALPN.
    """

    wrappedFactory = None


@implementer(ITLSTransport)
class TCPConnection(Connection):
    """A connection over TCP.

    :param connection: the socket; it does not block.
    :param protocol: what the connection is for.
    :param reactor: for timers.
    :param poller: waits for events.
    :param peer: the other end's address.
    :param client: whether this end has connected: in TLS it is the client.
    """

    factory = _OfNoFactory()

    def __init__(
        self,
        connection: socket.socket,
        protocol: IProtocol,
        reactor: IReactorTime,
        poller: Poller,
        peer: IAddress,
        *,
        client: bool,
    ) -> None:
        self._client = client
        self._tls: SSL.Connection | None = None
        self._unread = False  # OpenSSL has something that the protocol did not want to read yet
        super().__init__(connection, protocol, reactor, poller, peer)

    # Options -------------------------------------------------------------------------------------

    def getTcpNoDelay(self) -> bool:
        """Whether TCP_NODELAY is set."""
        return bool(self._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))

    def setTcpNoDelay(self, enabled: bool) -> None:
        """Set TCP_NODELAY.

        :param enabled: whether small writes go at once.
        """
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, enabled)

    def getTcpKeepAlive(self) -> bool:
        """Whether SO_KEEPALIVE is set."""
        return bool(self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE))

    def setTcpKeepAlive(self, enabled: bool) -> None:
        """Set SO_KEEPALIVE.

        :param enabled: whether the kernel asks a silent peer if it is there.
        """
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, enabled)

    def getHost(self) -> IPv4Address | IPv6Address:
        """This end's address."""
        return cast("IPv4Address | IPv6Address", super().getHost())

    def getPeer(self) -> IPv4Address | IPv6Address:
        """The other end's address."""
        return self._peer  # type: ignore[return-value]  # over TCP it is one of the two

    def keep_traffic(self) -> bool:
        """See :class:`~pgtls.transport.relay_transport.IRelayTransport`."""
        self._keeps_traffic = True
        return True

    # TLS -----------------------------------------------------------------------------------------

    def getHandle(self) -> object:
        """pyOpenSSL's Connection once TLS has begun, before that the socket."""
        return self._tls or self._socket

    def getPeerCertificate(self) -> object:
        """The peer's certificate, as pyOpenSSL has it; None where it has shown none."""
        return self._tls.get_peer_certificate() if self._tls is not None else None

    def startTLS(self, contextFactory: ContextFactory, normal: bool = True) -> None:
        """TLS from here on; what has been written goes before it.

        :param contextFactory: makes OpenSSL's connection.
        :param normal: whether this end is the client in TLS if it is TCP's.
        """
        client = self._client is normal
        tls = self._tls = _connection(contextFactory, client, self)
        unsent = self._outgoing.take_all()
        layer = Handshake(self._socket, Records(tls), unsent, self._completed)
        self._layer = layer
        self._direct = False
        self.__provides__ = _WITH_TLS
        if client:
            layer.go_on(0)
        self._after(layer)

    def unread(self, data: bytes) -> None:
        """See :class:`~pgtls.transport.relay_transport.IRelayTransport`.

        :param data: the beginning of a ClientHello.
        """
        layer = self._layer
        if isinstance(layer, Handshake):
            layer.go_on(0, data)
            self._after(layer)

    def _after(self, layer: Handshake) -> None:
        """A step of the handshake without an event."""
        if layer.end is not None and self.connected:
            self._watch(0)  # asked again, OpenSSL would no longer say what went wrong
            self.reactor.callLater(0, self._write_failed, layer.end)
        elif layer.unsent:
            self._watch(self._interest | WRITABLE)

    def _completed(self, handshake: Handshake) -> Exception | None:
        self._layer = layer = handshake.secured(idle_memory(self.reactor))
        self._update_direct()
        protocol = self.protocol
        if _listens(type(protocol)) or IHandshakeListener.providedBy(protocol):
            cast(IHandshakeListener, protocol).handshakeCompleted()
        if not self.connected:
            return None
        if self.disconnecting:
            self.pauseProducing()  # it went on for the handshake alone
        if self._outgoing.size or layer.unsent or self._state is not OPEN:
            self._watch(self._interest | WRITABLE)
        # What came with the handshake is in OpenSSL's hands, where epoll sees nothing.
        if not self._interest & READABLE:
            self._unread = True
            return None
        return self._deliver(layer)

    def _deliver(self, layer: TLS) -> Exception | None:
        """What OpenSSL has already."""
        data = layer.opened_before()
        if data:
            self.protocol.dataReceived(data)
        if layer.unsent and self.connected:
            self._watch(self._interest | WRITABLE)
        return layer.end

    def resumeProducing(self) -> None:
        """Read again."""
        super().resumeProducing()
        if self._unread and self._interest & READABLE:
            self._unread = False
            self.reactor.callLater(0, self._read_what_came_before)

    def _read_what_came_before(self) -> None:
        layer = self._layer
        if not self._interest & READABLE or not isinstance(layer, TLS):
            self._unread = self.connected
            return
        why = self._deliver(layer)
        if why is not None and self.connected:
            self._lost(why, reading=True)

    def failVerification(self, reason: Failure) -> None:
        """Twisted's own contexts for clients call it where the server is not the right one.

        :param reason: becomes that of the connection's end.
        """
        self._abort(reason)


# What classes say of all their instances need not be asked of each.


@cache
def _listens(protocol: type) -> bool:
    return bool(IHandshakeListener.implementedBy(protocol))


@cache
def _makes_servers_connections(factory: type) -> bool:
    return bool(IOpenSSLServerConnectionCreator.implementedBy(factory))


#: What a connection provides with TLS on it: as directlyProvides() would find out each time anew.
_WITH_TLS = Provides(TCPConnection, ISSLTransport)


def _connection(factory: ContextFactory, client: bool, transport: TCPConnection) -> SSL.Connection:
    """What does TLS for a transport, and knows which end it is."""
    asking: Any = transport  # in place of Twisted's own TLS protocol, of which it has what is used
    if not client and _makes_servers_connections(type(factory)):
        tls = cast(IOpenSSLServerConnectionCreator, factory).serverConnectionForTLS(asking)
    elif client and IOpenSSLClientConnectionCreator.providedBy(factory):
        tls = factory.clientConnectionForTLS(asking)
    elif not client and IOpenSSLServerConnectionCreator.providedBy(factory):
        tls = factory.serverConnectionForTLS(asking)
    else:
        tls = SSL.Connection(cast(IOpenSSLContextFactory, factory).getContext(), None)
    if client:
        tls.set_connect_state()
    else:
        tls.set_accept_state()
    return tls
