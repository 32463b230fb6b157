"""Requests and answers between two processes, in both directions, over lines that they exchange.

A request is the line ``ask NUMBER NAME VALUE``, its answer ``answer NUMBER VALUE``, or ``unanswered
NUMBER`` where there is none; values are JSON. Numbers are those of the process that asks. Others of
its lines are left to the caller.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import partial

import attrs
from twisted.internet.defer import Deferred, fail, maybeDeferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

_log = Logger(namespace="pgtls.gateway")

#: Requests that may wait for an answer at a time.
MAX_WAITING = 5000

#: Answers a request: takes its value, and returns the answer, or a Deferred of it.
Answerer = Callable[[object], object]


class RequestFailed(Exception):
    """The other process has not answered: it is gone, takes too long, or does not know how to."""


@attrs.frozen
class _Waiting:
    answer: Deferred[object]
    limit: IDelayedCall


class PipeRequests:
    """One end of it.

    :param clock: the reactor.
    :param send: sends a line to the other process, and returns whether it could.
    :param answerers: what answers the other process's requests, by their names.
    """

    def __init__(
        self,
        clock: IReactorTime,
        send: Callable[[str], bool],
        answerers: Mapping[str, Answerer],
    ) -> None:
        self._clock = clock
        self._send = send
        self._answerers = answerers
        self._waiting: dict[int, _Waiting] = {}
        self._last = 0
        self._closed = False

    def ask(self, name: str, value: object = None, *, timeout: float) -> Deferred[object]:
        """Send a request.

        :param name: what the other process knows it by.
        :param value: goes with it: what JSON can have.
        :param timeout: seconds that the other process has.
        :returns: fires with the answer, as JSON has it; fails with :class:`RequestFailed`.
        """
        self._last = number = self._last + 1
        if self._closed or len(self._waiting) >= MAX_WAITING:
            return fail(RequestFailed(f"{name}: no more can be asked"))
        answer: Deferred[object] = Deferred(partial(self._cancelled, number))
        limit = self._clock.callLater(timeout, self._fail, number, f"{name}: no answer in time")
        self._waiting[number] = _Waiting(answer, limit)
        if not self._send(f"ask {number} {name} {json.dumps(value)}"):
            self._fail(number, f"{name}: the other process reads nothing")
        return answer

    def receive(self, line: bytes) -> bool:
        """A line from the other process.

        :param line: without its end.
        :returns: whether it was a request or an answer. An answer that comes too late is ignored.
        """
        word, _, rest = line.partition(b" ")
        number, _, rest = rest.partition(b" ")
        if word == b"ask":
            name, _, value = rest.partition(b" ")
            self._asked(int(number), name.decode(), json.loads(value))
        elif word == b"answer":
            if waiting := self._taken(int(number)):
                waiting.answer.callback(json.loads(rest))
        elif word == b"unanswered":
            self._fail(int(number), "the other process has no answer; its log may say why")
        else:
            return False
        return True

    def close(self) -> None:
        """The other process is gone: what waits for an answer fails."""
        self._closed = True
        for number in list(self._waiting):
            self._fail(number, "the other process is gone")

    def _asked(self, number: int, name: str, value: object) -> None:
        answerer = self._answerers.get(name)
        if answerer is None:
            self._send(f"unanswered {number}")
            return
        answer: Deferred[object] = maybeDeferred(answerer, value)
        answer.addCallback(lambda found: self._send(f"answer {number} {json.dumps(found)}"))
        answer.addErrback(self._not_answered, number, name)

    def _not_answered(self, failure: Failure, number: int, name: str) -> None:
        if not failure.check(RequestFailed):  # which has been asked on behalf of this one
            _log.failure("request {name} of another process", failure, name=name)
        self._send(f"unanswered {number}")

    def _taken(self, number: int) -> _Waiting | None:
        waiting = self._waiting.pop(number, None)
        if waiting is not None and waiting.limit.active():
            waiting.limit.cancel()
        return waiting

    def _fail(self, number: int, reason: str) -> None:
        if waiting := self._taken(number):
            waiting.answer.errback(RequestFailed(reason))

    def _cancelled(self, number: int, answer: Deferred[object]) -> None:
        self._taken(number)
