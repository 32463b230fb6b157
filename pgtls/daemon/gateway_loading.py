"""Gateways made ready from their configuration: every file read, every mistake found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING

import attrs

from pgtls.conninfo.connection_string import ConnInfo
from pgtls.daemon.configuration import Configuration
from pgtls.daemon.listener_keys import ListenerKey, check_addresses, listener_keys
from pgtls.daemon.mistakes import Mistakes
from pgtls.daemon.own_certificate import (
    certificate_so_far,
    check_without_certificate,
    daemons_certificate,
    own_certificate,
    uses_default_certificate,
)
from pgtls.daemon.port_check import check_ports
from pgtls.daemon.route_tables import loaded_routes, upstreams_with_files
from pgtls.daemon.ssh_loading import ssh_tunnel
from pgtls.daemon.upstream_loading import upstream_endpoint, with_upstream
from pgtls.errors import ConfigurationError
from pgtls.gateway.gateway_configuration import (
    GatewayConfiguration,
    LoadedGateway,
)
from pgtls.gateway.route_upstream import RouteUpstream, places
from pgtls.gateway.routes import Route
from pgtls.protocols.endpoint import PgTLSClientEndpoint
from pgtls.protocols.hba_policy import access_policy
from pgtls.protocols.server_tls import ServerTLS
from pgtls.reading import noting
from pgtls.status.status_endpoint import check_status_endpoint
from pgtls.tls.loaded_keys import NO_KEYS, LoadedKeys
from pgtls.tls.validity import Validity, upstream_validities
from pgtls.transport.listening_sockets import endpoint_from_string
from pgtls.transport.reactor import IReactor
from pgtls.transport.shared_port import check_shareable
from pgtls.wire.attempts import SSLMode
from pgtls.wire.server_negotiation import SSL

if TYPE_CHECKING:
    from pgtls.transport.ssh_tunnel import SSHTunnel


def load_all(
    reactor: IReactor,
    configuration: Configuration,
    before: Mapping[ListenerKey, LoadedGateway] = MappingProxyType({}),
    *,
    embedded: ConnInfo | None = None,
    offline: bool = False,
) -> list[LoadedGateway]:
    """Check all settings of all gateways, and read their files.

    :param reactor: Twisted's reactor.
    :param configuration: the daemon's.
    :param before: at a reload, the gateways that there are.
    :param embedded: the embedded PostgreSQL, where it runs.
    :param offline: make no certificate, and try no port: another daemon may run with this
        configuration.
    :returns: the gateways, in their order.
    :raises ConfigurationError: with every mistake.
    """
    daemon, mistakes = configuration.daemon, configuration.mistakes
    keys = listener_keys(configuration.gateways)
    check_addresses(configuration.gateways, mistakes)
    loaded: list[LoadedGateway] = []
    for key, gateway in zip(keys, configuration.gateways, strict=True):
        with mistakes.at(gateway.location):
            _check_listen(reactor, gateway.settings.listen, daemon.workers, offline=offline)
        is_embedded = bool(daemon.embedded) and not gateway.settings.upstream
        upstream = embedded if is_embedded else None
        loaded += load_gateway(
            reactor,
            attrs.evolve(gateway, embedded=is_embedded, upstream=upstream),
            daemon.state_dir,
            mistakes,
            before=before.get(key),
            tunnel=before[key].ssh_tunnel if key in before else None,
            makes_certificate=not offline,
        )
    check_status(configuration, mistakes)
    if offline:
        listen = [(g.location, g.settings.listen) for g in configuration.gateways]
        check_ports(listen, mistakes, binds=False)
    elif mistakes.found:
        check_ports(_to_be_opened(configuration, before), mistakes)
    mistakes.check()
    return loaded


def _to_be_opened(
    configuration: Configuration, before: Mapping[ListenerKey, LoadedGateway]
) -> list[tuple[str, str]]:
    """What is to listen and does not yet: endpoint strings, and where each stands."""
    keys = listener_keys(configuration.gateways)
    opened = [
        (gateway.location, gateway.settings.listen)
        for key, gateway in zip(keys, configuration.gateways, strict=True)
        if key not in before
    ]
    if configuration.daemon.status and not before:
        file = f"{configuration.file}: " if configuration.file is not None else ""
        opened.append((f"{file}status: ", configuration.daemon.status))
    return opened


def check_status(configuration: Configuration, mistakes: Mistakes) -> None:
    """Check the settings of the status.

    :param configuration: the daemon's.
    :param mistakes: takes what is wrong.
    """
    daemon, gateways = configuration.daemon, configuration.gateways
    where = f"{configuration.file}: " if configuration.file is not None else ""
    if daemon.status:
        with mistakes.at(where):
            check_status_endpoint(daemon.status, tls=daemon.status_ssl)
    elif daemon.status_ssl:
        mistakes.add(f"{where}status_ssl needs status: where to serve it")
    if daemon.status_ssl and gateways and gateways[0].settings.listener.ssl is SSL.OFF:
        mistakes.add(f"{where}status_ssl needs a certificate, and the first gateway has ssl = off")


def load_gateway(
    reactor: IReactor,
    gateway: GatewayConfiguration,
    state_dir: str,
    mistakes: Mistakes,
    *,
    quiet: bool = False,
    before: LoadedGateway | None = None,
    tunnel: SSHTunnel | None = None,
    handed_keys: LoadedKeys = NO_KEYS,
    makes_certificate: bool = True,
) -> list[LoadedGateway]:
    """Read the files of a gateway.

    :param reactor: Twisted's reactor.
    :param gateway: its configuration.
    :param state_dir: as the settings have it.
    :param mistakes: takes those that are found.
    :param quiet: log no warnings: another process does.
    :param before: at a reload, the gateway as it is: private keys whose passphrase may not be
        asked for again stay as they are.
    :param tunnel: at a reload, the gateway's SSH tunnel as it is: it stays, if nothing else is set.
    :param handed_keys: private keys that another process has read.
    :param makes_certificate: whether the daemon's own certificate is made where it is needed and
        is not there.
    :returns: the gateway; or none, where there are mistakes.
    """
    loading = _Loading(
        *(reactor, state_dir, mistakes, before, tunnel, handed_keys),
        quiet=quiet,
        makes_certificate=makes_certificate,
    )
    with noting() as files:
        loaded = loading.load(gateway)
    return [attrs.evolve(each, files=files) for each in loaded]


@attrs.frozen
class _Loading:
    """What a gateway's files are read with: see :func:`load_gateway`."""

    reactor: IReactor
    state_dir: str
    mistakes: Mistakes
    before: LoadedGateway | None
    tunnel: SSHTunnel | None
    handed_keys: LoadedKeys
    quiet: bool
    makes_certificate: bool

    def load(self, gateway: GatewayConfiguration) -> list[LoadedGateway]:
        """Go through all that can be wrong, whatever has been."""
        reactor, mistakes = self.reactor, self.mistakes
        tls = policy = tunnel = upstream = None
        gateway = self._without_what_was_read(gateway)
        with mistakes.at(gateway.location):
            gateway = self._with_own_certificate(gateway)
            tls = self._server_tls(gateway)
        with mistakes.at(gateway.location):
            policy = access_policy(gateway.settings.listener, reactor, tls)
        with mistakes.at(gateway.location):
            tunnel = ssh_tunnel(reactor, gateway, self.tunnel)
        with mistakes.at(gateway.location):
            gateway = with_upstream(gateway)
            upstream = upstream_endpoint(reactor, gateway.upstream, tunnel, gateway.preface)
        routes = loaded_routes(reactor, gateway, mistakes, tunnel)
        if policy is None:
            return []
        own = gateway.own_certificate
        own_file = own.file if own is not None else None
        validities = () if self.quiet else _validities(tls, own_file, upstream, routes)
        return [
            LoadedGateway(
                gateway, tls, policy, upstream, routes, validities=validities, ssh_tunnel=tunnel
            )
        ]

    def _without_what_was_read(self, gateway: GatewayConfiguration) -> GatewayConfiguration:
        if self.before is None:
            return gateway
        if not gateway.embedded:
            # Its service file may say something else now, and root.crt may be there.
            gateway = attrs.evolve(gateway, upstream=None)
        return attrs.evolve(gateway, own_certificate=None)

    def _with_own_certificate(self, gateway: GatewayConfiguration) -> GatewayConfiguration:
        """With the one that the daemon makes, where the settings name none, as far as it is there
        or may be made."""
        if not uses_default_certificate(gateway.settings) or gateway.own_certificate is not None:
            return gateway
        makes = self.makes_certificate and not self.mistakes.found
        made = daemons_certificate(self.state_dir) if makes else certificate_so_far(self.state_dir)
        own = own_certificate(made) if made is not None else None
        return attrs.evolve(gateway, own_certificate=own)

    def _server_tls(self, gateway: GatewayConfiguration) -> ServerTLS | None:
        """What clients are shown: the certificate that the settings name, else the daemon's own.
        None without TLS, and where that certificate has not been made."""
        if gateway.settings.listener.ssl is SSL.OFF:
            return None
        tls, own = gateway.settings.listener.tls, gateway.own_certificate
        if own is not None:
            tls = attrs.evolve(tls, ssl_cert_file=own.chain, ssl_key_file=own.key_file)
        elif uses_default_certificate(gateway.settings):
            check_without_certificate(tls)
            return None
        loaded_keys: LoadedKeys | None = None
        if self.before is not None:
            loaded_keys = self.before.tls.keys if self.before.tls is not None else {}
        return ServerTLS(
            tls,
            quiet=self.quiet,
            expiry_warning=None,
            loaded_keys=loaded_keys,
            handed_keys=self.handed_keys,
        )


