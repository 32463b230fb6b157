"""The daemon's signals, from the beginning of the process to its end.

A signal that comes before the daemon can do anything about it is kept until it can. This module
imports nothing heavy: it is the first of pgtls that ``twistd pgtls`` loads.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from types import FrameType

#: What ends the daemon.
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)

#: What has it read its files again, rotate its log, and start the program that takes its place.
OTHER_SIGNALS = (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)

Handler = Callable[[int, FrameType | None], object]


class Signals:
    """What the process does about its signals: keep them, or pass them to a handler."""

    def __init__(self) -> None:
        self._kept: list[int] = []
        self._handlers: dict[int, Handler] = {}
        self._before: dict[int, object] = {}

    def keep(self, *numbers: int) -> None:
        """From now on take note of signals, in place of what the process did about them.

        :param numbers: which ones.
        """
        for number in numbers:
            before = signal.signal(number, self._received)
            if before != self._received:
                self._before[number] = before

    def stop_requested(self) -> bool:
        """Whether one of those that end the daemon has come, and waits for a handler.

        :returns: True if so.
        """
        return any(number in STOP_SIGNALS for number in self._kept)

    def handle(self, handlers: dict[int, Handler]) -> None:
        """From now on pass signals to handlers; first those that have been kept for them.

        :param handlers: for each signal what is called with its number and the interrupted frame.
        """
        self._handlers.update(handlers)
        self.keep(*handlers)  # others, such as the reactor, may have changed that
        kept, self._kept = self._kept, []
        for number in dict.fromkeys(kept):
            self._received(number, None)

    def _received(self, number: int, frame: FrameType | None) -> None:
        handler = self._handlers.get(number)
        if handler is None:
            self._kept.append(number)
        else:
            handler(number, frame)

    def restore(self) -> None:
        """Let the process do about signals what it did before."""
        for number, before in self._before.items():
            signal.signal(number, before)  # type: ignore[arg-type]
        self._before.clear()
        self._handlers.clear()
        self._kept.clear()


#: The process's own.
signals = Signals()
