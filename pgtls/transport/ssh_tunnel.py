"""``upstream_via``: one SSH connection for all sessions, made when it is needed and again when it
is lost."""

from __future__ import annotations

import socket

from twisted.internet.address import IPv4Address
from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.endpoints import HostnameEndpoint
from twisted.internet.error import ConnectingCancelledError
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import Protocol
from twisted.logger import Logger
from twisted.python.failure import Failure

from pgtls.conninfo.connection_string import Host
from pgtls.errors import ConfigurationError, ConnectFailed, PgTLSError
from pgtls.transport.dial import TIMEOUT_EXPIRED, OneProtocol, connect_error
from pgtls.transport.poller import poller
from pgtls.transport.reactor import IReactor, has_epoll
from pgtls.transport.ssh_channel import ForwardedConnection
from pgtls.transport.ssh_connection import SSHClientConnection
from pgtls.transport.ssh_identities import Identity, identities_from_files, identities_of_agent
from pgtls.transport.ssh_known_hosts import KnownHosts
from pgtls.transport.ssh_settings import SSHSettings, parse_ssh_server
from pgtls.transport.tcp_connection import TCPConnection

_log = Logger(namespace="pgtls.client")

#: Seconds until the SSH connection must be up: as LoginGraceTime, from the other side.
LOGIN_TIMEOUT = 30.0

#: Seconds before the connection is made again: at first, and at most.
FIRST_PAUSE = 0.5
LONGEST_PAUSE = 15.0

#: Seconds for which a client waits for that. If it takes longer, it is told at once what is wrong.
LONGEST_WAIT = 5.0


