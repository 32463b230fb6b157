"""Files that change: looked at from time to time, and read again when they have.

A change counts when it has come to rest: what writes a certificate, and then its key, or a file in
two parts, is waited for. So is a file that is gone, since it may be on its way back. A mistake is
logged if it is still there a moment later.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from pgtls.daemon.state import RENEWAL
from pgtls.gateway.expiry_watch import DAY
from pgtls.gateway.gateway import Gateway
from pgtls.gateway.gateway_configuration import LoadedGateway
from pgtls.reading import FilesRead, FileState, state_of
from pgtls.text import log_name

_log = Logger(namespace="pgtls.gateway")

#: Seconds that files must have been as they are before they are read, if ``reload_interval`` is not
#: shorter.
SETTLED = 0.5

#: How many times as long, where one of them is not there any more.
GONE = 6

#: After how many times as long files are read that never come to rest.
PATIENCE = 3

#: The longest pause before files with a mistake are read once more, although they are the same.
LONGEST_PAUSE = 600.0

#: How many mistakes or changed files a message names, and how many bytes of a file's name.
_NAMED = 3
_NAME_LIMIT = 200


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of reading a gateway's files again.

    :ivar files: those that were read, in the state that they had.
    :ivar mistakes: why the gateway goes on with what it has read before; empty where it does not.
    """

    files: FilesRead
    mistakes: Sequence[str] = ()


class IBackground(Protocol):
    """Does what may take long: see :func:`pgtls.daemon.background.in_background`."""

    def __call__(
        self, do: Callable[[], dict[str, FileState | None]]
    ) -> Deferred[dict[str, FileState | None]]: ...


@attrs.define(eq=False)
class _Watched:
    """What is known of a gateway's files.

    :ivar loaded: what the gateway serves with.
    :ivar files: the states that they had when they were read the last time.
    :ivar renew_at: when they are to be read although they are the same.
    :ivar mistakes: what was wrong with them then.
    :ivar is_said: whether that has been logged.
    :ivar changes: the files that had changed then, and have not been used since.
    :ivar pause: seconds until they are read once more in that case.
    :ivar read_at: when that was.
    :ivar seen: their states now, where they are others; None where they are not.
    :ivar seen_at: since when they have those.
    :ivar changed_at: when the first of these changes was seen.
    """

    loaded: LoadedGateway
    files: FilesRead
    renew_at: float = math.inf
    mistakes: Sequence[str] = ()
    is_said: bool = True
    changes: list[str] = attrs.field(factory=list)
    pause: float = 0.0
    read_at: float = 0.0
    seen: FilesRead | None = None
    seen_at: float = 0.0
    changed_at: float = 0.0

    def changed(self) -> list[str]:
        """The files that have changed."""
        seen = self.seen or {}
        return [path for path, state in seen.items() if state != self.files[path]]

    def look(
        self, states: Mapping[str, FileState | None], now: float, wall: float, looked_at: float
    ) -> None:
        """Take note of the states that files have.

        :param states: at least of these.
        :param now: the time.
        :param wall: the same by the clock that files have their times from.
        :param looked_at: when the look before this one was, by that clock.
        """
        current = {path: states.get(path) for path in self.files}
        if current == self.files:
            self.seen = None
        elif current != self.seen:
            is_first = self.seen is None
            self.seen, self.seen_at = current, now
            changed = [current[path] for path in self.changed()]
            newest = max(state.changed / 1e9 if state else wall for state in changed)
            if looked_at <= newest <= wall:  # else the clocks are two, or it was there before
                self.seen_at -= wall - newest
            self.changed_at = self.seen_at if is_first else self.changed_at

    def due_at(self, settled: float) -> float:
        """When they are to be read again; infinity where they are not.

        :param settled: seconds that they must have been as they are.
        """
        if self.seen is None:
            return self.read_at + self.pause if self.mistakes else self.renew_at
        if any(self.seen[path] is None for path in self.changed()):
            return self.seen_at + GONE * settled
        return min(self.seen_at + settled, self.changed_at + PATIENCE * settled)

    def failed(self, outcome: Outcome, now: float, pause: float) -> None:
        """They have been read, and cannot be used."""
        again = self.seen is None
        if not again or list(outcome.mistakes) != list(self.mistakes):
            self.is_said = False
        self.changes += self.changed()
        self.files = {**(self.seen or self.files), **outcome.files}
        self.mistakes, self.read_at, self.seen = outcome.mistakes, now, None
        self.pause = min(2 * self.pause, LONGEST_PAUSE) if again else pause

    def to_say(self) -> Sequence[str]:
        """What is to be logged now."""
        if self.is_said or self.seen is not None:
            return ()
        self.is_said = True
        return self.mistakes


