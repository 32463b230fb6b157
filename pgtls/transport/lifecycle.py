"""A connection from its first event to its end: what the events are for, what follows from its
states (:mod:`pgtls.transport.states`), how it is closed."""

from __future__ import annotations

import select
import socket
import struct
from collections.abc import Callable

from twisted.internet.error import ConnectionAborted
from twisted.internet.interfaces import (
    IAddress,
    IProtocol,
    IReactorTime,
)
from twisted.internet.main import CONNECTION_DONE, CONNECTION_LOST
from twisted.internet.protocol import Protocol
from twisted.logger import Logger
from twisted.python.failure import Failure

from pgtls.transport.addresses import socket_address
from pgtls.transport.half_close import half_closeable
from pgtls.transport.outgoing import Outgoing
from pgtls.transport.plaintext import Plaintext
from pgtls.transport.poller import Poller
from pgtls.transport.states import (
    CLOSE,
    CLOSING,
    ENDED,
    HALF_CLOSE,
    LOST,
    OPEN,
    SENT,
    TRANSITIONS,
    Change,
    State,
)
from pgtls.transport.tls_layer import TLS, Handshake
from pgtls.transport.traffic import Traffic, tcp_traffic

_log = Logger(namespace="pgtls.transport")

READABLE = select.EPOLLIN if hasattr(select, "epoll") else 0
WRITABLE = select.EPOLLOUT if hasattr(select, "epoll") else 0
_BROKEN = select.EPOLLERR | select.EPOLLHUP if hasattr(select, "epoll") else 0
#: The peer's end, told once; where that is known, only that the connection is broken.
_END = select.EPOLLRDHUP | select.EPOLLET if hasattr(select, "epoll") else 0
_ONLY_BROKEN = select.EPOLLET if hasattr(select, "epoll") else 0

_DONE = Failure(CONNECTION_DONE)

#: Stands for the protocol of a connection that is closed.
_NO_PROTOCOL = Protocol()

#: For SO_LINGER.
_RESET = struct.pack("ii", 1, 0)

#: What is between a connection and its socket.
Layer = Plaintext | Handshake | TLS


