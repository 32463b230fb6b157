"""What we ask of Twisted's reactor."""

from __future__ import annotations

import select

from twisted.internet.interfaces import (
    IReactorCore,
    IReactorFDSet,
    IReactorPluggableNameResolver,
    IReactorSocket,
    IReactorTCP,
    IReactorThreads,
    IReactorTime,
    IReactorUNIX,
)
from twisted.internet.posixbase import PosixReactorBase

#: Whether this system has what our connections wait with. (Tests switch it off.)
EPOLL = hasattr(select, "epoll")


class IReactor(
    IReactorCore,
    IReactorFDSet,
    IReactorPluggableNameResolver,
    IReactorSocket,
    IReactorTCP,
    IReactorThreads,
    IReactorTime,
    IReactorUNIX,
):
    """A reactor as every POSIX system has it."""


def has_epoll(reactor: object) -> bool:
    """Whether our own connections can be used beside a reactor: it waits for file descriptors, and
    the system has epoll. Otherwise Twisted's own serve, which do the same more slowly.

    :param reactor: Twisted's, or one in memory, for tests.
    :returns: whether :class:`~pgtls.transport.connection.Connection` works with it.
    """
    return EPOLL and isinstance(reactor, PosixReactorBase)
