"""Cancel requests between the processes of a daemon: each knows the keys of its own sessions.

Two requests of :mod:`pgtls.daemon.pipe_requests`, each with a cancel key in hexadecimal and with
true, false or null (not known) as its answer: ``has_key``, and ``cancel``, which is answered when
the server has taken it. A worker asks the daemon, and that asks the other workers. During an
upgrade the new daemon asks the old one.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from pgtls.daemon.pipe_requests import Answerer, PipeRequests, RequestFailed
from pgtls.gateway.cancel_connection import CANCEL_TIMEOUT
from pgtls.gateway.key_holders import KeyHolder

#: Seconds that a process has to say whether it has a key. One that does not is hung, or nearly so.
FIND_TIMEOUT = 1.0

#: Seconds more that a process has which asks others in turn.
_MARGIN = 0.5


class OtherProcess:
    """Another process as a holder of keys.

    :param requests: asks it.
    :param asks_others: whether it asks others in turn: how many times, one behind the other.
    """

    def __init__(self, requests: PipeRequests, asks_others: int = 0) -> None:
        self._requests = requests
        self._margin = _MARGIN * asks_others

    def has_key(self, key: bytes) -> Deferred[bool | None]:
        """Whether one of its sessions has a key; see :class:`KeyHolder`.

        :param key: a CancelRequest's.
        :returns: fires with the answer.
        """
        return self._ask("has_key", key, FIND_TIMEOUT + self._margin)

    def cancel(self, key: bytes) -> Deferred[bool | None]:
        """Have it pass a CancelRequest on; see :class:`KeyHolder`.

        :param key: the request's.
        :returns: fires with the answer.
        """
        return self._ask("cancel", key, CANCEL_TIMEOUT + FIND_TIMEOUT + self._margin)

    def _ask(self, name: str, key: bytes, timeout: float) -> Deferred[bool | None]:
        asked = self._requests.ask(name, key.hex(), timeout=timeout)
        return asked.addCallbacks(_answer, _no_answer)


def cancel_answerers(holder: KeyHolder) -> dict[str, Answerer]:
    """What answers the two requests.

    :param holder: has the sessions that the other process may ask for.
    :returns: answerers by their names, for :class:`PipeRequests`.
    """
    return {
        "has_key": partial(_with_key, holder.has_key),
        "cancel": partial(_with_key, holder.cancel),
    }


def _answer(value: object) -> bool | None:
    return value if isinstance(value, bool) else None


def _no_answer(failure: Failure) -> None:
    failure.trap(RequestFailed)


def _with_key(
    method: Callable[[bytes], Deferred[bool | None]], value: object
) -> Deferred[bool | None]:
    return method(bytes.fromhex(str(value)))
