"""DESIGN.md section 3, "Client side", row by row: PQconnectPoll().

The words are those of ``src/interfaces/libpq/fe-connect.c`` and ``fe-secure-openssl.c``,
PostgreSQL 18. What a whole series of attempts comes to is in :mod:`tests.unit.wire.test_attempts`.
"""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from pgtls.errors import (
    CertificateNotVerified,
    ConnectFailed,
    NegotiationRefused,
    PgTLSError,
    ProtocolViolation,
)
from pgtls.wire.attempts import Attempts, SSLMode, SSLNegotiation
from pgtls.wire.client_negotiation import (
    Action,
    ClientNegotiation,
    Event,
    Fail,
    NextHost,
    Ready,
    Reconnect,
    Report,
    StartTLS,
)
from pgtls.wire.first_answer import MAX_ERROR_LENGTH
from pgtls.wire.messages import SSL_REQUEST, ErrorResponse, ServerRejected, StartupMessage
from pgtls.wire.negotiation import Send
from tests.unit.wire.test_messages import message, pieces

STARTUP = StartupMessage.build({b"user": b"alice"}).raw
OK = message(b"R", bytes(4))
SASL = message(b"R", bytes([0, 0, 0, 10]) + b"SCRAM-SHA-256\0\0")
NEGOTIATE = message(b"v", bytes([0, 3, 0, 0, 0, 0, 0, 0]))  # 3.0, no parameters refused
NO_ENTRY = ErrorResponse.fatal("28000", "no pg_hba.conf entry").encode()
TOO_MANY = ErrorResponse.fatal("53300", "sorry, too many clients already").encode()
STARTING_UP = ErrorResponse.fatal("57P03", "the database system is starting up").encode()
PROTOCOL_2_ERROR = b"EFATAL:  the database system is starting up\n\0"
PLAIN_TEXT_ERROR = b"Ecould not fork new process: \x1b[31mtrust me\n\0"

FALLING_BACK = (SSLMode.ALLOW, SSLMode.PREFER)
STRICT = (SSLMode.REQUIRE, SSLMode.VERIFY_CA, SSLMode.VERIFY_FULL)
ENDINGS = (Ready, Reconnect, NextHost, Fail)


def asking(sslmode: SSLMode, startup: bytes | None = STARTUP) -> ClientNegotiation:
    """A connection on which SSLRequest was sent; under allow it is the second one."""
    attempts: Attempts | None = Attempts.plan(sslmode)
    if sslmode is SSLMode.ALLOW and attempts is not None:
        attempts = attempts.failed()
    assert attempts is not None
    negotiation = ClientNegotiation(attempts, startup)
    negotiation.connected()
    return negotiation


def secured(sslmode: SSLMode) -> ClientNegotiation:
    """A connection with TLS on it and the StartupMessage sent."""
    negotiation = asking(sslmode)
    negotiation.receive(b"S")
    negotiation.handshake_completed("postgresql")
    return negotiation


def direct(startup: bytes | None = STARTUP) -> ClientNegotiation:
    """A connection that began with TLS, whose handshake goes on."""
    attempts = Attempts.plan(SSLMode.REQUIRE, SSLNegotiation.DIRECT)
    negotiation = ClientNegotiation(attempts, startup)
    negotiation.connected()
    return negotiation


def error_of(actions: list[Action]) -> PgTLSError:
    """The error that the last action carries."""
    last = actions[-1]
    assert isinstance(last, Reconnect | NextHost | Fail), last
    return last.error


class RowTests(SynchronousTestCase):
    """What the rows' tests have in common."""

    def assert_fails(
        self, actions: list[Action], kind: type[PgTLSError], reason: str, *events: Event
    ) -> None:
        """These events, and then no other attempt."""
        self.assertEqual(actions[:-1], [Report(event) for event in events])
        self.assertIsInstance(actions[-1], Fail)
        error = error_of(actions)
        self.assertIsInstance(error, kind)
        self.assertEqual(str(error), reason)

    def assert_reconnects_in_plaintext(self, actions: list[Action], *events: Event) -> None:
        """These events, and then a new connection without SSL."""
        self.assertEqual(actions[:-1], [Report(event) for event in events])
        last = actions[-1]
        assert isinstance(last, Reconnect), last
        self.assertEqual(last.attempts, Attempts.plan(SSLMode.DISABLE))