class Lifecycle:
    """A connection, but for what writes to it.

    :param connection: the socket; it is connected and does not block.
    :param protocol: gets what comes; its ``makeConnection`` is the caller's to call.
    :param reactor: for what is to be done later.
    :param poller: where the events come from.
    :param peer: the other end's address.
    :ivar closing: see :class:`~pgtls.transport.relay_transport.IRelayTransport`.
    :ivar connected: whether it has not been closed yet.
    """

    closing = False
    _aborting = False
    _host: IAddress | None = None  # where it is another one than the socket's
    _keeps_traffic = False
    _traffic: Traffic | None = None

    def __init__(
        self,
        connection: socket.socket,
        protocol: IProtocol,
        reactor: IReactorTime,
        poller: Poller,
        peer: IAddress,
    ) -> None:
        self._socket = connection
        self.protocol = protocol
        self.reactor = reactor
        self._poller = poller
        self._peer = peer
        self.connected = True
        self._state: State = OPEN
        self._layer: Layer = Plaintext(connection)
        self._outgoing = Outgoing()
        self._direct = True  # a write goes to the socket at once
        self._read_ended = False
        self._close_notified = False
        self._peer_ended: Callable[[bool], None] | None = None
        self._interest = 0
        self._watch(READABLE)

    @property
    def disconnecting(self) -> bool:
        """Whether it is being closed."""
        return self._state is CLOSING

    def getHandle(self) -> object:
        """The socket."""
        return self._socket

    def getPeer(self) -> IAddress:
        """The other end's address."""
        return self._peer

    def getHost(self) -> IAddress:
        """This end's address."""
        return self._host or socket_address(self._socket.family, self._socket.getsockname())

    def speak_for(self, client: IAddress | None, server: IAddress | None) -> None:
        """See :class:`~pgtls.transport.relay_transport.IRelayTransport`.

        :param client: the client's address; None for the peer's own.
        :param server: the address that it has connected to; None for this end's own.
        """
        self._peer = client or self._peer
        self._host = server

    def fileno(self) -> int:
        """The socket's number, -1 when it is closed."""
        return self._socket.fileno()

    def _watch(self, interest: int) -> None:
        interest &= READABLE | WRITABLE
        if not interest and self._peer_ended is not None and self._state is not CLOSING:
            interest = _ONLY_BROKEN if self._read_ended else _END
        if interest != self._interest:
            before, self._interest = self._interest, interest
            self._poller.watch(self, before, interest)

    def ready(self, events: int) -> None:
        """The socket can be read from or written to, or is in trouble.

        :param events: as epoll has them.
        """
        try:
            why = self._read() if events == READABLE else self._ready_for_more(events)
        except Exception as error:
            _log.failure("unhandled error in a connection")
            why = error
        if why is not None and self.connected:
            self._lost(why, reading=bool(events & ~WRITABLE))

    def notice_end(self, peer_ended: Callable[[bool], None]) -> None:
        """See :class:`~pgtls.transport.relay_transport.IRelayTransport`.

        :param peer_ended: is told.
        """
        self._peer_ended = peer_ended

    def _ready_for_more(self, events: int) -> Exception | None:
        """What :meth:`ready` is for, where it is not just reading."""
        if self._interest & _END and self._peer_ended is not None:
            self._peer_ended(bool(events & select.EPOLLERR))
            return None
        why: Exception | None = None
        if events & ~WRITABLE:
            # What is wrong with a socket shows when one reads it; one that has been read to its
            # end is in trouble for good.
            why = CONNECTION_LOST if self._read_ended else self._read()
        # Where the peer is gone a write would fail, and more may be there to be read.
        if why is None and not events & _BROKEN and events & self._interest & WRITABLE:
            failed = self._write_more()
            if failed is not None and self.connected:
                self._lost(failed, reading=False)
        return why

    def _read(self) -> Exception | None:
        """:returns: why the connection ends, if it does."""
        layer = self._layer
        data = layer.receive()
        if data:
            self.protocol.dataReceived(data)
        if layer.unsent and self.connected:  # TLS has answered something
            self._watch(self._interest | WRITABLE)
        return layer.end

    def _write_more(self) -> Exception | None:
        """The socket takes more.

        :returns: why the connection ends, if it does.
        """
        raise NotImplementedError

    def _close(self) -> Exception | None:
        """Close, when everything has been sent and the peer been told."""
        if not self._close_notified:
            self._close_notified = True
            self._layer.close_notify()
        if self._layer.unsent:
            self._watch(WRITABLE)
            return None
        return CONNECTION_DONE

    def _change(self, change: Change) -> bool:
        """:returns: whether it changes anything."""
        state = TRANSITIONS.get((self._state, change))
        if state is None:
            return False
        self._state = state
        return True

    def loseConnection(self) -> None:
        """Close when everything has been sent; where nothing is left to be, when the events at hand
        have been dealt with."""
        half_closed = self._state is ENDED
        if not self._change(CLOSE):
            return
        self._direct = False
        if half_closed:
            self._watch(0)
            self.reactor.callLater(0, self.connectionLost, _DONE)
        elif self._layer.handshaking and self._outgoing.size:
            self._watch(self._interest | READABLE)  # it cannot be sent before
        elif self._unsent():
            self._watch(WRITABLE)
        elif self._poller.soon(self):
            self.closing = True
            self._watch(0)
        else:
            self._watch(WRITABLE)

    def close_now(self) -> None:
        """What :meth:`loseConnection` put off, unless something was written after it."""
        self.closing = False
        if not self.connected:
            return
        if self._unsent():
            self._watch(WRITABLE)
        elif self._close() is not None:
            self._lost(CONNECTION_DONE, reading=False)

    def _unsent(self) -> bool:
        outgoing = self._outgoing
        return bool(outgoing.size or self._layer.unsent or outgoing.producer is not None)

    def loseWriteConnection(self) -> None:
        """Half-close when everything has been sent."""
        if not self._change(HALF_CLOSE):
            return
        self._direct = False
        if self._unsent() or half_closeable(self.protocol) is not None:
            self._watch(self._interest | WRITABLE)
        else:
            self._change(SENT)
            self._finish()

    def _end_sending(self) -> None:
        self._finish()
        told = half_closeable(self.protocol)
        if told is not None:
            told.writeConnectionLost()

    def _finish(self) -> None:
        """Half-close now."""
        self._close_notified = True
        self._layer.finish()
        if self._layer.unsent:
            self._watch(self._interest | WRITABLE)

    def abortConnection(self) -> None:
        """Close at once, with a reset."""
        self._abort(Failure(ConnectionAborted()))

    def _abort(self, reason: Failure) -> None:
        if self.connected and not self._aborting:
            self._aborting = True
            self._direct = False
            self._change(CLOSE)
            self._watch(0)
            self.reactor.callLater(0, self.connectionLost, reason)

    def _lost(self, why: Exception, *, reading: bool) -> None:
        if why is not CONNECTION_DONE:
            self.connectionLost(Failure(why))
        elif reading and self._state is not CLOSING:
            self._end_of_reading()
        else:
            self.connectionLost(_DONE)

    def _end_of_reading(self) -> None:
        """The peer will send no more: a protocol that can live with that is told, else it is the
        end."""
        told = half_closeable(self.protocol)
        if told is None:
            self._layer.close_notify()
            self.connectionLost(_DONE)
            return
        self._read_ended = True
        self._watch(self._interest & ~READABLE)
        try:
            told.readConnectionLost()
        except Exception:
            _log.failure("unhandled error in a connection")
            self.connectionLost(Failure())

    def connectionLost(self, reason: Failure) -> None:
        """The connection is over: close the socket, and tell the protocol.

        :param reason: why.
        """
        if not self._change(LOST):
            return
        self.connected = self._direct = False
        self._outgoing.stop()
        if self._interest:
            self._interest = 0
            self._poller.forget(self)
        self._layer.detach()
        self._peer_ended = None
        if self._keeps_traffic:
            self._traffic = tcp_traffic(self._socket)
        if reason is not _DONE:
            self._shut_down(reset=isinstance(reason.value, ConnectionAborted))
        self._socket.close()
        protocol, self.protocol = self.protocol, _NO_PROTOCOL
        protocol.connectionLost(reason)

    def _shut_down(self, *, reset: bool) -> None:
        try:  # suppress() is dearer than the call
            if reset:
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            else:
                self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # the peer is gone
