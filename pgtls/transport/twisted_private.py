"""What is private in Twisted and used here all the same, with what is done where it is gone.

Nothing else in pgtls uses such names.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from twisted.internet.epollreactor import EPollReactor

#: ``EPollReactor._poller`` is the reactor's epoll. ``ReactorBase._newTimedCalls`` are the timers
#: that have been set since the reactor has last looked, of which ``timeout()`` knows nothing yet.
_NAMES = ("_poller", "_newTimedCalls")


def can_wait_elsewhere(reactor: EPollReactor) -> bool:
    """Whether a reactor can be had to wait in another epoll.

    :param reactor: Twisted's on epoll.
    :returns: False where a Twisted of the future has other names: then it waits where it did.
    """
    return all(hasattr(reactor, name) for name in _NAMES)


def epoll_descriptor(reactor: EPollReactor) -> int:
    """The descriptor of a reactor's own epoll.

    :param reactor: Twisted's on epoll.
    :returns: a file descriptor.
    """
    descriptor: int = reactor._poller.fileno()
    return descriptor


def has_new_timers(reactor: EPollReactor) -> bool:
    """Whether timers have been set of which ``timeout()`` knows nothing yet.

    :param reactor: Twisted's on epoll.
    :returns: whether ``timeout()`` is to be asked again.
    """
    return bool(reactor._newTimedCalls)
