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
from pgtls.errors import PgTLSError
from pgtls.protocols.connect_attempt import ConnectAttempt, ConnectOutcome
from pgtls.tls.client_context import ClientTLS, Roots
from pgtls.tls.sources import CertificateSource, KeySource
from pgtls.transport.reactor import IReactor
from pgtls.transport.way_to_hosts import FromHere, WayToHosts
from pgtls.wire.attempts import SSLMode
from pgtls.wire.client_negotiation import Event
from pgtls.wire.messages import StartupMessage


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
    :param way: how to get to the hosts, such as an SSH server; None for this machine's own.
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
        way: WayToHosts | None = None,
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
        self._way = way or FromHere(reactor)
        self._last: ConnectAttempt | None = None

    def for_session(self, host: Host | None = None) -> PgTLSClientEndpoint:
        """The same endpoint for one session, or for just one of the hosts. What has been made for
        TLS is shared, and recently resolved names.

        :param host: one of the hosts; None for all.
        :returns: the endpoint.
        """
        session = PgTLSClientEndpoint.__new__(PgTLSClientEndpoint)
        session.__dict__.update(self.__dict__)
        session._make_tls = self.tls
        session._last = None
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

        attempt = self._last = self.attempt(protocolFactory, self._startup, ended)
        attempt.begin()
        return result

    def attempt(
        self,
        protocolFactory: IProtocolFactory,
        startup: StartupMessage | None,
        ended: Callable[[ConnectOutcome], None],
    ) -> ConnectAttempt:
        """As :meth:`connect`, for one session of many: with a StartupMessage of its own, and
        without a Deferred.

        :param protocolFactory: the application's factory.
        :param startup: see the class.
        :param ended: is called once with the outcome.
        :returns: the attempt, not yet begun.
        """
        return ConnectAttempt(
            self._reactor,
            self.conninfo,
            self._way,
            startup,
            self.tls,
            self._observe,
            protocolFactory,
            ended,
        )

    @property
    def reached(self) -> Host | None:
        """The host that the last :meth:`connect` ended at, with the address that it has; None
        before."""
        return self._last.reached if self._last is not None else None

    @property
    def errors(self) -> tuple[PgTLSError, ...]:
        """What failed in the last :meth:`connect`, in turn; also where it succeeded in the end."""
        return tuple(self._last.errors) if self._last is not None else ()
