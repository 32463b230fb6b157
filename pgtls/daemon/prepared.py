"""What a gateway works with, made from its settings and the files that they name."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import Any

import attrs
from twisted.internet.endpoints import serverFromString

from pgtls.conninfo.connection_string import ConnInfo
from pgtls.daemon.configuration import DaemonSettings, GatewaySettings
from pgtls.daemon.shared_port import check_shareable
from pgtls.daemon.state import DefaultCertificate, default_certificate, state_directory
from pgtls.errors import ConfigurationError
from pgtls.protocols.admission import Admission
from pgtls.protocols.endpoint import PgTLSClientEndpoint
from pgtls.protocols.server_tls import ServerTLS
from pgtls.wire.server_negotiation import SSL


@attrs.frozen
class Plan:
    """A gateway's settings, as far as they are not in files.

    :ivar place: where they stand, to go in front of a mistake.
    :ivar state_dir: as the settings have it.
    :ivar upstream: None for the embedded PostgreSQL, before it runs.
    """

    settings: GatewaySettings
    place: str
    state_dir: str
    upstream: ConnInfo | None = None


@attrs.frozen
class Prepared:
    """A gateway of which everything has been checked.

    :ivar tls: makes the clients' TLS connections; None where ssl is off.
    :ivar certificate: what ``tls`` shows, where it is self-made.
    :ivar upstream: connects to the server; None as in the plan.
    """

    plan: Plan
    tls: ServerTLS | None
    certificate: DefaultCertificate | None
    admission: Admission
    upstream: PgTLSClientEndpoint | None


def every(*makers: Callable[[], Any], place: str = "") -> list[Any]:
    """Make all of them.

    :param place: goes in front of each mistake.
    :raises ConfigurationError: with the mistakes of all that cannot be made.
    """
    made: list[Any] = []
    mistakes: list[str] = []
    for make in makers:
        try:
            made.append(make())
        except ConfigurationError as error:
            mistakes.extend(f"{place}{mistake}" for mistake in error.mistakes)
    if mistakes:
        raise ConfigurationError(*mistakes)
    return made


def begin(reactor: Any, plan: Plan, daemon: DaemonSettings) -> Prepared:
    """Check all of a gateway's settings, and read its files.

    :raises ConfigurationError: with every mistake.
    """
    _, *rest, upstream = every(
        partial(_check_listen, reactor, plan.settings.listen, daemon.workers),
        *_clients_side(plan, quiet=False),
        partial(_first_upstream, reactor, plan.settings.upstream, bool(daemon.embedded)),
        place=plan.place,
    )
    conninfo = upstream.conninfo if upstream is not None else None
    return _prepared(attrs.evolve(plan, upstream=conninfo), rest, upstream)


def prepare(reactor: Any, plan: Plan, *, quiet: bool) -> Prepared:
    """Read the files of a gateway, once more or in another process.

    :param quiet: log no warnings: another process does.
    :raises ConfigurationError: with every mistake.
    """
    *rest, upstream = every(
        *_clients_side(plan, quiet=quiet),
        partial(upstream_endpoint, reactor, plan.upstream),
        place=plan.place,
    )
    return _prepared(plan, rest, upstream)


def _prepared(plan: Plan, rest: list[Any], upstream: PgTLSClientEndpoint | None) -> Prepared:
    (tls, certificate), admission = rest
    return Prepared(plan, tls, certificate, admission, upstream)


def _clients_side(plan: Plan, *, quiet: bool) -> tuple[Callable[[], Any], ...]:
    return (
        partial(_certificate, plan.settings, plan.state_dir, quiet),
        partial(Admission, plan.settings.listener),
    )


def _certificate(
    settings: GatewaySettings, state_dir: str, quiet: bool
) -> tuple[ServerTLS | None, DefaultCertificate | None]:
    """What the listener shows: what its settings name, else what the daemon made itself."""
    tls = settings.listener.tls
    if settings.listener.ssl is SSL.OFF:
        return None, None
    if tls.ssl_cert_file or tls.ssl_key_file:
        return ServerTLS(tls, quiet=quiet), None
    try:
        made = default_certificate(state_directory(state_dir or None))
        # With its root, so that "pgtls trust" finds there what it is to trust.
        chain = made.server_crt.read_bytes() + made.root_crt.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"state directory: {error}") from error
    tls = attrs.evolve(tls, ssl_cert_file=chain, ssl_key_file=str(made.server_key))
    return ServerTLS(tls, quiet=quiet), made


def _first_upstream(reactor: Any, upstream: str, embedded: bool) -> PgTLSClientEndpoint | None:
    if embedded and not upstream:
        return None
    try:
        conninfo = ConnInfo.parse(upstream, os.environ)
    except ConfigurationError as error:
        raise ConfigurationError(*(f"upstream: {each}" for each in error.mistakes)) from None
    missing = [h.unix_path for h in conninfo.hosts if _missing_socket(h.unix_path)]
    if not upstream and missing:
        raise ConfigurationError(
            f"no PostgreSQL is at {missing[0]}: name a server with --upstream, "
            "or have one started with --embedded DIR"
        )
    return upstream_endpoint(reactor, conninfo)


def upstream_endpoint(reactor: Any, conninfo: ConnInfo | None) -> PgTLSClientEndpoint | None:
    """What connects to the server, its files read.

    :raises ConfigurationError: a file cannot be used.
    """
    if conninfo is None:
        return None
    endpoint = PgTLSClientEndpoint(reactor, conninfo)
    endpoint.check()
    return endpoint


def _missing_socket(path: str | None) -> bool:
    return path is not None and not path.startswith("@") and not os.path.exists(path)


def _check_listen(reactor: Any, description: str, workers: int) -> None:
    try:
        serverFromString(reactor, description)
    except (ValueError, TypeError, LookupError, OSError) as error:
        raise ConfigurationError(
            f'listen: "{description}" is not a Twisted endpoint string such as "tcp:6432" '
            f'or "tcp:6432:interface=127.0.0.1": {error}'
        ) from error
    if workers > 1:
        check_shareable(description)
