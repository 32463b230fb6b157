"""What may take long, such as a look at files of a server that does not answer."""

from __future__ import annotations

from collections.abc import Callable
from threading import Thread
from typing import TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorFromThreads
from twisted.python.failure import Failure

T = TypeVar("T")


def in_background(reactor: IReactorFromThreads, do: Callable[[], T]) -> Deferred[T]:
    """Do something in a thread of its own, which the end of the process does not wait for, as it
    does for those of the reactor.

    :param reactor: Twisted's reactor.
    :param do: what to do.
    :returns: fires with what it returns, or fails with what it raises.
    """
    done: Deferred[T] = Deferred()

    def run() -> None:
        try:
            result: T | Failure = do()
        except Exception:
            result = Failure()
        reactor.callFromThread(done.callback, result)

    Thread(target=run, name="pgtls files", daemon=True).start()
    return done
