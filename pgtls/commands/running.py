"""Work with the reactor, for a command that does other things too."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.task import react

from pgtls.daemon.monotonic_clock import use_monotonic_clock
from pgtls.transport.reactor import IReactor

T = TypeVar("T")


def run(main: Callable[[IReactor], Coroutine[Deferred[object], object, T]]) -> T:
    """Run a coroutine function, which is given the reactor, to its end. Once in a process.

    :param main: the coroutine function.
    :returns: what it returns.
    :raises Exception: what it raises.
    """
    results: list[T] = []
    errors: list[Exception] = []

    async def kept(reactor: IReactor) -> None:
        use_monotonic_clock(reactor)  # the process is ours alone
        try:
            results.append(await main(reactor))
        except Exception as error:
            errors.append(error)

    try:
        react(lambda reactor: Deferred.fromCoroutine(kept(reactor)))
    except SystemExit:  # react()'s way to end; ours is the caller's matter
        if not results and not errors:
            raise
    if errors:
        raise errors[0]
    return results[0]
