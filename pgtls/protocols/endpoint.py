"""The client endpoint: a libpq connection string in, a connection that is as it should be out."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IStreamClientEndpoint
from twisted.python.failure import Failure
from zope.interface import implementer

from pgtls.conninfo.connection_string import ConnInfo, Host
from pgtls.conninfo.startup_packet import startup_message
from pgtls.errors import ConfigurationError, PgTLSError
from pgtls.protocols.connect_attempt import ConnectAttempt, ConnectOutcome
from pgtls.protocols.server_login import Login, SessionLogin
from pgtls.protocols.session_inspection import (
    Inspected,
    KnownAttributes,
    inspect,
    own_login_failed,
)
from pgtls.protocols.session_search import Attempt, Inspect, SessionSearch
from pgtls.tls.client_context import ClientTLS, Roots
from pgtls.tls.sources import CertificateSource, KeySource
from pgtls.transport.dialer import Dialer, DirectDialer
from pgtls.transport.reactor import IReactor
from pgtls.wire.attempts import SSLMode
from pgtls.wire.client_negotiation import Event
from pgtls.wire.messages import StartupMessage
from pgtls.wire.scram import KeySource as ScramKeySource
from pgtls.wire.session_attributes import ANY


@implementer(IStreamClientEndpoint)
class PgTLSClientEndpoint:
    """Connects as a libpq client would under a connection string.

    :param reactor: Twisted's reactor.
    :param conninfo: a libpq connection string (PG* environment variables and ``~/.postgresql``
        count), or one already parsed.
    :param roots: the trusted root certificates, from memory: PEM, DER, cryptography's objects, or a
        list of them, in place of ``sslrootcert`` and of root.crt and root.crl in ``~/.postgresql``.
    :param certificate: the client's certificate, from memory too, in place of ``sslcert``.
    :param key: its private key, in place of ``sslkey``.
    :param startup: where given, it is sent as soon as the connection is as it should be, and the
        server's first answer decides as in libpq: an error leads allow and prefer to their other
        method, "cannot connect now" to the next host. The application then reads the answer, and
        does not send the message again.
    :param observe: is told what happens, as it happens.
    :param tls: what to use as TLS, in place of what the connection string asks for.
    :param dialer: connects to the hosts, through an SSH server for example; None to connect from
        this machine.
    :param preface: goes in front of everything on each connection, before SSLRequest and direct
        TLS: a PROXY header.
    :ivar preface: the same.
    :raises ConfigurationError: the connection string cannot be used.
    """

    def __init__(
        self,
        reactor: IReactor,
        conninfo: str | ConnInfo,
        *,
        roots: Roots | None = None,
        certificate: CertificateSource | None = None,
        key: KeySource | None = None,
        startup: StartupMessage | None = None,
        observe: Callable[[Event], None] = lambda event: None,
        tls: Callable[[], ClientTLS] | None = None,
        dialer: Dialer | None = None,
        preface: bytes = b"",
    ) -> None:
        self._reactor = reactor
        if isinstance(conninfo, str):
            conninfo = ConnInfo.parse(conninfo, os.environ)
        self.conninfo = conninfo
        self.preface = preface
        self._startup = startup
        self._observe = observe
        self._make_tls = tls or partial(
            ClientTLS, conninfo, roots=roots, certificate=certificate, key=key
        )
        self._tls: ClientTLS | None = None
        self._dialer = dialer or DirectDialer(reactor)
        self._last: Attempt | None = None
        self._known = KnownAttributes(reactor, self._inspect_for_all)
        self._login: Login | None = None

    def for_session(
        self,
        host: Host | None = None,
        *,
        any_session: bool = False,
        preface: bytes | None = None,
    ) -> PgTLSClientEndpoint:
        """The same endpoint for one session, or for just one of the hosts. What has been made for
        TLS is shared, and recently resolved names.

        :param host: one of the hosts, whatever ``target_session_attrs`` says; None for all.
        :param any_session: whether ``target_session_attrs`` does not count.
        :param preface: in place of the endpoint's own; None for that.
        :returns: the endpoint.
        """
        session = PgTLSClientEndpoint.__new__(PgTLSClientEndpoint)
        session.__dict__.update(self.__dict__)
        session._make_tls = self.tls
        session._last = None
        if preface is not None:
            session.preface = preface
        hosts = self.conninfo.hosts if host is None else (host,)
        if host is not None or any_session:
            session.conninfo = replace(self.conninfo, hosts=hosts, target_session_attrs=ANY)
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
        may come to it, and whether the password file can be used, where one may be needed.

        :raises ConfigurationError: it cannot.
        """
        conninfo = self.conninfo
        if conninfo.sslmode is not SSLMode.DISABLE and any(
            host.unix_path is None for host in conninfo.hosts
        ):
            self.tls()
        startup = startup_message(conninfo)
        if conninfo.target_session_attrs is not ANY and startup is not None:
            Login(conninfo, startup).check(conninfo.hosts)

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """Connect.

        :param protocolFactory: the application's factory.
        :returns: fires with the application's protocol when TLS is up and the server verified (with
            ``startup``: when it has answered), fails with a :class:`PgTLSError`. Cancelling it
            closes the attempt.
        """
        result: Deferred[IProtocol] = Deferred(lambda _: attempt.cancel())

        def ended(outcome: ConnectOutcome) -> None:
            if isinstance(outcome, PgTLSError | Failure):
                result.errback(outcome)
            else:
                result.callback(outcome)

        attempt = self._last = self._attempt(
            protocolFactory, self._startup, ended, self._observe, self._inspect_anew
        )
        attempt.begin()
        return result

    def attempt(
        self,
        protocolFactory: IProtocolFactory,
        startup: StartupMessage | None,
        ended: Callable[[ConnectOutcome], None],
        *,
        keys: ScramKeySource | None = None,
    ) -> Attempt:
        """As :meth:`connect`, for one session of many: with a StartupMessage of its own, and
        without a Deferred. ``target_session_attrs`` is then seen to by the user of the connection
        string, and what it found lately counts; without one, by the role of the session.

        :param protocolFactory: the application's factory.
        :param startup: see the class.
        :param ended: is called once with the outcome.
        :param keys: SCRAM's keys of the role in ``startup``, where they are known.
        :returns: the attempt, not yet begun.
        """
        if self.conninfo.target_session_attrs is ANY:
            return self._connect_attempt(protocolFactory, startup, ended, self._observe)
        login = None
        if startup is not None and self.conninfo.user is None:
            login = SessionLogin(self.conninfo, startup, keys)

        def inspect_for_session(
            host: Host, observe: Callable[[Event], None]
        ) -> Deferred[Inspected]:
            return self._known.of(host) if login is None else self._inspect(login, host, observe)

        return self._attempt(protocolFactory, startup, ended, self._observe, inspect_for_session)

    def forget_attributes(self, host: Host) -> None:
        """A session was not what its host's sessions were lately: have the host asked again.

        :param host: the host, with the address that it has.
        """
        self._known.forget(host)

    def _attempt(
        self,
        factory: IProtocolFactory,
        startup: StartupMessage | None,
        ended: Callable[[ConnectOutcome], None],
        observe: Callable[[Event], None],
        inspect_host: Inspect,
    ) -> Attempt:
        if self.conninfo.target_session_attrs is not ANY:
            return SessionSearch(
                self._reactor, self, startup, inspect_host, observe, factory, ended
            )
        return self._connect_attempt(factory, startup, ended, observe)

    def _connect_attempt(
        self,
        factory: IProtocolFactory,
        startup: StartupMessage | None,
        ended: Callable[[ConnectOutcome], None],
        observe: Callable[[Event], None],
    ) -> ConnectAttempt:
        return ConnectAttempt(
            self._reactor,
            self.conninfo,
            self._dialer,
            startup,
            self.tls,
            observe,
            factory,
            ended,
            self.preface,
        )

    def _inspect_for_all(self, host: Host) -> Deferred[Inspected]:
        if self._login is None:
            self._login = Login(self.conninfo, self._login_message(None))
        return self._inspect(self._login, host, lambda event: None).addCallback(own_login_failed)

    def _inspect_anew(self, host: Host, observe: Callable[[Event], None]) -> Deferred[Inspected]:
        return self._inspect(
            Login(self.conninfo, self._login_message(self._startup)), host, observe
        )

    def _login_message(self, startup: StartupMessage | None) -> StartupMessage:
        """:raises ConfigurationError: no user is known."""
        message = startup or startup_message(self.conninfo)
        if message is None:
            raise ConfigurationError("target_session_attrs needs a user: user= or PGUSER")
        return message

    def _inspect(
        self, login: Login, host: Host, observe: Callable[[Event], None]
    ) -> Deferred[Inspected]:
        endpoint = self.for_session(host)
        endpoint._observe = observe
        target = self.conninfo.target_session_attrs
        return Deferred.fromCoroutine(inspect(self._reactor, endpoint, login, target))

    @property
    def reached(self) -> Host | None:
        """The host that the last :meth:`connect` ended at, with the address that it has; None
        before."""
        return self._last.reached if self._last is not None else None

    @property
    def errors(self) -> tuple[PgTLSError, ...]:
        """What failed in the last :meth:`connect`, in turn; also where it succeeded in the end."""
        return tuple(self._last.errors) if self._last is not None else ()
