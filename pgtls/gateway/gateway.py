"""One gateway: a listener, what it lets in, and the upstream behind it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from functools import partial

import attrs
from twisted.application.service import Service
from twisted.internet.defer import Deferred, gatherResults, succeed
from twisted.internet.interfaces import IAddress, IStreamServerEndpoint
from twisted.logger import Logger

from pgtls.gateway.cancel import CancelForwarder
from pgtls.gateway.cancel_peers import Peers
from pgtls.gateway.channel_binding_check import ChannelBinding
from pgtls.gateway.client_side import ClientSides
from pgtls.gateway.expiry_watch import Expiry, ExpiryWatch
from pgtls.gateway.gateway_configuration import LoadedGateway
from pgtls.gateway.key_holders import KeyHolder
from pgtls.gateway.listener_port import ListenerPort
from pgtls.gateway.router import leads_elsewhere, route_name, router_of
from pgtls.gateway.session import SessionContext
from pgtls.gateway.upstream_check import check_upstreams
from pgtls.protocols.connection_info import listener_text
from pgtls.protocols.connection_log import ConnectionLog
from pgtls.protocols.interfaces import ISessionObserver
from pgtls.protocols.observers import Observers
from pgtls.protocols.places import SHUTTING_DOWN, ISharedPlaces
from pgtls.protocols.server_factory import PgTLSServerFactory
from pgtls.protocols.server_settings import AuthType
from pgtls.tls.validity import EXPIRY_WARNING
from pgtls.transport.reactor import IReactor

_log = Logger(namespace="pgtls.gateway")

#: Seconds at the end for cancel requests that are on their way.
CANCELS_TIMEOUT = 2.0


class Gateway(Service):
    """A ``[[gateway]]`` table at work: a service that owns its port, its sessions, and the check of
    its upstream. It can be started again after it has been stopped.

    :param reactor: Twisted's reactor.
    :param loaded: its configuration, all files read.
    :param shutdown_timeout: seconds that open sessions have to finish when it is stopped.
    :param endpoint: what it listens on; by default what its ``listen`` says.
    :param shared_places: counts the sessions of all processes that share the listener; None where
        this is the only one.
    :param observers: are told what happens to connections, beside the log.
    :param checks_upstream: whether the upstream is looked at once at the start, and the log warns
        of what expires.
    :param expiry_warning: how long before the end of a certificate, an authority or a CRL it does.
    :param elsewhere: has the sessions of other gateways and processes that cancel requests may be
        for.
    :ivar expiry_watch: what warns of certificates that expire.
    :ivar is_gone: whether it has been retired, and the last of its sessions has ended.
    """

    def __init__(
        self,
        reactor: IReactor,
        loaded: LoadedGateway,
        *,
        shutdown_timeout: float,
        endpoint: IStreamServerEndpoint | None = None,
        shared_places: ISharedPlaces | None = None,
        observers: Sequence[ISessionObserver] = (),
        checks_upstream: bool = True,
        expiry_warning: timedelta = EXPIRY_WARNING,
        elsewhere: KeyHolder | None = None,
    ) -> None:
        self._reactor = reactor
        self._loaded = loaded
        self.shutdown_timeout = shutdown_timeout
        self._port = ListenerPort(reactor, endpoint)
        self._shared_places = shared_places
        self._checks_upstream = checks_upstream
        self._elsewhere = elsewhere
        self._observers = tuple(observers)
        self._label = ""
        self._log: ConnectionLog | None = None
        self._clients: ClientSides | None = None
        self._factory: PgTLSServerFactory | None = None
        self._upstream_check: Deferred[None] = succeed(None)
        self.is_gone = False
        self.expiry_watch = ExpiryWatch(
            reactor, expiry_warning, lambda: self._loaded, partial(self._check_upstream, quiet=True)
        )

    @property
    def loaded(self) -> LoadedGateway:
        """What new connections are served with."""
        return self._loaded

    @property
    def address(self) -> IAddress:
        """Where it listens, once its port is open."""
        return self._port.address

    @property
    def label(self) -> str:
        """What status and metrics call it: the address that it listens on; before its port is open,
        what its ``listen`` says."""
        return self._label or self._loaded.configuration.settings.listen

    @property
    def is_open(self) -> bool:
        """Whether its port is open."""
        return self._port.is_open

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
        return self.expiry_watch.expiries()

    def open_port(self) -> Deferred[None]:
        """Open the port; connections are accepted from the reactor's next turn on.

        :returns: fires when it is open, and fails with what the endpoint says, such as
            :class:`~twisted.internet.error.CannotListenError`.
        :raises ConfigurationError: the upstream is the embedded PostgreSQL, which does not run.
        """
        settings = self._loaded.configuration.settings
        listener, router = settings.listener, router_of(self._reactor, self._loaded)
        self._log = ConnectionLog(self._reactor, log_disconnections=settings.log_disconnections)
        self._log.route_name = route_name(router)
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
                bool(self._loaded.configuration.preface),
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
        self._factory.places.shared = self._shared_places
        self._use_peers()
        return self._port.open(settings, self._factory).addCallback(self._opened)

    def _opened(self, _: None) -> None:
        self._label = listener_text(self.address)

    def close_port(self) -> Deferred[None]:
        """Accept no more connections; those that are open stay.

        :returns: fires when the port is closed.
        """
        return self._port.close()

    def leave_port_to_workers(self) -> int:
        """Keep the port open, and accept nothing here.

        :returns: the listening socket's descriptor.
        """
        return self._port.leave_to_workers()

    def startService(self) -> None:
        """Open the port, unless that has been done; look at the upstream."""
        super().startService()  # type: ignore[no-untyped-call]
        if not self._port.is_open:
            self.open_port().addErrback(
                lambda failure: _log.failure("the port cannot be opened", failure)
            )
        if self._checks_upstream:
            self.expiry_watch.start()
            self._check_upstream()

    def _check_upstream(self, *, quiet: bool = False) -> None:
        if self._clients is None:
            return
        self._upstream_check.cancel()
        context, tls = self._clients.context, self._loaded.tls
        # Of certificates by name, each session's is compared when it comes.
        shown = tls.certificates if tls is not None and not tls.by_name else ()
        if self._loaded.configuration.settings.listener.auth_type is AuthType.SCRAM_SHA_256:
            shown = ()  # the gateway itself authenticates clients: each connection is bound anew
        self._upstream_check = check_upstreams(
            *(self._loaded, shown, context.channel_binding, context.reactor),
            self.expiry_watch.shown,
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
        self.expiry_watch.stop()
        if self._factory is None:
            return self.close_port()
        if self._port.stays_open():  # otherwise another process accepts connections
            self._factory.refuse_sessions(SHUTTING_DOWN)
        drained = self._factory.drain(self.shutdown_timeout)
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
        """Serve connections that come from now on by other settings, or with what has been read
        anew; sessions stay as they are, and so does the port.

        :param loaded: what is to be served, at the same address.
        """
        tunnel, before = self._loaded.ssh_tunnel, self._loaded.configuration
        if tunnel is not None and tunnel is not loaded.ssh_tunnel:
            tunnel.retire()
        self._loaded = loaded
        if self._factory is None or self._clients is None or self._log is None:
            return
        settings, router = loaded.configuration.settings, router_of(self._reactor, loaded)
        listener = settings.listener
        self._factory.renew(loaded.tls, listener, loaded.policy)
        self._clients.context = attrs.evolve(
            self._clients.context,
            router=router,
            cancel_routes=router,
            authentication_timeout=listener.authentication_timeout,
            tls_parameters=settings.tls_parameters,
            sends_headers=bool(loaded.configuration.preface),
        )
        self._log.route_name = route_name(router)
        self._log.log_disconnections = settings.log_disconnections
        self._port.renew(settings)
        self._use_peers()
        if self._checks_upstream and self.running:
            self.expiry_watch.renewed()
            self._check_upstream(quiet=not leads_elsewhere(loaded.configuration, before))

    def retire(self) -> Deferred[None]:
        """Accept no more connections; those that are open go on until they end, whenever that is.

        :returns: fires when the port is closed and no connection is left.
        """
        self._upstream_check.cancel()
        self.expiry_watch.stop()
        closed = self.close_port()  # which may accept what is waiting
        drained = self._factory.drain(None) if self._factory is not None else succeed(None)
        return gatherResults([closed, drained]).addCallback(self._gone)

    def _gone(self, _: object) -> None:
        self.is_gone = True
        self._close_tunnel()

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