class OpeningTests(RowTests):
    """What is sent first."""

    def test_SSLRequest(self) -> None:
        for sslmode in (SSLMode.PREFER, *STRICT):
            negotiation = ClientNegotiation(Attempts.plan(sslmode), STARTUP)
            self.assertEqual(negotiation.connected(), [Report(Event.CONNECT), Send(SSL_REQUEST)])

    def test_the_StartupMessage(self) -> None:
        for sslmode in (SSLMode.DISABLE, SSLMode.ALLOW):
            negotiation = ClientNegotiation(Attempts.plan(sslmode), STARTUP)
            self.assertEqual(negotiation.connected(), [Report(Event.CONNECT), Send(STARTUP)])

    def test_a_ClientHello(self) -> None:
        for sslmode in STRICT:
            attempts = Attempts.plan(sslmode, SSLNegotiation.DIRECT)
            negotiation = ClientNegotiation(attempts, STARTUP)
            self.assertEqual(negotiation.connected(), [Report(Event.CONNECT), StartTLS()])

    def test_nothing_where_the_application_begins(self) -> None:
        negotiation = ClientNegotiation(Attempts.plan(SSLMode.DISABLE))
        self.assertEqual(negotiation.connected(), [Report(Event.CONNECT), Ready()])

    def test_a_Unix_socket_gets_no_TLS_whatever_the_sslmode(self) -> None:
        for sslmode in SSLMode:
            for ssl_negotiation in SSLNegotiation:
                attempts = Attempts.plan(sslmode, ssl_negotiation, unix_socket=True)
                negotiation = ClientNegotiation(attempts, STARTUP)
                self.assertEqual(negotiation.connected(), [Report(Event.CONNECT), Send(STARTUP)])

    def test_a_later_attempt_is_reported_as_one(self) -> None:
        negotiation = ClientNegotiation(Attempts.plan(SSLMode.DISABLE), None, Event.RECONNECT)
        self.assertEqual(negotiation.connected(), [Report(Event.RECONNECT), Ready()])


class STests(RowTests):
    """Row: S alone."""

    def test_TLS_on_this_connection(self) -> None:
        for sslmode in (*FALLING_BACK, *STRICT):
            actions = asking(sslmode).receive(b"S")
            self.assertEqual(actions, [Report(Event.SSLACCEPT), StartTLS()])

    def test_the_StartupMessage_goes_out_inside_TLS(self) -> None:
        negotiation = asking(SSLMode.REQUIRE)
        negotiation.receive(b"S")
        self.assertEqual(negotiation.handshake_completed("postgresql"), [Send(STARTUP)])

    def test_no_ALPN_is_needed(self) -> None:
        negotiation = asking(SSLMode.REQUIRE)
        negotiation.receive(b"S")
        self.assertEqual(negotiation.handshake_completed(None), [Send(STARTUP)])

    def test_or_the_application_begins(self) -> None:
        negotiation = asking(SSLMode.REQUIRE, startup=None)
        negotiation.receive(b"S")
        self.assertEqual(negotiation.handshake_completed("postgresql"), [Ready()])

    def test_any_further_byte_ends_it(self) -> None:  # CVE-2021-23222
        for sslmode in (*FALLING_BACK, *STRICT):
            for stuffing in (b"\0", b"S", OK, b"\x16\x03\x03"):
                self.assert_fails(
                    asking(sslmode).receive(b"S" + stuffing),
                    ProtocolViolation,
                    "received unencrypted data after SSL response",
                    Event.SSLACCEPT,
                )


