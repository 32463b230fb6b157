"""DESIGN.md section 3, "Server side", row by row: ProcessSSLStartup() and ProcessStartupPacket().

The words and SQLSTATEs are those of ``src/backend/tcop/backend_startup.c``, PostgreSQL 18.
"""

from __future__ import annotations

import struct
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from pgtls.wire.messages import (
    CANCEL_REQUEST_CODE,
    GSSENC_REQUEST,
    GSSENC_REQUEST_CODE,
    MAX_PACKET_LENGTH,
    PEER_CANCEL_REQUEST_CODE,
    SSL_REQUEST,
    SSL_REQUEST_CODE,
    CancelRequest,
    ErrorResponse,
    StartupMessage,
)
from pgtls.wire.negotiation import Send
from pgtls.wire.server_negotiation import (
    SSL,
    Action,
    Cancel,
    CancelPolicy,
    Close,
    ServerNegotiation,
    ServerPolicy,
    StartTLS,
    Startup,
)
from tests.unit.wire.test_messages import packet, pieces

OFF = ServerPolicy(ssl=SSL.OFF)
ON = ServerPolicy(ssl=SSL.ON)
REQUIRE = ServerPolicy(ssl=SSL.REQUIRE)
UNIX_SOCKET = ServerPolicy(ssl=SSL.ON, tls_available=False)
TOO_MANY = ErrorResponse.fatal("53300", "sorry, too many clients already")

STARTUP = StartupMessage.build({b"user": b"alice", b"database": b"shop"})
CANCEL = CancelRequest.build(b"\0\0\0\7" + b"k" * 4)
CLIENT_HELLO = bytes.fromhex("16030100c8010000c4")

MAN_IN_THE_MIDDLE = (
    "This could be either a client-software bug or evidence of an attempted man-in-the-middle "
    "attack."
)
REPEATED_SSLREQUEST = "unsupported frontend protocol 1234.5679: server supports 3.0 to 3.2"
REPEATED_GSSENCREQUEST = "unsupported frontend protocol 1234.5680: server supports 3.0 to 3.2"
INCOMPLETE = [Close("incomplete startup packet")]
INVALID_LENGTH = [Close("invalid length of startup packet")]
INVALID_LAYOUT = "invalid startup packet layout: expected terminator as last byte"
SILENT = [Close(None)]

request = st.sampled_from([SSL_REQUEST, GSSENC_REQUEST])


def inside_tls(policy: ServerPolicy = ON) -> ServerNegotiation:
    """A negotiation whose SSLRequest has led to TLS."""
    negotiation = ServerNegotiation(policy)
    negotiation.receive(SSL_REQUEST)
    negotiation.handshake_completed("postgresql")
    return negotiation


def inside_direct_tls() -> ServerNegotiation:
    """A negotiation that began with a ClientHello."""
    negotiation = ServerNegotiation(ON)
    negotiation.receive(CLIENT_HELLO)
    negotiation.handshake_completed("postgresql")
    return negotiation


class RowTests(SynchronousTestCase):
    """What the rows' tests have in common."""

    def assert_fatal(
        self, actions: list[Action], sqlstate: str, message: str, **fields: str
    ) -> None:
        """The client is told so in protocol 3, and the connection is closed."""
        error = ErrorResponse.fatal(sqlstate, message, **fields)
        self.assertEqual(actions, [Send(error.encode()), Close(message)])


class SSLRequestTests(RowTests):
    """Row: SSLRequest, TLS configured."""

    def test_S_and_then_TLS(self) -> None:
        for policy in (ON, REQUIRE):
            negotiation = ServerNegotiation(policy)
            self.assertEqual(negotiation.receive(SSL_REQUEST), [Send(b"S"), StartTLS()])

    def test_then_a_StartupMessage_inside_TLS(self) -> None:
        self.assertEqual(inside_tls(REQUIRE).receive(STARTUP.raw), [Startup(STARTUP, b"")])

    def test_then_a_CancelRequest_inside_TLS(self) -> None:
        self.assertEqual(inside_tls(REQUIRE).receive(CANCEL.raw), [Cancel(CANCEL)])

    def test_no_ALPN_is_needed(self) -> None:
        negotiation = ServerNegotiation(ON)
        negotiation.receive(SSL_REQUEST)
        self.assertEqual(negotiation.handshake_completed(None), [])
        self.assertEqual(negotiation.receive(STARTUP.raw), [Startup(STARTUP, b"")])

    def test_what_stands_behind_the_code_inside_the_packet_is_ignored(self) -> None:
        longer = packet(b"more", SSL_REQUEST_CODE).raw
        self.assertEqual(ServerNegotiation(ON).receive(longer), [Send(b"S"), StartTLS()])


