"""The states of a connection, and what leads from one to another.

::

    OPEN --- half_close ---> ENDING --- sent ---> ENDED
      \\                        |                   |
       `------- close ---------+-------------------+--> CLOSING --- lost ---> CLOSED

From every state, ``lost`` leads to CLOSED. What the table has not, changes nothing.
"""

from __future__ import annotations

from enum import Enum, auto


class State(Enum):
    """How far a connection's end has come, as far as it is ours; the peer's is apart from it."""

    OPEN = auto()
    ENDING = auto()  # half-closed when what is buffered has been sent
    ENDED = auto()  # half-closed: nothing more is sent
    CLOSING = auto()  # closed when what is buffered has been sent; nothing more is read
    CLOSED = auto()

    __hash__ = object.__hash__  # Enum's own is a function, and several are looked up each session


class Change(Enum):
    """What happens to a connection."""

    HALF_CLOSE = auto()
    SENT = auto()
    CLOSE = auto()
    LOST = auto()

    __hash__ = object.__hash__


TRANSITIONS: dict[tuple[State, Change], State] = {
    (State.OPEN, Change.HALF_CLOSE): State.ENDING,
    (State.ENDING, Change.SENT): State.ENDED,
    (State.OPEN, Change.CLOSE): State.CLOSING,
    (State.ENDING, Change.CLOSE): State.CLOSING,
    (State.ENDED, Change.CLOSE): State.CLOSING,
    (State.OPEN, Change.LOST): State.CLOSED,
    (State.ENDING, Change.LOST): State.CLOSED,
    (State.ENDED, Change.LOST): State.CLOSED,
    (State.CLOSING, Change.LOST): State.CLOSED,
}
