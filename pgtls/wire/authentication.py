"""What a server asks of a client that wants in: its first answer to a StartupMessage, read.

Source: PostgreSQL documentation, "Message Formats", the Authentication messages.
"""

from __future__ import annotations

from dataclasses import dataclass

_SASL = 10

#: Authentication requests by their number, with pg_hba.conf's names where it has them.
_METHODS = {
    0: "trust",
    2: "kerberos v5",
    3: "password",
    5: "md5",
    7: "gss",
    9: "sspi",
    _SASL: "sasl",
}


@dataclass(frozen=True, slots=True)
class AuthenticationRequest:
    """An ``R`` message.

    :ivar method: ``trust`` where nothing is asked for (or a client certificate was enough).
    :ivar mechanisms: of SASL, in the server's order.
    """

    method: str
    mechanisms: tuple[str, ...] = ()

    @classmethod
    def find(cls, received: bytes) -> AuthenticationRequest | None:
        """The first one in what a server has sent; None while it is incomplete, or is none."""
        while len(received) >= 5:
            length = int.from_bytes(received[1:5], "big")
            message, rest = received[: 1 + length], received[1 + length :]
            if len(message) <= length or length < 4:
                return None
            if message[:1] == b"R" and length >= 8:
                return cls._read(message)
            received = rest
        return None

    @classmethod
    def _read(cls, message: bytes) -> AuthenticationRequest:
        number = int.from_bytes(message[5:9], "big")
        names = message[9:].split(b"\0") if number == _SASL else []
        return cls(
            _METHODS.get(number, f"number {number}"),
            tuple(name.decode("ascii", "backslashreplace") for name in names if name),
        )