class SSLRequestWithoutTLSTests(RowTests):
    """Row: SSLRequest, TLS not configured."""

    def test_N(self) -> None:
        self.assertEqual(ServerNegotiation(OFF).receive(SSL_REQUEST), [Send(b"N")])

    def test_N_on_a_Unix_socket(self) -> None:
        self.assertEqual(ServerNegotiation(UNIX_SOCKET).receive(SSL_REQUEST), [Send(b"N")])

    def test_the_client_may_go_on_in_plaintext(self) -> None:
        negotiation = ServerNegotiation(OFF)
        negotiation.receive(SSL_REQUEST)
        self.assertEqual(negotiation.receive(STARTUP.raw), [Startup(STARTUP, b"")])


class GSSENCRequestTests(RowTests):
    """Row: GSSENCRequest, and each of the two requests once."""

    def test_N(self) -> None:
        for policy in (OFF, ON, REQUIRE):
            self.assertEqual(ServerNegotiation(policy).receive(GSSENC_REQUEST), [Send(b"N")])

    def test_a_StartupMessage_may_follow(self) -> None:
        negotiation = ServerNegotiation(ON)
        negotiation.receive(GSSENC_REQUEST)
        self.assertEqual(negotiation.receive(STARTUP.raw), [Startup(STARTUP, b"")])

    def test_an_SSLRequest_may_follow(self) -> None:
        negotiation = ServerNegotiation(ON)
        negotiation.receive(GSSENC_REQUEST)
        self.assertEqual(negotiation.receive(SSL_REQUEST), [Send(b"S"), StartTLS()])

    def test_it_may_follow_a_refused_SSLRequest(self) -> None:
        negotiation = ServerNegotiation(OFF)
        negotiation.receive(SSL_REQUEST)
        self.assertEqual(negotiation.receive(GSSENC_REQUEST), [Send(b"N")])
        self.assertEqual(negotiation.receive(STARTUP.raw), [Startup(STARTUP, b"")])

    def test_a_second_GSSENCRequest(self) -> None:
        negotiation = ServerNegotiation(ON)
        negotiation.receive(GSSENC_REQUEST)
        self.assert_fatal(negotiation.receive(GSSENC_REQUEST), "0A000", REPEATED_GSSENCREQUEST)

    def test_a_second_SSLRequest(self) -> None:
        negotiation = ServerNegotiation(OFF)
        negotiation.receive(SSL_REQUEST)
        self.assert_fatal(negotiation.receive(SSL_REQUEST), "0A000", REPEATED_SSLREQUEST)

    def test_a_second_SSLRequest_with_a_GSSENCRequest_between(self) -> None:
        negotiation = ServerNegotiation(OFF)
        negotiation.receive(SSL_REQUEST)
        negotiation.receive(GSSENC_REQUEST)
        self.assert_fatal(negotiation.receive(SSL_REQUEST), "0A000", REPEATED_SSLREQUEST)

    def test_an_SSLRequest_inside_TLS(self) -> None:
        for negotiation in (inside_tls(), inside_direct_tls()):
            self.assert_fatal(negotiation.receive(SSL_REQUEST), "0A000", REPEATED_SSLREQUEST)

    def test_a_GSSENCRequest_inside_TLS(self) -> None:
        for negotiation in (inside_tls(), inside_direct_tls()):  # CVE-2026-14681
            self.assert_fatal(negotiation.receive(GSSENC_REQUEST), "0A000", REPEATED_GSSENCREQUEST)


