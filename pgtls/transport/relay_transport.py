"""The interface of our own connections."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import cast

from twisted.internet.interfaces import (
    IAddress,
    IConsumer,
    IPushProducer,
    ISSLTransport,
    ITLSTransport,
    ITransport,
)
from twisted.protocols.policies import ProtocolWrapper
from twisted.protocols.tls import TLSMemoryBIOProtocol
from zope.interface import Attribute

from pgtls.transport.traffic import Traffic


class IStreamTransport(ITransport, IConsumer, IPushProducer):
    """What a relay needs of a connection. Twisted's own have it too."""

    def getHandle() -> object:
        """What the connection stands on.

        :returns: pyOpenSSL's Connection once TLS has begun, before that the socket.
        """

    def abortConnection() -> None:
        """Close at once; what has not been sent is not."""

    def loseWriteConnection() -> None:
        """Half-close: the peer is told, with close_notify in TLS, that no more will come from here
        when everything that has been written is sent. Reading goes on."""


class INegotiableTransport(IStreamTransport, ITLSTransport):
    """What PostgreSQL's negotiation needs of a connection: that TLS can be started, and TCP's
    options set. Over a Unix socket it has neither; a wrapper (haproxy's) passes both on."""


class IRelayTransport(IStreamTransport):
    """What a connection of :mod:`pgtls.transport` offers, over TCP with or without TLS and over a
    Unix socket. Those over TCP provide ITCPTransport and ITLSTransport, too."""

    closing = Attribute(
        """Whether it will be closed when the events at hand have been dealt with: there is nothing
        left to be sent."""
    )

    spliced = Attribute("""Bytes that have gone past the protocol: see :meth:`splice_to`.""")

    def unread(data: bytes) -> None:
        """Take bytes back that were read before TLS began and belong to it: the beginning of a
        ClientHello.

        :param data: as they came. ``startTLS`` has been called.
        """

    def notice_end(peer_ended: Callable[[bool], None]) -> None:
        """Have the peer's end noticed also while nothing is read.

        :param peer_ended: is told of it, and whether the connection is broken in both directions;
            what the peer has sent may still be there to be read.
        """

    def speak_for(client: IAddress | None, server: IAddress | None) -> None:
        """The peer is a proxy, and has said for whom it speaks.

        :param client: becomes what ``getPeer`` says; None where that stays as it is.
        :param server: becomes what ``getHost`` says: where the client has connected to.
        """

    def splice_to(sink: object) -> None:
        """From now on bytes may go to another transport past both protocols, in the kernel, where
        they come in bulk: the protocol here would do nothing but write them there.

        :param sink: the other transport. Where it is none of ours, or one of the two has TLS,
            everything goes on as it is.
        """

    def keep_traffic() -> bool:
        """Have :meth:`traffic` known also when the connection is closed.

        :returns: False over a Unix socket, where it is never known.
        """

    def traffic() -> Traffic | None:
        """Count what has gone over the connection so far.

        :returns: as the kernel counts it; None over a Unix socket, on a system that does not count,
            and when it is closed unless :meth:`keep_traffic` was called before.
        """


@cache
def _are_own(kind: type) -> bool:
    """Whether a class is one of :mod:`pgtls.transport`: instances need not be asked then."""
    return bool(IRelayTransport.implementedBy(kind))


def own_transport(transport: ITransport) -> IRelayTransport | None:
    """A transport, if it is one of pgtls's own.

    :param transport: a protocol's.
    :returns: the same; None where it is another one.
    """
    if _are_own(type(transport)) or IRelayTransport.providedBy(transport):
        return cast(IRelayTransport, transport)
    return None


def can_half_close(transport: ITransport) -> bool:
    """Whether ``loseWriteConnection`` tells the peer, and leaves the other direction open.

    :param transport: ours, or Twisted's own, whose TLS cannot do that.
    :returns: whether it can.
    """
    if isinstance(transport, TLSMemoryBIOProtocol):
        return False  # around one of ours, of which it has taken the interfaces
    return IRelayTransport.providedBy(transport) or not ISSLTransport.providedBy(transport)


def unread(transport: ITransport, data: bytes) -> None:
    """Give bytes back that a protocol was given before it called ``startTLS`` and that belong to
    TLS.

    :param transport: the protocol's; ours, Twisted's own, or a wrapper of one (haproxy's).
    :param data: the bytes.
    """
    lowest = lowest_transport(transport)
    if IRelayTransport.providedBy(lowest):
        lowest.unread(data)
    else:
        lowest.protocol.dataReceived(data)  # type: ignore[attr-defined] # Twisted's TLS is there


def lowest_transport(transport: ITransport) -> object:
    """The socket's own transport.

    :param transport: a protocol's; a wrapper of another one (haproxy's), or not.
    :returns: that which wraps no other one.
    """
    lowest: object = transport
    while isinstance(lowest, ProtocolWrapper):
        lowest = lowest.transport
    return lowest


def speak_for(transport: ITransport, client: IAddress | None, server: IAddress | None) -> None:
    """Have a connection from a proxy say the client's addresses in place of the proxy's own.

    :param transport: a protocol's; ours, or Twisted's own.
    :param client: what its ``getPeer`` is to say; None where it stays as it is.
    :param server: what its ``getHost`` is to say; None where it stays as it is.
    """
    if (own := own_transport(transport)) is not None:
        own.speak_for(client, server)
        return
    if client is not None:
        transport.getPeer = lambda: client  # type: ignore[method-assign]
    if server is not None:
        transport.getHost = lambda: server  # type: ignore[method-assign]
