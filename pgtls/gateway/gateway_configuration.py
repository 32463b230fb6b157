"""What a gateway is made of: its settings, and what has been read from the files they name."""

from __future__ import annotations

import attrs

from pgtls import settings
from pgtls.conninfo.connection_string import ConnInfo
from pgtls.protocols.endpoint import PgTLSClientEndpoint
from pgtls.protocols.interfaces import IAccessPolicy
from pgtls.protocols.server_settings import ListenerSettings
from pgtls.protocols.server_tls import ServerTLS


@attrs.frozen
class GatewaySettings:
    """One ``[[gateway]]`` table: a listener and where it leads."""

    listen: str = settings.text(
        "tcp:6432:interface=127.0.0.1", "where to listen: a Twisted endpoint string"
    )
    upstream: str = settings.text(
        "", "the server: a libpq connection string; empty for the local one, as libpq finds it"
    )
    tls_parameters: bool = settings.boolean(
        False, "tell the server about the client's TLS, in settings: pgtls.client_dn and others"
    )
    log_disconnections: bool = settings.boolean(
        False, "log the end of each session too, with how long it lasted"
    )
    listener: ListenerSettings = settings.group(ListenerSettings)


@attrs.frozen
class GatewayConfiguration:
    """A gateway's configuration, as far as it is not in files. It can be pickled.

    :ivar settings: its table.
    :ivar location: the file and the table that it stands in, to go in front of a mistake.
    :ivar upstream: the server, parsed; None before that, and for the embedded PostgreSQL before it
        runs.
    """

    settings: GatewaySettings
    location: str = ""
    upstream: ConnInfo | None = None


@attrs.frozen
class LoadedGateway:
    """A gateway's configuration with all of its files read.

    :ivar configuration: what it was made from.
    :ivar tls: makes the clients' TLS connections; None where ssl is off.
    :ivar policy: says which clients are let in.
    :ivar upstream: connects to the server; None for the embedded PostgreSQL before it runs.
    """

    configuration: GatewayConfiguration
    tls: ServerTLS | None
    policy: IAccessPolicy
    upstream: PgTLSClientEndpoint | None
