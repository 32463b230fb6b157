"""A configuration checked offline: what a start or a reload would say."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import attrs
from twisted.logger import ILogObserver, LogEvent, LogLevel, formatEvent, globalLogPublisher
from zope.interface import provider

from pgtls.daemon.configuration import Configuration
from pgtls.daemon.gateway_loading import load_all
from pgtls.errors import ConfigurationError
from pgtls.gateway.gateway_configuration import LoadedGateway
from pgtls.tls.keylog import making_no_keylog
from pgtls.tls.validity import warnings
from pgtls.transport.reactor import IReactor


@attrs.frozen
class Checked:
    """What has been found.

    :ivar gateways: the gateways; none where there are mistakes.
    :ivar mistakes: why a start or a reload would fail, a sentence each.
    :ivar warnings: what it would warn of.
    """

    gateways: list[LoadedGateway]
    mistakes: list[str]
    warnings: list[str]


def check_configuration(reactor: IReactor, file: Path) -> Checked:
    """Check a configuration, and every file that it names. No port is opened, and nothing is made.

    :param reactor: Twisted's reactor; it need not run.
    :param file: the configuration, ``pgtls.toml``.
    :returns: what has been found.
    """
    said: list[str] = []

    @provider(ILogObserver)
    def note(event: LogEvent) -> None:
        if event.get("log_level", LogLevel.debug) >= LogLevel.warn:
            said.append(formatEvent(event))

    globalLogPublisher.addObserver(note)
    try:
        with making_no_keylog():
            configuration = Configuration.from_toml(file)
            loaded = load_all(reactor, configuration, offline=True)
    except ConfigurationError as error:
        return Checked([], list(error.mistakes), list(dict.fromkeys(said)))
    except OSError as error:
        return Checked([], [str(error)], list(dict.fromkeys(said)))
    finally:
        globalLogPublisher.removeObserver(note)
    soon = timedelta(days=configuration.daemon.expiry_warning)
    for gateway in loaded:
        said += warnings(gateway.validities, soon)
    return Checked(loaded, [], list(dict.fromkeys(said)))
