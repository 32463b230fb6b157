"""The beginning of a session as it comes from the server, watched on its way to the client.

From the first answer to ReadyForQuery the messages are looked at, not held back: what is needed of
them is the BackendKeyData, so that a CancelRequest finds its way. Sans-I/O.

Source: PostgreSQL documentation, "Message Flow", "Start-up".
"""

from __future__ import annotations

from pgtls.wire.messages import MAX_CANCEL_KEY_LENGTH

_READY_FOR_QUERY = ord("Z")
_BACKEND_KEY_DATA = ord("K")

#: type byte and length word
_HEADER = 5


class SessionStart:
    """Watches the server's messages until ReadyForQuery.

    :ivar done: nothing more to see here; the stream goes on unwatched.
    :ivar key: process ID and secret key of the session, once BackendKeyData came; else empty.
    """

    def __init__(self) -> None:
        self.done = False
        self.key = b""
        self._held = b""  # of a message that must be whole, what has come
        self._passing = 0  # of a message that passes through, what is still to come

    def receive(self, data: bytes) -> bytes:
        """More bytes from the server.

        :returns: the bytes to send on: all of them, at the latest when their message is complete.
        """
        out = []
        data = self._held + data
        self._held = b""
        while data and not self.done:
            if self._passing:
                out.append(data[: self._passing])
                passed = len(out[-1])
                self._passing -= passed
                data = data[passed:]
                continue
            if len(data) < _HEADER:
                self._held, data = data, b""
                break
            kind, length = data[0], int.from_bytes(data[1:5], "big")
            if kind == _BACKEND_KEY_DATA and 8 <= length <= 8 + MAX_CANCEL_KEY_LENGTH:
                if len(data) < 1 + length:
                    self._held, data = data, b""
                    break
                self.key = data[_HEADER : 1 + length]
            if kind == _READY_FOR_QUERY or length < 4:
                self.done = True  # or not the protocol at all: not ours to judge
            else:
                self._passing = 1 + length
        return b"".join(out) + data
