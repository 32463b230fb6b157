"""The server's first answer to a StartupMessage: AuthenticationOk, a request, or an error.

libpq's CONNECTION_AWAITING_RESPONSE (``src/interfaces/libpq/fe-connect.c``), with its limits on
lengths. NegotiateProtocolVersion may come first and is passed on with the rest. Sans-I/O.
"""

from __future__ import annotations

from enum import Enum, auto

from pgtls.errors import ProtocolViolation
from pgtls.wire.authentication import AuthenticationRequest
from pgtls.wire.message_stream import (
    AUTHENTICATION,
    ERROR_RESPONSE,
    HEADER_SIZE,
    MAX_AUTHENTICATION_LENGTH,
    MAX_ERROR_LENGTH,
    NEGOTIATE_PROTOCOL_VERSION,
    MessageStream,
    check_authentication_phase,
    check_authentication_type,
)
from pgtls.wire.messages import ErrorResponse

_LIMITS = {
    AUTHENTICATION: MAX_AUTHENTICATION_LENGTH,
    ERROR_RESPONSE: MAX_ERROR_LENGTH,
    NEGOTIATE_PROTOCOL_VERSION: MAX_ERROR_LENGTH,
}

_NO_ERROR = ErrorResponse({})


class Answer(Enum):
    """What the first answer is."""

    OK = auto()
    AUTHENTICATION_REQUEST = auto()
    ERROR = auto()


_OK, _AUTHENTICATION_REQUEST, _ERROR = Answer  # see pgtls.wire.server_negotiation


class FirstAnswer:
    """Collects bytes until the first answer is known.

    :ivar received: all bytes so far, at most two messages of MAX_ERROR_LENGTH and one chunk beyond.
    :ivar error: the ErrorResponse, once the answer is :attr:`Answer.ERROR`.
    :ivar newest: the newest protocol version that the server knows, where it knows less than was
        asked for (NegotiateProtocolVersion); else None.
    """

    def __init__(self) -> None:
        self.received = b""
        self.error = _NO_ERROR
        self.newest: tuple[int, int] | None = None
        self._answer: Answer | None = None
        self._request = b""
        self._messages = MessageStream(_LIMITS, self._whole, check_authentication_phase)

    def receive(self, data: bytes) -> Answer | None:
        """Read on.

        :param data: more bytes from the server.
        :returns: the answer, None while it is incomplete.
        :raises ProtocolViolation: something else came, or a length that cannot be.
        :raises ProtocolTwoError: an error came that has no length.
        """
        self.received += data
        self._messages.receive(data)
        if self._answer is None and self._messages.held:
            check_authentication_type(self._messages.held[0])
        return self._answer

    def _whole(self, kind: int, message: bytes) -> bytes:
        if kind == NEGOTIATE_PROTOCOL_VERSION:
            if self.newest is not None:
                raise ProtocolViolation("received duplicate protocol negotiation message")
            self.newest = (
                int.from_bytes(message[5:7], "big"),
                int.from_bytes(message[7:9], "big"),
            )
            return message
        self._messages.done = True
        if kind == ERROR_RESPONSE:
            self.error = ErrorResponse.parse(message[HEADER_SIZE:], message)
            self._answer = _ERROR
        else:
            self._request = message
            asked = any(message[HEADER_SIZE : HEADER_SIZE + 4])
            self._answer = _AUTHENTICATION_REQUEST if asked else _OK
        return message

    @property
    def request(self) -> AuthenticationRequest | None:
        """What is asked for; None where the answer is not known, or is an error."""
        return AuthenticationRequest.parse(self._request) if self._request else None