class DirectTLSTests(RowTests):
    """Row: 0x16, the first byte of a ClientHello."""

    def test_TLS_at_once_with_the_bytes_already_read(self) -> None:
        for policy in (ON, REQUIRE):
            negotiation = ServerNegotiation(policy)
            self.assertEqual(negotiation.receive(CLIENT_HELLO), [StartTLS(CLIENT_HELLO)])

    def test_one_byte_is_enough(self) -> None:
        self.assertEqual(ServerNegotiation(ON).receive(b"\x16"), [StartTLS(b"\x16")])

    def test_then_a_StartupMessage_or_a_CancelRequest(self) -> None:
        self.assertEqual(inside_direct_tls().receive(STARTUP.raw), [Startup(STARTUP, b"")])
        self.assertEqual(inside_direct_tls().receive(CANCEL.raw), [Cancel(CANCEL)])

    def test_closed_where_the_client_offers_no_ALPN(self) -> None:
        negotiation = ServerNegotiation(ON)
        negotiation.receive(CLIENT_HELLO)
        reason = (
            "received direct SSL connection request without ALPN protocol negotiation extension"
        )
        self.assertEqual(negotiation.handshake_completed(None), [Close(reason)])

    def test_closed_where_there_is_no_TLS(self) -> None:
        for policy in (OFF, UNIX_SOCKET):
            self.assertEqual(
                ServerNegotiation(policy).receive(CLIENT_HELLO),
                [Close("received direct SSL connection request, but SSL is not available")],
            )

    def test_not_behind_another_request(self) -> None:
        negotiation = ServerNegotiation(ON)
        negotiation.receive(GSSENC_REQUEST)
        self.assertEqual(negotiation.receive(CLIENT_HELLO), INVALID_LENGTH)

    def test_not_inside_TLS(self) -> None:
        self.assertEqual(inside_direct_tls().receive(CLIENT_HELLO), INVALID_LENGTH)


class StartupMessageTests(RowTests):
    """Row: StartupMessage, any 3.x, any parameters."""

    def test_delivered_byte_for_byte(self) -> None:
        parameters = {
            b"user": b"alice",
            b"replication": b"database",
            b"_pq_.test_protocol_negotiation": b"",
            b"options": b"-c geqo=off",
            b"application_name": "caf\xe9".encode("latin-1"),
        }
        for minor in (0, 2, 3, 9999, 0xFFFF):
            message = StartupMessage.build(parameters, 3, minor)
            self.assertEqual(ServerNegotiation(ON).receive(message.raw), [Startup(message, b"")])

    def test_as_long_as_it_may_be(self) -> None:
        room = MAX_PACKET_LENGTH - len(StartupMessage.build({b"user": b""}).raw)
        message = StartupMessage.build({b"user": b"a" * room})
        self.assertEqual(len(message.raw), MAX_PACKET_LENGTH)
        self.assertEqual(ServerNegotiation(ON).receive(message.raw), [Startup(message, b"")])

    def test_what_the_client_sends_behind_it_is_delivered_too(self) -> None:
        actions = ServerNegotiation(ON).receive(STARTUP.raw + b"p\0\0\0\x08abc\0")
        self.assertEqual(actions, [Startup(STARTUP, b"p\0\0\0\x08abc\0")])

    def test_require_refuses_it_in_plaintext(self) -> None:
        for opening in ([], [GSSENC_REQUEST]):
            negotiation = ServerNegotiation(REQUIRE)
            for request_ in opening:
                negotiation.receive(request_)
            self.assert_fatal(
                negotiation.receive(STARTUP.raw),
                "28000",
                "connection without SSL encryption refused: this server requires SSL",
                hint="Set sslmode=require, or a stricter mode, in the client.",
            )


class CancelRequestTests(RowTests):
    """Row: CancelRequest, plaintext or inside TLS."""

    def test_in_plaintext_even_where_TLS_is_required(self) -> None:
        for policy in (OFF, ON, REQUIRE):
            self.assertEqual(ServerNegotiation(policy).receive(CANCEL.raw), [Cancel(CANCEL)])

    def test_any_key_length_up_to_256(self) -> None:
        for length in (1, 4, 5, 32, 256):
            request_ = CancelRequest.build(bytes(4) + b"k" * length)
            self.assertEqual(ServerNegotiation(REQUIRE).receive(request_.raw), [Cancel(request_)])

    def test_no_key_or_one_that_is_too_long(self) -> None:
        for length in (4, 4 + 257):
            request_ = packet(bytes(length), CANCEL_REQUEST_CODE)
            self.assertEqual(
                ServerNegotiation(ON).receive(request_.raw),
                [Close("invalid length of cancel key in cancel request packet")],
            )

    def test_not_even_a_process_ID(self) -> None:
        for length in (0, 3):
            request_ = packet(bytes(length), CANCEL_REQUEST_CODE)
            self.assertEqual(
                ServerNegotiation(ON).receive(request_.raw),
                [Close("invalid length of cancel request packet")],
            )

    def test_cancel_tls_refuses_it_in_plaintext(self) -> None:
        policy = ServerPolicy(ssl=SSL.ON, cancel=CancelPolicy.TLS)
        self.assertEqual(
            ServerNegotiation(policy).receive(CANCEL.raw),
            [Close('cancel request in plaintext refused: cancel is "tls"')],
        )
        self.assertEqual(inside_tls(policy).receive(CANCEL.raw), [Cancel(CANCEL)])

    def test_what_stands_behind_it_goes_nowhere(self) -> None:
        self.assertEqual(ServerNegotiation(ON).receive(CANCEL.raw + b"more"), [Cancel(CANCEL)])


