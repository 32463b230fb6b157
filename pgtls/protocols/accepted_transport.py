"""What a listener sets on an accepted connection, and whether TLS can be started on it."""

from __future__ import annotations

from collections.abc import Sequence
from socket import AF_UNIX, socket

from twisted.internet.interfaces import ITCPTransport, ITLSTransport, IUNIXTransport

from pgtls.transport.keepalive import set_tcp_options
from pgtls.transport.relay_transport import INegotiableTransport
from pgtls.transport.tcp_connection import TCPConnection


def prepare(transport: INegotiableTransport, options: Sequence[tuple[str, int]]) -> bool:
    """Set TCP's options.

    :param transport: the client's connection.
    :param options: names and values besides TCP_NODELAY and SO_KEEPALIVE.
    :returns: whether TLS can be started: not over a Unix socket.
    """
    # Our own over TCP is known without asking for interfaces; it has the two from its listener.
    ours = isinstance(transport, TCPConnection)
    if not ours and ITCPTransport.providedBy(transport):
        transport.setTcpNoDelay(True)
        transport.setTcpKeepAlive(True)
    if options:
        connection = transport.getHandle()
        # Another one where an endpoint has put TLS below.
        if isinstance(connection, socket) and connection.family != AF_UNIX:
            set_tcp_options(connection, options)
    return ours or (
        ITLSTransport.providedBy(transport) and not IUNIXTransport.providedBy(transport)
    )
