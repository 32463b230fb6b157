"""SCRAM channel binding where a gateway stands between client and server.

A channel is bound to the server's certificate (``tls-server-end-point``, RFC 5929): the client
takes it from its connection to the gateway, the server from the gateway's connection to it.
PostgreSQL's documentation, "SASL Authentication"; libpq's ``pg_SASL_init`` in
``src/interfaces/libpq/fe-auth.c``.

* Plaintext from the client, TLS to the server: libpq takes a mechanism with ``-PLUS`` offered
  without TLS for an attack. It is taken out of the offer.
* TLS on both connections, the same certificate: nothing to do.
* TLS on both connections, different certificates: nothing can be done here. A client that hides
  from the server that it could have bound the channel is refused too (the ``y`` flag, RFC 5802,
  section 6).
"""

from __future__ import annotations

from pgtls.wire.messages import ErrorResponse

_AUTHENTICATION_OK = b"\0\0\0\0"
_AUTHENTICATION_SASL = b"\0\0\0\x0a"
_PLUS = b"-PLUS"

#: SQLSTATE of a failed channel binding check; a wrong password has another.
INVALID_AUTHORIZATION = "28000"


class PlusWithheld:
    """For a client without TLS: the first offer of mechanisms goes on without ``-PLUS``."""

    def __init__(self) -> None:
        self._first = True

    def __call__(self, message: bytes) -> bytes:
        """Edit a message.

        :param message: a whole ``R`` or ``E`` message from the server.
        :returns: what the client gets in its place.
        """
        names = _mechanisms(message)
        if not names or not self._first:
            return message
        self._first = False
        kept = [name for name in names if not name.endswith(_PLUS)]
        return message if not kept or kept == names else _sasl(kept)


class RefusalExplained:
    """For TLS on both connections with different certificates: an error that refuses the binding
    gets a DETAIL and a HINT.

    :param cause: the DETAIL: what the client cannot know.
    """

    def __init__(self, cause: str) -> None:
        self._cause = cause
        self._offered = False

    def __call__(self, message: bytes) -> bytes:
        """Edit a message.

        :param message: a whole ``R`` or ``E`` message from the server.
        :returns: what the client gets in its place.
        """
        if any(name.endswith(_PLUS) for name in _mechanisms(message)):
            self._offered = True
        if message[:1] == b"R" and message[5:9] == _AUTHENTICATION_OK:
            self._offered = False  # a role that may not log in has the same SQLSTATE
        if message[:1] != b"E" or not self._offered:
            return message
        error = ErrorResponse.parse(message[5:], message)
        if error.sqlstate != INVALID_AUTHORIZATION:
            return message
        return ErrorResponse({**error.fields, "D": self._cause, "H": WAYS_OUT}).encode()


WAYS_OUT = (
    "Let gateway and server show the same certificate, let the gateway reach the server over a "
    "Unix socket or in plaintext on loopback, or set channel_binding=disable in the client."
)


def _mechanisms(message: bytes) -> list[bytes]:
    """What an AuthenticationSASL message offers; nothing for any other message."""
    body = message[5:]
    if message[:1] != b"R" or body[:4] != _AUTHENTICATION_SASL or body[-2:] != b"\0\0":
        return []
    return body[4:-2].split(b"\0")


def _sasl(names: list[bytes]) -> bytes:
    body = _AUTHENTICATION_SASL + b"".join(name + b"\0" for name in names) + b"\0"
    return b"R" + (4 + len(body)).to_bytes(4, "big") + body
