"""What a server asks of a client that wants in: one authentication request, read.

Source: PostgreSQL documentation, "Message Formats", the Authentication messages;
``src/include/libpq/protocol.h``.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from pgtls.wire.message_stream import HEADER_SIZE


class RequestCode(IntEnum):
    """The word that says which authentication request a message is: libpq's AUTH_REQ_*."""

    OK = 0
    KERBEROS_V5 = 2
    PASSWORD = 3
    MD5 = 5
    GSS = 7
    GSS_CONTINUE = 8
    SSPI = 9
    SASL = 10
    SASL_CONTINUE = 11
    SASL_FINAL = 12


#: Requests that may come first, with pg_hba.conf's names where it has them.
_METHODS: dict[int, str] = {
    RequestCode.OK: "trust",
    RequestCode.KERBEROS_V5: "kerberos v5",
    RequestCode.PASSWORD: "password",
    RequestCode.MD5: "md5",
    RequestCode.GSS: "gss",
    RequestCode.SSPI: "sspi",
    RequestCode.SASL: "sasl",
}


@dataclass(frozen=True, slots=True)
class AuthenticationRequest:
    """An ``R`` message.

    :ivar code: which request it is, a :class:`RequestCode` where it is a known one.
    :ivar mechanisms: of SASL, in the server's order; empty for any other request.
    """

    code: int
    mechanisms: tuple[str, ...] = ()

    @classmethod
    def parse(cls, message: bytes) -> AuthenticationRequest:
        """Read a message.

        :param message: all of it, type byte included; at least 9 bytes.
        :returns: the request.
        """
        code = int.from_bytes(message[HEADER_SIZE : HEADER_SIZE + 4], "big")
        names: list[bytes] = []
        if code == RequestCode.SASL:
            # libpq stops at the empty name that ends the list.
            names = message[HEADER_SIZE + 4 :].split(b"\0\0", 1)[0].split(b"\0")
        return cls(code, tuple(name.decode("ascii", "backslashreplace") for name in names if name))

    @property
    def is_ok(self) -> bool:
        """Whether it is AuthenticationOk."""
        return self.code == RequestCode.OK

    @property
    def method(self) -> str:
        """Its name in pg_hba.conf, ``sasl`` for SASL; ``trust`` where nothing is asked for (or a
        client certificate was enough); ``number 6`` for one that is unknown."""
        return _METHODS.get(self.code, f"number {self.code}")
