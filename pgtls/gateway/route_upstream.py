r"""Where one route leads: a server, or with ``\1`` in its connection string one for each label."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

from pgtls.conninfo.connection_string import ConnInfo, Host
from pgtls.conninfo.template import ConnInfoTemplate
from pgtls.protocols.endpoint import PgTLSClientEndpoint
from pgtls.protocols.stages import Upstream
from pgtls.tls.client_context import ClientTLS
from pgtls.transport.dialer import Dialer
from pgtls.transport.reactor import IReactor


def security_of(conninfo: ConnInfo) -> ConnInfo:
    """What a connection string says beside hosts and database. Those that have this in common use
    the same files, and can share a :class:`ClientTLS`.

    :param conninfo: the connection string.
    :returns: the rest of it, which can be compared and hashed.
    """
    return replace(conninfo, hosts=(), dbname=None)


class RouteUpstream:
    r"""Where a route leads.

    :param reactor: Twisted's reactor.
    :param template: its connection string.
    :param tls: what to use as TLS, where another route has the same parameters; None to make it.
    :param dialer: connects to hosts; None to connect from this machine.
    :param preface: see :class:`~pgtls.protocols.endpoint.PgTLSClientEndpoint`.
    :ivar takes_label: whether ``\1`` is in the connection string.
    :ivar endpoint: connects to the server; with ``\1``, an example, which is never connected to.
    """

    def __init__(
        self,
        reactor: IReactor,
        template: ConnInfoTemplate,
        tls: Callable[[], ClientTLS] | None = None,
        dialer: Dialer | None = None,
        preface: bytes = b"",
    ) -> None:
        self._reactor = reactor
        self._dialer = dialer
        self._template = template
        self.takes_label = template.takes_label
        self.endpoint = PgTLSClientEndpoint(
            reactor, template.example(), tls=tls, dialer=dialer, preface=preface
        )

    @property
    def place(self) -> str:
        r"""Host and port of its server, ``*`` for ``\1``; several with commas between them."""
        hosts = self.endpoint.conninfo.hosts
        if self.takes_label:
            values = self._template.parameters("*")
            named = (values.get("host") or values.get("hostaddr", "")).split(",")
            if len(named) == len(hosts):
                hosts = tuple(map(_with_name, hosts, named))
        return places(hosts)

    def upstream(self, route: str, label: str) -> Upstream:
        r"""Where a session goes.

        :param route: the route's name.
        :param label: stands in place of ``\1``.
        :returns: the server, and the database where the connection string names one.
        :raises ConfigurationError: the label is none that can stand there.
        """
        endpoint = self.endpoint
        if self.takes_label:
            conninfo = self._template.fill(label)
            endpoint = PgTLSClientEndpoint(
                self._reactor,
                conninfo,
                tls=self.endpoint.tls,
                dialer=self._dialer,
                preface=self.endpoint.preface,
            )
        return Upstream(endpoint, route, database_of(endpoint.conninfo))


def _with_name(host: Host, name: str) -> Host:
    return replace(host, host=name)


def upstream_name(location: str, route: str = "") -> str:
    """What the log calls an upstream.

    :param location: the file and the gateway, as they go in front of a mistake.
    :param route: the route's name; empty for the gateway's own upstream.
    :returns: the words.
    """
    return f"{location}route {route}: upstream" if route else f"{location}upstream"


def places(hosts: Iterable[Host]) -> str:
    """The servers of a connection string, for the log.

    :param hosts: its hosts.
    :returns: host and port of each, with commas between them.
    """
    return ",".join(host.place for host in hosts)


def database_of(conninfo: ConnInfo) -> bytes | None:
    """The database that takes the place of the client's.

    :param conninfo: of a route's upstream.
    :returns: its name; None where the string, or the service that it names, has none.
    """
    if conninfo.dbname is None or "dbname" not in conninfo.given:
        return None
    return conninfo.dbname.encode("utf-8", "surrogateescape")
