"""The server Factory: PostgreSQL's negotiation in front of an application's factory."""

from __future__ import annotations

from collections.abc import Sequence

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import (
    IAddress,
    IOpenSSLServerConnectionCreator,
    IProtocolFactory,
    IReactorTime,
)
from twisted.internet.protocol import Factory, Protocol

from pgtls.errors import ConfigurationError
from pgtls.protocols.admission import Admission
from pgtls.protocols.connection_log import ConnectionLog
from pgtls.protocols.interfaces import IAccessPolicy, ISessionObserver
from pgtls.protocols.observers import Observers
from pgtls.protocols.places import Places
from pgtls.protocols.proxied_client import Proxies
from pgtls.protocols.server import PgTLSServerProtocol
from pgtls.protocols.server_settings import ListenerSettings
from pgtls.transport.deadlines import deadlines
from pgtls.wire.messages import ErrorResponse
from pgtls.wire.server_negotiation import SSL


class PgTLSServerFactory(Factory):
    """Makes the server side of PostgreSQL's negotiation in front of an application's factory.

    :param wrapped: the application's factory. Its protocols get the StartupMessage byte for byte
        in ``dataReceived``, or as values if they provide
        :class:`~pgtls.protocols.interfaces.IPostgreSQLApplication` or
        :class:`~pgtls.protocols.interfaces.IPostgreSQLSession`.
    :param tls: makes the TLS connections; may be None where ``ssl`` is off.
    :param settings: whether TLS is offered or required, limits of time and number.
    :param policy: decides which clients may connect, in place of ``clientcert`` and what belongs to
        it.
    :param observers: are told what happens to connections, in place of the log
        (:class:`~pgtls.protocols.connection_log.ConnectionLog`).
    :param reactor: for time limits; None for the installed one.
    :ivar has_peers: whether other gateways may pass CancelRequests on.
    :ivar proxies: what is known of proxies that send PROXY headers; None where none is taken.
    :ivar deadlines: the time limits of its connections.
    :ivar tcp_options: those of the clients' TCP connections.
    :ivar places: the open connections, and which of them may have a session.
    :raises ConfigurationError: TLS is wanted, but there is nothing to make it with.
    """

    noisy = False
    has_peers = False

    def __init__(
        self,
        wrapped: IProtocolFactory,
        tls: IOpenSSLServerConnectionCreator | None,
        settings: ListenerSettings | None = None,
        *,
        policy: IAccessPolicy | None = None,
        observers: Observers | Sequence[ISessionObserver] | None = None,
        reactor: IReactorTime | None = None,
    ) -> None:
        settings = settings or ListenerSettings()
        if tls is None and settings.ssl is not SSL.OFF:
            raise ConfigurationError(f'ssl is "{settings.ssl}", but there is no certificate for it')
        self.wrapped = wrapped
        self.tls = tls
        self.settings = settings
        self.proxies = Proxies.of(settings)
        self.tcp_options = settings.tcp_options
        self.policy: IAccessPolicy = Admission(settings, tls) if policy is None else policy
        self.places = Places[PgTLSServerProtocol](
            settings.max_connections, PgTLSServerProtocol.abort
        )
        self._drained: list[Deferred[None]] = []
        if reactor is None:
            from twisted.internet import reactor  # noqa: PLC0415 - importing it installs it
        self.reactor: IReactorTime = reactor  # type: ignore[assignment]
        self.deadlines = deadlines(self.reactor)
        if observers is None:
            observers = (ConnectionLog(self.reactor),)
        self.observers = observers if isinstance(observers, Observers) else Observers(observers)

    @property
    def connections(self) -> set[PgTLSServerProtocol]:
        """The open connections that have a place, not more than ``max_connections``."""
        return self.places.sessions

    def buildProtocol(self, addr: IAddress | None) -> Protocol:
        """A connection came in. Past ``max_connections`` it only gets to hear so."""
        protocol = PgTLSServerProtocol()
        protocol.factory = self
        return protocol

    def renew(
        self,
        tls: IOpenSSLServerConnectionCreator | None,
        settings: ListenerSettings,
        policy: IAccessPolicy,
    ) -> None:
        """Serve connections that come from now on in another way; those that are open stay as they
        are.

        :param tls: makes the TLS connections; may be None where ``ssl`` is off.
        :param settings: as when the factory was made.
        :param policy: decides which clients may connect.
        """
        self.tls = tls or self.tls  # those that have been promised TLS get it
        self.settings = settings
        self.proxies = Proxies.of(settings)
        self.tcp_options = settings.tcp_options
        self.policy = policy
        self.places.limit = settings.max_connections

    def refuse_sessions(self, response: ErrorResponse) -> None:
        """Begin no session any more. Sessions go on, and so do their cancel requests; a client that
        asks for a new one goes through the negotiation, TLS included, and reads ``response``.

        :param response: for example :data:`~pgtls.protocols.places.SHUTTING_DOWN`.
        """
        self.places.refuse(response, [each for each in self.connections if each.negotiating])
        self._check_drained()

    def drain(self, timeout: float | None) -> Deferred[None]:
        """Wait until every session and every cancel request is over; those that are not in
        ``timeout`` seconds are closed then. So are those that are refused.

        :param timeout: seconds, 0 or more; None to wait as long as it takes.
        :returns: fires when none is left.
        """
        if not self._in_use():
            self._abort(self.places.refused)
            return succeed(None)
        drained: Deferred[None] = Deferred()
        self._drained.append(drained)
        if timeout is None:
            return drained
        abort = self.reactor.callLater(timeout, self.abort_all)
        return drained.addCallback(lambda _: abort.cancel() if abort.active() else None)

    def _in_use(self) -> bool:
        return bool(self.places.sessions or self.places.cancels)

    def abort_all(self) -> None:
        """Close every session and every cancel request at once."""
        self._abort([*self.places.sessions, *self.places.cancels])

    def _abort(self, connections: list[PgTLSServerProtocol]) -> None:
        for connection in connections:
            connection.abort()

    def connection_lost(self, connection: PgTLSServerProtocol) -> None:
        """A connection is closed.

        :param connection: one of those that :meth:`buildProtocol` made.
        """
        self.places.leave(connection)
        self._check_drained()

    def _check_drained(self) -> None:
        if self._drained and not self._in_use():
            waiting, self._drained = self._drained, []
            self._abort(self.places.refused)
            for drained in waiting:
                drained.callback(None)

    def startFactory(self) -> None:
        """It listens: there will be time limits all the time."""
        self.deadlines.keep_timer()

    def stopFactory(self) -> None:
        """It listens no more."""
        self.deadlines.let_timer_go()

    def doStart(self) -> None:
        """Start the application's factory too."""
        super().doStart()  # type: ignore[no-untyped-call]
        self.wrapped.doStart()

    def doStop(self) -> None:
        """Stop the application's factory too, and tell the observers."""
        self.observers.stopped()
        self.wrapped.doStop()
        super().doStop()  # type: ignore[no-untyped-call]
