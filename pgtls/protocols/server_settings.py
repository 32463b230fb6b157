"""What a listener can be told, in ``postgresql.conf``'s and ``pg_hba.conf``'s names."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from functools import partial

import attrs

from pgtls import settings
from pgtls.errors import ConfigurationError
from pgtls.policy.client_identity import ClientCert, ClientName
from pgtls.policy.trusted_proxies import ANYWHERE, parse_network
from pgtls.tls.server_context import ServerTLSSettings
from pgtls.transport.keepalive import check_tcp_option, tcp_options
from pgtls.wire.proxy_header import ProxyProtocol
from pgtls.wire.server_negotiation import SSL, CancelPolicy


def with_ssl_default(values: Mapping[str, object]) -> Mapping[str, object]:
    """With an ``hba_file``, its lines decide about plaintext, unless ``ssl`` is named.

    :param values: a listener's settings as they are given, by name.
    :returns: the same, with ``ssl`` where it follows from the others.
    """
    return {"ssl": SSL.ON, **values} if values.get("hba_file") else values


class AuthType(StrEnum):
    """The ``auth_type`` setting: pgbouncer's name, the values that a gateway has."""

    TRUST = "trust"
    SCRAM_SHA_256 = "scram-sha-256"


@attrs.frozen
class ListenerSettings:
    """One listener: whether and how it does TLS, and which clients it accepts."""

    ssl: SSL = settings.choice(
        SSL.REQUIRE, "no TLS, TLS and plaintext, or TLS only (a Unix socket never has TLS)"
    )
    tls: ServerTLSSettings = settings.group(ServerTLSSettings)
    clientcert: ClientCert = settings.choice(
        ClientCert.NO, "whether a client certificate is required, and must match the role"
    )
    clientname: ClientName = settings.choice(
        ClientName.CN, "which name in the certificate must match the role under verify-full"
    )
    map: str = settings.text("", "the map in ident_file from certificate names to roles")
    ident_file: str = settings.text("", "a file of maps in pg_ident.conf's format")
    hba_file: str = settings.text(
        "", "who may connect, in pg_hba.conf's format; ssl is on then, unless it is named"
    )
    auth_type: AuthType = settings.choice(
        AuthType.TRUST, "leave passwords to the server, or authenticate clients here by auth_file"
    )
    auth_file: str = settings.text(
        "", "SCRAM secrets of roles, in the format of pgbouncer's userlist.txt"
    )
    cancel: CancelPolicy = settings.choice(
        CancelPolicy.ANY, "accept cancel requests in plaintext too, or inside TLS only"
    )
    proxy_protocol: ProxyProtocol = settings.choice(
        ProxyProtocol.OFF,
        "whether connections from a load balancer begin with a PROXY header, version 1 or 2",
    )
    proxy_protocol_from: tuple[str, ...] = settings.several(
        "addresses and networks of the load balancers that are believed; without it: this machine "
        "only. Those that come over a Unix socket always are",
        check=parse_network,
    )
    authentication_timeout: float = settings.number(
        60.0,
        "seconds until the startup packet must be complete, and until the client must be let in",
        minimum=0.1,
        maximum=86400,
        whole=False,
    )
    max_connections: int = settings.number(
        1000, "maximum number of client connections", minimum=1, maximum=1_000_000, whole=True
    )
    tcp_keepalives_idle: int = settings.duration(
        0,
        "seconds of inactivity before a TCP keepalive is sent to a client; 0: the system's default",
        unit="s",
        check=partial(check_tcp_option, "TCP_KEEPIDLE"),
    )
    tcp_keepalives_interval: int = settings.duration(
        0,
        "seconds before an unanswered TCP keepalive is sent again; 0: the system's default",
        unit="s",
        check=partial(check_tcp_option, "TCP_KEEPINTVL"),
    )
    tcp_keepalives_count: int = settings.number(
        0,
        "TCP keepalives lost before a client's connection is dead; 0: the system's default",
        minimum=0,
        maximum=2147483647,
        whole=True,
        check=partial(check_tcp_option, "TCP_KEEPCNT"),
    )
    tcp_user_timeout: int = settings.duration(
        0,
        "milliseconds that sent data may remain unacknowledged; 0: the system's default",
        unit="ms",
        check=partial(check_tcp_option, "TCP_USER_TIMEOUT"),
    )

    @property
    def tcp_options(self) -> tuple[tuple[str, int], ...]:
        """The options of an accepted TCP connection, as
        :func:`~pgtls.transport.keepalive.tcp_options` gives them."""
        return tcp_options(
            idle=self.tcp_keepalives_idle,
            interval=self.tcp_keepalives_interval,
            count=self.tcp_keepalives_count,
            user_timeout=self.tcp_user_timeout,
        )


def behind_haproxy(listener: ListenerSettings) -> ListenerSettings:
    """The settings of a listener whose endpoint string begins with Twisted's ``haproxy:``: a header
    is required, and without ``proxy_protocol_from`` every address is believed.

    :param listener: the settings as they are given.
    :returns: what they are there.
    :raises ConfigurationError: ``proxy_protocol`` says something else.
    """
    if listener.proxy_protocol is ProxyProtocol.ALLOW:
        raise ConfigurationError(
            'behind "haproxy:" a PROXY header is required: with proxy_protocol = "allow" leave '
            '"haproxy:" out'
        )
    return attrs.evolve(
        listener,
        proxy_protocol=ProxyProtocol.REQUIRE,
        proxy_protocol_from=listener.proxy_protocol_from or ANYWHERE,
    )
