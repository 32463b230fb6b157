"""Who else may have the session of a cancel key: the daemon's other gateways and processes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

_log = Logger(namespace="pgtls.gateway")


class KeyHolder(Protocol):
    """Has sessions, and their cancel keys."""

    def has_key(self, key: bytes) -> Deferred[bool | None]:
        """Whether a session has this key.

        :param key: a CancelRequest's.
        :returns: fires soon, with None where that could not be found out; never fails.
        """

    def cancel(self, key: bytes) -> Deferred[bool | None]:
        """Pass a CancelRequest on to each server whose session has its key.

        :param key: the request's.
        :returns: fires when it has been passed on, or could not be, with whether there was such a
            session; None where that could not be found out. Never fails.
        """


class KeyHolders:
    """Several, as if they were one.

    :param holders: those that there are now.
    """

    def __init__(self, holders: Callable[[], Iterable[KeyHolder]] = lambda: ()) -> None:
        self._holders = holders

    def has_key(self, key: bytes) -> Deferred[bool | None]:
        """Whether one of them has it; see :class:`KeyHolder`.

        :param key: a CancelRequest's.
        :returns: fires with the answer.
        """
        return first_yes(holder.has_key(key) for holder in self._holders())

    def cancel(self, key: bytes) -> Deferred[bool | None]:
        """Have all of them pass it on: servers that know nothing of each other may give out the
        same key. See :class:`KeyHolder`.

        :param key: a CancelRequest's.
        :returns: fires when the first has.
        """
        return first_yes([holder.cancel(key) for holder in self._holders()])


def first_yes(answers: Iterable[Deferred[bool | None]]) -> Deferred[bool | None]:
    """Whether one of several says yes.

    :param answers: theirs; they are taken one after the other as long as there is no yes.
    :returns: fires with True as soon as one does, else when all have: with None where one of them
        does not know, or fails. Never fails.
    """
    first: Deferred[bool | None] = Deferred()
    waiting = 1  # for all of them to be asked
    sure = True

    def came(answer: bool | None) -> None:
        nonlocal waiting, sure
        waiting -= 1
        sure = sure and answer is not None
        if not first.called and (answer or not waiting):
            first.callback(True if answer else False if sure else None)

    def failed(failure: Failure) -> None:
        _log.failure("cancel request", failure)
        came(None)

    for each in answers:
        waiting += 1
        each.addCallbacks(came, failed)
        if first.called:
            break
    came(False)
    return first