class PeerCancelRequestTests(RowTests):
    """A CancelRequest that another gateway passes on."""

    PEERS = ServerPolicy(ssl=SSL.ON, has_peers=True)
    FROM_PEER = replace(CANCEL, from_peer=True)

    def test_with_peers(self) -> None:
        for negotiation in (ServerNegotiation(self.PEERS), inside_tls(self.PEERS)):
            self.assertEqual(negotiation.receive(CANCEL.for_peers), [Cancel(self.FROM_PEER)])

    def test_a_client_s_stays_a_client_s(self) -> None:
        self.assertEqual(ServerNegotiation(self.PEERS).receive(CANCEL.raw), [Cancel(CANCEL)])

    def test_without_peers_it_is_a_protocol_that_nobody_knows(self) -> None:
        _, close = ServerNegotiation(ON).receive(CANCEL.for_peers)
        assert isinstance(close, Close)
        self.assertIn("unsupported frontend protocol 28775.29795", close.reason or "")

    def test_its_length_counts_and_cancel_tls(self) -> None:
        for length, reason in ((0, "request"), (4, "key in"), (261, "key in")):
            came = packet(bytes(length), PEER_CANCEL_REQUEST_CODE)
            (close,) = ServerNegotiation(self.PEERS).receive(came.raw)
            assert isinstance(close, Close)
            self.assertIn(f"invalid length of cancel {reason}", close.reason or "")
        policy = replace(self.PEERS, cancel=CancelPolicy.TLS)
        (close,) = ServerNegotiation(policy).receive(CANCEL.for_peers)
        self.assertEqual(close, Close('cancel request in plaintext refused: cancel is "tls"'))
        self.assertEqual(inside_tls(policy).receive(CANCEL.for_peers), [Cancel(self.FROM_PEER)])


class OtherProtocolTests(RowTests):
    """Row: protocol 2, and other versions that are not 3."""

    def test_before_3_an_error_of_protocol_2(self) -> None:
        for major, minor in ((0, 1), (1, 5), (2, 0), (2, 0xFFFF)):
            message = f"unsupported frontend protocol {major}.{minor}: server supports 3.0 to 3.2"
            self.assertEqual(
                ServerNegotiation(ON).receive(packet(bytes(288), major << 16 | minor).raw),
                [Send(f"EFATAL:  {message}\n\0".encode()), Close(message)],
            )

    def test_otherwise_an_error_of_protocol_3(self) -> None:
        # 0.0 is what PostgreSQL's FrontendProtocol holds before anything is known of the client.
        for major, minor in ((0, 0), (4, 0), (4, 7), (0xFFFF, 0xFFFF), (1234, 5677)):
            self.assert_fatal(
                ServerNegotiation(ON).receive(packet(b"\0", major << 16 | minor).raw),
                "0A000",
                f"unsupported frontend protocol {major}.{minor}: server supports 3.0 to 3.2",
            )

    def test_the_version_is_looked_at_before_the_parameters(self) -> None:
        actions = ServerNegotiation(REQUIRE).receive(packet(b"no terminator", 4 << 16).raw)
        self.assert_fatal(
            actions, "0A000", "unsupported frontend protocol 4.0: server supports 3.0 to 3.2"
        )