class NTests(RowTests):
    """Row: N."""

    def test_prefer_goes_on_in_plaintext_on_this_connection(self) -> None:
        actions = asking(SSLMode.PREFER).receive(b"N")
        self.assertEqual(actions, [Report(Event.SSLREJECT), Send(STARTUP)])

    def test_or_the_application_begins_in_plaintext(self) -> None:
        actions = asking(SSLMode.PREFER, startup=None).receive(b"N")
        self.assertEqual(actions, [Report(Event.SSLREJECT), Ready()])

    def test_what_came_behind_it_is_the_answer(self) -> None:
        # libpq reads on too; here nothing was ever going to be encrypted.
        actions = asking(SSLMode.PREFER).receive(b"N" + OK)
        self.assertEqual(
            actions,
            [Report(Event.SSLREJECT), Send(STARTUP), Report(Event.AUTHOK), Ready(OK)],
        )

    def test_stricter_modes_fail_and_so_does_allow_where_plaintext_was_refused(self) -> None:
        for sslmode in (SSLMode.ALLOW, *STRICT):
            self.assert_fails(
                asking(sslmode).receive(b"N"),
                NegotiationRefused,
                "server does not support SSL, but SSL was required",
                Event.SSLREJECT,
            )


class ETests(RowTests):
    """Row: E, the one rule that is not libpq's."""

    def test_prefer_reconnects_without_SSL(self) -> None:
        self.assert_reconnects_in_plaintext(asking(SSLMode.PREFER).receive(b"E"), Event.SSLERROR)

    def test_stricter_modes_fail_and_so_does_allow_where_plaintext_was_refused(self) -> None:
        for sslmode in (SSLMode.ALLOW, *STRICT):
            self.assert_fails(
                asking(sslmode).receive(b"E"),
                NegotiationRefused,
                "server sent an error response during SSL exchange",
                Event.SSLERROR,
            )

    def test_the_text_behind_it_is_never_shown(self) -> None:  # CVE-2024-10977
        for sslmode in (*FALLING_BACK, *STRICT):
            for text in (PLAIN_TEXT_ERROR, NO_ENTRY, STARTING_UP):
                error = error_of(asking(sslmode).receive(text))
                self.assertEqual(str(error), "server sent an error response during SSL exchange")

    def test_the_text_behind_it_decides_nothing(self) -> None:
        # Not even 57P03, which from a server that is known leads to the next host.
        for text in (STARTING_UP, NO_ENTRY, PLAIN_TEXT_ERROR):
            self.assert_reconnects_in_plaintext(
                asking(SSLMode.PREFER).receive(text), Event.SSLERROR
            )

    def test_nothing_that_comes_later_is_read(self) -> None:
        negotiation = asking(SSLMode.PREFER)
        negotiation.receive(b"E")
        self.assertEqual(negotiation.receive(STARTING_UP[1:]), [])
        self.assertEqual(negotiation.lost(), [])


class AnythingElseTests(RowTests):
    """Row: anything else, or end of file."""

    def test_the_byte_is_named(self) -> None:
        names = {b"H": "H", b"G": "G", b"s": "s", b"\0": "0x00", b"\xff": "0xFF"}
        for reply, name in names.items():
            for sslmode in (*FALLING_BACK, *STRICT):
                self.assert_fails(
                    asking(sslmode).receive(reply + b"TTP/1.1 400 Bad Request\r\n"),
                    ProtocolViolation,
                    f"received invalid response to SSL negotiation: {name}",
                )

    def test_end_of_file(self) -> None:
        for sslmode in (*FALLING_BACK, *STRICT):
            actions = asking(sslmode).lost()
            self.assertIsInstance(actions[0], Fail)
            self.assertIsInstance(error_of(actions), ConnectFailed)
            self.assertIn("server closed the connection unexpectedly", str(error_of(actions)))

    def test_end_of_file_where_more_is_known(self) -> None:
        error = NegotiationRefused("tlsv13 alert certificate required")
        self.assertEqual(secured(SSLMode.PREFER).lost(error), [Fail(error)])


