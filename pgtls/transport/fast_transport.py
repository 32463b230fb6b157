"""Sockets without detours: what a connection's transport becomes when a Protocol of ours is on it.

Twisted's own way is general and pays for it on each small message: a write waits for another turn
of the reactor, with two calls of ``epoll_ctl``; TLS goes through memory buffers; each event is
dispatched in a logging context. Here:

* a write goes to the socket at once, and is buffered only for what the socket does not take,
* TLS is OpenSSL's on the socket itself,
* events come from an epoll of our own, which is one descriptor among the reactor's others.

What an application sees stays Twisted's: ``startTLS``, ``ITLSTransport``, producers, half-close,
``loseConnection``. Here is what plaintext and TLS share: see :mod:`pgtls.transport.speed_up`.
"""

from __future__ import annotations

import select
import socket
from collections.abc import Callable, Iterable
from typing import Any, cast

from twisted.internet.abstract import FileDescriptor
from twisted.internet.error import ConnectionAborted
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.main import CONNECTION_DONE, CONNECTION_LOST
from twisted.logger import Logger
from twisted.python.failure import Failure

from pgtls.transport.poller import Poller, poller
from pgtls.transport.splice import Pipe
from pgtls.wire.messages import TLS_HANDSHAKE_RECORD

_log = Logger(namespace="pgtls.transport")

_READABLE = select.EPOLLIN if hasattr(select, "epoll") else 0
_GONE = select.EPOLLERR | select.EPOLLHUP if hasattr(select, "epoll") else 0
#: The peer's end, told once.
_END = select.EPOLLRDHUP | select.EPOLLET if hasattr(select, "epoll") else 0

_DONE = Failure(CONNECTION_DONE)


