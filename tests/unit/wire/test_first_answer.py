"""The server's first answer to a StartupMessage: libpq's CONNECTION_AWAITING_RESPONSE."""

from __future__ import annotations

import struct

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from pgtls.errors import ProtocolViolation
from pgtls.wire.first_answer import MAX_ERROR_LENGTH, Answer, FirstAnswer
from pgtls.wire.messages import ErrorResponse
from tests.unit.wire.test_messages import message, pieces

OK = message(b"R", bytes(4))
PASSWORD = message(b"R", bytes([0, 0, 0, 3]))
SASL = message(b"R", bytes([0, 0, 0, 10]) + b"SCRAM-SHA-256\0\0")
NEGOTIATE = message(b"v", struct.pack("!II", 0x00030000, 1) + b"_pq_.x\0")
ERROR = ErrorResponse.fatal("28000", "no pg_hba.conf entry").encode()


class FirstAnswerTests(SynchronousTestCase):
    """FirstAnswer."""

    def violation(self, data: bytes) -> str:
        """What is wrong with these bytes."""
        with self.assertRaises(ProtocolViolation) as caught:
            FirstAnswer().receive(data)
        return str(caught.exception)

    def test_let_in(self) -> None:
        self.assertIs(FirstAnswer().receive(OK), Answer.OK)

    def test_a_password_or_SASL_is_asked_for(self) -> None:
        for request in (PASSWORD, SASL):
            self.assertIs(FirstAnswer().receive(request), Answer.AUTHENTICATION_REQUEST)

    def test_an_error(self) -> None:
        answer = FirstAnswer()
        self.assertIs(answer.receive(ERROR), Answer.ERROR)
        self.assertEqual(answer.error.sqlstate, "28000")
        self.assertEqual(answer.error.raw, ERROR)

    def test_a_long_error(self) -> None:
        body = b"SFATAL\0C28000\0M"
        body += b"x" * (MAX_ERROR_LENGTH - 4 - len(body) - 2) + b"\0\0"
        answer = FirstAnswer()
        self.assertIs(answer.receive(message(b"E", body)), Answer.ERROR)
        self.assertEqual(answer.error.sqlstate, "28000")

    def test_the_protocol_version_is_negotiated_first(self) -> None:
        answer = FirstAnswer()
        self.assertIs(answer.receive(NEGOTIATE), None)
        self.assertIs(answer.receive(OK), Answer.OK)
        self.assertEqual(answer.received, NEGOTIATE + OK)

    def test_the_protocol_version_is_negotiated_twice(self) -> None:
        self.assertEqual(
            self.violation(NEGOTIATE + NEGOTIATE),
            "received duplicate protocol negotiation message",
        )

    def test_not_PostgreSQL_at_all(self) -> None:
        self.assertEqual(
            self.violation(b"HTTP/1.1 400 Bad Request\r\n"),
            "expected authentication request from server, but received H",
        )

    def test_the_byte_is_named_where_it_cannot_be_printed(self) -> None:
        self.assertEqual(
            self.violation(b"\x15\x03\x03"),
            "expected authentication request from server, but received 0x15",
        )

    def test_lengths_of_an_authentication_request(self) -> None:
        for length in (0, 7, 2001):
            self.assertEqual(
                self.violation(b"R" + struct.pack("!I", length)),
                "received invalid authentication request",
            )

    def test_lengths_of_a_protocol_negotiation(self) -> None:
        for length in (0, 7, MAX_ERROR_LENGTH + 1):
            self.assertEqual(
                self.violation(b"v" + struct.pack("!I", length)),
                "received invalid protocol negotiation message",
            )

    def test_an_error_of_protocol_2_is_not_shown(self) -> None:
        # The first four letters of its text, read as a length, are out of bounds.
        violation = self.violation(b"EFATAL:  the database system is starting up\n\0")
        self.assertEqual(violation, "server sent an error response in protocol 2's format")

    @settings(deadline=None)
    @given(st.data())
    def test_any_split_gives_the_same_answer(self, data: st.DataObject) -> None:
        opening = data.draw(st.sampled_from([b"", NEGOTIATE]))
        deciding = data.draw(st.sampled_from([OK, PASSWORD, SASL, ERROR]))
        whole = opening + deciding + data.draw(st.binary(max_size=9))
        at_once = FirstAnswer()
        expected = at_once.receive(whole)
        answer = FirstAnswer()
        given_answer = None
        rest = pieces(data, whole)
        while given_answer is None:
            given_answer = answer.receive(rest.pop(0))
        self.assertIs(given_answer, expected)
        self.assertEqual(answer.error, at_once.error)
        self.assertEqual(answer.received + b"".join(rest), whole)

    @settings(deadline=None)
    @given(
        st.lists(st.binary(max_size=9000), max_size=20), st.sampled_from([b"", b"v", b"E", b"R"])
    )
    def test_any_bytes_give_an_answer_or_a_ProtocolViolation(
        self, chunks: list[bytes], opening: bytes
    ) -> None:
        answer = FirstAnswer()
        try:
            for chunk in [opening, *chunks]:
                if answer.receive(chunk) is not None:
                    break
                self.assertLessEqual(len(answer.received), 2 * (1 + MAX_ERROR_LENGTH))
        except ProtocolViolation:
            pass

    def test_nothing_is_collected_without_bound(self) -> None:
        longest = b"v" + struct.pack("!I", MAX_ERROR_LENGTH) + bytes(MAX_ERROR_LENGTH - 4)
        answer = FirstAnswer()
        self.assertIs(answer.receive(longest), None)
        with self.assertRaises(ProtocolViolation):
            answer.receive(longest)
