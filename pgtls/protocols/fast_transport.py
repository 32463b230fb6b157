"""Sockets without detours: what a connection's transport becomes when a Protocol of ours is on it.

Twisted's own way is general and pays for it on each small message: a write waits for another turn
of the reactor, with two calls of ``epoll_ctl``; TLS goes through memory buffers; each event is
dispatched in a logging context. Here:

* a write goes to the socket at once, and is buffered only for what the socket does not take,
* TLS is OpenSSL's on the socket itself,
* events come from an epoll of our own, which is one descriptor among the reactor's others.

What an application sees stays Twisted's: ``startTLS``, ``ITLSTransport``, producers, half-close,
``loseConnection``. :func:`speed_up` turns a transport of Twisted into one of these by giving it
another class, since Twisted leaves no other place to say which class a connection gets. Where it
cannot serve (no epoll, a wrapper such as haproxy's, another kind of transport, a TLS context that
is not ours), everything stays as Twisted has it.
"""

from __future__ import annotations

import select
import socket
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, cast

from OpenSSL import SSL
from twisted.internet import tcp, unix
from twisted.internet.abstract import FileDescriptor
from twisted.internet.interfaces import (
    IHalfCloseableProtocol,
    IHandshakeListener,
    ISSLTransport,
)
from twisted.internet.main import CONNECTION_DONE, CONNECTION_LOST
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from pgtls.protocols.poller import poller
from pgtls.tls.openssl import receive
from pgtls.wire.messages import TLS_HANDSHAKE_RECORD

_log = Logger(namespace="pgtls.transport")

#: Bytes of a TLS record behind which the next one is looked for at once: it is a part of something
#: big. (Clients of libpq send records of 8 KiB.)
_BULK = 4096


class _Fast(FileDescriptor):
    """In front of one of Twisted's transport classes: plaintext.

    :ivar peeked: what the protocol was given first is still in the socket: the beginning of a
        ClientHello, which TLS reads from there.
    """

    protocol: Any
    reactor: Any
    socket: socket.socket
    peeked = False

    _twisted_class: Any
    _tls_class: Any = None  # on a Unix socket there is no TLS
    _interest = 0
    _read_anything = False

    def startReading(self) -> None:
        self._watch(self._interest | select.EPOLLIN)

    def stopReading(self) -> None:
        self._watch(self._interest & ~select.EPOLLIN)

    def startWriting(self) -> None:
        self._watch(self._interest | select.EPOLLOUT)

    def stopWriting(self) -> None:
        self._watch(self._interest & ~select.EPOLLOUT)

    def _watch(self, interest: int) -> None:
        if interest != self._interest:
            before, self._interest = self._interest, interest
            poller(self.reactor).watch(self, before, interest)

    def ready(self, events: int) -> None:
        """The socket can be read from or written to."""
        reading = events & ~select.EPOLLOUT
        try:
            why = self.doRead() if reading else None
            if why is None and events & select.EPOLLOUT and self._interest & select.EPOLLOUT:
                reading = 0
                why = self.doWrite()  # type: ignore[no-untyped-call]
        except Exception as error:
            _log.failure("unhandled error in a connection")
            why = error
        if why is not None and self.connected:
            self._lost(why, reading)

    def _lost(self, why: Exception, reading: int) -> None:
        if reading and why is CONNECTION_DONE and not self.disconnecting:
            self.stopReading()
            self.readConnectionLost(Failure(why))
        else:
            self.connectionLost(Failure(why))  # type: ignore[no-untyped-call]

    def doRead(self) -> Exception | None:
        if not self._read_anything:
            return self._first_read()
        try:
            data = self.socket.recv(self.bufferSize)
        except (BlockingIOError, InterruptedError):
            return None
        except OSError:
            return CONNECTION_LOST
        if not data:
            return CONNECTION_DONE
        self.protocol.dataReceived(data)
        return None

    def _first_read(self) -> Exception | None:
        """A ClientHello stays in the socket, where TLS will look for it."""
        self._read_anything = True
        try:
            first = self.socket.recv(1, socket.MSG_PEEK)
        except OSError:
            first = b""  # the read that follows meets the error again
        if first and first[0] == TLS_HANDSHAKE_RECORD:
            self.peeked = True
            self.protocol.dataReceived(first)
            return None
        return self.doRead()

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
        if isinstance(sent, Exception):
            # Not from inside a write, which nobody expects to end the connection.
            self.reactor.callLater(0, self._write_failed, sent)
        elif sent < len(data):
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
        cast(_FastTLS, self).begin(connection_on(self.socket))

    def _slow_down(self) -> None:
        """Be Twisted's own again."""
        interest = self._interest
        self._watch(0)
        self.__class__ = self._twisted_class
        if interest & select.EPOLLIN:
            self.startReading()
        if interest & select.EPOLLOUT:
            self.startWriting()

    # Twisted's mixin for TLS asks at each of these whether there is any: here the class tells.
    loseConnection = FileDescriptor.loseConnection
    registerProducer = FileDescriptor.registerProducer
    unregisterProducer = FileDescriptor.unregisterProducer


