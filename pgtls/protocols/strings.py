"""Endpoint strings: ``pgtls:`` for ``clientFromString`` and ``serverFromString``."""

from __future__ import annotations

import os
from collections.abc import Sequence

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import quoteStringArgument
from twisted.internet.interfaces import (
    IListeningPort,
    IProtocolFactory,
    IStreamClientEndpointStringParserWithReactor,
    IStreamServerEndpoint,
    IStreamServerEndpointStringParser,
)
from twisted.plugin import IPlugin
from zope.interface import implementer

from pgtls import settings
from pgtls.conninfo.connection_string import ConnInfo
from pgtls.errors import ConfigurationError
from pgtls.protocols.endpoint import PgTLSClientEndpoint
from pgtls.protocols.hba_policy import access_policy
from pgtls.protocols.interfaces import IAccessPolicy, ISessionObserver
from pgtls.protocols.server_factory import PgTLSServerFactory
from pgtls.protocols.server_settings import ListenerSettings, behind_haproxy, with_ssl_default
from pgtls.protocols.server_tls import ServerTLS
from pgtls.transport.listening import backlog_for, listen
from pgtls.transport.listening_sockets import HAPROXY, is_unix_socket, server_endpoint
from pgtls.transport.reactor import IReactor
from pgtls.wire.server_negotiation import SSL


@implementer(IPlugin, IStreamClientEndpointStringParserWithReactor)
class ClientStringParser:
    """``pgtls:host=db.example.com:port=5432:sslmode=verify-full``: any libpq parameters."""

    prefix = "pgtls"

    def parseStreamClient(  # type: ignore[override]
        self, reactor: IReactor, *args: str, **kwargs: str
    ) -> PgTLSClientEndpoint:
        """:raises ConfigurationError: a parameter is unknown or cannot be used."""
        if args:
            raise ConfigurationError(
                f'"{args[0]}": write parameters as name=value, for example '
                "pgtls:host=db.example.com:sslmode=verify-full"
            )
        return PgTLSClientEndpoint(reactor, ConnInfo.from_parameters(kwargs, os.environ))


@implementer(IStreamServerEndpoint)
class PgTLSServerEndpoint:
    """Listens where another endpoint does, and does PostgreSQL's negotiation there.

    :param reactor: Twisted's.
    :param wrapped: the endpoint that listens.
    :param backlog: how many connections may wait to be accepted; None for as many as ``wrapped``
        says.
    :param listener: how to negotiate; ``ssl_cert_file`` and ``ssl_key_file`` are needed unless
        ``ssl`` is off.
    :param policy: decides which clients may connect, in place of what ``listener`` says of that.
    :param observers: are told what happens to connections, in place of the log.
    :raises ConfigurationError: a setting or a file cannot be used.
    """

    def __init__(
        self,
        reactor: IReactor,
        wrapped: IStreamServerEndpoint,
        listener: ListenerSettings,
        *,
        backlog: int | None = None,
        policy: IAccessPolicy | None = None,
        observers: Sequence[ISessionObserver] | None = None,
    ) -> None:
        self._reactor = reactor
        self._backlog = backlog
        self._wrapped = wrapped
        self._listener = listener
        self._tls = None if listener.ssl is SSL.OFF else ServerTLS(listener.tls)
        self._policy = policy or access_policy(listener, reactor, self._tls)
        self._observers = observers

    def listen(self, protocolFactory: IProtocolFactory) -> Deferred[IListeningPort]:
        """Listen. The application's protocols are built when the StartupMessage is complete.

        :param protocolFactory: the application's factory.
        :returns: fires with the port.
        """
        factory = PgTLSServerFactory(
            protocolFactory,
            self._tls,
            self._listener,
            policy=self._policy,
            observers=self._observers,
            reactor=self._reactor,
        )
        return listen(self._wrapped, factory, self._reactor, self._backlog)


@implementer(IPlugin, IStreamServerEndpointStringParser)
class ServerStringParser:
    """``pgtls:tcp:5432:ssl_cert_file=server.crt:ssl_key_file=server.key``.

    Arguments named as a listener's settings are ours, the rest goes on to the wrapped endpoint.
    """

    prefix = "pgtls"

    def parseStreamServer(  # type: ignore[override]
        self, reactor: IReactor, *args: str, **kwargs: str
    ) -> PgTLSServerEndpoint:
        """:raises ConfigurationError: a setting or a file cannot be used."""
        ours = {field.name for field in settings.fields(ListenerSettings)}
        rest = [f"{name}={_quoted(kwargs[name])}" for name in kwargs if name not in ours]
        if not args:
            raise ConfigurationError("name where to listen, for example pgtls:tcp:5432")
        inside = ":".join([*map(_quoted, args), *rest])
        wrapped = server_endpoint(reactor, inside)
        mine = {name: value for name, value in kwargs.items() if name in ours}
        if is_unix_socket(inside):
            if mine.get("ssl", "off") != "off":
                raise ConfigurationError('ssl must be "off" for a Unix socket: it never has TLS')
            mine["ssl"] = "off"
        listener = settings.read(ListenerSettings, with_ssl_default(mine))
        if inside.startswith(HAPROXY):
            listener = behind_haproxy(listener)
        backlog = backlog_for(inside, listener.max_connections)
        return PgTLSServerEndpoint(reactor, wrapped, listener, backlog=backlog)


def _quoted(argument: str) -> str:
    return str(quoteStringArgument(argument)).replace("=", "\\=")
