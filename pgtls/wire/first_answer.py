"""The server's first answer to a StartupMessage: let in, asked for more, or an error.

libpq's CONNECTION_AWAITING_RESPONSE, with its limits on lengths. NegotiateProtocolVersion may come
first and is passed on with the rest.
"""

from __future__ import annotations

from enum import Enum, auto

from pgtls.errors import ProtocolViolation
from pgtls.wire.messages import ErrorResponse

#: libpq's MAX_ERRLEN, and its bounds for an authentication request's length word. To a
#: NegotiateProtocolVersion libpq allows 2000 too, but other clients may have more parameters to
#: be refused.
MAX_ERROR_LENGTH = 30000
AUTHENTICATION_LENGTHS = range(8, 2001)


_NO_ERROR = ErrorResponse({})


class ProtocolTwoError(ProtocolViolation):
    """The answer is an error, but not one of protocol 3."""


class Answer(Enum):
    """What the first answer is."""

    OK = auto()
    AUTHENTICATION_REQUEST = auto()
    ERROR = auto()


class FirstAnswer:
    """Collects bytes until the first answer is known.

    :ivar received: all bytes so far, at most one message and one chunk beyond the limits above.
    :ivar error: the ErrorResponse, once the answer is :attr:`Answer.ERROR`.
    :ivar newest: the newest protocol version that the server knows, where it knows less than was
        asked for (NegotiateProtocolVersion); else None.
    """

    def __init__(self) -> None:
        self.received = b""
        self.error = _NO_ERROR
        self.newest: tuple[int, int] | None = None
        self._offset = 0  # where the message that decides begins

    def receive(self, data: bytes) -> Answer | None:
        """More bytes from the server.

        :returns: the answer, None while it is incomplete.
        :raises ProtocolViolation: something else came, or a length that cannot be.
        :raises ProtocolTwoError: an error came that has no length.
        """
        self.received += data
        while True:
            message = self.received[self._offset :]
            if not message:
                return None
            kind = message[:1]
            if kind not in b"REv":
                raise ProtocolViolation(
                    f"expected authentication request from server, but received {shown(kind)}"
                )
            if len(message) < 5:
                return None
            length = int.from_bytes(message[1:5], "big")
            self._check_length(kind, length)
            if kind == b"R" and len(message) >= 9:
                return Answer.AUTHENTICATION_REQUEST if any(message[5:9]) else Answer.OK
            if kind == b"R" or len(message) < 1 + length:
                return None
            if kind == b"E":
                self.error = ErrorResponse.parse(message[5 : 1 + length], message[: 1 + length])
                return Answer.ERROR
            if self._offset:
                raise ProtocolViolation("received duplicate protocol negotiation message")
            self.newest = (
                int.from_bytes(message[5:7], "big"),
                int.from_bytes(message[7:9], "big"),
            )
            self._offset += 1 + length

    @staticmethod
    def _check_length(kind: bytes, length: int) -> None:
        if kind == b"R" and length not in AUTHENTICATION_LENGTHS:
            raise ProtocolViolation("received invalid authentication request")
        if kind == b"v" and not 8 <= length <= MAX_ERROR_LENGTH:
            raise ProtocolViolation("received invalid protocol negotiation message")
        if kind == b"E" and not 8 <= length <= MAX_ERROR_LENGTH:
            # What a server says before it knows the client's protocol (a failed fork): text
            # without a length. It decides nothing, so it is not shown either.
            raise ProtocolTwoError("server sent an error response in protocol 2's format")


def shown(byte: bytes) -> str:
    """A single byte that should not have come, for an error message."""
    text = byte.decode("ascii", "replace")
    return text if text.isascii() and text.isprintable() else f"0x{byte[0]:02X}"
