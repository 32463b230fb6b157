"""What an upstream's connection string says and a gateway does not need is a warning in the log."""

from __future__ import annotations

from twisted.logger import Logger

from pgtls.conninfo.connection_string import ConnInfo
from pgtls.conninfo.keywords import OF_PASSWORDS, Part
from pgtls.gateway.gateway_configuration import LoadedGateway
from pgtls.gateway.route_upstream import upstream_name
from pgtls.wire.session_attributes import TargetSessionAttrs

_log = Logger(namespace="pgtls.gateway")


def warn_of_parameters_without_effect(loaded: LoadedGateway) -> None:
    """Warn of parameters that are without effect.

    :param loaded: the gateway's configuration, all files read.
    """
    location = loaded.configuration.location
    if loaded.upstream is not None:
        _warn_of(upstream_name(location), loaded.upstream.conninfo)
    for number, route in enumerate(loaded.routes, 1):
        conninfo = route.upstream.endpoint.conninfo
        _warn_of(upstream_name(location, str(number)), conninfo, route=True)


def _warn_of(name: str, conninfo: ConnInfo, *, route: bool = False) -> None:
    """Clients log in themselves, with a StartupMessage of their own; the gateway does with
    ``target_session_attrs``, where it has a user for that."""
    looks_for_sessions = conninfo.target_session_attrs is not TargetSessionAttrs.ANY
    logs_in = looks_for_sessions and conninfo.user is not None
    if looks_for_sessions and not logs_in:
        _log.warn(
            "{upstream}: target_session_attrs without user: the gateway logs in as each client to "
            "see which server is the right one, which fails where a server asks a client for a "
            'password, unless auth_file has its secret; add "user" and its password',
            upstream=name,
        )
    for part, reason in (
        (Part.SESSION, "each client says that in its own StartupMessage"),
        (Part.LOGIN, "each client answers the server itself"),
    ):
        for keyword in conninfo.given_of(part):
            used = logs_in and (part is Part.SESSION or keyword in OF_PASSWORDS)
            if not used and not (route and keyword == "dbname"):
                _log.warn(
                    '{upstream}: "{keyword}" has no effect: {reason}',
                    upstream=name,
                    keyword=keyword,
                    reason=reason,
                )