class StuffedRequestTests(RowTests):
    """Row: bytes behind an SSLRequest before the S (CVE-2021-23214)."""

    def test_no_S(self) -> None:
        for stuffing in (b"\0", STARTUP.raw, CLIENT_HELLO):
            self.assert_fatal(
                ServerNegotiation(ON).receive(SSL_REQUEST + stuffing),
                "08P01",
                "received unencrypted data after SSL request",
                detail=MAN_IN_THE_MIDDLE,
            )

    def test_nothing_of_them_is_used_later(self) -> None:
        negotiation = ServerNegotiation(ON)
        negotiation.receive(SSL_REQUEST + STARTUP.raw)
        self.assertEqual(negotiation.handshake_completed("postgresql"), [])
        self.assertEqual(negotiation.receive(STARTUP.raw), [])

    def test_behind_an_SSLRequest_that_is_refused(self) -> None:
        refusal, *fatal = ServerNegotiation(OFF).receive(SSL_REQUEST + STARTUP.raw)
        self.assertEqual(refusal, Send(b"N"))
        self.assert_fatal(
            fatal,
            "08P01",
            "received unencrypted data after SSL request",
            detail=MAN_IN_THE_MIDDLE,
        )

    def test_behind_a_GSSENCRequest(self) -> None:
        refusal, *fatal = ServerNegotiation(ON).receive(GSSENC_REQUEST + SSL_REQUEST)
        self.assertEqual(refusal, Send(b"N"))
        self.assert_fatal(
            fatal,
            "08P01",
            "received unencrypted data after GSSAPI encryption request",
            detail=MAN_IN_THE_MIDDLE,
        )


class InvalidPacketTests(RowTests):
    """Row: length word, terminator, user."""

    def test_a_length_out_of_bounds_closes_without_a_word(self) -> None:
        for length in (0, 7, MAX_PACKET_LENGTH + 1, 1 << 31, (1 << 32) - 1):
            for negotiation in (ServerNegotiation(ON), inside_tls()):
                self.assertEqual(negotiation.receive(struct.pack("!I", length)), INVALID_LENGTH)

    def test_the_terminator_is_not_the_last_byte(self) -> None:
        for body in (b"", b"user", b"user\0", b"user\0alice", b"user\0alice\0", b"\0\0"):
            self.assert_fatal(
                ServerNegotiation(ON).receive(packet(body).raw), "08P01", INVALID_LAYOUT
            )

    def test_no_user(self) -> None:
        for body in (b"\0", b"user\0\0\0", b"database\0shop\0\0"):
            self.assert_fatal(
                ServerNegotiation(ON).receive(packet(body).raw),
                "28000",
                "no PostgreSQL user name specified in startup packet",
            )

    def test_layout_then_user_then_encryption(self) -> None:
        # In plaintext, where TLS is required: the packet itself is looked at first.
        negotiation = ServerNegotiation(REQUIRE)
        self.assert_fatal(negotiation.receive(packet(b"").raw), "08P01", INVALID_LAYOUT)
        negotiation = ServerNegotiation(REQUIRE)
        self.assert_fatal(
            negotiation.receive(packet(b"\0").raw),
            "28000",
            "no PostgreSQL user name specified in startup packet",
        )


class EndOfFileTests(RowTests):
    """Row: nothing, or a part, and then end of file."""

    def after(self, negotiation: ServerNegotiation, *chunks: bytes) -> list[Action]:
        """What end of file gives behind these bytes."""
        for chunk in chunks:
            negotiation.receive(chunk)
        return negotiation.eof()

    def test_silent_when_no_byte_came(self) -> None:
        self.assertEqual(self.after(ServerNegotiation(ON)), SILENT)

    def test_silent_when_the_answer_was_not_liked(self) -> None:
        self.assertEqual(self.after(ServerNegotiation(OFF), SSL_REQUEST), SILENT)
        self.assertEqual(self.after(inside_tls()), SILENT)
        self.assertEqual(self.after(inside_direct_tls()), SILENT)

    def test_a_part_of_the_first_packet(self) -> None:
        for length in range(1, 8):
            self.assertEqual(self.after(ServerNegotiation(ON), SSL_REQUEST[:length]), INCOMPLETE)

    def test_a_part_of_a_later_length_word_is_silent(self) -> None:
        self.assertEqual(self.after(ServerNegotiation(OFF), SSL_REQUEST, b"\0"), SILENT)
        self.assertEqual(self.after(ServerNegotiation(OFF), GSSENC_REQUEST, b"\0\0\0"), SILENT)
        self.assertEqual(self.after(inside_tls(), b"\0\0\0"), SILENT)

    def test_a_part_of_a_later_packet(self) -> None:
        for length in (4, 8, len(STARTUP.raw) - 1):
            begun = STARTUP.raw[:length]
            self.assertEqual(self.after(ServerNegotiation(OFF), SSL_REQUEST, begun), INCOMPLETE)
            self.assertEqual(self.after(inside_tls(), begun), INCOMPLETE)

    def test_during_the_handshake_TLS_has_the_word(self) -> None:
        self.assertEqual(self.after(ServerNegotiation(ON), SSL_REQUEST), SILENT)


