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


# In Python 3.11 each look at an enumeration's member by its class is a call.
OPEN, ENDING, ENDED, CLOSING, CLOSED = State
HALF_CLOSE, SENT, CLOSE, LOST = Change

TRANSITIONS: dict[tuple[State, Change], State] = {
    (OPEN, HALF_CLOSE): ENDING,
    (ENDING, SENT): ENDED,
    (OPEN, CLOSE): CLOSING,
    (ENDING, CLOSE): CLOSING,
    (ENDED, CLOSE): CLOSING,
    (OPEN, LOST): CLOSED,
    (ENDING, LOST): CLOSED,
    (ENDED, LOST): CLOSED,
    (CLOSING, LOST): CLOSED,
}
