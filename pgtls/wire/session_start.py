"""A session's messages from the server until the first ReadyForQuery, read on their way to the
client. Sans-I/O.

Those that matter (authentication requests, errors, BackendKeyData) are held until they are whole;
the others pass through as they come.

Source: PostgreSQL documentation, "Message Flow", "Start-up".
"""

from __future__ import annotations

from collections.abc import Callable

from pgtls.wire.message_stream import (
    AUTHENTICATION,
    BACKEND_KEY_DATA,
    ERROR_RESPONSE,
    HEADER_SIZE,
    MAX_AUTHENTICATION_LENGTH,
    MAX_ERROR_LENGTH,
    PARAMETER_STATUS,
    READY_FOR_QUERY,
    MessageStream,
)
from pgtls.wire.messages import MAX_CANCEL_KEY_LENGTH, ErrorResponse
from pgtls.wire.session_attributes import ANY, SessionAttributes, TargetSessionAttrs

#: The messages that are held, with the greatest length word that makes sense for each.
_LIMITS = {
    AUTHENTICATION: MAX_AUTHENTICATION_LENGTH,
    BACKEND_KEY_DATA: 8 + MAX_CANCEL_KEY_LENGTH,
    ERROR_RESPONSE: MAX_ERROR_LENGTH,
    READY_FOR_QUERY: 5,
}

#: The same where the session's attributes matter.
_WITH_PARAMETERS = {**_LIMITS, PARAMETER_STATUS: 1000}


#: The body of an AuthenticationOk message.
AUTHENTICATION_OK = bytes(4)


class SessionStart:
    """Watches the server's messages until ReadyForQuery.

    :param edit: is given each whole ``R`` and ``E`` message and returns it as it is to go on.
    :param target: which session it must be.
    :ivar key: process ID and secret key of the session, once BackendKeyData came; else empty.
    :ivar authenticated: AuthenticationOk has come.
    :ivar error: the last ErrorResponse, None where there was none.
    :ivar mismatch: why it is not that session, in libpq's words, where the server reports it
        (PostgreSQL 14 and later); ReadyForQuery does not go on then.
    """

    authenticated = False
    mismatch: str | None = None

    def __init__(
        self,
        edit: Callable[[bytes], bytes] | None = None,
        target: TargetSessionAttrs = ANY,
    ) -> None:
        self.key = b""
        self.error: ErrorResponse | None = None
        self._edit = edit
        self._target = target
        limits = _LIMITS
        if target is not ANY:
            self._attributes = SessionAttributes()
            limits = _WITH_PARAMETERS
        self._messages = MessageStream(limits, self._whole)

    @property
    def done(self) -> bool:
        """ReadyForQuery has come: what follows passes unread."""
        return self._messages.done

    @property
    def held(self) -> bytes:
        """The beginning of a message whose rest is still to come."""
        return self._messages.held

    def receive(self, data: bytes) -> bytes:
        """Read on.

        :param data: more bytes from the server.
        :returns: the bytes to send on: all of them, at the latest when their message is complete.
        """
        return self._messages.receive(data)

    def _whole(self, kind: int, message: bytes) -> bytes:
        """One of those that are held."""
        if kind == READY_FOR_QUERY:
            self._messages.done = True
            if self._target is not ANY:
                self.mismatch = self._target.mismatch(self._attributes)
            return message if self.mismatch is None else b""
        content = message[HEADER_SIZE:]
        if kind == BACKEND_KEY_DATA:
            self.key = content
            return message
        if kind == PARAMETER_STATUS:
            self._attributes = self._attributes.with_parameter(content)
            return message
        if kind == ERROR_RESPONSE:
            self.error = ErrorResponse.parse(content, message)
        elif content[:4] == AUTHENTICATION_OK:
            self.authenticated = True
        return message if self._edit is None else self._edit(message)