class HandshakeFailureTests(RowTests):
    """Paragraph: a failed handshake leads prefer from TLS to plaintext."""

    errors = (NegotiationRefused("wrong version number"), CertificateNotVerified("expired", 0))

    def failing(self, sslmode: SSLMode, error: PgTLSError) -> list[Action]:
        """What a failed handshake leads to."""
        negotiation = asking(sslmode)
        negotiation.receive(b"S")
        return negotiation.handshake_failed(error)

    def test_prefer_reconnects_in_plaintext(self) -> None:
        for error in self.errors:
            self.assert_reconnects_in_plaintext(self.failing(SSLMode.PREFER, error))

    def test_stricter_modes_fail_and_so_does_allow_where_plaintext_was_refused(self) -> None:
        for sslmode in (SSLMode.ALLOW, *STRICT):
            for error in self.errors:
                self.assertEqual(self.failing(sslmode, error), [Fail(error)])


class DirectTests(RowTests):
    """Paragraph: ``sslnegotiation=direct``."""

    def test_accepted(self) -> None:
        self.assertEqual(
            direct().handshake_completed("postgresql"),
            [Report(Event.DIRECTSSLACCEPT), Send(STARTUP)],
        )
        self.assertEqual(
            direct(None).handshake_completed("postgresql"),
            [Report(Event.DIRECTSSLACCEPT), Ready()],
        )

    def test_no_ALPN(self) -> None:
        self.assert_fails(
            direct().handshake_completed(None),
            NegotiationRefused,
            "direct SSL connection was established without ALPN protocol negotiation extension",
            Event.DIRECTSSLREJECT,
        )

    def test_another_ALPN_protocol(self) -> None:
        self.assert_fails(
            direct().handshake_completed("http/1.1"),
            NegotiationRefused,
            "SSL connection was established with unexpected ALPN protocol",
            Event.DIRECTSSLREJECT,
        )

    def test_the_handshake_fails(self) -> None:
        error = NegotiationRefused("unexpected eof while reading")
        self.assertEqual(
            direct().handshake_failed(error), [Report(Event.DIRECTSSLREJECT), Fail(error)]
        )


class FirstAnswerTests(RowTests):
    """Paragraph: what the answer to the StartupMessage leads to."""

    def test_let_in(self) -> None:
        negotiation = secured(SSLMode.REQUIRE)
        self.assertEqual(
            negotiation.receive(NEGOTIATE + OK + b"S"),
            [Report(Event.AUTHOK), Ready(NEGOTIATE + OK + b"S")],
        )

    def test_asked_for_a_password(self) -> None:
        self.assertEqual(
            secured(SSLMode.REQUIRE).receive(SASL), [Report(Event.AUTHREQUEST), Ready(SASL)]
        )

    def test_any_error_leads_prefer_from_TLS_to_plaintext(self) -> None:
        for error, event in ((NO_ENTRY, Event.AUTHFAIL), (TOO_MANY, Event.BACKENDERROR)):
            self.assert_reconnects_in_plaintext(secured(SSLMode.PREFER).receive(error), event)

    def test_any_error_leads_allow_from_plaintext_to_TLS(self) -> None:
        for error, event in ((NO_ENTRY, Event.AUTHFAIL), (TOO_MANY, Event.BACKENDERROR)):
            negotiation = ClientNegotiation(Attempts.plan(SSLMode.ALLOW), STARTUP)
            negotiation.connected()
            report, reconnect = negotiation.receive(error)
            self.assertEqual(report, Report(event))
            assert isinstance(reconnect, Reconnect)
            self.assertEqual(reconnect.attempts, Attempts.plan(SSLMode.REQUIRE))

    def test_otherwise_it_is_the_end(self) -> None:
        for sslmode in (SSLMode.ALLOW, *STRICT):
            self.assert_fails(
                secured(sslmode).receive(NO_ENTRY),
                ServerRejected,
                "FATAL:  no pg_hba.conf entry",
                Event.AUTHFAIL,
            )

    def test_57P03_leads_to_the_next_host(self) -> None:
        for sslmode in (SSLMode.ALLOW, SSLMode.PREFER, *STRICT):
            report, following = secured(sslmode).receive(STARTING_UP)
            self.assertEqual(report, Report(Event.BACKENDERROR))
            assert isinstance(following, NextHost)
            self.assertEqual(str(following.error), "FATAL:  the database system is starting up")

    def test_an_error_of_protocol_2_is_the_end(self) -> None:
        for sslmode in (*FALLING_BACK, *STRICT):
            self.assert_fails(
                secured(sslmode).receive(PROTOCOL_2_ERROR),
                ProtocolViolation,
                "server sent an error response in protocol 2's format",
                Event.BACKENDERROR,
            )

    def test_garbage_is_the_end(self) -> None:
        for sslmode in (*FALLING_BACK, *STRICT):
            self.assert_fails(
                secured(sslmode).receive(b"HTTP/1.1 400 Bad Request\r\n"),
                ProtocolViolation,
                "expected authentication request from server, but received H",
            )


