"""What a gateway is made of: its settings, and what has been read from the files they name."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import TYPE_CHECKING

import attrs

from pgtls import settings
from pgtls.conninfo.connection_string import ConnInfo
from pgtls.gateway.cancel_peers import host_and_port
from pgtls.gateway.route_upstream import RouteUpstream
from pgtls.gateway.routes import Route
from pgtls.protocols.endpoint import PgTLSClientEndpoint
from pgtls.protocols.interfaces import IAccessPolicy
from pgtls.protocols.server_settings import ListenerSettings
from pgtls.protocols.server_tls import ServerTLS
from pgtls.reading import FilesRead
from pgtls.tls.validity import Validity
from pgtls.transport.ssh_settings import SSHSettings
from pgtls.wire.proxy_header_writer import LOCAL_HEADER

if TYPE_CHECKING:
    from pgtls.transport.ssh_tunnel import SSHTunnel

_LABEL = r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?"
_HOST_NAME = re.compile(rf"(\*\.)?{_LABEL}(\.{_LABEL})*", re.ASCII | re.IGNORECASE)


def _check_host_name(name: str) -> None:
    if not _HOST_NAME.fullmatch(name) or len(name) > 255:
        raise ValueError('host names such as "db.example.com" or "*.example.com"')


class UpstreamProxyProtocol(StrEnum):
    """The ``upstream_proxy_protocol`` setting."""

    OFF = "off"
    V2 = "v2"


@attrs.frozen
class RouteSettings:
    """One ``[[gateway.route]]`` table: which sessions it is for, and where they go."""

    sni: tuple[str, ...] = settings.names(
        "host names that clients ask for in TLS; *. stands for one label; without it: any or none",
        check=_check_host_name,
    )
    database: tuple[str, ...] = settings.names("databases; without it: any")
    user: tuple[str, ...] = settings.names("roles; without it: any")
    upstream: str = settings.text(
        "", r"the server: a libpq connection string; \1 in host, hostaddr and dbname is the label"
    )


@attrs.frozen
class GatewaySettings:
    """One ``[[gateway]]`` table: a listener and where it leads."""

    listen: str = settings.text(
        "tcp:6432:interface=127.0.0.1", "where to listen: a Twisted endpoint string"
    )
    upstream: str = settings.text(
        "",
        "the server: a libpq connection string; empty for the local one, as libpq finds it, "
        "or with routes for none",
    )
    peers: tuple[str, ...] = settings.several(
        "other gateways of a fleet, as host:port: cancel requests may be for sessions of theirs",
        check=host_and_port,
    )
    upstream_proxy_protocol: UpstreamProxyProtocol = settings.choice(
        UpstreamProxyProtocol.OFF,
        "begin each connection to the server with a PROXY header that names the client; for "
        "proxies, PostgreSQL itself takes none",
    )
    tls_parameters: bool = settings.boolean(
        False, "tell the server about the client's TLS, in settings: pgtls.client_dn and others"
    )
    log_disconnections: bool = settings.boolean(
        False, "log the end of each session too, with how long it lasted"
    )
    ssh: SSHSettings = settings.group(SSHSettings)
    listener: ListenerSettings = settings.group(ListenerSettings)


@attrs.frozen
class OwnCertificate:
    """The certificate that the daemon has made for gateways that name none.

    :ivar chain: the certificate and its root, in PEM.
    :ivar file: the certificate's file.
    :ivar key_file: its private key.
    """

    chain: bytes
    file: str
    key_file: str


@attrs.frozen
class GatewayConfiguration:
    """A gateway's configuration, as far as it is not in files. It can be pickled.

    :ivar settings: its table.
    :ivar location: the file and the table that it stands in, to go in front of a mistake.
    :ivar upstream: the server, parsed; None before that, and for the embedded PostgreSQL before it
        runs.
    :ivar embedded: whether its upstream is the embedded PostgreSQL.
    :ivar routes: its ``[[gateway.route]]`` tables.
    :ivar number: which of its file's gateways it is, from 1; 0 where it is from a command line.
    :ivar own_certificate: the certificate that the daemon has made, where the gateway shows that
        and it has been made.
    """

    settings: GatewaySettings
    location: str = ""
    upstream: ConnInfo | None = None
    embedded: bool = False
    routes: tuple[RouteSettings, ...] = ()
    number: int = 0
    own_certificate: OwnCertificate | None = None

    @property
    def preface(self) -> bytes:
        """What connections to the servers begin with where they are not a client's own."""
        sends = self.settings.upstream_proxy_protocol is UpstreamProxyProtocol.V2
        return LOCAL_HEADER if sends else b""

    @property
    def has_own_upstream(self) -> bool:
        """Whether sessions without a route go anywhere."""
        return bool(self.settings.upstream) or self.embedded or not self.routes


@attrs.frozen
class LoadedGateway:
    """A gateway's configuration with all of its files read.

    :ivar configuration: what it was made from.
    :ivar tls: makes the clients' TLS connections; None where ssl is off.
    :ivar policy: says which clients are let in.
    :ivar upstream: connects to the server; None where there is none beside those of routes, and for
        the embedded PostgreSQL before it runs.
    :ivar routes: the routes, in their order.
    :ivar files: those that were read, and those that would have been if they were there.
    :ivar validities: how long the certificates, authorities and CRLs in them are valid.
    :ivar ssh_tunnel: what the upstreams are reached through; None for this machine's network.
    """

    configuration: GatewayConfiguration
    tls: ServerTLS | None
    policy: IAccessPolicy
    upstream: PgTLSClientEndpoint | None
    routes: tuple[Route[RouteUpstream], ...] = ()
    files: FilesRead = attrs.field(factory=dict, repr=False)
    validities: tuple[Validity, ...] = attrs.field(default=(), repr=False)
    ssh_tunnel: SSHTunnel | None = None