class SSHTunnel:
    """An SSH connection, and connections to hosts behind its server.

    :param reactor: Twisted's.
    :param settings: which server, and with which keys. They are read now.
    :raises ConfigurationError: the settings, a key or the named file of host keys cannot be used.
    """

    def __init__(self, reactor: IReactor, settings: SSHSettings) -> None:
        if not has_epoll(reactor):
            raise ConfigurationError("upstream_via needs Linux, and a reactor of Twisted's own")
        self.settings = settings
        self._reactor = reactor
        self._server = parse_ssh_server(settings.upstream_via)
        self._known_hosts = KnownHosts(settings.known_hosts_files)
        self._identities: list[Identity] = []
        mistakes: list[str] = []
        for read in (settings.check_known_hosts, self.read_keys):
            try:
                read()
            except ConfigurationError as error:
                mistakes += error.mistakes
        if mistakes:
            raise ConfigurationError(*mistakes)
        self._connection: SSHClientConnection | None = None
        self._connecting: Deferred[None] | None = None
        self._waiting: list[Deferred[SSHClientConnection]] = []
        self._pause = 0.0
        self._timer: IDelayedCall | None = None
        self._last_error = ""
        self._wanted = False  # whether a connection that is lost is to be made again

    def read_keys(self) -> None:
        """Read the private keys, for the next SSH connection.

        :raises ConfigurationError: one of them cannot be used; those of before stay.
        """
        self._identities = identities_from_files(self.settings, self._identities)

    # For a connect attempt ----------------------------------------------------------------------

    def addresses(self, host: Host, timeout: float) -> Deferred[list[Host]]:
        """A host as it is: the SSH server looks its name up.

        :param host: as the connection string has it.
        :param timeout: any.
        :returns: fires with it.
        """
        return succeed([host])

    def dial(self, host: Host, protocol: Protocol, timeout: float) -> Deferred[None]:
        """Connect ``protocol`` to a host, as the SSH server reaches it.

        :param host: a name or an address.
        :param protocol: is given its transport, and from then on what comes.
        :param timeout: seconds that it may take, a new SSH connection included.
        :returns: fires when there is a connection, fails with ConnectFailed where there is none.
            Cancelling it closes it.
        """
        dialling = Deferred.fromCoroutine(self._dial(host, protocol))
        return dialling.addTimeout(timeout, self._reactor).addErrback(self._timed_out)

    async def _dial(self, host: Host, protocol: Protocol) -> None:
        connection = await self._connected()
        try:
            near, far = socket.socketpair()
        except OSError as error:
            raise ConnectFailed(connect_error(error)) from error
        near.setblocking(False)
        far.setblocking(False)
        channel = ForwardedConnection(far, self._reactor)
        name = host.hostaddr or host.host
        try:
            connection.open(channel, name, host.port)
            await channel.opened
        except BaseException as error:
            near.close()
            if isinstance(error, ConnectFailed):
                raise ConnectFailed(f"{self._server}: {error.reason}") from None
            raise
        peer = IPv4Address("TCP", name, host.port)
        protocol.makeConnection(
            TCPConnection(near, protocol, self._reactor, poller(self._reactor), peer, client=True)
        )

    def _timed_out(self, failure: Failure) -> Failure:
        """:raises ConnectFailed: it took too long."""
        if failure.check(DeferredTimeout):
            why = f"{TIMEOUT_EXPIRED}; {self._last_error}" if self._last_error else TIMEOUT_EXPIRED
            raise ConnectFailed(f"{self._server}: {why}") from None
        return failure

    # The SSH connection -------------------------------------------------------------------------

    def _connected(self) -> Deferred[SSHClientConnection]:
        """:returns: fires when there is one; fails where the next attempt does, or is far away."""
        self._wanted = True
        if self._connection is not None:
            return succeed(self._connection)
        pause = self._timer.getTime() - self._reactor.seconds() if self._timer is not None else 0.0
        if pause > LONGEST_WAIT:
            return fail(
                ConnectFailed(f"{self._server}: {self._last_error}; next attempt in {pause:.0f} s")
            )
        waiting: Deferred[SSHClientConnection] = Deferred(self._waiting.remove)
        self._waiting.append(waiting)
        if self._connecting is None and self._timer is None:
            self._connect()
        return waiting

    def _connect(self) -> None:
        self._timer = None
        self._connecting = Deferred.fromCoroutine(self._attempt())
        self._connecting.addTimeout(LOGIN_TIMEOUT, self._reactor).addErrback(self._failed)

    async def _attempt(self) -> None:
        server = self._server
        of_agent, agent_done = await identities_of_agent(self._reactor)
        try:
            connection = SSHClientConnection(
                server, self._known_hosts, [*self._identities, *of_agent], self._reactor
            )
            endpoint = HostnameEndpoint(self._reactor, server.host, server.port, LOGIN_TIMEOUT)
            try:
                await endpoint.connect(OneProtocol.forProtocol(lambda: connection))
            except ConnectingCancelledError:  # Twisted's endpoints' own: it took too long
                raise CancelledError from None
            await connection.ready
        finally:
            agent_done()
        _log.info("{via}: connected, host key {key}", via=server, key=connection.host_key)
        self._connecting, self._connection = None, connection
        self._pause, self._last_error = 0.0, ""
        connection.ended.addCallback(self._lost)
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            each.callback(connection)

    def _lost(self, error: PgTLSError) -> None:
        self._connection = None
        if self._wanted:
            self._try_again(error.reason)

    def _failed(self, failure: Failure) -> None:
        self._connecting = None
        if not self._wanted:
            return
        reason = _why_not_connected(failure.value)
        waiting, self._waiting = self._waiting, []
        self._try_again(reason)
        for each in waiting:
            each.errback(ConnectFailed(f"{self._server}: {reason}"))

    def _try_again(self, reason: str) -> None:
        """After a pause, which grows; each reason is logged once."""
        self._pause = min(max(FIRST_PAUSE, 2 * self._pause), LONGEST_PAUSE)
        self._timer = self._reactor.callLater(self._pause, self._connect)
        if reason != self._last_error:
            self._last_error = reason
            _log.error(
                "{via}: {reason}; next attempt in {pause:g} s",
                via=self._server,
                reason=reason,
                pause=self._pause,
            )

    def stop(self) -> None:
        """Close the connection, with all that is in it."""
        self._stop_connecting()
        if self._connection is not None:
            self._connection.abort()

    def retire(self) -> None:
        """Another one takes its place: close the connection when nothing is in it any more."""
        self._stop_connecting()
        if self._connection is not None:
            self._connection.retire()

    def _stop_connecting(self) -> None:
        self._wanted = False
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()
        if self._connecting is not None:
            self._connecting.cancel()
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            each.errback(ConnectFailed(f"{self._server}: not connected any more"))


def _why_not_connected(error: BaseException | None) -> str:
    if isinstance(error, PgTLSError):
        return error.reason
    if error is None or isinstance(error, DeferredTimeout):
        return f"no SSH connection in {LOGIN_TIMEOUT:g} s"
    return connect_error(error)
