"""What a gateway can be told, on the command line or in ``pgtls.toml``."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path

import attrs

from pgtls import settings
from pgtls.errors import ConfigurationError
from pgtls.gateway.gateway_configuration import GatewayConfiguration, GatewaySettings
from pgtls.transport.listening_sockets import is_unix_socket
from pgtls.wire.server_negotiation import SSL


@attrs.frozen
class DaemonSettings:
    """What holds for all gateways of the daemon."""

    state_dir: str = settings.text(
        "",
        "directory for certificates that the gateway makes; default: $STATE_DIRECTORY, or below ~",
    )
    embedded: str = settings.text(
        "", "run an embedded PostgreSQL 18 in this directory, and be its gateway"
    )
    shutdown_timeout: float = settings.number(
        10.0,
        "seconds that open sessions have to finish after SIGTERM",
        minimum=0,
        maximum=86400,
        whole=False,
    )
    workers: int = settings.number(
        1,
        "processes that serve clients, as many as there are cores to use; 1: the daemon itself",
        minimum=1,
        maximum=64,
        whole=True,
    )


@attrs.frozen
class Configuration:
    """All of it: what holds for the daemon, and each gateway's own."""

    daemon: DaemonSettings
    gateways: tuple[GatewayConfiguration, ...]

    @classmethod
    def from_options(cls, values: Mapping[str, object]) -> Configuration:
        """One gateway, from a command line.

        :param values: the options that were given, by setting name.
        :returns: the configuration.
        :raises ConfigurationError: with every mistake.
        """
        daemon_names = {field.name for field in settings.fields(DaemonSettings)}
        daemon = {name: value for name, value in values.items() if name in daemon_names}
        rest = {name: value for name, value in values.items() if name not in daemon_names}
        mistakes: list[str] = []
        configuration = cls(
            _read(DaemonSettings, daemon, "", mistakes), (_gateway(rest, "", mistakes),)
        )
        if mistakes:
            raise ConfigurationError(*mistakes)
        return configuration

    @classmethod
    def from_toml(cls, path: Path) -> Configuration:
        """Every gateway of a file.

        :param path: the file, ``pgtls.toml``.
        :returns: the configuration.
        :raises ConfigurationError: with every mistake, each with its file and table.
        """
        try:
            document = tomllib.loads(path.read_text("utf-8"))
        except OSError as error:
            raise ConfigurationError(f"{path}: {error.strerror}") from error
        except ValueError as error:  # TOML's grammar, or UTF-8's
            raise ConfigurationError(f"{path}: {error}") from error
        tables = document.pop("gateway", [])
        if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
            raise ConfigurationError(f"{path}: write each gateway as a table [[gateway]]")
        mistakes: list[str] = [] if tables else [f"{path}: there is no [[gateway]] table"]
        daemon = _read(DaemonSettings, document, f"{path}: ", mistakes)
        gateways = tuple(
            _gateway(table, f"{path}: gateway {number}: ", mistakes)
            for number, table in enumerate(tables, 1)
        )
        if mistakes:
            raise ConfigurationError(*mistakes)
        return cls(daemon, gateways)


def _gateway(
    values: Mapping[str, object], location: str, mistakes: list[str]
) -> GatewayConfiguration:
    gateway = _read(GatewaySettings, values, location, mistakes)
    if is_unix_socket(gateway.listen):
        if values.get("ssl") == SSL.REQUIRE:
            mistakes.append(f'{location}ssl must be "off" for a Unix socket: it never has TLS')
        gateway = attrs.evolve(gateway, listener=attrs.evolve(gateway.listener, ssl=SSL.OFF))
    return GatewayConfiguration(gateway, location)


def _read(
    kind: type[settings.S], values: Mapping[str, object], location: str, mistakes: list[str]
) -> settings.S:
    try:
        return settings.read(kind, values)
    except ConfigurationError as error:
        mistakes.extend(f"{location}{mistake}" for mistake in error.mistakes)
        return kind()
