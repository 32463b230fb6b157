"""SCRAM-SHA-256 and SCRAM-SHA-256-PLUS, the server's role. Sans-I/O.

As ``src/backend/libpq/auth-scram.c`` and ``auth-sasl.c``, errors included: PostgreSQL's ERROR is
FATAL before a session has begun.
"""

from __future__ import annotations

import hmac
import re
from base64 import b64encode
from collections.abc import Callable
from enum import Enum
from hashlib import sha256

from pgtls.errors import PgTLSError
from pgtls.text import sasl_text
from pgtls.wire.messages import ErrorResponse
from pgtls.wire.scram import (
    BINDING_HEADER,
    SCRAM_SHA_256,
    SCRAM_SHA_256_PLUS,
    exclusive_or,
    make_nonce,
    scram_signature,
)
from pgtls.wire.scram_secret import KEY_LENGTH, ScramKeys, ScramSecret, decode_base64

#: Bytes of a SASL message's body at most: PG_MAX_SASL_MESSAGE_LENGTH.
MAX_SASL_MESSAGE_LENGTH = 1024

#: RFC 5802's "printable": ASCII except the comma.
_PRINTABLE = re.compile(r"[\x21-\x2b\x2d-\x7e]*")


class ScramRefused(PgTLSError):
    """The client is not authenticated.

    :ivar response: what the client gets to read.
    :ivar log_detail: what only the log gets to read; may be empty.
    """

    def __init__(self, response: ErrorResponse, log_detail: str = "") -> None:
        super().__init__(response.message)
        self.response = response
        self.log_detail = log_detail


def _malformed(detail: str) -> ScramRefused:
    return _violation("malformed SCRAM message", detail)


def _violation(message: str, detail: str = "", *, sqlstate: str = "08P01") -> ScramRefused:
    return ScramRefused(ErrorResponse.fatal(sqlstate, message, detail=detail))


def _character(text: str) -> str:
    """``sanitize_char``: the first character, for an error message."""
    code = ord(text[0]) if text else 0
    return f"'{text[0]}'" if 0x21 <= code <= 0x7E else f"0x{code:02x}"


def _value(text: str, name: str) -> tuple[str, str]:
    """``read_attr_value``: the value of the attribute that must come next.

    :returns: the value, and what follows its comma.
    :raises ScramRefused: another one comes, or none.
    """
    if text[:1] != name:
        raise _malformed(f'Expected attribute "{name}" but found "{_character(text)}".')
    return _any_value(text)[1:]


def _any_value(text: str) -> tuple[str, str, str]:
    """``read_any_attr``: the attribute that comes next, whichever it is.

    :returns: its name, its value, and what follows its comma.
    :raises ScramRefused: none comes.
    """
    if not text:
        raise _malformed("Attribute expected, but found end of string.")
    name = text[0]
    if not re.match("[A-Za-z]", name):
        raise _malformed(f'Attribute expected, but found invalid character "{_character(text)}".')
    if text[1:2] != "=":
        raise _malformed(f'Expected character "=" for attribute "{name}".')
    value, _, rest = text[2:].partition(",")
    return name, value, rest


class _ServerState(Enum):
    INITIAL_RESPONSE = 1
    FINAL_MESSAGE = 2
    DONE = 3


