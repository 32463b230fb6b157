"""The beginning of a session as it comes from the server, watched on its way to the client.

From the first answer to ReadyForQuery the messages are looked at. Those that matter are held until
they are whole; the others pass through as they come. Sans-I/O.

Source: PostgreSQL documentation, "Message Flow", "Start-up".
"""

from __future__ import annotations

from pgtls.wire.first_answer import MAX_ERROR_LENGTH
from pgtls.wire.messages import MAX_CANCEL_KEY_LENGTH, ErrorResponse

#: type byte and length word
_HEADER = 5

#: The messages that are held, with the greatest length word that makes sense for each.
_HELD = {ord("K"): 8 + MAX_CANCEL_KEY_LENGTH, ord("E"): MAX_ERROR_LENGTH}
_READY_FOR_QUERY = ord("Z")


class SessionStart:
    """Watches the server's messages until ReadyForQuery.

    :ivar done: nothing more to see here; the stream goes on unwatched.
    :ivar key: process ID and secret key of the session, once BackendKeyData came; else empty.
    :ivar error: the last ErrorResponse, None where there was none.
    """

    def __init__(self) -> None:
        self.done = False
        self.key = b""
        self.error: ErrorResponse | None = None
        self._held = b""  # the beginning of a message that must be whole
        self._passing = 0  # bytes still to come of a message that passes through

    def receive(self, data: bytes) -> bytes:
        """More bytes from the server.

        :returns: the bytes to send on: all of them, at the latest when their message is complete.
        """
        data = self._held + data
        self._held = b""
        position = 0
        while position < len(data) and not self.done:
            if self._passing:
                step = min(self._passing, len(data) - position)
                self._passing -= step
            else:
                step = self._message(data, position)
                if not step:
                    self._held = data[position:]
                    return data[:position]
            position += step
        return data

    def _message(self, data: bytes, start: int) -> int:
        """Look at the message that begins at ``start``.

        :returns: how many of its bytes may go on; 0 where it must wait for more.
        """
        if len(data) - start < _HEADER:
            return 0
        kind = data[start]
        length = int.from_bytes(data[start + 1 : start + _HEADER], "big")
        if kind == _READY_FOR_QUERY or length < 4:
            self.done = True  # or this is not the protocol at all: not ours to judge
            return len(data) - start
        end = start + 1 + length
        if 4 < length <= _HELD.get(kind, 0):
            if len(data) < end:
                return 0
            self._whole(kind, data[start:end])
            return end - start
        self._passing = 1 + length - _HEADER
        return _HEADER

    def _whole(self, kind: int, message: bytes) -> None:
        if kind == ord("K"):
            self.key = message[_HEADER:]
        else:
            self.error = ErrorResponse.parse(message[_HEADER:], message)
