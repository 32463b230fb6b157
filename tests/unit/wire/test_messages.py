"""Messages of the startup phase: what PostgreSQL reads in them, and what it would refuse."""

from __future__ import annotations

import struct

from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from pgtls.wire.messages import (
    CANCEL_REQUEST_CODE,
    GSSENC_REQUEST,
    MAX_PACKET_LENGTH,
    PEER_CANCEL_REQUEST_CODE,
    SSL_REQUEST,
    CancelRequest,
    ErrorResponse,
    InvalidLayout,
    InvalidLength,
    Packet,
    StartupMessage,
    split_packet,
)

PROTOCOL_3_0 = 3 << 16


def message(kind: bytes, body: bytes = b"") -> bytes:
    """A message of protocol 3."""
    return kind + struct.pack("!I", 4 + len(body)) + body


def pieces(data: st.DataObject, whole: bytes) -> list[bytes]:
    """``whole``, cut anywhere and any number of times."""
    cuts = sorted(data.draw(st.sets(st.integers(0, len(whole)), max_size=12)))
    return [whole[start:end] for start, end in zip([0, *cuts], [*cuts, len(whole)], strict=True)]


def packet(body: bytes, code: int = PROTOCOL_3_0) -> Packet:
    """A whole packet around ``body``."""
    return Packet(struct.pack("!II", 8 + len(body), code) + body, code)


def process_startup_packet(body: bytes) -> list[tuple[bytes, bytes]] | None:
    """The scanning loop of ProcessStartupPacket(), pointer by pointer.

    :returns: names and values; None for "expected terminator as last byte".
    """
    length = 4 + len(body)
    buffer = bytes(4) + body + b"\0"

    def string(offset: int) -> bytes:
        return buffer[offset : buffer.index(b"\0", offset)]

    found = []
    offset = 4
    while offset < length:
        name = string(offset)
        if not name:
            break
        value_offset = offset + len(name) + 1
        if value_offset >= length:
            break
        value = string(value_offset)
        found.append((name, value))
        offset = value_offset + len(value) + 1
    return found if offset == length - 1 else None


def parse(body: bytes) -> list[tuple[bytes, bytes]] | None:
    """The parameters as we read them; None for "expected terminator as last byte"."""
    try:
        return list(StartupMessage.parse(packet(body)).parameters)
    except InvalidLayout:
        return None


#: Few different bytes, so that NULs stand in every place.
bodies = st.one_of(
    st.binary(max_size=40),
    st.lists(st.sampled_from([b"\0", b"a", b"user", b"\0\0"]), max_size=14).map(b"".join),
)
strings = st.binary(max_size=20).map(lambda text: text.replace(b"\0", b"?"))
parameters = st.dictionaries(strings.filter(bool), strings, max_size=8)


class StartupMessageTests(SynchronousTestCase):
    """StartupMessage."""

    @settings(deadline=None)
    @given(bodies)
    @example(b"")
    @example(b"\0")
    @example(b"x")
    @example(b"user\0alice\0")
    @example(b"user\0alice\0x")
    @example(b"user\0x")
    @example(b"user\0\0")
    @example(b"user\0\0\0")
    @example(b"user\0alice\0\0x")
    @example(b"user\0alice\0\0\0")
    def test_parameters_are_those_that_PostgreSQL_reads(self, body: bytes) -> None:
        self.assertEqual(parse(body), process_startup_packet(body))

    @settings(deadline=None)
    @given(parameters, st.integers(0, 0xFFFF))
    def test_what_is_built_is_read_back(self, values: dict[bytes, bytes], minor: int) -> None:
        built = StartupMessage.build(values, 3, minor)
        split = split_packet(built.raw)
        assert split is not None
        self.assertEqual(StartupMessage.parse(split[0]), built)
        self.assertEqual(dict(built.parameters), values)
        self.assertEqual(split[1], b"")

    def test_the_message_stays_as_it_came(self) -> None:
        came = packet(b"user\0alice\0_pq_.x\0\xff\0\0", 0x0003270F)
        message = StartupMessage.parse(came)
        self.assertEqual(message.raw, came.raw)
        self.assertEqual((message.major, message.minor), (3, 9999))

    def test_of_two_users_the_last_one_counts(self) -> None:
        message = StartupMessage.parse(packet(b"user\0alice\0user\0bob\0\0"))
        self.assertEqual(message.user, b"bob")

    def test_the_database_is_the_user_where_none_is_named(self) -> None:
        for body in (b"user\0alice\0\0", b"user\0alice\0database\0\0\0"):
            self.assertEqual(StartupMessage.parse(packet(body)).database, b"alice")

    def test_the_database_is_the_one_named(self) -> None:
        message = StartupMessage.parse(packet(b"user\0alice\0database\0shop\0\0"))
        self.assertEqual(message.database, b"shop")

    def test_the_user_is_empty_where_none_is_named(self) -> None:
        self.assertEqual(StartupMessage.parse(packet(b"\0")).user, b"")


