"""A gateway's files read again: all of them, and used, or none."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import chdir
from functools import partial

import attrs
from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger

from pgtls.daemon.background import in_background
from pgtls.daemon.file_watch import FileWatch, Outcome
from pgtls.daemon.gateway_loading import load_gateway
from pgtls.daemon.mistakes import Mistakes
from pgtls.daemon.served_gateways import ServedGateways
from pgtls.errors import ConfigurationError
from pgtls.gateway.gateway import Gateway
from pgtls.gateway.gateway_configuration import LoadedGateway
from pgtls.reading import FilesRead, noting
from pgtls.transport.reactor import IReactor

_log = Logger(namespace="pgtls.gateway")


def watch_files(
    reactor: IReactor,
    directory: str,
    served: ServedGateways,
    reloaded: Callable[[Sequence[str]], object],
) -> FileWatch:
    """Make the watch over the files of a daemon's gateways.

    :param reactor: Twisted's reactor.
    :param directory: where the names of files count from.
    :param served: the gateways.
    :param reloaded: is told the mistakes of each reload; none where it was good.
    :returns: the watch, not started.
    """

    async def read(changed: Sequence[Gateway]) -> list[Outcome | None]:
        return [await _read_again(reactor, gateway, directory, served) for gateway in changed]

    return FileWatch(
        reactor,
        served.settings.reload_interval,
        lambda: served.served if served.running else [],
        lambda changed: Deferred.fromCoroutine(read(changed)),
        partial(in_background, reactor),
        reloaded,
    )


async def _read_again(
    reactor: IReactor, gateway: Gateway, directory: str, served: ServedGateways
) -> Outcome | None:
    """Read the files of a gateway; have it use them, if they are good."""
    before = gateway.loaded
    read = await _read_in_background(reactor, before, served.settings.state_dir, directory)
    if read.loaded is None:
        is_current = gateway.loaded is before and gateway in served.served
        return Outcome(read.files, read.mistakes) if is_current else None
    try:
        hung = await served.renew(gateway, before, read.loaded)
    except ConfigurationError as error:
        return Outcome(read.files, error.mistakes)
    if hung is None:
        return None
    for mistake in hung:
        _log.error("not reloaded: {mistake}", mistake=mistake)
    return Outcome(read.files)


@attrs.frozen
class _Read:
    """What came of reading.

    :ivar loaded: the gateway; None where there are mistakes.
    :ivar files: the files that were read, with the states that they had.
    :ivar mistakes: what is wrong.
    """

    loaded: LoadedGateway | None
    files: FilesRead
    mistakes: list[str]


def _read_in_background(
    reactor: IReactor, before: LoadedGateway, state_dir: str, directory: str
) -> Deferred[_Read]:
    def read() -> _Read:
        mistakes = Mistakes()
        loaded: list[LoadedGateway] = []
        with noting() as files:
            try:
                loaded = load_gateway(
                    *(reactor, before.configuration, state_dir, mistakes),
                    before=before,
                    tunnel=before.ssh_tunnel,
                )
            except OSError as error:
                mistakes.add(str(error))
        found = list(dict.fromkeys(mistakes.found))
        return _Read(loaded[0] if loaded and not found else None, files, found)

    if os.getcwd() == directory:
        return in_background(reactor, read)
    # The working directory is the whole process's: nobody else may run meanwhile.
    with chdir(directory):
        return succeed(read())
