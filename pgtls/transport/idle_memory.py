"""Memory that TLS connections have needed for much data at a time, given back when they need it no
longer. OpenSSL keeps it, and of a pool's connections most are idle most of the time."""

from __future__ import annotations

from functools import cache
from typing import Protocol

from twisted.internet.interfaces import IDelayedCall, IReactorTime

#: Seconds without much data after which it is given back; it may take twice as long.
_IDLE = 1.0


class Memory(Protocol):
    """What has memory.

    :ivar in_use: whether much of it has been needed; set by the owner, taken back here.
    """

    in_use: bool

    def release(self) -> bool:
        """Give it back.

        :returns: whether that could be.
        """


class IdleMemory:
    """Looks after the memory of a reactor's connections.

    :param reactor: for the time.
    """

    def __init__(self, reactor: IReactorTime) -> None:
        self._reactor = reactor
        self._watched: set[Memory] = set()
        self._timer: IDelayedCall | None = None

    def watch(self, memory: Memory) -> None:
        """Give it back when it has not been used for a while.

        :param memory: has just been used.
        """
        self._watched.add(memory)
        if self._timer is None:
            self._timer = self._reactor.callLater(_IDLE, self._look)

    def forget(self, memory: Memory) -> None:
        """Its connection is closed.

        :param memory: may not have been watched.
        """
        self._watched.discard(memory)
        if not self._watched and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        self._timer = None
        for memory in list(self._watched):
            if memory.in_use:
                memory.in_use = False
            elif memory.release():
                self._watched.discard(memory)
        if self._watched:
            self._timer = self._reactor.callLater(_IDLE, self._look)


@cache
def idle_memory(reactor: IReactorTime) -> IdleMemory:
    """The one of a reactor.

    :param reactor: Twisted's.
    :returns: always the same.
    """
    return IdleMemory(reactor)
