"""Whether ports could be opened, where other mistakes keep them closed: so that all are named."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterable
from contextlib import suppress
from typing import NoReturn

from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IProtocolFactory, IReactorTCP, IReactorUNIX
from twisted.internet.protocol import Factory
from twisted.python.failure import Failure
from zope.interface import implementer

from pgtls.daemon.mistakes import Mistakes
from pgtls.transport.listening_sockets import endpoint_from_string
from pgtls.transport.socket_table import sockets, tcp_address


def why_not_opened(error: BaseException | None) -> str:
    """Why a port is not open.

    :param error: what its endpoint says.
    :returns: a few words.
    """
    reason = error.socketError if isinstance(error, CannotListenError) else error
    if isinstance(reason, OSError) and reason.strerror:
        return reason.strerror
    return str(reason)


def check_ports(
    listen: Iterable[tuple[str, str]], mistakes: Mistakes, *, binds: bool = True
) -> None:
    """See which ports could not be opened; none of them is.

    :param listen: endpoint strings, each behind where it stands, which goes in front of a mistake.
    :param mistakes: takes a sentence for each that could not.
    :param binds: whether one that another process has, or that this user may not have, is one of
        them. Otherwise only addresses count that the machine does not have, and directories.
    """
    reactor = _NothingOpened(binds)
    for location, description in listen:
        with suppress(Exception):  # not an endpoint string, which has been said
            endpoint = endpoint_from_string(reactor, description)
            endpoint.listen(Factory()).addErrback(_not_opened, location + description, mistakes)


def _not_opened(failure: Failure, place: str, mistakes: Mistakes) -> None:
    if failure.check(OSError):  # anything else: only opening it would tell
        mistakes.add(f"{place}: {why_not_opened(failure.value)}")


class _WouldOpen(Exception):
    """It could be opened."""


@implementer(IReactorTCP, IReactorUNIX)
class _NothingOpened:
    """A reactor as far as Twisted's endpoints listen with it; it opens nothing."""

    def __init__(self, binds: bool) -> None:
        self._binds = binds

    def listenTCP(
        self, port: int, factory: IProtocolFactory, backlog: int = 50, interface: str = ""
    ) -> NoReturn:
        """Bind a socket, close it again."""
        if sockets.is_inherited(tcp_address(interface, port)):
            raise _WouldOpen
        family = socket.AF_INET6 if ":" in interface else socket.AF_INET
        with socket.socket(family) as unused:
            unused.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            unused.bind((interface, port if self._binds else 0))
        raise _WouldOpen

    def listenUNIX(
        self,
        address: str | bytes,
        factory: IProtocolFactory,
        backlog: int = 50,
        mode: int = 0o666,
        wantPID: bool = False,
    ) -> NoReturn:
        """See whether the directory is one that a socket can be made in."""
        directory = os.path.dirname(os.path.abspath(address))
        os.stat(directory)
        if not os.access(directory, os.W_OK | os.X_OK):
            raise OSError(errno.EACCES, os.strerror(errno.EACCES))
        raise _WouldOpen

    def connectTCP(self, *arguments: object, **named: object) -> NoReturn:
        """Nothing connects."""
        raise NotImplementedError

    def connectUNIX(self, *arguments: object, **named: object) -> NoReturn:
        """Nothing connects."""
        raise NotImplementedError