class TimeoutTests(RowTests):
    """Row: nothing complete within authentication_timeout."""

    OVER = [
        Close(
            "canceling authentication due to timeout: authentication_timeout is over before the "
            "startup packet was complete"
        )
    ]

    def test_nothing_came(self) -> None:
        self.assertEqual(ServerNegotiation(ON).timed_out(), self.OVER)

    def test_a_part_came(self) -> None:
        negotiation = ServerNegotiation(ON)
        negotiation.receive(STARTUP.raw[:-1])
        self.assertEqual(negotiation.timed_out(), self.OVER)

    def test_the_handshake_counts(self) -> None:
        negotiation = ServerNegotiation(ON)
        negotiation.receive(SSL_REQUEST)
        self.assertEqual(negotiation.timed_out(), self.OVER)

    def test_inside_TLS_too(self) -> None:
        self.assertEqual(inside_tls().timed_out(), self.OVER)

    def test_not_once_the_StartupMessage_is_there(self) -> None:
        negotiation = ServerNegotiation(ON)
        negotiation.receive(STARTUP.raw)
        self.assertEqual(negotiation.timed_out(), [])


def full(policy: ServerPolicy = ON, *, handshakes: bool = True) -> ServerNegotiation:
    """A negotiation where no session can begin.

    :param handshakes: whether one may begin to say so.
    """
    return ServerNegotiation(policy, lambda: TOO_MANY, lambda: None if handshakes else TOO_MANY)


class NoSessionTests(RowTests):
    """``max_connections`` or a shutdown: the negotiation goes on as ever, and the StartupMessage
    is answered with the error."""

    def assert_too_many(self, actions: list[Action]) -> None:
        self.assert_fatal(actions, "53300", "sorry, too many clients already")

    def test_both_requests_are_answered_as_ever(self) -> None:
        negotiation = full()
        self.assertEqual(negotiation.receive(GSSENC_REQUEST), [Send(b"N")])
        self.assertEqual(negotiation.receive(SSL_REQUEST), [Send(b"S"), StartTLS()])

    def test_the_StartupMessage_is_refused_inside_TLS(self) -> None:
        negotiation = full()
        negotiation.receive(SSL_REQUEST)
        negotiation.handshake_completed("postgresql")
        self.assert_too_many(negotiation.receive(STARTUP.raw))

    def test_in_plaintext(self) -> None:
        self.assert_too_many(full().receive(STARTUP.raw))

    def test_before_the_lack_of_encryption_is(self) -> None:
        self.assert_too_many(full(REQUIRE).receive(STARTUP.raw))

    def test_direct_TLS_is_answered_inside(self) -> None:
        negotiation = full()
        self.assertEqual(negotiation.receive(CLIENT_HELLO), [StartTLS(CLIENT_HELLO)])
        self.assertEqual(negotiation.handshake_completed("postgresql"), [])
        self.assert_too_many(negotiation.receive(STARTUP.raw))

    def test_a_CancelRequest_counts_in_every_form(self) -> None:
        self.assertEqual(full().receive(CANCEL.raw), [Cancel(CANCEL)])
        for opening in (SSL_REQUEST, CLIENT_HELLO):
            negotiation = full()
            negotiation.receive(opening)
            negotiation.handshake_completed("postgresql")
            self.assertEqual(negotiation.receive(CANCEL.raw), [Cancel(CANCEL)])

    def test_a_broken_packet_is_still_a_broken_packet(self) -> None:
        self.assert_fatal(full().receive(packet(b"").raw), "08P01", INVALID_LAYOUT)

    def test_without_a_handshake_the_SSLRequest_is_answered_so(self) -> None:
        self.assert_too_many(full(handshakes=False).receive(SSL_REQUEST))

    def test_without_a_handshake_direct_TLS_is_closed(self) -> None:
        self.assertEqual(
            full(handshakes=False).receive(CLIENT_HELLO),
            [Close("sorry, too many clients already")],
        )

    def test_without_a_handshake_a_CancelRequest_in_plaintext_counts(self) -> None:
        self.assertEqual(full(handshakes=False).receive(CANCEL.raw), [Cancel(CANCEL)])

    def test_where_there_is_no_TLS_no_handshake_is_asked_about(self) -> None:
        negotiation = full(OFF, handshakes=False)
        self.assertEqual(negotiation.receive(SSL_REQUEST), [Send(b"N")])