class Fast(FileDescriptor):
    """In front of one of Twisted's transport classes: plaintext.

    :ivar peeked: what the protocol was given first is still in the socket: the beginning of a
        ClientHello, which TLS reads from there.
    :ivar closing: it will be closed when the events at hand have been dealt with.
    """

    protocol: Any
    reactor: Any
    socket: socket.socket
    peeked = False
    closing = False

    _twisted_class: Any
    _tls_class: Any = None  # on a Unix socket there is no TLS
    _poller: Poller | None = None
    _interest = 0
    _read_anything = False
    _read_everything = False
    _peer_ended: Callable[[bool], None] | None = None
    _plain = True
    _sink: Fast | None = None
    _in_bulk = False

    def startReading(self) -> None:
        if not self._read_everything:
            self._watch((self._interest | select.EPOLLIN) & ~_END)

    def stopReading(self) -> None:
        self._watch(self._without(select.EPOLLIN))

    def startWriting(self) -> None:
        self._watch((self._interest | select.EPOLLOUT) & ~_END)

    def stopWriting(self) -> None:
        self._watch(self._without(select.EPOLLOUT))

    def _without(self, event: int) -> int:
        end = self._peer_ended is not None and not self.disconnecting
        return self._interest & ~(event | _END) or (_END if end else 0)

    def notice_end(self, peer_ended: Callable[[bool], None]) -> None:
        """Have the peer's end told, and whether it broke the connection, while nothing is read."""
        self._peer_ended = peer_ended

    def _watch(self, interest: int) -> None:
        if interest != self._interest:
            before, self._interest = self._interest, interest
            if self._poller is None:
                self._poller = poller(self.reactor)
            self._poller.watch(self, before, interest)

    def ready(self, events: int) -> None:
        """The socket can be read from or written to, or is in trouble."""
        try:
            why = self.doRead() if events == _READABLE else self._ready_for_more(events)
        except Exception as error:
            _log.failure("unhandled error in a connection")
            why = error
        if why is not None and self.connected:
            self._lost(why, events & ~select.EPOLLOUT)

    def _ready_for_more(self, events: int) -> Exception | None:
        """What :meth:`ready` is for, where it is not just reading."""
        if self._interest & _END and self._peer_ended is not None:
            self._peer_ended(bool(events & select.EPOLLERR))
            return None
        why: Exception | None = None
        if events & ~select.EPOLLOUT:
            # What is wrong with a socket shows when one reads it; one that has been read to its
            # end is in trouble for good.
            why = CONNECTION_LOST if self._read_everything else self.doRead()
        # Where the peer is gone a write would fail, and more may be there to be read.
        if why is None and not events & _GONE and events & self._interest & select.EPOLLOUT:
            failed = self.doWrite()  # type: ignore[no-untyped-call]
            if failed is not None and self.connected:
                self._lost(failed, 0)
        return why

    def _lost(self, why: Exception, reading: int) -> None:
        if why is not CONNECTION_DONE:
            self.connectionLost(Failure(why))
        elif reading and not self.disconnecting:
            self.readConnectionLost(_DONE)
        else:
            self.connectionLost(_DONE)

    def connectionLost(self, reason: Failure) -> None:
        if self.disconnected:
            return  # already: see Twisted's
        self.disconnected = 1
        self.connected = 0
        if self.producer is not None:
            self.producer.stopProducing()
            self.producer = None
        if self._interest and self._poller is not None:
            self._interest = 0
            self._poller.forget(self)
        if reason is _DONE:
            self.socket.close()
        else:
            self._twisted_class._closeSocket(self, not reason.check(ConnectionAborted))
        protocol = self.protocol
        self._sink = self._peer_ended = None
        del self.protocol, self.socket, self.fileno
        protocol.connectionLost(reason)

    def readConnectionLost(self, reason: Failure) -> None:
        """The peer will send no more: who can live with that is told, else it is the end."""
        half_closeable = self._half_closeable()
        if half_closeable is None:
            self._nothing_more()
            self.connectionLost(reason)
            return
        self.stopReading()
        self._read_everything = True
        try:
            half_closeable.readConnectionLost()
        except Exception:
            _log.failure("unhandled error in a connection")
            self.connectionLost(Failure())

    def _half_closeable(self) -> Any:
        """The protocol as an IHalfCloseableProtocol, None where it is none."""
        protocol = self.protocol
        if hasattr(protocol, "readConnectionLost") or hasattr(protocol, "__conform__"):
            return IHalfCloseableProtocol(protocol, None)
        return None  # as most are: to ask the interface costs more than the rest of the end

    def _nothing_more(self) -> None:
        """The peer's end is this end's, too. TLS has something to say to that."""

    def doRead(self) -> Exception | None:
        if not self._read_anything:
            return self._first_read()
        if self._in_bulk and self._sink is not None and self._poller is not None:
            pipe = self._poller.pipe
            if pipe is not None and pipe.usable and self._sink.takes_more():
                return self._splice(self._sink, pipe)
        try:
            data = self.socket.recv(self.bufferSize)
        except (BlockingIOError, InterruptedError):
            return None
        except OSError:
            return CONNECTION_LOST
        if not data:
            return CONNECTION_DONE
        self.protocol.dataReceived(data)
        if len(data) == self.bufferSize:
            self._in_bulk = self._sink is not None
        return None

    def splice_to(self, other: object) -> None:
        """From now on bytes may go to another transport past both protocols, in the kernel, where
        they come in bulk: the protocol here would do nothing but write them there. For two
        connections that stay in plaintext; where that cannot be, everything goes on as it is."""
        if self._plain and isinstance(other, Fast) and other._plain:
            self._sink = other

    def takes_more(self) -> bool:
        """Whether a write would go to the socket at once."""
        return bool(self.connected) and not (
            self.dataBuffer or self._tempDataLen or self.disconnecting or self._writeDisconnected
        )

    def _splice(self, sink: Fast, pipe: Pipe) -> Exception | None:
        """What :meth:`doRead` does, once, where what has come is in bulk."""
        try:
            count, rest = pipe.pass_on(self.socket.fileno(), sink.socket.fileno())
        except (BlockingIOError, InterruptedError):
            return None
        except OSError:
            return CONNECTION_LOST if pipe.usable else None
        if not count:
            return CONNECTION_DONE
        self._in_bulk = count >= self.bufferSize
        if rest:
            sink.write(rest)
        return None

    def _first_read(self) -> Exception | None:
        """A ClientHello stays in the socket, where TLS will look for it."""
        try:
            first = self.socket.recv(1, socket.MSG_PEEK)
        except (BlockingIOError, InterruptedError):
            return None
        except OSError:
            first = b""  # the read that follows meets the error again
        self._read_anything = True
        if not first or first[0] != TLS_HANDSHAKE_RECORD:
            return self.doRead()
        before = type(self)
        self.peeked = True
        self.protocol.dataReceived(first)
        if self.connected and type(self) is before:
            self.peeked = False
            self.socket.recv(1)  # TLS has not begun: nobody else will read it
        return None

    def write(self, data: bytes) -> None:
        if (
            self.dataBuffer
            or self._tempDataLen
            or not self.connected
            or self.disconnecting
            or self._writeDisconnected
        ):
            FileDescriptor.write(self, data)
            return
        sent = self.writeSomeData(data)
        if sent == len(data):
            return
        if isinstance(sent, Exception):
            # Not from inside a write, which nobody expects to end the connection.
            self.reactor.callLater(0, self._write_failed, sent)
        else:
            FileDescriptor.write(self, data[sent:])

    def _write_failed(self, why: Exception) -> None:
        if self.connected and self._interest & select.EPOLLIN:
            # Why the peer is gone may still be in the socket: an alert, an ErrorResponse. libpq
            # too reads on after a write that failed.
            why = self.doRead() or why
        if self.connected:
            self._lost(why, 0)

    def writeSomeData(self, data: bytes) -> int | Exception:
        try:
            return self.socket.send(data)
        except (BlockingIOError, InterruptedError):
            return 0
        except OSError:
            return CONNECTION_LOST

    def writeSequence(self, iovec: Iterable[bytes]) -> None:
        self.write(b"".join(iovec))

    def startTLS(self, contextFactory: Any, normal: bool = True) -> None:
        """TLS from here on; Twisted's own if the context factory is not one of ours, or if some
        plaintext is still to be sent."""
        connection_on = getattr(contextFactory, "connection_on", None)
        usable = self._tls_class is not None and normal
        if connection_on is None or not usable or self.dataBuffer or self._tempDataLen:
            self._slow_down()
            self.startTLS(contextFactory, normal)
            return
        self.__class__ = self._tls_class
        cast(Any, self).begin(connection_on(self.socket))

    def _slow_down(self) -> None:
        """Be Twisted's own again."""
        interest = self._interest
        self._watch(0)
        self.__class__ = self._twisted_class
        if interest & select.EPOLLIN:
            self.startReading()
        if interest & select.EPOLLOUT:
            self.startWriting()

    def loseConnection(self) -> None:
        """Close; where nothing is left to be sent, when the events at hand have been dealt with."""
        if not self.connected or self.disconnecting or self._writeDisconnected or self._unsent():
            FileDescriptor.loseConnection(self)
        elif self._poller is not None and self._poller.soon(self):
            self.disconnecting = 1
            self.closing = True
            self._watch(0)
        else:
            self.disconnecting = 1
            self._watch(select.EPOLLOUT)

    def close_now(self) -> None:
        """What :meth:`loseConnection` put off, unless something was written after it."""
        self.closing = False
        if self.connected and self._unsent():
            self.startWriting()
        elif self.connected:
            self._lost(self._postLoseConnection(), 0)  # type: ignore[no-untyped-call]

    def loseWriteConnection(self) -> None:
        """Half-close."""
        if self._unsent() or self._half_closeable() is not None:
            FileDescriptor.loseWriteConnection(self)
        elif self.connected and not self._writeDisconnected:
            self._writeDisconnecting = self._writeDisconnected = True
            self._say_no_more()

    def _closeWriteConnection(self) -> None:
        """Half-close, when everything has been sent."""
        self._say_no_more()
        half_closeable = self._half_closeable()
        if half_closeable is not None:
            half_closeable.writeConnectionLost()

    def _say_no_more(self) -> None:
        """This end has sent all that it will."""
        try:
            self.socket.shutdown(socket.SHUT_WR)
        except OSError:
            return  # nobody is there to hear it

    def _unsent(self) -> bool:
        return bool(self.dataBuffer or self._tempDataLen or self.producer is not None)

    # Twisted's mixin for TLS asks each time whether there is any: here the class tells.
    registerProducer = FileDescriptor.registerProducer
    unregisterProducer = FileDescriptor.unregisterProducer
