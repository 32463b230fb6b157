"""One gateway: a listener, what it lets in, and the upstream behind it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import partial
from typing import Protocol, cast

import attrs
from twisted.application.service import Service
from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.interfaces import IAddress, IListeningPort, IStreamServerEndpoint
from twisted.logger import Logger

from pgtls.errors import ConfigurationError
from pgtls.gateway.cancel import CancelForwarder
from pgtls.gateway.cancel_peers import Peers
from pgtls.gateway.channel_binding_check import ChannelBinding
from pgtls.gateway.client_side import ClientSides
from pgtls.gateway.expiry_watch import Expiry, ExpiryWatch
from pgtls.gateway.gateway_configuration import GatewaySettings, LoadedGateway
from pgtls.gateway.key_holders import KeyHolder
from pgtls.gateway.routed_upstreams import RoutedUpstreams
from pgtls.gateway.session import SessionContext
from pgtls.gateway.single_upstream import SingleUpstream
from pgtls.gateway.upstream_check import check_upstreams
from pgtls.protocols.connection_info import listener_text
from pgtls.protocols.connection_log import ConnectionLog
from pgtls.protocols.interfaces import ISessionObserver
from pgtls.protocols.observers import Observers
from pgtls.protocols.places import SHUTTING_DOWN
from pgtls.protocols.server_factory import PgTLSServerFactory
from pgtls.protocols.stages import Client
from pgtls.tls.validity import EXPIRY_WARNING
from pgtls.transport.listening import backlog_for, listen
from pgtls.transport.listening_sockets import server_endpoint
from pgtls.transport.reactor import IReactor

_log = Logger(namespace="pgtls.gateway")


#: Seconds at the end for cancel requests that are on their way.
CANCELS_TIMEOUT = 2.0


class _SocketPort(Protocol):
    """A port of Twisted's, or of ours: a socket that a reactor reads from."""

    def fileno(self) -> int: ...
    def stopReading(self) -> None: ...