class _FastTLS(_Fast):
    """The same with TLS on the socket."""

    _tls: SSL.Connection
    _handshaking = True
    _written_anything = False

    def begin(self, tls: SSL.Connection) -> None:
        """Start the handshake; ``tls`` is on this socket and knows which end it is."""
        self._tls = tls
        why = self._shake_hands()
        if why is not None:
            self.stopReading()  # asked again, OpenSSL would no longer say what went wrong
            self.reactor.callLater(0, self._write_failed, why)

    def getHandle(self) -> SSL.Connection:
        """OpenSSL's connection."""
        return self._tls

    def getPeerCertificate(self) -> Any:
        """ISSLTransport's, as Twisted has it."""
        return self._tls.get_peer_certificate()

    def _shake_hands(self) -> Exception | None:
        try:
            self._tls.do_handshake()
        except SSL.WantReadError:
            return None
        except SSL.WantWriteError:
            self.startWriting()
            return None
        except SSL.Error as error:
            return error
        self._handshaking = False
        if IHandshakeListener.providedBy(self.protocol):
            self.protocol.handshakeCompleted()
        if self.connected and (self._tempDataLen or self.disconnecting):
            self.startWriting()
        # What came with the handshake may be in OpenSSL's hands already, where epoll sees nothing.
        return self.doRead() if self.connected and self._interest & select.EPOLLIN else None

    def doRead(self) -> Exception | None:
        if self._handshaking:
            return self._shake_hands()
        pieces: list[bytes] = []
        size = 0
        why: Exception | None = None
        try:
            while size < self.bufferSize:
                pieces.append(receive(self._tls))
                size += len(pieces[-1])
                if len(pieces[-1]) < _BULK:
                    break  # the end of a message; if more is there, epoll says so
        except SSL.WantReadError:
            pass
        except SSL.ZeroReturnError:
            why = CONNECTION_DONE
        except SSL.SysCallError:
            why = CONNECTION_LOST
        except SSL.Error as error:
            why = error
        if pieces:
            self.protocol.dataReceived(pieces[0] if len(pieces) == 1 else b"".join(pieces))
        return why

    def doWrite(self) -> Exception | None:
        if self._handshaking and not self.disconnecting:
            self.stopWriting()
            return self._shake_hands()
        why: Exception | None = FileDescriptor.doWrite(self)
        return why

    def write(self, data: bytes) -> None:
        if self._handshaking:
            FileDescriptor.write(self, data)
        elif not self._written_anything:
            self._first_write(data)
        else:
            super().write(data)

    def _first_write(self, data: bytes) -> None:
        """With TLS 1.3 a server refuses a client's certificate when the client thinks that TLS is
        up, and does not read on, so that TCP resets. OpenSSL reads nothing any more once it has
        failed to write: why the server refused would be lost."""
        self._written_anything = True
        if not self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            super().write(data)
        elif not self._interest & select.EPOLLIN:
            self.reactor.callLater(0, self._write_failed, CONNECTION_LOST)
        # else the read that comes next meets the reason, and the end

    def writeSomeData(self, data: bytes) -> int | Exception:
        sent = 0
        view = memoryview(data)
        try:
            while sent < len(view):
                sent += self._tls.send(view[sent:])
        except (SSL.WantWriteError, SSL.WantReadError):
            pass
        except SSL.SysCallError:
            return CONNECTION_LOST
        except SSL.Error as error:
            return error
        return sent

    def _postLoseConnection(self) -> Exception:
        """Everything is sent: say goodbye, without waiting for the answer, as PostgreSQL does."""
        if not self._handshaking:
            self._say_goodbye()
        return CONNECTION_DONE

    def _say_goodbye(self) -> None:
        with suppress(SSL.Error):
            self._tls.shutdown()

    def readConnectionLost(self, reason: Failure) -> None:
        """The peer has said goodbye."""
        if IHalfCloseableProtocol(self.protocol, None) is None:
            self._say_goodbye()
        self._twisted_class.readConnectionLost(self, reason)

    def _closeWriteConnection(self) -> None:
        """Half-close, after loseWriteConnection(): TLS has a message for it."""
        self._say_goodbye()
        half_closeable = IHalfCloseableProtocol(self.protocol, None)
        if half_closeable is not None:
            half_closeable.writeConnectionLost()


@implementer(ISSLTransport)
class _ServerTLS(_FastTLS, tcp.Server):  # type: ignore[misc]
    _twisted_class = tcp.Server


@implementer(ISSLTransport)
class _ClientTLS(_FastTLS, tcp.Client):  # type: ignore[misc]
    _twisted_class = tcp.Client


class _Server(_Fast, tcp.Server):  # type: ignore[misc]
    _twisted_class = tcp.Server
    _tls_class = _ServerTLS


class _Client(_Fast, tcp.Client):  # type: ignore[misc]
    _twisted_class = tcp.Client
    _tls_class = _ClientTLS


class _UNIXServer(_Fast, unix.Server):  # type: ignore[misc]
    _twisted_class = unix.Server


class _UNIXClient(_Fast, unix.Client):  # type: ignore[misc]
    _twisted_class = unix.Client


_CLASSES: dict[type, type[_Fast]] = {
    tcp.Server: _Server,
    tcp.Client: _Client,
    unix.Server: _UNIXServer,
    unix.Client: _UNIXClient,
}


def speed_up(transport: Any) -> None:
    """Make a connected transport of Twisted's a fast one, if it can be."""
    fast = _CLASSES.get(type(transport))
    if fast is None or not hasattr(select, "epoll"):
        return
    transport.stopReading()
    transport.__class__ = fast
    transport.startReading()
