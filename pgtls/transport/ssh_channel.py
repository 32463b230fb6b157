"""One connection through an SSH server: a ``direct-tcpip`` channel (RFC 4254, section 7.2).

Its near end is a socket of a pair, so that what uses it has one of our own connections, with TLS,
half-close and all, and does not know of SSH. Bytes are held up in both directions: what the channel
does not take is not read from the socket, and the channel's window opens no further while the
socket takes nothing.
"""

from __future__ import annotations

import socket
from typing import cast

from twisted.conch.error import ConchError
from twisted.conch.ssh.channel import SSHChannel
from twisted.conch.ssh.connection import (
    OPEN_ADMINISTRATIVELY_PROHIBITED,
    OPEN_CONNECT_FAILED,
    SSHConnection,
)
from twisted.internet.address import UNIXAddress
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IHalfCloseableProtocol, IPushProducer
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from pgtls.errors import ConnectFailed
from pgtls.text import log_text
from pgtls.transport.connection import Connection
from pgtls.transport.poller import poller
from pgtls.transport.reactor import IReactor

#: Bytes that a server may send before the socket has taken them: what a session holds at most.
WINDOW = 1024 * 1024
_MAX_PACKET = 32768


@implementer(IHalfCloseableProtocol)
class _FarEnd(Protocol):
    """The socket that the channel reads from and writes to."""

    transport: Connection

    def __init__(self, channel: ForwardedConnection) -> None:
        self._channel = channel

    def dataReceived(self, data: bytes) -> None:
        self._channel.write(data)

    def readConnectionLost(self) -> None:
        self._channel.conn.sendEOF(self._channel)

    def writeConnectionLost(self) -> None:
        pass

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._channel.near_end_closed()


@implementer(IPushProducer)
class ForwardedConnection(SSHChannel):
    """A connection to a host behind the SSH server.

    :param far: the far end of the socket pair.
    :param reactor: Twisted's.
    :ivar opened: fires when the server is connected to the host; fails with ConnectFailed where it
        is not. Cancelling it closes the channel.
    """

    conn: SSHConnection
    name = b"direct-tcpip"

    def __init__(self, far: socket.socket, reactor: IReactor) -> None:
        super().__init__(localWindow=WINDOW, localMaxPacket=_MAX_PACKET)
        self._far = far
        self._reactor = reactor
        self._end: _FarEnd | None = None
        self._abandoned = False
        self._paused = False  # the socket takes nothing: the window opens no further
        self._window_full = False
        self._congested = False  # the SSH connection as a whole takes nothing
        self.opened: Deferred[None] = Deferred(lambda _: self._abandon())

    def _abandon(self) -> None:
        self._abandoned = True
        self._far.close()

    # From the SSH server ------------------------------------------------------------------------

    def channelOpen(self, specificData: bytes) -> None:
        """The server is connected to the host.

        :param specificData: nothing.
        """
        if self._abandoned:
            self.loseConnection()
            return
        end = self._end = _FarEnd(self)
        peer = UNIXAddress(None)
        end.makeConnection(Connection(self._far, end, self._reactor, poller(self._reactor), peer))
        end.transport.registerProducer(self, True)
        if self._congested:
            self._update()
        self.opened.callback(None)

    def openFailed(self, reason: Exception) -> None:
        """The server is not connected to the host.

        :param reason: a ConchError with the server's words; else the SSH connection is gone.
        """
        if not self._abandoned:
            self._far.close()
            self.opened.errback(ConnectFailed(_why_not_open(reason)))

    def dataReceived(self, data: bytes) -> None:
        """Bytes from the host.

        :param data: at most as many as the window has.
        """
        if self._end is not None:
            self._end.transport.write(data)

    def eofReceived(self) -> None:
        """The host sends no more."""
        if self._end is not None:
            self._end.transport.loseWriteConnection()

    def closeReceived(self) -> None:
        """The server has closed the channel: what it did not take is lost."""
        self.buf = b""
        self.loseConnection()

    def closed(self) -> None:
        """The channel is closed on both sides, or the SSH connection is gone."""
        end, self._end = self._end, None
        if end is not None:
            end.transport.unregisterProducer()
            end.transport.resumeProducing()  # to notice that its near end is closed
            end.transport.loseConnection()

    # From the socket ----------------------------------------------------------------------------

    def near_end_closed(self) -> None:
        """Nobody uses the connection any more."""
        if self._end is not None:
            self._end = None
            self.loseConnection()

    # Both directions held up --------------------------------------------------------------------

    @property
    def paused(self) -> bool:
        """Whether the window must not be opened further now."""
        return self._paused

    def pauseProducing(self) -> None:
        """The socket takes no more: let the window run out."""
        self._paused = True

    def resumeProducing(self) -> None:
        """The socket takes more."""
        self._paused = False
        used = self.localWindowSize - self.localWindowLeft
        if used > self.localWindowSize // 2:
            self.conn.adjustWindow(self, used)

    def stopProducing(self) -> None:
        """The socket is closed."""
        self._paused = False

    def stopWriting(self) -> None:
        """The server takes no more of this channel."""
        self._window_full = True
        self._update()

    def startWriting(self) -> None:
        """The server takes more."""
        self._window_full = False
        self._update()

    def congested(self, congested: bool) -> None:
        """The SSH connection as a whole takes no more, or more again.

        :param congested: which of the two.
        """
        self._congested = congested
        self._update()

    def _update(self) -> None:
        if self._end is None:
            return
        if self._window_full or self._congested:
            self._end.transport.pauseProducing()
        else:
            self._end.transport.resumeProducing()


def _why_not_open(reason: Exception) -> str:
    """What RFC 4254, section 5.1 has reasons for."""
    if not isinstance(reason, ConchError):
        return "the SSH connection was lost"
    words = log_text(cast(bytes, reason.value)) or "no reason given"
    if reason.data == OPEN_ADMINISTRATIVELY_PROHIBITED:
        return (
            f"the SSH server does not forward this ({words}): see AllowTcpForwarding and "
            "PermitOpen in its sshd_config, and the options of the key in authorized_keys"
        )
    if reason.data == OPEN_CONNECT_FAILED:
        return f"the SSH server could not connect to it ({words})"
    return f"the SSH server opened no channel ({words})"
