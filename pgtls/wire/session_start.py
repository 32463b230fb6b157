"""The beginning of a session as it comes from the server, watched on its way to the client.

From the first answer to ReadyForQuery the messages are looked at. Those that matter are held until
they are whole; the others pass through as they come. Sans-I/O.

Source: PostgreSQL documentation, "Message Flow", "Start-up".
"""

from __future__ import annotations

from collections.abc import Callable

from pgtls.wire.first_answer import AUTHENTICATION_LENGTHS, MAX_ERROR_LENGTH
from pgtls.wire.messages import MAX_CANCEL_KEY_LENGTH, ErrorResponse

#: type byte and length word
_HEADER = 5

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
        data = self._held + data
        self._held = b""
        out: list[bytes] = []
        while data and not self.done:
            length = min(self._passing, len(data)) or self._message(data)
            if not length:
                self._held = data
                return b"".join(out)
            piece, data = data[:length], data[length:]
            if self._passing:
                self._passing -= length
            else:
                piece = self._whole(piece)
            out.append(piece)
        return b"".join(out) + data

    def _message(self, data: bytes) -> int:
        """Look at the message that ``data`` begins with.

        :returns: how many bytes of it may go on now; 0 where more of it must come first.
        """
        if len(data) < _HEADER:
            return 0
        length = int.from_bytes(data[1:_HEADER], "big")
        if data[0] == _READY_FOR_QUERY or length < 4:
            self.done = True  # or this is not the protocol at all: not ours to judge
            return len(data)
        if length <= _HELD.get(data[0], 0):
            return 1 + length if len(data) > length else 0
        self._passing = 1 + length
        return min(self._passing, len(data))

    def _whole(self, message: bytes) -> bytes:
        if self.done:
            return message
        kind = message[0]
        if kind == ord("K"):
            self.key = message[_HEADER:]
        elif kind in b"RE":
            if kind == ord("E"):
                self.error = ErrorResponse.parse(message[_HEADER:], message)
            if self._edit is not None:
                return self._edit(message)
        return message
