"""SCRAM-SHA-256 and SCRAM-SHA-256-PLUS, the client's role, and what both roles share. Sans-I/O.

As ``src/interfaces/libpq/fe-auth-scram.c``, errors included; the server's role is in
:mod:`pgtls.wire.scram_server`. RFC 5802, RFC 7677; RFC 5929 for ``tls-server-end-point``.

Both roles take and give the bodies of messages: what stands behind the length word.
"""

from __future__ import annotations

import hmac
import re
import secrets
from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from pgtls.errors import NegotiationRefused, ProtocolViolation
from pgtls.text import sasl_text
from pgtls.wire.scram_secret import KEY_LENGTH, ScramKeys, ScramSecret, decode_base64

SCRAM_SHA_256 = "SCRAM-SHA-256"
SCRAM_SHA_256_PLUS = "SCRAM-SHA-256-PLUS"

#: Random bytes of a nonce: SCRAM_RAW_NONCE_LEN.
_NONCE_LENGTH = 18

#: RFC 5802's gs2-header of SCRAM-SHA-256-PLUS.
BINDING_HEADER = b"p=tls-server-end-point,,"


def make_nonce() -> str:
    """A new nonce: _NONCE_LENGTH random bytes in base64.

    :returns: 24 characters.
    """
    return b64encode(secrets.token_bytes(_NONCE_LENGTH)).decode()


def scram_signature(key: bytes, client_first: str, server_first: str, client_final: str) -> bytes:
    """RFC 5802's ClientSignature or ServerSignature over the AuthMessage.

    :param key: StoredKey or ServerKey, KEY_LENGTH bytes.
    :param client_first: client-first-message-bare, one character a byte.
    :param server_first: server-first-message, likewise.
    :param client_final: client-final-message-without-proof, likewise.
    :returns: KEY_LENGTH bytes.
    """
    message = f"{client_first},{server_first},{client_final}"
    return hmac.digest(key, message.encode("latin-1"), "sha256")


def exclusive_or(left: bytes, right: bytes) -> bytes:
    """Two values of the same length, combined bit by bit.

    :param left: bytes.
    :param right: as many.
    :returns: as many.
    """
    return bytes(a ^ b for a, b in zip(left, right, strict=True))


#: Gives the keys for a salt and an iteration count that a server has sent.
KeySource = Callable[[bytes, int], ScramKeys]


class StaleSecret(NegotiationRefused):
    """The server has another salt or iteration count than the secret that is known here: the
    password was changed since."""


@dataclass(frozen=True, slots=True)
class KnownKeys:
    """A :data:`KeySource`: keys that hold for one secret only, since no password is known.

    :ivar secret: the secret that the keys belong to.
    :ivar keys: its keys.
    """

    secret: ScramSecret
    keys: ScramKeys

    def __call__(self, salt: bytes, iterations: int) -> ScramKeys:
        """The keys, if they are those of the server's secret.

        :param salt: the server's.
        :param iterations: the server's.
        :returns: the keys.
        :raises StaleSecret: the server's secret is another one.
        """
        if (salt, iterations) != (self.secret.salt, self.secret.iterations):
            raise StaleSecret("the server has another SCRAM secret for the role")
        return self.keys


class _ClientState(Enum):
    FIRST_MESSAGE = 1
    SERVER_FIRST = 2
    SERVER_FINAL = 3
    DONE = 4


