"""An SSH connection to a server, on twisted.conch: who it is, who we are, and channels in it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from twisted.conch.ssh.connection import SSHConnection
from twisted.conch.ssh.forwarding import packOpen_direct_tcpip
from twisted.conch.ssh.keys import Key
from twisted.conch.ssh.transport import SSHClientTransport
from twisted.conch.ssh.userauth import SSHUserAuthClient
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import (
    IConsumer,
    IDelayedCall,
    IPushProducer,
    IReactorTime,
    ITCPTransport,
)
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger, LogPublisher
from twisted.python.failure import Failure
from zope.interface import implementer

from pgtls.errors import CertificateNotVerified, ConnectFailed, PgTLSError
from pgtls.text import log_text
from pgtls.transport.ssh_channel import ForwardedConnection
from pgtls.transport.ssh_identities import Identity, PublicKey
from pgtls.transport.ssh_known_hosts import KnownHosts, fingerprint
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
_WEAK = (b"-sha1", b"-md5", b"-cbc")

#: In place of conch's loggers, which say each step: what an operator needs is said here.
_SILENT = Logger(observer=LogPublisher())


def _strong(algorithms: Iterable[bytes]) -> list[bytes]:
    return [name for name in algorithms if not name.endswith(_WEAK)]


class _TCP(ITCPTransport, IConsumer):
    """What Twisted's TCP connections are."""


class _Login(SSHUserAuthClient):
    """Logs in with one key after the other."""

    _log = _SILENT

    def __init__(
        self,
        user: str,
        service: SSHConnection,
        identities: list[Identity],
        denied: Callable[[str], None],
    ) -> None:
        super().__init__(user.encode(), service)
        self._identities = iter(identities)
        self._denied = denied
        self._offered: Identity | None = None

    def tryAuth(self, kind: bytes) -> Any:
        """Nothing but keys: nobody is there to type a password.

        :param kind: SSH's name of a method.
        :returns: what conch expects: None, or whether something was sent.
        """
        return super().tryAuth(kind) if kind == b"publickey" else None

    def getPublicKey(self) -> PublicKey | None:
        """The next key; None when all have been offered."""
        self._offered = next(self._identities, None)
        return self._offered.public if self._offered is not None else None

    def signData(self, publicKey: Key, signData: bytes) -> Deferred[bytes] | None:
        """Sign with the key that the server has accepted.

        :param publicKey: the one that was offered last.
        :param signData: what to sign.
        :returns: fires with the signature.
        """
        return self._offered.sign(signData) if self._offered is not None else None

    def ssh_USERAUTH_FAILURE(self, packet: bytes) -> Any:
        """The server has not accepted a key, or says at the beginning what it accepts.

        :param packet: its methods.
        :returns: what conch makes of it.
        """
        methods = packet[4 : 4 + int.from_bytes(packet[:4], "big")]
        self._denied(log_text(methods))
        return super().ssh_USERAUTH_FAILURE(packet)


class _Channels(SSHConnection):
    """The channels in a connection."""

    _log = _SILENT

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
    _log = _SILENT
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
        self._methods: str | None = None  # that the server would accept, while we are not logged in
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
        self.requestService(
            _Login(self._server.user, self._channels, self._identities, self._denied)
        )

    def _denied(self, methods: str) -> None:
        self._methods = methods

    def _logged_in(self) -> None:
        self._methods = None
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
        error = self._error or self._why_denied() or ConnectFailed("the SSH connection was lost")
        if not self.ready.called:
            self.ready.errback(error)
        else:
            self.ended.callback(error)

    def _why_denied(self) -> PgTLSError | None:
        if self._methods is None:
            return None
        tried = len(self._identities)
        keys = f"{tried} {'key was' if tried == 1 else 'keys were'} offered" if tried else "no key"
        return ConnectFailed(
            f"Permission denied ({self._methods}): {keys}"
            + ("" if tried else " to offer: name one with ssh_identity_file, or use an agent")
        )

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
