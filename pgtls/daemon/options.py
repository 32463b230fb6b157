"""``twistd pgtls``: the command line, made from the table of settings."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import cast

import attrs
from twisted.application.service import IService
from twisted.python import usage

from pgtls import settings
from pgtls.daemon import predecessor
from pgtls.daemon.cannot_start import CannotStart
from pgtls.daemon.configuration import Configuration, DaemonSettings
from pgtls.daemon.pid_file import PidFile, pid_file_to_use
from pgtls.daemon.privileges import DaemonUser, made_by
from pgtls.daemon.process import DaemonProcess, IDaemonReactor
from pgtls.errors import ConfigurationError
from pgtls.gateway.gateway_configuration import GatewaySettings

_FIELDS = [*settings.fields(GatewaySettings), *settings.fields(DaemonSettings)]


def _help(field: attrs.Attribute[object]) -> str:
    shown = field.default
    if isinstance(shown, bool):
        shown = "on" if shown else "off"
    text = str(field.metadata["help"])
    return f"{text} [default: {shown}]" if shown not in ("", ()) else text


class Options(usage.Options):
    """Options of the gateway."""

    synopsis = (
        "[--upstream CONNINFO] [--listen ENDPOINT] [options] | --embedded DIR | --config FILE"
    )
    longdesc = (
        "TLS for anything that speaks PostgreSQL. Without --upstream and --embedded the local "
        "server is the upstream. Without --ssl-cert-file a certificate authority and a server "
        "certificate are made once, in the state directory. Every option is also a key of "
        "pgtls.toml, with _ for -: several gateways run from one file, a [[gateway]] table each."
    )
    optParameters = [
        ["config", "c", None, "read the gateways from a TOML file, in place of the other options"],
        *([field.name.replace("_", "-"), None, None, _help(field)] for field in _FIELDS),
    ]

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.pid_file = PidFile()
        self.chroot = ""

    def postOptions(self) -> None:
        """See to twistd's pid file, before twistd does.

        :raises CannotStart: another twistd runs.
        """
        twistd: dict[str, object] | None = self.parent
        if twistd is None or "pidfile" not in twistd:  # twist, which has none
            return
        before = predecessor.predecessor
        inherited = before.pid_file if before is not None else None
        try:
            twistd["pidfile"] = pid_file_to_use(
                str(twistd["pidfile"] or ""),
                foreground=bool(twistd["nodaemon"]),
                inherited=inherited is not None,
            )
        except ConfigurationError as error:
            raise CannotStart(error) from None
        if before is not None and os.geteuid() != 0:  # which has given up its rights already
            twistd["uid"] = twistd["gid"] = None
        self.chroot = str(twistd["chroot"] or "")
        self.pid_file = PidFile(twistd, inherited)

    def opt_help(self) -> None:
        """Display this help and exit."""
        try:
            print(self, flush=True)
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # or it would come once more at the end
        except OSError as error:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            sys.exit(f"pgtls: standard output: {error.strerror}")
        sys.exit(0)

    def configuration(self) -> Configuration:
        """What was asked for.

        :raises ConfigurationError: with every mistake.
        """
        given = {
            field.name: self[field.name.replace("_", "-")]
            for field in _FIELDS
            if self[field.name.replace("_", "-")] is not None
        }
        if self["config"] is None:
            return Configuration.from_options(given)
        if given:
            names = ", ".join("--" + name.replace("_", "-") for name in given)
            raise ConfigurationError(f"with --config, write into the file what {names} would say")
        return Configuration.from_toml(Path(self["config"]))


def makeService(options: Options) -> IService:
    """The service that ``twistd pgtls`` runs."""
    from twisted.internet import reactor  # noqa: PLC0415 - importing it installs it

    def make(configuration: Configuration) -> DaemonProcess:
        return DaemonProcess(
            cast(IDaemonReactor, reactor), configuration, options.pid_file, chroot=options.chroot
        )

    try:
        return made_by(DaemonUser(options.parent), options.configuration(), make)
    except ConfigurationError as error:
        raise CannotStart(error) from None
