"""The messages of protocol 3, found in a stream of bytes. Sans-I/O.

The one reader for what comes from a server: its first answer to a StartupMessage
(:mod:`pgtls.wire.first_answer`), its authentication requests
(:mod:`pgtls.wire.required_authentication`) and the start of a session
(:mod:`pgtls.wire.session_start`).

Source: PostgreSQL documentation, "Message Formats".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from struct import Struct

from pgtls.errors import ProtocolViolation

#: type byte and length word
_header = Struct(">BI").unpack_from
HEADER_SIZE = 5

AUTHENTICATION = ord("R")
ERROR_RESPONSE = ord("E")
BACKEND_KEY_DATA = ord("K")
NEGOTIATE_PROTOCOL_VERSION = ord("v")
READY_FOR_QUERY = ord("Z")
PARAMETER_STATUS = ord("S")

#: Greatest length words (they count themselves) that libpq takes: its MAX_ERRLEN, and its bound
#: for an authentication request. To a NegotiateProtocolVersion libpq allows 2000 too, but other
#: clients may have more parameters to be refused.
MAX_ERROR_LENGTH = 30000
MAX_AUTHENTICATION_LENGTH = 2000

#: The messages that may come before AuthenticationOk, with the bounds of their length words.
_AUTHENTICATION_PHASE = {
    AUTHENTICATION: (8, MAX_AUTHENTICATION_LENGTH),
    NEGOTIATE_PROTOCOL_VERSION: (8, MAX_ERROR_LENGTH),
    ERROR_RESPONSE: (8, MAX_ERROR_LENGTH),
}
_NO_LENGTH = (1, 0)


class MessageStream:
    """Splits a stream into messages: some are held until they are whole, the others pass through
    as they come.

    :param limits: the types that are held, each with the greatest length word of a message that is;
        a longer one passes through.
    :param whole: is given the type of each message that was held and the message, type byte
        included, and returns the bytes that pass in its place.
    :param begins: is given type and length word of each message, as soon as they are known; it may
        raise, and nothing of the message has passed then.
    :ivar done: nothing is looked at any more, everything passes; ``whole`` may set it.
    :ivar held: the beginning of a message whose rest is still to come.
    """

    __slots__ = ("_begins", "_limits", "_passing", "_whole", "done", "held")

    def __init__(
        self,
        limits: Mapping[int, int],
        whole: Callable[[int, bytes], bytes],
        begins: Callable[[int, int], None] | None = None,
    ) -> None:
        self.done = False
        self.held = b""
        self._limits = limits
        self._whole = whole
        self._begins = begins
        self._passing = 0  # bytes still to come of a message that passes through

    def receive(self, data: bytes) -> bytes:
        """Read on.

        :param data: more bytes.
        :returns: the bytes that pass. A length word that cannot be (less than its own four bytes)
            sets ``done``: this is not the protocol.
        :raises Exception: what ``whole`` or ``begins`` raised.
        """
        if self.done:
            return data
        if self.held:
            data = self.held + data
        size = len(data)
        limits, begins = self._limits, self._begins
        out: list[bytes] = []
        passed = 0  # up to here they are in ``out``
        at = self._passing  # here a message begins
        while at + HEADER_SIZE <= size:
            kind, length = _header(data, at)
            if begins is not None:
                begins(kind, length)
            end = at + 1 + length
            if length < 4:
                self.done = True
            elif kind in limits and length <= limits[kind]:
                if end > size:
                    break
                message = data[at:end]
                passes = self._whole(kind, message)
                if passes is not message:
                    out += data[passed:at], passes
                    passed = end
            if self.done:
                self.held = b""
                return b"".join(out) + data[passed:] if out else data
            at = end
        self._passing = max(at - size, 0)
        self.held = data[at:]
        return b"".join(out) + data[passed:at] if out else data[:at]


def check_authentication_phase(kind: int, length: int) -> None:
    """Whether a message may come before AuthenticationOk: libpq's rules for types and lengths in
    CONNECTION_AWAITING_RESPONSE (``src/interfaces/libpq/fe-connect.c``).

    :param kind: the type byte.
    :param length: the length word.
    :raises ProtocolViolation: it may not.
    :raises ProtocolTwoError: it is an ErrorResponse, but not one of protocol 3.
    """
    least, greatest = _AUTHENTICATION_PHASE.get(kind, _NO_LENGTH)
    if least <= length <= greatest:
        return
    check_authentication_type(kind)
    if kind == AUTHENTICATION:
        raise ProtocolViolation("received invalid authentication request")
    if kind == NEGOTIATE_PROTOCOL_VERSION:
        raise ProtocolViolation("received invalid protocol negotiation message")
    # What a server says before it knows the client's protocol (a failed fork): text without a
    # length. It decides nothing, so it is not shown either.
    raise ProtocolTwoError("server sent an error response in protocol 2's format")


def check_authentication_type(kind: int) -> None:
    """The same for the type byte alone.

    :param kind: the type byte.
    :raises ProtocolViolation: no message of this type may come.
    """
    if kind not in _AUTHENTICATION_PHASE:
        raise ProtocolViolation(
            "expected authentication request from server, but received "
            f"{printable_byte(bytes([kind]))}"
        )


class ProtocolTwoError(ProtocolViolation):
    """The answer is an error, but not one of protocol 3."""


def printable_byte(byte: bytes) -> str:
    """A byte that should not have come, for an error message.

    :param byte: exactly one byte.
    :returns: the ASCII character, or ``0x16`` where it cannot be printed.
    """
    text = byte.decode("ascii", "replace")
    return text if text.isascii() and text.isprintable() else f"0x{byte[0]:02X}"
