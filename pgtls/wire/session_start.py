"""The beginning of a session as it comes from the server, watched on its way to the client.

From the first answer to ReadyForQuery the messages are looked at. Those that matter are held until
they are whole; the others pass through as they come. Sans-I/O.

Source: PostgreSQL documentation, "Message Flow", "Start-up".
"""

from __future__ import annotations

from collections.abc import Callable
from struct import Struct

from pgtls.wire.first_answer import AUTHENTICATION_LENGTHS, MAX_ERROR_LENGTH
from pgtls.wire.messages import MAX_CANCEL_KEY_LENGTH, ErrorResponse

#: type byte and length word
_header = Struct(">BI").unpack_from
_HEADER_SIZE = 5

#: The messages that are held, with the greatest length word that makes sense for each.
_HELD = {
    ord("R"): AUTHENTICATION_LENGTHS[-1],
    ord("K"): 8 + MAX_CANCEL_KEY_LENGTH,
    ord("E"): MAX_ERROR_LENGTH,
}
_READY_FOR_QUERY = ord("Z")


class SessionStart:
    """Watches the server's messages until ReadyForQuery.

    :param edit: is given each whole ``R`` and ``E`` message and returns it as it is to go on.
    :ivar done: nothing more to see here; the stream goes on unwatched.
    :ivar key: process ID and secret key of the session, once BackendKeyData came; else empty.
    :ivar error: the last ErrorResponse, None where there was none.
    """

    def __init__(self, edit: Callable[[bytes], bytes] | None = None) -> None:
        self.done = False
        self.key = b""
        self.error: ErrorResponse | None = None
        self._edit = edit
        self._held = b""  # the beginning of a message that must be whole
        self._passing = 0  # bytes still to come of a message that passes through

    def receive(self, data: bytes) -> bytes:
        """More bytes from the server.

        :returns: the bytes to send on: all of them, at the latest when their message is complete.
        """
        if self.done:
            return data
        data = self._held + data
        size = len(data)
        out: list[bytes] = []
        gone = 0  # up to here they are in ``out``
        at = self._passing  # here a message begins
        while at + _HEADER_SIZE <= size:
            kind, length = _header(data, at)
            if kind == _READY_FOR_QUERY or length < 4:
                self.done = True  # or this is not the protocol at all: not ours to judge
                self._held = b""
                return b"".join(out) + data[gone:]
            end = at + 1 + length
            if length <= _HELD.get(kind, 0):
                if end > size:
                    break
                out += data[gone:at], self._whole(kind, data[at:end])
                gone = end
            at = end
        self._passing = max(at - size, 0)
        self._held = data[at:]
        return b"".join(out) + data[gone:at]

    def _whole(self, kind: int, message: bytes) -> bytes:
        """One of those that are held."""
        content = message[_HEADER_SIZE:]
        if kind == ord("K"):
            self.key = content
            return message
        if kind == ord("E"):
            self.error = ErrorResponse.parse(content, message)
        return message if self._edit is None else self._edit(message)