class ScramClient:
    """The client's role, for one server.

    :param keys: gives the keys for the server's salt and iteration count.
    :param certificate_hash: of the server's certificate, as RFC 5929 has it for
        ``tls-server-end-point``: ``SCRAM-SHA-256-PLUS`` is used. None: ``SCRAM-SHA-256``.
    :param could_bind: with ``certificate_hash`` None: whether this end supports channel binding and
        the server did not offer it (the flag ``y``), else ``n``.
    :param make_nonce: makes this end's part of the nonce.
    :ivar done: the server has proved that it knows the secret.
    """

    def __init__(
        self,
        keys: KeySource,
        *,
        certificate_hash: bytes | None = None,
        could_bind: bool = False,
        make_nonce: Callable[[], str] = make_nonce,
    ) -> None:
        self.done = False
        self.mechanism = SCRAM_SHA_256 if certificate_hash is None else SCRAM_SHA_256_PLUS
        self._key_source = keys
        self._keys: ScramKeys | None = None
        self._hash = certificate_hash or b""
        if certificate_hash is not None:
            self._header = BINDING_HEADER
        else:
            self._header = b"y,," if could_bind else b"n,,"
        self._nonce = make_nonce()
        self._client_first = f"n=,r={self._nonce}"
        self._server_first = self._client_final = ""
        self._state = _ClientState.FIRST_MESSAGE

    def initial_response(self) -> bytes:
        """The body of SASLInitialResponse.

        :returns: the mechanism and the client-first-message.
        """
        self._state = _ClientState.SERVER_FIRST
        first = self._header + self._client_first.encode()
        return self.mechanism.encode() + b"\0" + len(first).to_bytes(4, "big") + first

    def receive_continue(self, data: bytes) -> bytes:
        """The data of AuthenticationSASLContinue.

        :param data: the server-first-message.
        :returns: the body of SASLResponse: the client-final-message with the proof.
        :raises ProtocolViolation: it is malformed, or out of place.
        :raises StaleSecret: see :class:`KnownKeys`.
        """
        if self._state is not _ClientState.SERVER_FIRST:
            raise ProtocolViolation("invalid SCRAM exchange state")
        text = _client_text(data)
        nonce, rest = _server_value(text, "r")
        if not nonce.startswith(self._nonce):
            raise ProtocolViolation("invalid SCRAM response (nonce mismatch)")
        encoded, rest = _server_value(rest, "s")
        try:
            salt = decode_base64(encoded)
        except ValueError:
            raise ProtocolViolation("malformed SCRAM message (invalid salt)") from None
        iterations, rest = _server_value(rest, "i")
        if not re.fullmatch(r"[0-9]{1,9}", iterations) or int(iterations) < 1:
            raise ProtocolViolation("malformed SCRAM message (invalid iteration count)")
        if rest:
            raise ProtocolViolation(
                "malformed SCRAM message (garbage at end of server-first-message)"
            )
        self._server_first = text
        return self._final_message(nonce, self._key_source(salt, int(iterations)))

    def _final_message(self, nonce: str, keys: ScramKeys) -> bytes:
        self._keys = keys
        self._client_final = f"c={b64encode(self._header + self._hash).decode()},r={nonce}"
        signature = scram_signature(
            keys.stored_key, self._client_first, self._server_first, self._client_final
        )
        proof = b64encode(exclusive_or(keys.client_key, signature)).decode()
        self._state = _ClientState.SERVER_FINAL
        return f"{self._client_final},p={proof}".encode("latin-1")

    def receive_final(self, data: bytes) -> None:
        """The data of AuthenticationSASLFinal.

        :param data: the server-final-message.
        :raises ProtocolViolation: it is malformed, or out of place.
        :raises NegotiationRefused: the server does not know the secret, or refuses.
        """
        if self._state is not _ClientState.SERVER_FINAL or self._keys is None:
            raise ProtocolViolation("invalid SCRAM exchange state")
        self._state = _ClientState.DONE
        text = _client_text(data)
        if text[:1] == "e":
            error, _ = _server_value(text, "e")
            raise NegotiationRefused(
                f"error received from server in SCRAM exchange: {sasl_text(error)}"
            )
        encoded, rest = _server_value(text, "v")
        if rest:
            raise ProtocolViolation(
                "malformed SCRAM message (garbage at end of server-final-message)"
            )
        try:
            signature = decode_base64(encoded)
        except ValueError:
            signature = b""
        if len(signature) != KEY_LENGTH:
            raise ProtocolViolation("malformed SCRAM message (invalid server signature)")
        expected = scram_signature(
            self._keys.server_key, self._client_first, self._server_first, self._client_final
        )
        if not hmac.compare_digest(signature, expected):
            raise NegotiationRefused("incorrect server signature")
        self.done = True


def _client_text(data: bytes) -> str:
    """A server's SCRAM message, one character a byte.

    :raises ProtocolViolation: it is empty, or has a NUL byte in it.
    """
    if not data:
        raise ProtocolViolation("malformed SCRAM message (empty message)")
    if b"\0" in data:
        raise ProtocolViolation("malformed SCRAM message (length mismatch)")
    return data.decode("latin-1")


def _server_value(text: str, name: str) -> tuple[str, str]:
    """libpq's ``read_attr_value``.

    :returns: the value, and what follows its comma.
    :raises ProtocolViolation: another attribute comes next.
    """
    if text[:1] != name:
        raise ProtocolViolation(f'malformed SCRAM message (attribute "{name}" expected)')
    if text[1:2] != "=":
        raise ProtocolViolation(
            f'malformed SCRAM message (expected character "=" for attribute "{name}")'
        )
    value, _, rest = text[2:].partition(",")
    return value, rest
