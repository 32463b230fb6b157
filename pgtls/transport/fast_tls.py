"""A fast transport with TLS on its socket."""

from __future__ import annotations

import select
import socket
from typing import Any

from OpenSSL import SSL
from twisted.internet.abstract import FileDescriptor
from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import IHandshakeListener
from twisted.internet.main import CONNECTION_DONE, CONNECTION_LOST

from pgtls.tls.openssl import handshake, receive, send
from pgtls.transport.fast_transport import Fast

#: Bytes of a TLS record behind which the next one is looked for at once: it is a part of something
#: big. (Clients of libpq send records of 8 KiB.)
_BULK = 4096


class TruncatedTLS(ConnectionLost):
    """The peer ended TCP without TLS's close_notify: all that it has sent has been read."""


def _reason(error: SSL.Error) -> Exception:
    """Why a connection ends, as Twisted's transports say it."""
    if isinstance(error, SSL.ZeroReturnError):
        return CONNECTION_DONE
    if not isinstance(error, SSL.SysCallError):
        return error
    return TruncatedTLS() if error.args[0] == -1 else CONNECTION_LOST  # pyOpenSSL's, for no errno


class FastTLS(Fast):
    """The same with TLS on the socket."""

    _tls: SSL.Connection
    _plain = False
    _handshaking = True
    _server_side = False
    _last_words_matter = False

    def begin(self, tls: SSL.Connection) -> None:
        """Start the handshake; ``tls`` is on this socket and knows which end it is."""
        self._tls = tls
        if self._server_side and not self.peeked and self._interest & select.EPOLLIN:
            return  # the client has the first word, and is not here yet
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
            if not handshake(self._tls):
                return None
        except SSL.WantWriteError:
            self.startWriting()
            return None
        except SSL.Error as error:
            return error
        self._handshaking = False
        if IHandshakeListener.providedBy(self.protocol):
            self.protocol.handshakeCompleted()
        if self.disconnecting:
            self.stopReading()  # it went on for the handshake alone
        if self.connected and (self._tempDataLen or self.disconnecting or self._writeDisconnecting):
            self.startWriting()
        # What came with the handshake may be in OpenSSL's hands already, where epoll sees nothing.
        return self.doRead() if self.connected and self._interest & select.EPOLLIN else None

    def doRead(self) -> Exception | None:
        if self._handshaking:
            return self._shake_hands()
        why: Exception | None = None
        try:
            data = receive(self._tls)
        except SSL.Error as error:
            return _reason(error)
        if data is None:
            return None
        if not data:
            return CONNECTION_DONE
        if len(data) >= _BULK:
            data, why = self._receive_more(data)
        self.protocol.dataReceived(data)
        return why

    def _receive_more(self, data: bytes) -> tuple[bytes, Exception | None]:
        """The records that follow, and what they end with. A small one is the end of a message; if
        more is there, epoll says so."""
        pieces = [data]
        size = len(data)
        try:
            while size < self.bufferSize:
                piece = receive(self._tls)
                if piece is None:
                    break
                if not piece:
                    return b"".join(pieces), CONNECTION_DONE
                pieces.append(piece)
                size += len(piece)
                if len(piece) < _BULK:
                    break
        except SSL.Error as error:
            return b"".join(pieces), _reason(error)
        return b"".join(pieces), None

    def doWrite(self) -> Exception | None:
        if self._handshaking and (self._tempDataLen or not self.disconnecting):
            self.stopWriting()
            return self._shake_hands()
        why: Exception | None = FileDescriptor.doWrite(self)
        return why

    def write(self, data: bytes) -> None:
        if self._handshaking:
            FileDescriptor.write(self, data)
        elif (
            self._last_words_matter
            and self.connected
            and self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        ):
            self._peer_is_gone()
        else:
            Fast.write(self, data)

    def _peer_is_gone(self) -> None:
        """A server that refuses a client's certificate, or ends a session that sends, does not read
        on, so that TCP resets. OpenSSL reads nothing any more once it has failed to write: why the
        server has gone would be lost. So the socket is asked first; it says it once."""
        if self._writeDisconnected:
            return
        self._writeDisconnected = True
        if not self._interest & select.EPOLLIN:
            self.reactor.callLater(0, self._write_failed, CONNECTION_LOST)
        # else the reads that come next meet the reason, and the end

    def loseConnection(self) -> None:
        """When the handshake is over, if something has been written before."""
        super().loseConnection()
        if self._handshaking and self._tempDataLen and self.connected:
            self.startReading()

    def writeSomeData(self, data: bytes) -> int | Exception:
        sent = 0
        try:
            while sent < len(data):  # OpenSSL takes a record at a time
                sent += send(self._tls, memoryview(data)[sent:] if sent else data)
        except (SSL.WantWriteError, SSL.WantReadError):
            pass
        except SSL.Error as error:
            return _reason(error)
        return sent

    def _postLoseConnection(self) -> Exception:
        """Everything is sent: say goodbye, without waiting for the answer, as PostgreSQL does."""
        if not self._handshaking:
            self._say_no_more()
        return CONNECTION_DONE

    def _nothing_more(self) -> None:
        """The peer has said goodbye."""
        self._say_no_more()

    def _say_no_more(self) -> None:
        """TLS has a message for it."""
        try:
            self._tls.shutdown()
        except SSL.Error:
            return  # nobody is there to hear it
