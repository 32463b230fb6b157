"""SCRAM secrets as PostgreSQL stores them in ``pg_authid.rolpassword``, and the keys behind them.

Source: RFC 5802, section 3 (the keys), RFC 7677 (SHA-256); ``parse_scram_secret`` in
``src/backend/libpq/auth-scram.c``; RFC 4013 and ``pg_saslprep`` in ``src/common/saslprep.c``.
"""

from __future__ import annotations

import binascii
import hashlib
import hmac
import re
import stringprep
import unicodedata
from base64 import b64encode
from dataclasses import dataclass, field

#: Bytes of a SHA-256 key.
KEY_LENGTH = 32

#: PostgreSQL's default of ``scram_iterations``, and what a mock secret has.
DEFAULT_ITERATIONS = 4096

#: Bytes of a salt that PostgreSQL makes.
SALT_LENGTH = 16

#: ``strtol`` reads the iteration count into an int.
_MAX_ITERATIONS = 2**31 - 1


@dataclass(frozen=True, slots=True)
class ScramKeys:
    """The keys that prove one's identity: a client's to the server, the server's to the client.

    :ivar client_key: RFC 5802's ClientKey, KEY_LENGTH bytes. Never shown.
    :ivar server_key: RFC 5802's ServerKey, KEY_LENGTH bytes. Never shown.
    """

    client_key: bytes = field(repr=False)
    server_key: bytes = field(repr=False)

    @property
    def stored_key(self) -> bytes:
        """RFC 5802's StoredKey, KEY_LENGTH bytes: what a server compares with."""
        return hashlib.sha256(self.client_key).digest()

    @classmethod
    def derive(cls, password: str | bytes, salt: bytes, iterations: int) -> ScramKeys:
        """Make the keys from a password, which takes some milliseconds.

        :param password: as the user types it; bytes that are not UTF-8 count as they are.
        :param salt: any number of bytes.
        :param iterations: of PBKDF2, 1 or more.
        :returns: the keys.
        """
        salted = hashlib.pbkdf2_hmac("sha256", saslprep(password), salt, iterations)
        return cls(
            hmac.digest(salted, b"Client Key", "sha256"),
            hmac.digest(salted, b"Server Key", "sha256"),
        )


@dataclass(frozen=True, slots=True)
class ScramSecret:
    """What a server knows of a role's password.

    :ivar iterations: of PBKDF2.
    :ivar salt: the salt in bytes.
    :ivar stored_key: RFC 5802's StoredKey, KEY_LENGTH bytes. Never shown.
    :ivar server_key: RFC 5802's ServerKey, KEY_LENGTH bytes. Never shown.
    """

    iterations: int
    salt: bytes
    stored_key: bytes = field(repr=False)
    server_key: bytes = field(repr=False)

    @classmethod
    def parse(cls, text: str) -> ScramSecret:
        """Read ``SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>``.

        :param text: as ``pg_authid.rolpassword`` has it; the salt and the keys are in base64.
        :returns: the secret.
        :raises ValueError: it is none; the message does not repeat any part of it.
        """
        scheme, dollar, rest = text.partition("$")
        iterations, colon, rest = rest.partition(":")
        salt, second_dollar, rest = rest.partition("$")
        stored_key, second_colon, server_key = rest.partition(":")
        if scheme != "SCRAM-SHA-256" or not all((dollar, colon, second_dollar, second_colon)):
            raise ValueError("not a SCRAM secret")
        if not re.fullmatch(r"[0-9]{1,10}", iterations, re.ASCII):
            raise ValueError("invalid iteration count in SCRAM secret")
        if not 1 <= int(iterations) <= _MAX_ITERATIONS:
            raise ValueError("invalid iteration count in SCRAM secret")
        keys = [decode_base64(stored_key), decode_base64(server_key)]
        if any(len(key) != KEY_LENGTH for key in keys):
            raise ValueError("invalid key length in SCRAM secret")
        return cls(int(iterations), decode_base64(salt), *keys)

    @classmethod
    def build(cls, password: str | bytes, salt: bytes, iterations: int) -> ScramSecret:
        """Make the secret of a password, as ``scram_build_secret`` does.

        :param password: as the user types it.
        :param salt: PostgreSQL takes SALT_LENGTH random bytes.
        :param iterations: of PBKDF2, 1 or more.
        :returns: the secret.
        """
        keys = ScramKeys.derive(password, salt, iterations)
        return cls(iterations, salt, keys.stored_key, keys.server_key)

    @classmethod
    def mock(cls, role: bytes, nonce: bytes) -> ScramSecret:
        """A secret that no password fits, for a role that has none: the same one each time, so that
        the salt does not tell which roles exist (``mock_scram_secret``).

        :param role: its name.
        :param nonce: random bytes that are the same for all processes that answer for one server,
            and known to no other program.
        :returns: the secret, with PostgreSQL's default iteration count.
        """
        salt = hmac.digest(nonce, role, "sha256")[:SALT_LENGTH]
        return cls(DEFAULT_ITERATIONS, salt, bytes(KEY_LENGTH), bytes(KEY_LENGTH))

    def __str__(self) -> str:
        """The text that :meth:`parse` reads. It holds the keys: for the file, never for a log."""
        salt, stored, server = (
            b64encode(value).decode() for value in (self.salt, self.stored_key, self.server_key)
        )
        return f"SCRAM-SHA-256${self.iterations}:{salt}${stored}:{server}"


def decode_base64(text: str) -> bytes:
    """Decode as ``pg_b64_decode`` in ``src/common/base64.c`` does: no white space, no rest.

    :param text: base64, padded.
    :returns: the bytes.
    :raises ValueError: it is not base64.
    """
    try:
        return binascii.a2b_base64(text, strict_mode=True)
    except (binascii.Error, ValueError):
        raise ValueError("invalid base64") from None


def saslprep(password: str | bytes) -> bytes:
    """Prepare a password as ``pg_saslprep`` does; one that RFC 4013 does not allow stays as it is.

    :param password: text, or bytes in an encoding that is not known.
    :returns: the bytes that are hashed.
    """
    raw = password.encode("utf-8", "surrogateescape") if isinstance(password, str) else password
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw
    if text.isascii():
        return raw
    mapped = "".join(" " if stringprep.in_table_c12(c) else c for c in text)
    kept = "".join(c for c in mapped if not stringprep.in_table_b1(c))
    prepared = unicodedata.ucd_3_2_0.normalize("NFKC", kept)
    return prepared.encode() if prepared and _allowed(prepared) else raw


_PROHIBITED = (
    stringprep.in_table_c12,
    stringprep.in_table_c21_c22,
    stringprep.in_table_c3,
    stringprep.in_table_c4,
    stringprep.in_table_c5,
    stringprep.in_table_c6,
    stringprep.in_table_c7,
    stringprep.in_table_c8,
    stringprep.in_table_c9,
    stringprep.in_table_a1,
)


def _allowed(text: str) -> bool:
    """RFC 4013, sections 2.3 to 2.5: prohibited output, bidirectional text, unassigned code points.

    :param text: normalized, not empty.
    """
    if any(prohibited(c) for c in text for prohibited in _PROHIBITED):
        return False
    if not any(map(stringprep.in_table_d1, text)):
        return True
    if any(map(stringprep.in_table_d2, text)):
        return False
    return stringprep.in_table_d1(text[0]) and stringprep.in_table_d1(text[-1])
