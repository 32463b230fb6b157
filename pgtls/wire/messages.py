"""Messages of PostgreSQL's startup phase, as bytes and as values.

Source: PostgreSQL documentation, "Frontend/Backend Protocol", sections "SSL Session Encryption",
"Message Formats" and "Error and Notice Message Fields"; the limits are those of
``src/include/libpq/pqcomm.h``.

Integers are big-endian. Strings are NUL-terminated bytes whose encoding is not negotiated yet,
so they stay ``bytes`` here.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field, replace

import attrs

from pgtls.errors import PgTLSError

SSL_REQUEST_CODE = 80877103
GSSENC_REQUEST_CODE = 80877104
CANCEL_REQUEST_CODE = 80877102

#: A CancelRequest that a gateway passes on to its peers, the other gateways of a fleet. The code is
#: pgtls's own, "pgtc"; for PostgreSQL it is a protocol version that it does not have.
PEER_CANCEL_REQUEST_CODE = 0x70677463

#: A gateway's answer to it: whether it has the session, and passes the request on. (The end of the
#: connection tells that this is done, as for every CancelRequest.)
PEER_HAS_SESSION = b"Y"
PEER_HAS_NOT = b"N"

#: Limits of the length word (it counts itself): the code or version must fit, and PostgreSQL reads
#: at most MAX_STARTUP_PACKET_LENGTH = 10000 bytes after the word.
MIN_PACKET_LENGTH = 8
MAX_PACKET_LENGTH = 10004

#: Bytes of a cancel key: 4 in protocol 3.0, up to 256 since 3.2.
MAX_CANCEL_KEY_LENGTH = 256

#: First byte of a TLS record that carries a ClientHello: the opening of ``sslnegotiation=direct``.
TLS_HANDSHAKE_RECORD = 0x16

SSL_REQUEST = struct.pack("!II", 8, SSL_REQUEST_CODE)
GSSENC_REQUEST = struct.pack("!II", 8, GSSENC_REQUEST_CODE)


@dataclass(slots=True)
class Packet:
    """One whole packet of the startup phase.

    :ivar raw: all of it, length word included.
    :ivar code: the word behind the length: a protocol version or one of the request codes.
    """

    raw: bytes
    code: int

    @property
    def body(self) -> bytes:
        """What follows the code."""
        return self.raw[8:]

    @property
    def major(self) -> int:
        """Protocol version, first half."""
        return self.code >> 16

    @property
    def minor(self) -> int:
        """Protocol version, second half."""
        return self.code & 0xFFFF


class InvalidLength(ValueError):
    """A length word outside MIN_PACKET_LENGTH..MAX_PACKET_LENGTH."""


_words = struct.Struct("!II").unpack_from


def split_packet(buffer: bytes) -> tuple[Packet, bytes] | None:
    """Take the first packet of the startup phase off ``buffer``.

    :param buffer: what has been received and not taken yet.
    :returns: the packet and the bytes behind it; None while it is incomplete.
    :raises InvalidLength: as soon as the length word is complete and out of bounds.
    """
    size = len(buffer)
    if size < 4:
        return None
    length, code = _words(buffer) if size >= 8 else (int.from_bytes(buffer[:4], "big"), 0)
    if not MIN_PACKET_LENGTH <= length <= MAX_PACKET_LENGTH:
        raise InvalidLength(length)
    if size < length:
        return None
    return Packet(buffer[:length], code), buffer[length:]


class InvalidLayout(ValueError):
    """The parameters of a StartupMessage do not end with the terminator as last byte."""


@attrs.frozen  # one is made for each session, in a third of a dataclass's time
class StartupMessage:
    """The message that opens a session.

    :ivar raw: the message byte for byte, as it came or as it goes out.
    :ivar major, minor: protocol version.
    :ivar parameters: names and values in their order; a name may stand twice, the last one counts.
    :ivar user: the role that wants in; empty where none is named.
    :ivar database: the database asked for: the user's name where none is named, as in PostgreSQL.
    """

    raw: bytes
    major: int
    minor: int
    parameters: tuple[tuple[bytes, bytes], ...]
    user: bytes = attrs.field(init=False, repr=False, eq=False)
    database: bytes = attrs.field(init=False, repr=False, eq=False)

    @user.default
    def _user(self) -> bytes:
        return self.get(b"user") or b""

    @database.default
    def _database(self) -> bytes:
        return self.get(b"database") or self.user

    @classmethod
    def parse(cls, packet: Packet) -> StartupMessage:
        """Read the parameters as ProcessStartupPacket() does.

        :param packet: a packet whose code is a protocol version.
        :returns: the message.
        :raises InvalidLayout: the terminator is not the last byte.
        """
        raw, code = packet.raw, packet.code
        body = raw[8:]
        if len(body) == 1 or body[-2:-1] == b"\0":
            # A name that begins in the last byte has no room for its value: for PostgreSQL the
            # terminator stands there, whatever the byte is.
            body = body[:-1] + b"\0"
        strings = body.split(b"\0")
        # n pairs and the terminator, each ended by NUL: 2n + 1 ends, so 2n + 2 pieces, the last
        # two of them empty. No name is empty: that would be the terminator.
        names, values = strings[0:-2:2], strings[1:-2:2]
        if len(strings) % 2 or strings[-2:] != [b"", b""] or b"" in names:
            raise InvalidLayout
        pairs = tuple(zip(names, values))  # noqa: B905 - as many of both; to see to it costs more
        return cls(raw, code >> 16, code & 0xFFFF, pairs)

    @classmethod
    def build(
        cls, parameters: dict[bytes, bytes], major: int = 3, minor: int = 0
    ) -> StartupMessage:
        """Make the message from its parameters.

        :param parameters: names and values, without NUL; ``user`` is needed.
        :param major: protocol version, first half.
        :param minor: protocol version, second half.
        :returns: the message.
        """
        pairs = tuple(parameters.items())
        strings = b"".join(name + b"\0" + value + b"\0" for name, value in pairs) + b"\0"
        raw = struct.pack("!IHH", 8 + len(strings), major, minor) + strings
        return cls(raw, major, minor, pairs)

    def get(self, name: bytes) -> bytes | None:
        """The value of a parameter.

        :param name: its name.
        :returns: the last value of that name; None where it is absent.
        """
        for known, value in reversed(self.parameters):
            if known == name:
                return value
        return None


@dataclass(frozen=True, slots=True)
class CancelRequest:
    """A request to cancel what another session is doing.

    :ivar raw: the packet, to be forwarded as it is.
    :ivar key: process ID and secret, as BackendKeyData gave them. Never shown.
    :ivar from_peer: whether another gateway passes it on, as PEER_CANCEL_REQUEST_CODE says.
    """

    raw: bytes = field(repr=False)
    key: bytes = field(repr=False)
    from_peer: bool = False

    @classmethod
    def parse(cls, packet: Packet) -> CancelRequest:
        """Read the key of a CancelRequest.

        :param packet: a packet with CANCEL_REQUEST_CODE, or PEER_CANCEL_REQUEST_CODE.
        :returns: the request, with a packet that a server knows.
        :raises ValueError: no key, or a key longer than MAX_CANCEL_KEY_LENGTH.
        """
        if len(packet.body) < 4:
            raise ValueError("invalid length of cancel request packet")
        if not 0 < len(packet.body) - 4 <= MAX_CANCEL_KEY_LENGTH:
            raise ValueError("invalid length of cancel key in cancel request packet")
        if packet.code == PEER_CANCEL_REQUEST_CODE:
            return replace(cls.build(packet.body), from_peer=True)
        return cls(packet.raw, packet.body)

    @classmethod
    def build(cls, key: bytes) -> CancelRequest:
        """Make the request from the body of a BackendKeyData message.

        :param key: process ID (4 bytes) and secret key (1 to 256 bytes).
        :returns: the request.
        """
        return cls(struct.pack("!II", 8 + len(key), CANCEL_REQUEST_CODE) + key, key)

    @property
    def for_peers(self) -> bytes:
        """The packet for other gateways, which tells them that it has been passed on already."""
        return struct.pack("!II", 8 + len(self.key), PEER_CANCEL_REQUEST_CODE) + self.key


@dataclass(frozen=True, slots=True)
class ErrorResponse:
    """An error, as a server reports it.

    :ivar fields: field type (one letter, e.g. "C" for the SQLSTATE) to text.
    :ivar raw: the message as it came, type byte included; empty for one that is made here.
    """

    fields: dict[str, str]
    raw: bytes = b""

    @classmethod
    def fatal(
        cls, sqlstate: str, message: str, *, detail: str = "", hint: str = ""
    ) -> ErrorResponse:
        """A FATAL error in PostgreSQL's form.

        :param sqlstate: five characters (PostgreSQL documentation, "PostgreSQL Error Codes").
        :param message: the primary message.
        :param detail: more about it; empty for none.
        :param hint: what to do about it; empty for none.
        :returns: the error, to be sent with :meth:`encode`.
        """
        fields = {"S": "FATAL", "V": "FATAL", "C": sqlstate, "M": message}
        if detail:
            fields["D"] = detail
        if hint:
            fields["H"] = hint
        return cls(fields)

    @classmethod
    def parse(cls, body: bytes, raw: bytes) -> ErrorResponse:
        """Read the body of an ``E`` message; a part that cannot be read is left out.

        :param body: what follows the length word.
        :param raw: the whole message, to be passed on as it came.
        :returns: the error.
        """
        fields = {}
        for part in body.split(b"\0"):
            if part:
                fields[chr(part[0])] = part[1:].decode("utf-8", "replace")
        return cls(fields, raw)

    @property
    def severity(self) -> str:
        """FATAL or ERROR, untranslated where the server says it so."""
        return self.fields.get("V") or self.fields.get("S", "ERROR")

    @property
    def sqlstate(self) -> str:
        """Five characters; empty where the server sent none."""
        return self.fields.get("C", "")

    @property
    def message(self) -> str:
        """The primary message."""
        return self.fields.get("M", "")

    def encode(self) -> bytes:
        """The message as protocol 3 sends it."""
        body = b"".join(
            letter.encode("ascii") + text.encode("utf-8").replace(b"\0", b"?") + b"\0"
            for letter, text in self.fields.items()
        )
        return b"E" + struct.pack("!I", 5 + len(body)) + body + b"\0"

    def encode_v2(self) -> bytes:
        """The message as protocol 2 had it: no length, no fields."""
        return f"E{self.severity}:  {self.message}\n\0".encode()


class ServerRejected(PgTLSError):
    """The server answered the StartupMessage with an ErrorResponse.

    :param response: what it said, over the connection that the sslmode asked for.

    :ivar response: the same.
    """

    def __init__(self, response: ErrorResponse) -> None:
        super().__init__(f"{response.severity}:  {response.message}")
        self.response = response
