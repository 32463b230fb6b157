"""An SSH connection to a server, on twisted.conch: who it is, who we are, and channels in it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from twisted.conch.ssh.common import getNS
from twisted.conch.ssh.connection import SSHConnection
from twisted.conch.ssh.forwarding import packOpen_direct_tcpip
from twisted.conch.ssh.keys import Key
from twisted.conch.ssh.transport import (
    DISCONNECT_NO_MORE_AUTH_METHODS_AVAILABLE,
    SSHClientTransport,
)
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import (
    IConsumer,
    IDelayedCall,
    IPushProducer,
    IReactorTime,
    ITCPTransport,
)
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from pgtls.errors import CertificateNotVerified, ConnectFailed, PgTLSError
from pgtls.text import log_text
from pgtls.transport.ssh_channel import ForwardedConnection
from pgtls.transport.ssh_identities import Identity
from pgtls.transport.ssh_known_hosts import KnownHosts, fingerprint
from pgtls.transport.ssh_login import SILENT, Login
from pgtls.transport.ssh_settings import SSHServer

#: As ServerAliveInterval (seconds) and ServerAliveCountMax in ssh_config(5).
ALIVE_INTERVAL = 15.0
ALIVE_COUNT = 3

#: The algorithms of conch's that OpenSSH 9 still offers by default, the first ones preferred.
_HOST_KEYS = [
    b"ssh-ed25519",
    b"ecdsa-sha2-nistp256",
    b"ecdsa-sha2-nistp384",
    b"ecdsa-sha2-nistp521",
    b"rsa-sha2-512",
    b"rsa-sha2-256",
]
#: What the first lists of a KEXINIT (RFC 4253, section 7.1) are about, in OpenSSH's words.
_AGREED_ON = (
    *("key exchange method", "host key type", "cipher", "cipher", "MAC", "MAC"),
    "compression method",
)

#: The line that SSH begins with, and how many bytes conch lets come before and with it.
_VERSION = re.compile(rb"^SSH-.*\n", re.MULTILINE)
_MOST_BEFORE_VERSION = 4096

_WEAK = (b"-sha1", b"-md5", b"-cbc")


def _strong(algorithms: Iterable[bytes]) -> list[bytes]:
    return [name for name in algorithms if not name.endswith(_WEAK)]


def _listed(names: Iterable[bytes]) -> str:
    return log_text(b",".join(names))


class _TCP(ITCPTransport, IConsumer):
    """What Twisted's TCP connections are."""


class _Channels(SSHConnection):
    """The channels in a connection."""

    _log = SILENT

    def __init__(self, logged_in: Callable[[], None], channel_closed: Callable[[], None]) -> None:
        super().__init__()
        self._logged_in = logged_in
        self._channel_closed = channel_closed

    def serviceStarted(self) -> None:
        """We are logged in."""
        super().serviceStarted()
        self._logged_in()

    def channelClosed(self, channel: ForwardedConnection) -> None:
        """A channel is closed on both sides.

        :param channel: which one.
        """
        super().channelClosed(channel)
        self._channel_closed()

    def adjustWindow(self, channel: ForwardedConnection, bytesToAdd: int) -> None:
        """Have the server send more, unless what it has sent is not taken.

        :param channel: of which connection.
        :param bytesToAdd: how many more bytes.
        """
        if not channel.paused:
            super().adjustWindow(channel, bytesToAdd)