class PropertyTests(RowTests):
    """Whatever comes, in whatever pieces."""

    plans = st.builds(Attempts.plan, st.sampled_from(SSLMode), unix_socket=st.booleans()) | st.just(
        Attempts.plan(SSLMode.REQUIRE, SSLNegotiation.DIRECT)
    )
    answers = st.sampled_from(
        [OK, SASL, NEGOTIATE + OK, NO_ENTRY, TOO_MANY, STARTING_UP, PROTOCOL_2_ERROR, b"HTTP/1.1"]
    )

    def converse(
        self, plan: Attempts, startup: bytes | None, reply: bytes, answers: list[bytes]
    ) -> list[Action]:
        """Reply to SSLRequest where there is one, complete every handshake, then the answer."""
        negotiation = ClientNegotiation(plan, startup)
        actions = negotiation.connected()
        if actions[-1] == Send(SSL_REQUEST):
            actions += negotiation.receive(reply)
        if actions[-1] == StartTLS():
            actions += negotiation.handshake_completed("postgresql")
        for answer in answers:
            if isinstance(actions[-1], Ready):
                actions[-1] = Ready(actions[-1].rest + answer)
            else:
                actions += negotiation.receive(answer)
        return actions

    @settings(deadline=None)
    @given(st.data(), plans, st.sampled_from([STARTUP, None]), st.sampled_from([b"S", b"N", b"E"]))
    def test_any_split_of_the_answer_gives_the_same_actions(
        self, data: st.DataObject, plan: Attempts, startup: bytes | None, reply: bytes
    ) -> None:
        answer = data.draw(self.answers)
        whole = self.converse(plan, startup, reply, [answer])
        split = self.converse(plan, startup, reply, pieces(data, answer))
        self.assertEqual(repr(split), repr(whole))  # errors are equal by their words

    garbage = st.one_of(
        st.binary(max_size=40),
        st.binary(max_size=9000),
        st.sampled_from([b"S", b"N", b"E"]),
        answers,
        st.builds(message, st.sampled_from([b"R", b"v", b"E"]), st.binary(max_size=40)),
    )

    @settings(deadline=None)
    @given(st.data(), plans, st.sampled_from([STARTUP, None]))
    def test_whatever_happens_is_answered_within_bounds(
        self, data: st.DataObject, plan: Attempts, startup: bytes | None
    ) -> None:
        negotiation = ClientNegotiation(plan, startup)
        actions = negotiation.connected()
        over = False
        for _ in range(data.draw(st.integers(0, 8))):
            over = over or any(isinstance(action, ENDINGS) for action in actions)
            happens = data.draw(st.sampled_from(["bytes", "bytes", "completed", "failed", "lost"]))
            chunk = data.draw(self.garbage)
            if happens == "bytes":
                actions = negotiation.receive(chunk)
            elif happens == "completed":
                actions = negotiation.handshake_completed(
                    data.draw(st.sampled_from(["postgresql", "http/1.1", None]))
                )
            elif happens == "failed":
                actions = negotiation.handshake_failed(NegotiationRefused("handshake failure"))
            else:
                actions = negotiation.lost()
            if over:
                self.assertEqual(actions, [])
            self.assertLessEqual(
                len(negotiation._answer.received), 2 * (1 + MAX_ERROR_LENGTH) + len(chunk)
            )