class Gateway(Service):
    """A ``[[gateway]]`` table at work: a service that owns its port, its sessions, and the check of
    its upstream. It can be started again after it has been stopped.

    :param reactor: Twisted's reactor.
    :param loaded: its configuration, all files read.
    :param shutdown_timeout: seconds that open sessions have to finish when it is stopped.
    :param endpoint: what it listens on; by default what its ``listen`` says.
    :param connections_everywhere: takes how many connections are open here, and returns how many
        count towards ``max_connections``: more, where other processes share the port.
    :param observers: are told what happens to connections, beside the log.
    :param checks_upstream: whether the upstream is looked at once at the start, and the log warns
        of what expires.
    :param expiry_warning: how long before the end of a certificate, an authority or a CRL it does.
    :param elsewhere: has the sessions of other gateways and processes that cancel requests may be
        for.
    """

    def __init__(
        self,
        reactor: IReactor,
        loaded: LoadedGateway,
        *,
        shutdown_timeout: float,
        endpoint: IStreamServerEndpoint | None = None,
        connections_everywhere: Callable[[int], int] = int,
        observers: Sequence[ISessionObserver] = (),
        checks_upstream: bool = True,
        expiry_warning: timedelta = EXPIRY_WARNING,
        elsewhere: KeyHolder | None = None,
    ) -> None:
        self._reactor = reactor
        self._loaded = loaded
        self._shutdown_timeout = shutdown_timeout
        self._endpoint = endpoint
        self._connections_everywhere = connections_everywhere
        self._checks_upstream = checks_upstream
        self._elsewhere = elsewhere
        self._observers = tuple(observers)
        self._label = ""
        self._log: ConnectionLog | None = None
        self._clients: ClientSides | None = None
        self._factory: PgTLSServerFactory | None = None
        self._port: IListeningPort | None = None
        self._upstream_check: Deferred[None] = succeed(None)
        self._expiry = ExpiryWatch(
            reactor, expiry_warning, lambda: self._loaded, partial(self._check_upstream, quiet=True)
        )

    @property
    def loaded(self) -> LoadedGateway:
        """What new connections are served with."""
        return self._loaded

    @property
    def address(self) -> IAddress:
        """Where it listens, once its port is open."""
        if self._port is None:
            raise RuntimeError("its port is not open")
        return self._port.getHost()

    @property
    def label(self) -> str:
        """What status and metrics call it: the address that it listens on; before its port is open,
        what its ``listen`` says."""
        return self._label or self._loaded.configuration.settings.listen

    @property
    def is_open(self) -> bool:
        """Whether its port is open."""
        return self._port is not None

    def observe(self, observer: ISessionObserver) -> None:
        """Have one more observer told what happens to connections.

        :param observer: from now on; the port is not open yet.
        """
        self._observers = (*self._observers, observer)

    @property
    def sessions(self) -> int:
        """How many connections of clients are open in this process."""
        return len(self._factory.connections) if self._factory is not None else 0

    def expiries(self) -> list[Expiry]:
        """What ends some time, of its files and of what its upstreams have shown.

        :returns: certificates, authorities and CRLs, each once.
        """
        return self._expiry.expiries()

    def open_port(self) -> Deferred[None]:
        """Open the port; connections are accepted from the reactor's next turn on.

        :returns: fires when it is open, and fails with what the endpoint says, such as
            :class:`~twisted.internet.error.CannotListenError`.
        :raises ConfigurationError: the upstream is the embedded PostgreSQL, which does not run.
        """
        settings = self._loaded.configuration.settings
        listener, router = settings.listener, self._router()
        self._log = ConnectionLog(self._reactor, log_disconnections=settings.log_disconnections)
        self._log.route_name = _route_name(router)
        observers = Observers((self._log, *self._observers))
        self._clients = ClientSides(
            SessionContext(
                self._reactor,
                router,
                router,
                ChannelBinding(),
                listener.authentication_timeout,
                settings.tls_parameters,
                CancelForwarder(self._reactor, self._elsewhere),
                observers,
            )
        )
        self._factory = PgTLSServerFactory(
            self._clients,
            self._loaded.tls,
            listener,
            policy=self._loaded.policy,
            observers=observers,
            reactor=self._reactor,
        )
        self._factory.places.everywhere = self._connections_everywhere
        self._use_peers()
        return maybeDeferred(self._listen, settings, self._factory).addCallback(self._opened)

    def _listen(
        self, settings: GatewaySettings, factory: PgTLSServerFactory
    ) -> Deferred[IListeningPort]:
        if self._endpoint is not None:
            return self._endpoint.listen(factory)
        endpoint = server_endpoint(self._reactor, settings.listen)
        backlog = backlog_for(settings.listen, settings.listener.max_connections)
        return listen(endpoint, factory, self._reactor, backlog)

    def _opened(self, port: IListeningPort) -> None:
        self._port = port
        self._label = listener_text(port.getHost())

    def close_port(self) -> Deferred[None]:
        """Accept no more connections; those that are open stay.

        :returns: fires when the port is closed.
        """
        port, self._port = self._port, None
        return (port.stopListening() if port is not None else None) or succeed(None)

    def leave_port_to_workers(self) -> int:
        """Keep the port open, and accept nothing here.

        :returns: the listening socket's descriptor.
        """
        port = cast(_SocketPort, self._port)  # of a kind that check_shareable() has allowed
        port.stopReading()
        return port.fileno()

    def startService(self) -> None:
        """Open the port, unless that has been done; look at the upstream."""
        super().startService()  # type: ignore[no-untyped-call]
        if self._port is None:
            self.open_port().addErrback(
                lambda failure: _log.failure("the port cannot be opened", failure)
            )
        if self._checks_upstream:
            self._expiry.start()
            self._check_upstream()

    def _check_upstream(self, *, quiet: bool = False) -> None:
        if self._clients is None:
            return
        self._upstream_check.cancel()
        context, tls = self._clients.context, self._loaded.tls
        # Of certificates by name, each session's is compared when it comes.
        shown = tls.certificates if tls is not None and not tls.by_name else ()
        self._upstream_check = check_upstreams(
            *(self._loaded.upstream, self._loaded.routes, shown),
            *(context.channel_binding, context.reactor, self._expiry.shown),
            quiet=quiet,
        )

    def stopService(self) -> Deferred[None]:
        """Let sessions finish for ``shutdown_timeout`` seconds, then close the port.

        Until then the port stays open, as PostgreSQL's in its smart shutdown: sessions can cancel
        their queries, and clients that want another session read why there is none.

        :returns: fires when no connection is left.
        """
        super().stopService()  # type: ignore[no-untyped-call]
        self._upstream_check.cancel()
        self._expiry.stop()
        if self._factory is None:
            return self.close_port()
        self._factory.refuse_sessions(SHUTTING_DOWN)
        drained = self._factory.drain(self._shutdown_timeout)
        drained.addCallback(lambda _: self._cancels_finished())
        drained.addCallback(lambda _: self._close_tunnel())
        return drained.addCallback(lambda _: self.close_port())

    def _close_tunnel(self) -> None:
        if self._loaded.ssh_tunnel is not None:
            self._loaded.ssh_tunnel.stop()

    def _cancels_finished(self) -> Deferred[None]:
        """Those of clients that have not waited may be for sessions of other processes."""
        if self._clients is None:
            return succeed(None)
        finished = self._clients.context.cancels.finished()
        return finished.addTimeout(CANCELS_TIMEOUT, self._reactor, onTimeoutCancel=lambda *_: None)

    def abort_sessions(self) -> None:
        """Close every connection at once, which is all that :meth:`stopService` waits for."""
        if self._factory is not None:
            self._factory.abort_all()

    def renew(self, loaded: LoadedGateway) -> None:
        """Serve connections that come from now on with what has been read anew; sessions stay as
        they are.

        :param loaded: the same settings with what is in the files now.
        """
        tunnel = self._loaded.ssh_tunnel
        if tunnel is not None and tunnel is not loaded.ssh_tunnel:
            tunnel.retire()
        self._loaded = loaded
        if self._factory is not None and self._clients is not None:
            self._factory.tls = loaded.tls
            self._factory.policy = loaded.policy
            router = self._router()
            self._clients.context = attrs.evolve(
                self._clients.context, router=router, cancel_routes=router
            )
            if self._log is not None:
                self._log.route_name = _route_name(router)
            self._use_peers()
        if self._checks_upstream and self.running:
            self._expiry.renewed()
            self._check_upstream(quiet=True)

    def _use_peers(self) -> None:
        """The other gateways of the fleet as the settings have them now."""
        if self._factory is None or self._clients is None:
            return
        named = self._loaded.configuration.settings.peers
        self._factory.has_peers = bool(named)
        cancels = self._clients.context.cancels
        if named != (cancels.peers.named if cancels.peers is not None else ()):
            if cancels.peers is not None:
                cancels.peers.stop()
            cancels.peers = Peers(self._reactor, named) if named else None

    def has_key(self, key: bytes) -> Deferred[bool | None]:
        """Whether a session of this gateway's in this process has a cancel key.

        :param key: process ID and secret.
        :returns: has fired with the answer.
        """
        return succeed(
            self._clients is not None and bool(self._clients.context.cancels.keys.backends(key))
        )

    def cancel(self, key: bytes) -> Deferred[bool | None]:
        """Pass on a cancel request that came to another gateway or process, if it is for a session
        of this one.

        :param key: the request's.
        :returns: fires when the server has taken it, or could not, with whether there is such a
            session; never fails.
        """
        if self._clients is None:
            return succeed(False)
        context = self._clients.context
        return context.cancels.forward_from_elsewhere(key, context.cancel_routes)

    def _router(self) -> SingleUpstream | RoutedUpstreams:
        """:raises ConfigurationError: it is the embedded PostgreSQL's, which does not run."""
        loaded = self._loaded
        if loaded.upstream is None and loaded.configuration.has_own_upstream:
            raise ConfigurationError("the embedded PostgreSQL does not run")
        if loaded.routes or loaded.upstream is None:
            return RoutedUpstreams(self._reactor, loaded.routes, loaded.upstream)
        return SingleUpstream(loaded.upstream)


def _route_name(
    router: SingleUpstream | RoutedUpstreams,
) -> Callable[[Client], str | None] | None:
    return router.route_name if isinstance(router, RoutedUpstreams) else None