@implementer(IPushProducer)
class SSHClientConnection(SSHClientTransport):
    """A connection to an SSH server.

    :param server: which one.
    :param known_hosts: what is known of its key.
    :param identities: what to log in with.
    :param clock: the reactor.
    :ivar ready: fires when we are logged in; fails with a :class:`PgTLSError` where that cannot be.
    :ivar ended: fires with the reason, when the connection is gone after that.
    :ivar host_key: the server's fingerprint, once it is known to be the right one.
    """

    transport: _TCP
    _log = SILENT
    ourVersionString = b"SSH-2.0-pgtls"
    supportedCiphers = _strong(SSHClientTransport.supportedCiphers)
    supportedMACs = _strong(SSHClientTransport.supportedMACs)
    supportedKeyExchanges = _strong(SSHClientTransport.supportedKeyExchanges)
    supportedCompressions = [b"none"]

    def __init__(
        self,
        server: SSHServer,
        known_hosts: KnownHosts,
        identities: list[Identity],
        clock: IReactorTime,
    ) -> None:
        self._server = server
        self._known_hosts = known_hosts
        self._identities = identities
        self._clock = clock
        self._channels = _Channels(self._logged_in, self._channel_closed)
        self._retired = False
        self._login: Login | None = None  # until we are logged in
        self._error: PgTLSError | None = None
        self._alive: IDelayedCall | None = None
        self._unanswered = 0
        self.host_key = ""
        self.ready: Deferred[None] = Deferred(lambda _: self.abort())
        self.ended: Deferred[PgTLSError] = Deferred()
        # A server with several keys shows the one that we ask for first: one that is known.
        known = known_hosts.key_types(server)
        self.supportedPublicKeys = sorted(
            _HOST_KEYS, key=lambda name: (b"ssh-rsa" if b"rsa" in name else name) not in known
        )

    def connectionMade(self) -> None:
        """TCP is up."""
        self.transport.setTcpNoDelay(True)
        self.transport.setTcpKeepAlive(True)
        self.transport.registerProducer(self, True)
        super().connectionMade()

    # How it comes up ----------------------------------------------------------------------------

    def dataReceived(self, data: bytes) -> None:
        """Bytes from the server.

        :param data: the bytes.
        """
        if (
            not self.gotVersion
            and not _VERSION.search(before := self.buf + data)
            and len(before) <= _MOST_BEFORE_VERSION
        ):
            # Other lines may come first (RFC 4253, section 4.2). Where they come alone, conch takes
            # them for a packet.
            self.buf = before
            return
        try:
            super().dataReceived(data)
        except Exception as error:
            if self.ready.called:
                raise
            # Anybody may be there. conch lets through what its parsers and cryptography raise.
            self._error = self._error or ConnectFailed(f"SSH failed: malformed packet ({error})")
            self.abort()

    def ssh_KEXINIT(self, packet: bytes) -> Any:
        """The server says which algorithms it has. Where we have none of them conch disconnects.

        :param packet: lists of their names.
        :returns: what conch makes of it.
        """
        theirs = [names.split(b",") for names in getNS(packet[16:], len(_AGREED_ON))[:-1]]
        ciphers, macs = self.supportedCiphers, self.supportedMACs
        ours = (
            *(self.supportedKeyExchanges, self.supportedPublicKeys),
            *(ciphers, ciphers, macs, macs, self.supportedCompressions),
        )
        for what, our, their in zip(_AGREED_ON, ours, theirs, strict=True):
            if not set(our) & set(their):
                self._error = self._error or ConnectFailed(
                    f"no matching {what} found: the SSH server offers {_listed(their)}, and here "
                    f"there are {_listed(our)}"
                )
        return super().ssh_KEXINIT(packet)

    def verifyHostKey(self, hostKey: bytes, fingerprint_: object) -> Deferred[bool]:
        """Check the server's key.

        :param hostKey: SSH's form of it.
        :param fingerprint_: conch's, by MD5.
        :returns: fires where it is the right one.
        """
        try:
            key = Key.fromString(hostKey, type="BLOB")
            self._known_hosts.check(self._server, key)
        except CertificateNotVerified as error:
            self._error = self._error or error
            return fail(error)
        except Exception as error:
            self._error = self._error or ConnectFailed("the SSH server's host key is malformed")
            return fail(error)
        self.host_key = fingerprint(key)
        return succeed(True)

    def connectionSecure(self) -> None:
        """The server is the right one: log in."""
        self._login = Login(self._server.user, self._channels, self._identities)
        self.requestService(self._login)

    def _logged_in(self) -> None:
        self._login = None
        self._next_alive()
        if not self.ready.called:
            self.ready.callback(None)

    # How it ends --------------------------------------------------------------------------------

    def receiveError(self, reasonCode: int, description: bytes) -> None:
        """The server says why it ends.

        :param reasonCode: SSH's number for it.
        :param description: its words.
        """
        words = log_text(description)
        self._error = self._error or ConnectFailed(f"the SSH server ended the connection: {words}")

    def sendDisconnect(self, reason: int, desc: bytes) -> None:
        """End it, and say why.

        :param reason: SSH's number for it.
        :param desc: conch's words.
        """
        if reason != DISCONNECT_NO_MORE_AUTH_METHODS_AVAILABLE:  # as the login says it better
            self._error = self._error or ConnectFailed(f"SSH failed: {log_text(desc)}")
        super().sendDisconnect(reason, desc)

    def abort(self) -> None:
        """Close at once."""
        self.transport.abortConnection()

    def connectionLost(self, reason: Failure | None = connectionDone) -> None:
        """The connection is gone, and all channels with it.

        :param reason: Twisted's.
        """
        if self._alive is not None:
            self._alive.cancel()
            self._alive = None
        super().connectionLost(reason)
        error = self._error or self._why_lost()
        if not self.ready.called:
            self.ready.errback(error)
        else:
            self.ended.callback(error)

    def _why_lost(self) -> PgTLSError:
        if self._login is not None and self._login.error is not None:
            return self._login.error
        if self.gotVersion:
            return ConnectFailed("the SSH connection was lost")
        said = f', and said: "{log_text(self.buf.strip())}"' if self.buf.strip() else ""
        return ConnectFailed(f"the server closed the connection before SSH began{said}")

    def _next_alive(self) -> None:
        self._alive = self._clock.callLater(ALIVE_INTERVAL, self._ask_if_alive)

    def _ask_if_alive(self) -> None:
        self._alive = None
        if self._unanswered >= ALIVE_COUNT:
            seconds = ALIVE_INTERVAL * ALIVE_COUNT
            self._error = ConnectFailed(f"the SSH server has not answered for {seconds:g} s")
            self.abort()
            return
        self._unanswered += 1
        asked = self._channels.sendGlobalRequest(b"keepalive@openssh.com", b"", wantReply=True)
        asked.addBoth(self._answered)  # OpenSSH's answer is that it does not know the request
        self._next_alive()

    def _answered(self, _: object) -> None:
        self._unanswered = 0

    # Channels -----------------------------------------------------------------------------------

    def open(self, channel: ForwardedConnection, host: str, port: int) -> None:
        """Open a channel to a host.

        :param channel: is told what comes of it.
        :param host: its name or address, as the server knows it.
        :param port: its port.
        """
        destination = packOpen_direct_tcpip((host, port), ("127.0.0.1", 0))
        self._channels.openChannel(channel, destination)

    def retire(self) -> None:
        """Close when the last channel is closed. No other one will be opened."""
        self._retired = True
        self._channel_closed()

    def _channel_closed(self) -> None:
        if self._retired and not self._channels.channels:
            self.loseConnection()

    def _opened(self) -> Iterator[ForwardedConnection]:
        yield from tuple(self._channels.channels.values())

    def pauseProducing(self) -> None:
        """The socket takes no more: read nothing that would have to be sent."""
        for channel in self._opened():
            channel.congested(True)

    def resumeProducing(self) -> None:
        """The socket takes more."""
        for channel in self._opened():
            channel.congested(False)

    def stopProducing(self) -> None:
        """The connection is closed."""