class ScramServer:
    """The server's role, for one client.

    :param role: the StartupMessage's user, for the error.
    :param secret: the role's; None for one that has none: the exchange then goes on as with any
        other role, and fails at its end as with a wrong password.
    :param mock_nonce: see :meth:`ScramSecret.mock`.
    :param certificate_hash: of this end's certificate, as RFC 5929 has it for
        ``tls-server-end-point``; None without TLS, or with a certificate that has no hash for it:
        then ``-PLUS`` is not offered.
    :param make_nonce: makes this end's part of the nonce.
    :ivar mechanism: what the client has chosen; empty before.
    :ivar keys: None until the client is authenticated; then the keys with which the gateway can
        log in as that role. Never shown.
    """

    def __init__(
        self,
        role: bytes,
        secret: ScramSecret | None,
        *,
        mock_nonce: bytes,
        certificate_hash: bytes | None,
        make_nonce: Callable[[], str] = make_nonce,
    ) -> None:
        self.mechanism = ""
        self.keys: ScramKeys | None = None
        self._role = role
        # Made in any case, so that both take the same time.
        mock = ScramSecret.mock(role, mock_nonce)
        self._doomed = secret is None
        self._secret = mock if secret is None else secret
        self._hash = certificate_hash
        self._make_nonce = make_nonce
        self._state = _ServerState.INITIAL_RESPONSE
        self._flag = ""
        self._client_first = self._client_nonce = self._server_first = self._nonce = ""

    @property
    def mechanisms(self) -> tuple[str, ...]:
        """What is offered, the preferred one first."""
        plus = (SCRAM_SHA_256_PLUS,) if self._hash is not None else ()
        return (*plus, SCRAM_SHA_256)

    @property
    def failure(self) -> ErrorResponse:
        """What a client reads whose password is wrong."""
        role = self._role.decode("utf-8", "replace")
        return ErrorResponse.fatal("28P01", f'password authentication failed for user "{role}"')

    def receive(self, body: bytes) -> bytes:
        """A ``p`` message from the client: SASLInitialResponse first, then SASLResponse.

        :param body: at most MAX_SASL_MESSAGE_LENGTH bytes; more are for the caller to refuse.
        :returns: what to send in AuthenticationSASLContinue; when :attr:`keys` is set, in
            AuthenticationSASLFinal.
        :raises ScramRefused: the client is not authenticated.
        """
        if self._state is _ServerState.INITIAL_RESPONSE:
            initial = self._initial_response(body)
            if initial is None:
                return b""  # the client waits for an empty challenge first
            body = initial
        text = _message_text(body)
        if self._state is not _ServerState.FINAL_MESSAGE:
            self._read_client_first(text)
            self._nonce = self._client_nonce + self._make_nonce()
            salt = b64encode(self._secret.salt).decode()
            self._server_first = f"r={self._nonce},s={salt},i={self._secret.iterations}"
            self._state = _ServerState.FINAL_MESSAGE
            return self._server_first.encode("latin-1")
        return self._read_client_final(text)

    def _initial_response(self, body: bytes) -> bytes | None:
        """The client's choice, and its client-first-message; None where it sends none yet."""
        if self.mechanism:
            return body  # the answer to an empty challenge
        name, nul, rest = body.partition(b"\0")
        if not nul:
            raise _violation("invalid string in message")
        mechanism = name.decode("latin-1")
        if mechanism not in self.mechanisms:
            raise _violation("client selected an invalid SASL authentication mechanism")
        if len(rest) < 4:
            raise _violation("insufficient data left in message")
        self.mechanism = mechanism
        length = int.from_bytes(rest[:4], "big", signed=True)
        if length == -1 and len(rest) == 4:
            return None
        if not 0 <= length <= len(rest) - 4:
            raise _violation("insufficient data left in message")
        if length != len(rest) - 4:
            raise _violation("invalid message format")
        return rest[4:]

    def _read_client_first(self, text: str) -> None:
        """``read_client_first_message``."""
        self._flag = text[:1]
        rest = self._behind_binding_flag(text)
        if rest[:1] == "a":
            raise _violation(
                "client uses authorization identity, but it is not supported", sqlstate="0A000"
            )
        if rest[:1] != ",":
            raise _malformed(f'Unexpected attribute "{_character(rest)}" in client-first-message.')
        self._client_first = rest = rest[1:]
        if rest[:1] == "m":
            raise _violation("client requires an unsupported SCRAM extension", sqlstate="0A000")
        _, rest = _value(rest, "n")  # the StartupMessage's user counts
        self._client_nonce, rest = _value(rest, "r")
        if not _PRINTABLE.fullmatch(self._client_nonce):
            raise _violation("non-printable characters in SCRAM nonce")
        while rest:
            _, _, rest = _any_value(rest)

    def _behind_binding_flag(self, text: str) -> str:
        """Check the gs2-cbind-flag (RFC 5802, section 6).

        :returns: what follows it and its comma.
        """
        plus = self.mechanism == SCRAM_SHA_256_PLUS
        if self._flag == "p":
            if not plus:
                raise _malformed(
                    "The client selected SCRAM-SHA-256 without channel binding, but the SCRAM "
                    "message includes channel binding data."
                )
            kind, rest = _value(text, "p")
            if kind != "tls-server-end-point":
                raise _violation(f'unsupported SCRAM channel-binding type "{sasl_text(kind)}"')
            return rest
        if self._flag not in ("n", "y"):
            raise _malformed(f'Unexpected channel-binding flag "{_character(text)}".')
        if plus:
            raise _malformed(
                "The client selected SCRAM-SHA-256-PLUS, but the SCRAM message does not include "
                "channel binding data."
            )
        if self._flag == "y" and self._hash is not None:
            raise _violation(
                "SCRAM channel binding negotiation error",
                "The client supports SCRAM channel binding but thinks the server does not.  "
                "However, this server does support channel binding.",
                sqlstate="28000",
            )
        if text[1:2] != ",":
            raise _malformed(f'Comma expected, but found character "{_character(text[1:])}".')
        return text[2:]

    def _read_client_final(self, text: str) -> bytes:
        """``read_client_final_message``, and what ``scram_exchange`` makes of it."""
        binding, rest = _value(text, "c")
        self._check_binding(binding)
        nonce, rest = _value(rest, "r")
        name = ""
        while name != "p":
            without_proof = text[: len(text) - len(rest) - 1]
            name, value, rest = _any_value(rest)
        try:
            proof = decode_base64(value)
        except ValueError:
            proof = b""
        if len(proof) != KEY_LENGTH:
            raise _malformed("Malformed proof in client-final-message.")
        if rest:
            raise _malformed("Garbage found at the end of client-final-message.")
        if not hmac.compare_digest(nonce.encode("latin-1"), self._nonce.encode("latin-1")):
            raise _violation("invalid SCRAM response", "Nonce does not match.")
        self._state = _ServerState.DONE
        return self._verified(proof, without_proof)

    def _check_binding(self, value: str) -> None:
        """The attribute ``c`` of the client-final-message.

        :raises ScramRefused: the channel is another one, or the flag is not that of before.
        """
        if self._flag == "p":
            expected = b64encode(BINDING_HEADER + (self._hash or b"")).decode()
            if value != expected:
                raise _violation("SCRAM channel binding check failed", sqlstate="28000")
        elif value != {"n": "biws", "y": "eSws"}[self._flag]:
            raise _violation("unexpected SCRAM channel-binding attribute in client-final-message")

    def _verified(self, proof: bytes, client_final: str) -> bytes:
        """Verify the proof, for a role without a secret too: both are to take the same time.

        :returns: the server-final-message.
        :raises ScramRefused: 28P01, as for any wrong password.
        """
        said = self._client_first, self._server_first, client_final
        client_key = exclusive_or(proof, scram_signature(self._secret.stored_key, *said))
        known = hmac.compare_digest(sha256(client_key).digest(), self._secret.stored_key)
        if not known or self._doomed:
            role = self._role.decode("utf-8", "replace")
            raise ScramRefused(
                self.failure,
                f'Role "{role}" has no secret in the auth_file.'
                if self._doomed
                else "The password does not match.",
            )
        self.keys = ScramKeys(client_key, self._secret.server_key)
        return b"v=" + b64encode(scram_signature(self._secret.server_key, *said))


def _message_text(body: bytes) -> str:
    """A SCRAM message, one character a byte.

    :raises ScramRefused: it is empty, or has a NUL byte in it.
    """
    if not body:
        raise _malformed("The message is empty.")
    if b"\0" in body:
        raise _malformed("Message length does not match input length.")
    return body.decode("latin-1")
