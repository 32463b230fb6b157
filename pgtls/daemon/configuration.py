"""What a gateway can be told, on the command line or in ``pgtls.toml``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import attrs

from pgtls import settings
from pgtls.daemon.mistakes import Mistakes
from pgtls.daemon.route_tables import read_routes, read_toml, without_routes
from pgtls.errors import ConfigurationError
from pgtls.gateway.gateway_configuration import GatewayConfiguration, GatewaySettings
from pgtls.protocols.server_settings import behind_haproxy, with_ssl_default
from pgtls.transport.listening_sockets import HAPROXY, is_unix_socket
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
    status: str = settings.text(
        "",
        "where to serve metrics, health and a status page over HTTP: an endpoint string such as "
        "tcp:9187:interface=127.0.0.1; empty for nowhere",
    )
    status_ssl: bool = settings.boolean(
        False, "serve the status in TLS, with the first gateway's certificate"
    )
    reload_interval: float = settings.number(
        10.0,
        "seconds between two looks at whether files have changed, to read them again; 0: none",
        minimum=0,
        maximum=86400,
        whole=False,
    )
    expiry_warning: float = settings.number(
        30.0,
        "days before the end of a certificate, a CA or a CRL from which on the log warns of it",
        minimum=0,
        maximum=36500,
        whole=False,
    )


#: What is written as tables, by its name.
_TABLES = {"gateway": "[[gateway]]", "route": "[[gateway.route]]"}

#: Settings of the daemon that a reload changes; for the others it has to be started again.
CHANGED_BY_RELOAD = frozenset({"expiry_warning", "reload_interval", "shutdown_timeout"})


def after_reload(now: DaemonSettings, wanted: DaemonSettings) -> tuple[DaemonSettings, list[str]]:
    """What a reload makes of the daemon's settings.

    :param now: those that it runs with.
    :param wanted: those of its file.
    :returns: those that it runs with from now on; and the names of those that would need a restart.
    """
    changed = {
        field.name: getattr(wanted, field.name)
        for field in attrs.fields(DaemonSettings)
        if getattr(wanted, field.name) != getattr(now, field.name)
    }
    at_once = {name: value for name, value in changed.items() if name in CHANGED_BY_RELOAD}
    return attrs.evolve(now, **at_once), [name for name in changed if name not in at_once]


@attrs.frozen
class Configuration:
    """All of it: what holds for the daemon, and each gateway's own.

    :ivar daemon: the daemon's settings.
    :ivar gateways: the gateways'.
    :ivar file: the file that it is from; None where it is from a command line.
    :ivar mistakes: what is wrong with values so far. The settings that they are for have their
        defaults, so that what is wrong with files and ports can be found as well: see
        :func:`pgtls.daemon.gateway_loading.load_all`.
    """

    daemon: DaemonSettings
    gateways: tuple[GatewayConfiguration, ...]
    mistakes: Mistakes = attrs.field(factory=Mistakes)
    file: Path | None = None

    def copy(self) -> Configuration:
        """The same, to which other mistakes may be added.

        :returns: a copy.
        """
        return attrs.evolve(self, mistakes=self.mistakes.copy())

    def read_again(self) -> Configuration:
        """The configuration that its file has now.

        :returns: it; the same one where it is from a command line.
        :raises ConfigurationError: the file cannot be read at all.
        """
        if self.file is None:
            return attrs.evolve(self, mistakes=Mistakes())
        return self.from_toml(self.file)

    @classmethod
    def from_options(cls, values: Mapping[str, object]) -> Configuration:
        """One gateway, from a command line.

        :param values: the options that were given, by setting name.
        :returns: the configuration.
        """
        daemon_names = {field.name for field in settings.fields(DaemonSettings)}
        daemon = {name: value for name, value in values.items() if name in daemon_names}
        rest = {name: value for name, value in values.items() if name not in daemon_names}
        mistakes = Mistakes()
        gateway = _gateway(rest, "", mistakes)
        return cls(_read(DaemonSettings, daemon, "", mistakes), (gateway,), mistakes)

    @classmethod
    def from_toml(cls, path: Path) -> Configuration:
        """Every gateway of a file.

        :param path: the file, ``pgtls.toml``.
        :returns: the configuration.
        :raises ConfigurationError: it cannot be read at all.
        """
        document = read_toml(path)
        tables = document.pop("gateway", [])
        mistakes = Mistakes()
        if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
            tables = []
            mistakes.add(f"{path}: write each gateway as a table [[gateway]]")
        elif not tables:
            mistakes.add(f"{path}: there is no [[gateway]] table")
        daemon = _read(DaemonSettings, document, f"{path}: ", mistakes)
        gateways = tuple(
            attrs.evolve(
                _gateway(without_routes(table), f"{path}: gateway {number}: ", mistakes),
                routes=read_routes(table, f"{path}: gateway {number}: ", mistakes),
                number=number,
            )
            for number, table in enumerate(tables, 1)
        )
        return cls(daemon, gateways, mistakes, path)


def _gateway(
    values: Mapping[str, object], location: str, mistakes: Mistakes
) -> GatewayConfiguration:
    gateway = _read(GatewaySettings, with_ssl_default(values), location, mistakes)
    if is_unix_socket(gateway.listen):
        if values.get("ssl") == SSL.REQUIRE:
            mistakes.add(f'{location}ssl must be "off" for a Unix socket: it never has TLS')
        gateway = attrs.evolve(gateway, listener=attrs.evolve(gateway.listener, ssl=SSL.OFF))
    if gateway.listen.startswith(HAPROXY):
        try:
            gateway = attrs.evolve(gateway, listener=behind_haproxy(gateway.listener))
        except ConfigurationError as error:
            mistakes.add(f"{location}{error.mistakes[0]}")
    return GatewayConfiguration(gateway, location)


def _read(
    kind: type[settings.S], values: Mapping[str, object], location: str, mistakes: Mistakes
) -> settings.S:
    read, wrong = settings.read_all(kind, values)
    for name, mistake in wrong.items():
        said = _misplaced(kind, name) or mistake
        mistakes.add(f"{location}{said}", setting=name, location=location)
    return read


def _misplaced(kind: type[attrs.AttrsInstance], name: str) -> str:
    """What to say of a name that is one, but not where it stands, or that is almost a table's."""
    other, place = (
        (DaemonSettings, "the daemon, above the first [[gateway]]")
        if kind is GatewaySettings
        else (GatewaySettings, "a gateway, below [[gateway]]")
    )
    if name in {field.name for field in settings.fields(other)}:
        return f'unknown setting "{name}" here: it belongs to {place}'
    table = settings.similar(name, _TABLES)
    return f'unknown setting "{name}": did you mean {_TABLES[table]}?' if table else ""