class PropertyTests(RowTests):
    """Whatever comes, in whatever pieces."""

    policies = st.builds(
        ServerPolicy,
        ssl=st.sampled_from(SSL),
        cancel=st.sampled_from(CancelPolicy),
        tls_available=st.booleans(),
    )

    def converse(self, policy: ServerPolicy, packets: list[list[bytes]]) -> list[Action]:
        """Send each packet, in its pieces, when the one before has been answered."""
        negotiation = ServerNegotiation(policy)
        actions: list[Action] = []
        for chunks in packets:
            for chunk in chunks:
                step = negotiation.receive(chunk)
                if any(isinstance(action, StartTLS) for action in step):
                    step += negotiation.handshake_completed("postgresql")
                actions += step
        return actions

    @settings(deadline=None)
    @given(st.data(), policies, st.lists(request, max_size=2, unique=True))
    def test_any_split_of_a_conversation_gives_the_same_actions(
        self, data: st.DataObject, policy: ServerPolicy, requests: list[bytes]
    ) -> None:
        last = data.draw(st.sampled_from([STARTUP.raw, CANCEL.raw, packet(b"x\0").raw]))
        packets = [*requests, last]
        whole = self.converse(policy, [[packet_] for packet_ in packets])
        split = self.converse(policy, [pieces(data, packet_) for packet_ in packets])
        self.assertEqual(split, whole)

    garbage = st.one_of(
        st.binary(max_size=40),
        st.binary(max_size=12_000),
        request,
        st.sampled_from([STARTUP.raw, CANCEL.raw, CLIENT_HELLO]),
        # a packet of any code and length
        st.builds(
            packet,
            st.binary(max_size=300),
            st.sampled_from(
                [SSL_REQUEST_CODE, GSSENC_REQUEST_CODE, CANCEL_REQUEST_CODE, 2 << 16, 3 << 16]
            ),
        ).map(lambda whole: whole.raw),
    )

    @settings(deadline=None)
    @given(st.data(), policies, st.lists(garbage, max_size=8))
    def test_any_bytes_are_answered_within_bounds(
        self, data: st.DataObject, policy: ServerPolicy, chunks: list[bytes]
    ) -> None:
        negotiation = ServerNegotiation(policy)
        over = False
        for chunk in chunks:
            actions = negotiation.receive(chunk)
            self.assertLessEqual(len(negotiation._buffer), MAX_PACKET_LENGTH + len(chunk))
            if over:
                self.assertEqual(actions, [])
            if any(isinstance(action, StartTLS) for action in actions):
                alpn = data.draw(st.sampled_from([None, "postgresql"]))
                actions = negotiation.handshake_completed(alpn)
            over = over or any(isinstance(action, Startup | Cancel | Close) for action in actions)
        ending = data.draw(st.sampled_from([negotiation.eof, negotiation.timed_out]))()
        self.assertTrue(all(isinstance(action, Close) for action in ending))

    @settings(deadline=None)
    @given(policies, st.lists(st.binary(min_size=1, max_size=400), min_size=30, max_size=60))
    def test_a_packet_that_never_ends_is_not_collected(
        self, policy: ServerPolicy, chunks: list[bytes]
    ) -> None:
        negotiation = ServerNegotiation(policy)
        negotiation.receive(struct.pack("!I", MAX_PACKET_LENGTH))
        for chunk in chunks:
            negotiation.receive(chunk)
            self.assertLess(len(negotiation._buffer), MAX_PACKET_LENGTH + len(chunk))