class PacketTests(SynchronousTestCase):
    """The length word and what it leads to."""

    def test_SSLRequest_and_GSSENCRequest(self) -> None:
        self.assertEqual(SSL_REQUEST, bytes.fromhex("00000008 04d2162f"))
        self.assertEqual(GSSENC_REQUEST, bytes.fromhex("00000008 04d21630"))

    def test_what_stands_behind_the_packet_is_given_back(self) -> None:
        split = split_packet(SSL_REQUEST + b"rest")
        assert split is not None
        self.assertEqual((split[0].raw, split[1]), (SSL_REQUEST, b"rest"))

    def test_the_shortest_and_the_longest_packet(self) -> None:
        for length in (8, MAX_PACKET_LENGTH):
            split = split_packet(struct.pack("!I", length).ljust(length, b"\0"))
            assert split is not None
            self.assertEqual(len(split[0].raw), length)

    def test_a_length_out_of_bounds_is_refused_before_the_rest_comes(self) -> None:
        for length in (0, 4, 7, MAX_PACKET_LENGTH + 1, 1 << 31, (1 << 32) - 1):
            with self.assertRaises(InvalidLength):
                split_packet(struct.pack("!I", length))


class CancelRequestTests(SynchronousTestCase):
    """CancelRequest: ProcessCancelRequestPacket() of PostgreSQL 18."""

    def test_keys_of_1_to_256_bytes(self) -> None:
        for length in (1, 4, 32, 256):
            came = packet(b"\0\0\0\7" + bytes(length), CANCEL_REQUEST_CODE)
            request = CancelRequest.parse(came)
            self.assertEqual((request.raw, request.key), (came.raw, came.body))

    def test_no_key_or_one_that_is_too_long(self) -> None:
        for length in (0, 257):
            with self.assertRaises(ValueError) as caught:
                CancelRequest.parse(packet(bytes(4 + length), CANCEL_REQUEST_CODE))
            self.assertEqual(
                str(caught.exception), "invalid length of cancel key in cancel request packet"
            )

    def test_not_even_a_process_ID(self) -> None:
        for length in range(4):
            with self.assertRaises(ValueError) as caught:
                CancelRequest.parse(packet(bytes(length), CANCEL_REQUEST_CODE))
            self.assertEqual(str(caught.exception), "invalid length of cancel request packet")

    def test_what_is_built_is_read_back(self) -> None:
        built = CancelRequest.build(b"\0\0\0\7" + b"k" * 32)
        split = split_packet(built.raw)
        assert split is not None
        self.assertEqual(CancelRequest.parse(split[0]), built)

    def test_a_peer_s_is_one_that_a_server_knows(self) -> None:
        for length in (1, 4, 256):
            built = CancelRequest.build(b"\0\0\0\7" + b"k" * length)
            split = split_packet(built.for_peers)
            assert split is not None
            self.assertEqual((split[0].code, split[1]), (PEER_CANCEL_REQUEST_CODE, b""))
            read = CancelRequest.parse(split[0])
            self.assertEqual((read.raw, read.key, read.from_peer), (built.raw, built.key, True))
        self.assertFalse(built.from_peer)

    def test_the_key_is_never_shown(self) -> None:
        self.assertNotIn("sesame", repr(CancelRequest.build(b"\0\0\0\7sesame")))


class ErrorResponseTests(SynchronousTestCase):
    """ErrorResponse."""

    def test_protocol_3(self) -> None:
        error = ErrorResponse.fatal("28000", "no", detail="why", hint="how")
        body = b"SFATAL\0VFATAL\0C28000\0Mno\0Dwhy\0Hhow\0\0"
        self.assertEqual(error.encode(), b"E" + struct.pack("!I", 4 + len(body)) + body)

    def test_protocol_2(self) -> None:
        self.assertEqual(ErrorResponse.fatal("0A000", "no").encode_v2(), b"EFATAL:  no\n\0")

    def test_a_NUL_in_the_text_does_not_end_it(self) -> None:
        encoded = ErrorResponse.fatal("28000", "a\0b").encode()
        self.assertEqual(ErrorResponse.parse(encoded[5:], encoded).message, "a?b")

    def test_what_is_encoded_is_read_back(self) -> None:
        encoded = ErrorResponse.fatal("53300", "sorry, too many clients already").encode()
        error = ErrorResponse.parse(encoded[5:], encoded)
        self.assertEqual(
            (error.severity, error.sqlstate, error.message, error.raw),
            ("FATAL", "53300", "sorry, too many clients already", encoded),
        )

    @settings(deadline=None)
    @given(st.binary(max_size=60))
    def test_any_bytes_are_read(self, body: bytes) -> None:
        error = ErrorResponse.parse(body, b"")
        self.assertIsInstance(error.severity + error.sqlstate + error.message, str)
