"""The client endpoint: a libpq connection string in, a connection that is as it should be out."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IStreamClientEndpoint
from twisted.logger import Logger
from zope.interface import implementer

from pgtls.protocols.addresses import known_place, places
from pgtls.protocols.client import Outcome, PgTLSClientProtocol
from pgtls.protocols.dial import TIMEOUT_EXPIRED, dial
from pgtls.tls.client_context import ClientTLS, Roots
from pgtls.tls.sources import CertificateSource, KeySource
from pgtls.wire.attempts import Attempts, SSLMode
from pgtls.wire.client import ClientNegotiation, Event, Fail, NextHost, Reconnect
from pgtls.wire.conninfo import ConnInfo, Host
from pgtls.wire.errors import ConnectFailed, PgTLSError, ServerRejected
from pgtls.wire.messages import StartupMessage

_log = Logger(namespace="pgtls.client")

T = TypeVar("T")

#: How an attempt ends without a protocol for the application.
_NOT_CONNECTED = (Reconnect, NextHost, Fail)

#: Seconds for TCP alone where no connect_timeout is set; the kernel's own limit is about as long.
TCP_TIMEOUT = 120.0

#: Seconds for which a name's addresses are used again. A gateway may connect a thousand times in
#: one, and a look at a name costs as much as the rest.
NAME_LIFETIME = 1.0


@implementer(IStreamClientEndpoint)
class PgTLSClientEndpoint:
    """Connects as a libpq client would under a connection string.

    :param reactor: Twisted's reactor.
    :param conninfo: a libpq connection string (PG* environment variables and ``~/.postgresql``
        count), or one already parsed.
    :param roots: whom to trust, from memory: PEM, DER, cryptography's objects, or a list of them,
        in place of ``sslrootcert`` and of root.crt and root.crl in ``~/.postgresql``.
    :param certificate: the client's certificate, from memory too, in place of ``sslcert``.
    :param key: its private key, in place of ``sslkey``.
    :param startup: where given, it is sent as soon as the connection is as it should be, and the
        server's first answer decides as in libpq: an error leads allow and prefer to their other
        method, "cannot connect now" to the next host. The application then reads the answer, and
        does not send the message again.
    :param observe: is told what happens, as it happens.
    :param tls: what to use as TLS, in place of what the connection string asks for.
    :ivar reached: the host that the last :meth:`connect` ended at, with the address that it has;
        None before.
    :raises ConfigurationError: the connection string cannot be used.
    """

    def __init__(
        self,
        reactor: Any,
        conninfo: str | ConnInfo,
        *,
        roots: Roots | None = None,
        certificate: CertificateSource | None = None,
        key: KeySource | None = None,
        startup: StartupMessage | None = None,
        observe: Callable[[Event], None] = lambda event: None,
        tls: Callable[[], ClientTLS] | None = None,
    ) -> None:
        self._reactor = reactor
        if isinstance(conninfo, str):
            conninfo = ConnInfo.parse(conninfo, os.environ)
        self.conninfo = conninfo
        self._startup = startup
        self._observe = observe
        self._make_tls = tls or partial(
            ClientTLS, conninfo, roots=roots, certificate=certificate, key=key
        )
        self._tls: ClientTLS | None = None
        self.reached: Host | None = None
        self._found: dict[Host, tuple[float, list[Host]]] = {}

    def for_session(
        self, startup: StartupMessage | None = None, host: Host | None = None
    ) -> PgTLSClientEndpoint:
        """The same endpoint for one session: its StartupMessage, or just one of the hosts. What
        has been made for TLS is shared, and what has just been found of names."""
        session = PgTLSClientEndpoint.__new__(PgTLSClientEndpoint)
        session.__dict__.update(self.__dict__)
        session._make_tls = self.tls
        session._startup = startup
        session.reached = None
        if host is not None:
            session.conninfo = replace(self.conninfo, hosts=(host,))
        return session

    def tls(self) -> ClientTLS:
        """What the connection string asks of TLS; made once.

        :raises ConfigurationError: a file it names cannot be used.
        """
        if self._tls is None:
            self._tls = self._make_tls()
        return self._tls

    def check(self) -> None:
        """See now whether TLS can be had as the connection string has it, where any of its hosts
        may come to it.

        :raises ConfigurationError: it cannot.
        """
        if self.conninfo.sslmode is not SSLMode.DISABLE and any(
            host.unix_path is None for host in self.conninfo.hosts
        ):
            self.tls()

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """Connect.

        :returns: fires with the application's protocol when TLS is up and the server verified
            (with ``startup``: when it has answered), fails with a :class:`PgTLSError`. Cancelling
            it closes the attempt.
        """
        return Deferred.fromCoroutine(self._connect(protocolFactory))

    async def _connect(self, factory: IProtocolFactory) -> IProtocol:
        errors: list[PgTLSError] = []
        timeout = self.conninfo.connect_timeout
        for host in self._shuffled(self.conninfo.hosts):
            known = known_place(host)
            try:
                found = [known] if known is not None else await self._looked_up(host)
            except ConnectFailed as error:
                errors.append(error)
                continue
            for place in self._shuffled(found):
                if timeout is None:
                    outcome = await self._attempts(place, factory, errors)
                else:
                    outcome = await self._attempts_in_time(place, factory, errors, timeout)
                if isinstance(outcome, Fail):
                    # libpq's rule: only where nobody can be reached comes another address
                    raise _with_notes(errors)
                if not isinstance(outcome, NextHost):
                    return outcome
                if isinstance(outcome.error, ServerRejected):
                    break  # 57P03: its other addresses would say the same
        raise _with_notes(errors)

    async def _looked_up(self, host: Host) -> list[Host]:
        """:raises ConnectFailed: it has no address."""
        now: float = self._reactor.seconds()
        when, found = self._found.get(host, (now - NAME_LIFETIME, []))
        if now - when >= NAME_LIFETIME:
            looking = places(self._reactor, host)
            found = await self._in_time(looking, self.conninfo.connect_timeout or TCP_TIMEOUT)
            self._found[host] = now, found
        return found

    def _shuffled(self, hosts: Sequence[Host]) -> Sequence[Host]:
        if self.conninfo.load_balance_hosts == "random":
            return random.sample(hosts, len(hosts))
        return hosts

    async def _in_time(self, work: Coroutine[Deferred[Any], Any, T], timeout: float) -> T:
        """:raises ConnectFailed: it took longer than ``timeout`` seconds."""
        try:
            return await Deferred.fromCoroutine(work).addTimeout(timeout, self._reactor)
        except DeferredTimeout:
            raise ConnectFailed(TIMEOUT_EXPIRED) from None

    async def _attempts_in_time(
        self, place: Host, factory: IProtocolFactory, errors: list[PgTLSError], timeout: float
    ) -> IProtocol | Fail | NextHost:
        """:meth:`_attempts`, with a limit."""
        try:
            return await self._in_time(self._attempts(place, factory, errors), timeout)
        except ConnectFailed as error:
            error.where = where(place)
            errors.append(error)
            return NextHost(error)

    async def _attempts(
        self, host: Host, factory: IProtocolFactory, errors: list[PgTLSError]
    ) -> IProtocol | Fail | NextHost:
        """All attempts at one address.

        :param errors: gets one for each that fails.
        """
        attempts = Attempts.plan(
            self.conninfo.sslmode,
            self.conninfo.sslnegotiation,
            unix_socket=host.unix_path is not None,
        )
        startup = self._startup.raw if self._startup is not None else None
        connected = Event.CONNECT
        while True:
            protocol = PgTLSClientProtocol(
                ClientNegotiation(attempts, startup, connected, self.conninfo.min_protocol_version),
                host,
                self.conninfo,
                self.tls,
                factory,
                self._observe,
                self._reactor,
            )
            outcome: Outcome
            try:
                timeout = self.conninfo.connect_timeout or TCP_TIMEOUT
                await dial(self._reactor, host, protocol, timeout)
                outcome = await protocol.outcome
            except ConnectFailed as error:
                outcome = NextHost(error)
            if not isinstance(outcome, _NOT_CONNECTED):
                self.reached = host
                return outcome
            outcome.error.where = where(host)
            errors.append(outcome.error)
            if not isinstance(outcome, Reconnect):
                return outcome
            _log.info(
                "{host}: {method} failed ({reason}); next: {next}",
                host=outcome.error.where,
                method=attempts.current.value,
                reason=outcome.error.reason,
                next=outcome.attempts.current.value,
            )
            attempts, connected = outcome.attempts, Event.RECONNECT


def where(host: Host) -> str:
    """A host as libpq names it in errors."""
    if host.unix_path is not None:
        return f'connection to server on socket "{host.unix_path}"'
    address = f" ({host.hostaddr})" if host.host not in ("", host.hostaddr) else ""
    return f'connection to server at "{host.name}"{address}, port {host.port}'


def _with_notes(errors: list[PgTLSError]) -> PgTLSError:
    """The last error, which tells of the ones before it."""
    for earlier in errors[:-1]:
        errors[-1].add_note(str(earlier))
    return errors[-1]
