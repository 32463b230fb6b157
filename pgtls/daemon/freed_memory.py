"""The memory of sessions that are over, given back to the system.

What OpenSSL frees stays with glibc, which gives back by itself only what is at the end of its heap:
after 10,000 sessions in TLS the process would keep 250 MB that nobody needs. malloc_trim(3) gives
back every free page, for 3 ms of CPU time for each 1,000 sessions that are over.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall

from pgtls.transport.reactor import IReactor

#: Seconds between two looks at how many sessions there are.
_INTERVAL = 5.0

#: Sessions that must have ended since the last time, at least: about 5 MB.
_LEAST_ENDED = 200


class FreedMemory:
    """Gives memory back when half of the sessions are over, and again when half of the rest are.

    :param reactor: Twisted's reactor, in a process that is a daemon and nothing else.
    :param sessions: returns how many there are in this process.
    """

    def __init__(self, reactor: IReactor, sessions: Callable[[], int]) -> None:
        self._reactor = reactor
        self._sessions = sessions
        self._most = 0  # since the last time
        self._timer: IDelayedCall | None = None

    def start(self) -> None:
        """Look at the sessions from now on, where the C library is glibc."""
        if has_malloc_trim():
            self._timer = self._reactor.callLater(_INTERVAL, self._look)

    def stop(self) -> None:
        """Look at them no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        self._timer = self._reactor.callLater(_INTERVAL, self._look)
        count = self._sessions()
        self._most = max(self._most, count)
        if self._most - count >= max(_LEAST_ENDED, self._most / 2):
            self._most = count
            # Other threads go on meanwhile, but for those that need more of the same memory.
            self._reactor.callInThread(give_back)


def has_malloc_trim() -> bool:
    """Whether the C library can give memory back.

    :returns: False where it is not glibc.
    """
    return sys.platform == "linux" and hasattr(ctypes.CDLL(None), "malloc_trim")


def give_back() -> None:
    """Give back every page that is free."""
    ctypes.CDLL(None).malloc_trim(0)