def _validities(
    tls: ServerTLS | None,
    own_file: str | None,
    upstream: PgTLSClientEndpoint | None,
    routes: tuple[Route[RouteUpstream], ...],
) -> tuple[Validity, ...]:
    """How long all that a gateway has read is valid.

    :param own_file: where its certificate is, if the settings do not say so.
    """
    listeners = tls.validities if tls is not None else ()
    found = [replace(each, file=each.file or own_file) for each in listeners]
    if upstream is not None:
        found += _of_upstream(upstream.conninfo, places(upstream.conninfo.hosts))
    for route, leads_to in upstreams_with_files(routes):
        found += _of_upstream(leads_to.endpoint.conninfo, leads_to.place, route)
    return tuple(found)


def _of_upstream(conninfo: ConnInfo, place: str, route: str = "") -> list[Validity]:
    if conninfo.sslmode is SSLMode.DISABLE or all(h.unix_path for h in conninfo.hosts):
        return []
    return [
        replace(validity, upstream=place, route=route) for validity in upstream_validities(conninfo)
    ]


def _check_listen(reactor: IReactor, description: str, workers: int, *, offline: bool) -> None:
    try:
        endpoint_from_string(reactor, description)
    except (ValueError, TypeError, LookupError, OSError) as error:
        if isinstance(error, LookupError) and "systemd:" in description:
            if offline:  # systemd passes it to the daemon only
                return
            raise ConfigurationError(
                f'listen: "{description}" needs a socket that systemd has opened, and none with '
                "this number or name was passed (LISTEN_FDS, LISTEN_FDNAMES and LISTEN_PID in the "
                "environment): start it by a socket unit"
            ) from error
        raise ConfigurationError(
            f'listen: "{description}" is not a Twisted endpoint string such as "tcp:6432" '
            f'or "tcp:6432:interface=127.0.0.1": {error}'
        ) from error
    if workers > 1:
        check_shareable(description)
