"""How many files the process may have open: as many as its clients need."""

from __future__ import annotations

import errno
import resource
from collections.abc import Iterable

from twisted.logger import Logger

from pgtls.gateway.gateway_configuration import GatewaySettings
from pgtls.protocols.places import descriptors

_log = Logger(namespace="pgtls.gateway")

#: File descriptors that the daemon needs besides those for clients: for its status, mostly.
_SPARE_FILES = 256

#: What can be done where there are too few.
_RAISE = "raise the limit (ulimit -n, LimitNOFILE=)"

TOO_MANY_OPEN_FILES = f"too many open files: {_RAISE}"


def reason_of(error: OSError) -> str:
    """Why something failed that needs an open file.

    :param error: what it has raised.
    :returns: the error, or what to do where there were too few.
    """
    return TOO_MANY_OPEN_FILES if error.errno == errno.EMFILE else str(error)


def allow_open_files(gateways: Iterable[GatewaySettings], *, quiet: bool = False) -> None:
    """Raise the limit of open files as far as the hard limit allows.

    :param gateways: the settings of each gateway. The daemon needs a few more files.
    :param quiet: do not log that it is too low: another process does.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = _SPARE_FILES + sum(
        descriptors(each.listener.max_connections, through_ssh=bool(each.ssh.upstream_via))
        for each in gateways
    )
    unlimited = hard == resource.RLIM_INFINITY
    if soft < needed:
        granted = needed if unlimited else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (granted, hard))
        if granted < needed and not quiet:
            _log.warn(
                "max_connections needs {needed} open files, the limit is {granted}: {todo}",
                needed=needed,
                granted=granted,
                todo=_RAISE,
            )
