"""Memory that is given back after a peak, and when."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import psutil
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from pgtls.daemon import freed_memory
from pgtls.daemon.freed_memory import FreedMemory, give_back, has_malloc_trim

MEGABYTE = 1 << 20


class Reactor(Clock):
    """What happens in a thread happens at once here.

    :ivar given_back: how often that was.
    """

    given_back = 0

    def callInThread(self, call: Callable[[], object]) -> None:
        call()
        self.given_back += 1


class WhenItIsGivenBack(SynchronousTestCase):
    def setUp(self) -> None:
        self.patch(freed_memory, "has_malloc_trim", lambda: True)
        self.patch(freed_memory, "give_back", lambda: None)
        self.reactor: Any = Reactor()
        self.count = 0
        self.memory = FreedMemory(self.reactor, lambda: self.count)
        self.memory.start()

    def given_back(self, *counts: int) -> int:
        """How often it is, with so many sessions one second after the other."""
        before = self.reactor.given_back
        for self.count in counts:
            self.reactor.advance(5)
        return int(self.reactor.given_back) - before

    def test_when_half_of_the_sessions_are_over_and_half_of_the_rest(self) -> None:
        self.assertEqual(self.given_back(0, 5000, 10_000, 5001), 0)
        self.assertEqual(self.given_back(5000), 1)
        self.assertEqual(self.given_back(5000, 2501), 0)
        self.assertEqual(self.given_back(2500), 1)
        self.assertEqual(self.given_back(0), 1)

    def test_each_peak_counts(self) -> None:
        self.assertEqual(self.given_back(1000, 0, 1000, 0), 2)

    def test_not_for_a_few_sessions(self) -> None:
        self.assertEqual(self.given_back(199, 0, 199, 0), 0)

    def test_nothing_goes_on_when_it_is_stopped(self) -> None:
        self.memory.stop()
        self.assertEqual(self.reactor.getDelayedCalls(), [])


class WhatIsGivenBack(SynchronousTestCase):
    def test_what_is_free_between_what_is_in_use(self) -> None:
        """The last piece is in use, so that glibc alone gives nothing back."""
        if not has_malloc_trim():
            return
        libc = ctypes.CDLL(None)
        libc.malloc.restype = ctypes.c_void_p
        libc.free.argtypes = [ctypes.c_void_p]
        pieces = [libc.malloc(16_384) for _ in range(4096)]
        for piece in pieces:
            ctypes.memset(piece, 1, 16_384)
        last = pieces.pop()
        self.addCleanup(libc.free, last)
        for piece in pieces:
            libc.free(piece)
        resident = psutil.Process().memory_info
        before = resident().rss
        give_back()
        self.assertGreater(before - resident().rss, 50 * MEGABYTE)