class FileWatch:
    """Watches the files of all gateways.

    :param clock: the reactor.
    :param interval: seconds between two looks at them.
    :param gateways: tells which gateways there are.
    :param read_again: reads the files of some of them, and has new connections get what is in them.
        Its Deferred fires with the outcome for each; with None for one that has been given other
        settings meanwhile.
    :param in_background: does the looking, which may take long.
    :param reloaded: is told what there was to log: the mistakes, none where a change was good.
    :param wall_clock: where files have their times from.
    """

    def __init__(
        self,
        clock: IReactorTime,
        interval: float,
        gateways: Callable[[], Sequence[Gateway]],
        read_again: Callable[[Sequence[Gateway]], Deferred[list[Outcome | None]]],
        in_background: IBackground,
        reloaded: Callable[[Sequence[str]], object] = lambda mistakes: None,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._clock = clock
        self._interval = interval
        self._gateways = gateways
        self._read_again = read_again
        self._in_background = in_background
        self._reloaded = reloaded
        self._wall_clock = wall_clock
        self._looked_at = wall_clock()
        self._watched: dict[Gateway, _Watched] = {}
        self._timer: IDelayedCall | None = None
        self._runs = self._looks = False

    def start(self) -> None:
        """Look from now on."""
        self._runs = True
        self._schedule()

    def stop(self) -> None:
        """Look no more."""
        self._runs = False
        self._schedule()

    @property
    def interval(self) -> float:
        """Seconds between two looks; 0: there are none."""
        return self._interval

    @interval.setter
    def interval(self, seconds: float) -> None:
        if seconds != self._interval:
            self._interval = seconds
            self._schedule()

    @property
    def mistakes(self) -> list[str]:
        """What is wrong with files, so that gateways go on with what they have read before."""
        return list(
            dict.fromkeys(
                mistake
                for gateway, each in self._watched.items()
                if each.loaded is gateway.loaded
                for mistake in each.mistakes
            )
        )

    @property
    def _settled(self) -> float:
        return min(SETTLED, self._interval)

    def _schedule(self) -> None:
        """Plan the next look, where none is being taken."""
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        if self._runs and self._interval and not self._looks:
            self._timer = self._clock.callLater(self._next_look(), self._begin)

    def _next_look(self) -> float:
        """:returns: in how many seconds it is to be taken."""
        now, settled = self._clock.seconds(), self._settled
        soonest = now + self._interval
        for each in self._watched.values():
            if each.seen is not None:
                soonest = min(soonest, each.due_at(settled))
            elif not each.is_said:
                soonest = min(soonest, each.read_at + settled)
        return max(soonest - now, settled / 10)

    def _begin(self) -> None:
        self._looks = True
        looking = Deferred.fromCoroutine(self._look())
        looking.addErrback(lambda failure: _log.failure("files cannot be looked at", failure))
        looking.addCallback(self._ended)

    def _ended(self, _: None) -> None:
        self._looks = False
        self._schedule()

    async def _look(self) -> None:
        self._watched = watched = {
            gateway: self._watched_of(gateway) for gateway in self._gateways()
        }
        names = {name for each in watched.values() for name in each.files}
        states = await self._in_background(lambda: {name: state_of(name) for name in names})
        now, wall, before = self._clock.seconds(), self._wall_clock(), self._looked_at
        self._looked_at = wall
        due = []
        mistakes: list[str] = []
        for gateway, each in watched.items():
            each.look(states, now, wall, before)
            if each.loaded is gateway.loaded:
                mistakes += each.to_say()
                if each.due_at(self._settled) <= now:
                    due.append(gateway)
        self._say(list(dict.fromkeys(mistakes)))
        if due and self._runs:
            await self._read(due)

    def _say(self, mistakes: list[str]) -> None:
        """Log mistakes, in one line: they are of one change, and may be one for each host."""
        if mistakes:
            named = "; ".join(mistakes[:_NAMED])
            if len(mistakes) > _NAMED:
                named += f"; and {len(mistakes) - _NAMED} more"
            _log.error("not reloaded: {mistake}", mistake=named, mistakes=mistakes)
            self._reloaded(mistakes)

    def _watched_of(self, gateway: Gateway) -> _Watched:
        before = self._watched.get(gateway)
        if before is not None and before.loaded is gateway.loaded:
            return before
        loaded = gateway.loaded
        return _Watched(loaded, loaded.files, self._clock.seconds() + self._until_renewal(loaded))

    def _until_renewal(self, loaded: LoadedGateway) -> float:
        """:returns: seconds until the certificate is to be renewed that the daemon makes itself,
        which is done where it is read; no less than a day, since it may not end any later then."""
        own = loaded.configuration.own_certificate
        if own is None:
            return math.inf
        ends = [v.not_after for v in loaded.validities if v.file == own.file and v.not_after]
        soonest = min((end - RENEWAL for end in ends), default=None)
        if soonest is None:
            return math.inf
        return max(soonest.timestamp() - self._wall_clock(), DAY)

    async def _read(self, due: Sequence[Gateway]) -> None:
        watched = self._watched
        outcomes = await self._read_again(due)
        now = self._clock.seconds()
        changed: list[str] = []
        reloaded = False
        for gateway, outcome in zip(due, outcomes, strict=True):
            each = watched[gateway]
            if outcome is not None and outcome.mistakes:
                each.failed(outcome, now, self._interval)
            elif outcome is not None:
                reloaded = True
                changed += each.changes + each.changed()
        if reloaded:
            _log.info(
                "reloaded: {changes}: new connections get what is in the files now",
                changes=_changes(list(dict.fromkeys(changed))),
            )
            self._reloaded(())


def _changes(files: Sequence[str]) -> str:
    if not files:
        return "the gateway's own certificate was near its end"
    named = [f'"{log_name(name, _NAME_LIMIT)}"' for name in files[:_NAMED]]
    if len(files) > _NAMED:
        named.append(f"{len(files) - _NAMED} more")
    *first, last = named
    return f"{', '.join(first)} and {last} have changed" if first else f"{last} has changed"
