"""require_auth and channel_binding=require, as libpq reads them and holds servers to them.

Each request that a server may begin with is held against libpq in
``tests/integration/test_required_authentication.py``.
"""

from __future__ import annotations

import struct

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from pgtls.errors import AuthenticationNotAllowed, PgTLSError, ProtocolViolation
from pgtls.wire.required_authentication import (
    AuthenticationCheck,
    RequiredAuthentication,
    sasl_request,
)
from tests.unit.wire.test_messages import message, pieces

OK = message(b"R", bytes(4))
CLEARTEXT = message(b"R", struct.pack("!I", 3))
SASL_BOTH = sasl_request(["SCRAM-SHA-256-PLUS", "SCRAM-SHA-256"])
SASL_PLUS = sasl_request(["SCRAM-SHA-256-PLUS"])
CONTINUE = message(b"R", struct.pack("!I", 11) + b"r=")
FINAL = message(b"R", struct.pack("!I", 12) + b"v=")
STATUS = message(b"S", b"server_version\x0018.0\0")


def check(require_auth: str = "", *, binding: bool = False) -> AuthenticationCheck:
    """A check of a connection with TLS."""
    required = RequiredAuthentication.read(require_auth, channel_binding=binding)
    assert required is not None
    return AuthenticationCheck(required, encrypted=True)


def initial(mechanism: bytes) -> bytes:
    """A SASLInitialResponse."""
    return message(b"p", mechanism + b"\0" + struct.pack("!I", 8) + b"n,,n=,r=")


class RequiredAuthenticationTests(SynchronousTestCase):
    """What the parameters allow."""

    def test_where_nothing_is_required_there_is_nothing_to_check(self) -> None:
        self.assertIs(RequiredAuthentication.read("", channel_binding=False), None)

    def test_an_offer_keeps_what_is_allowed(self) -> None:
        offer = sasl_request(["SCRAM-SHA-256-PLUS", "SCRAM-SHA-512", "SCRAM-SHA-256"])
        self.assertEqual(check("scram-sha-256").from_server(offer), SASL_BOTH)
        self.assertEqual(check(binding=True).from_server(offer), SASL_PLUS)


class AuthenticationCheckTests(SynchronousTestCase):
    """A whole exchange, with both sides of it watched."""

    def refused(self, checked: AuthenticationCheck, data: bytes) -> str:
        with self.assertRaises(PgTLSError) as caught:
            checked.from_server(data)
        return str(caught.exception)

    def test_SCRAM_with_channel_binding(self) -> None:
        checked = check("scram-sha-256", binding=True)
        self.assertEqual(checked.from_server(SASL_BOTH), SASL_PLUS)
        chosen = initial(b"SCRAM-SHA-256-PLUS")
        self.assertEqual(checked.from_client(chosen), chosen)
        checked.from_server(CONTINUE)
        checked.from_client(message(b"p", b"c="))
        self.assertEqual(checked.from_server(FINAL + OK + STATUS), FINAL + OK + STATUS)
        self.assertTrue(checked.completed)
        self.assertEqual(checked.from_server(CLEARTEXT), CLEARTEXT)

    def test_a_mechanism_that_is_not_allowed(self) -> None:
        for checked, chosen, expected in (
            (
                check(binding=True),
                b"SCRAM-SHA-256",
                'channel binding required, but client chose "SCRAM-SHA-256", '
                "which does not bind the channel",
            ),
            (
                check("scram-sha-256"),
                b"OAUTHBEARER",
                'authentication method requirement "scram-sha-256" failed: '
                'client requested "OAUTHBEARER" authentication',
            ),
        ):
            checked.from_server(SASL_BOTH)
            with self.assertRaises(AuthenticationNotAllowed) as caught:
                checked.from_client(initial(chosen))
            self.assertEqual(str(caught.exception), expected)

    def test_a_password_that_nobody_has_asked_for(self) -> None:
        with self.assertRaises(ProtocolViolation):
            check("scram-sha-256").from_client(message(b"p", b"secret\0"))

    def test_an_answer_too_long_to_be_one(self) -> None:
        checked = check("password")
        checked.from_server(CLEARTEXT)
        with self.assertRaises(ProtocolViolation):
            checked.from_client(b"p" + struct.pack("!I", 65540))

    def test_a_server_gets_no_query_before_it_has_shown_what_is_required(self) -> None:
        checked = check("scram-sha-256")
        checked.from_server(SASL_BOTH)
        chosen = initial(b"SCRAM-SHA-256")
        query = message(b"Q", b"alter role alice password 'secret'\0")
        self.assertEqual(checked.from_client(chosen + query), chosen)
        checked.from_server(CONTINUE)
        with self.assertRaises(ProtocolViolation) as caught:
            checked.from_client(message(b"p", b"c="))
        self.assertEqual(str(caught.exception), "expected password response, got message type 81")

    def test_a_query_sent_along_with_the_last_answer_waits(self) -> None:
        checked = check("password")
        checked.from_server(CLEARTEXT)
        answer, query = message(b"p", b"secret\0"), message(b"Q", b"\0")
        self.assertEqual(checked.from_client(answer + query), answer)
        checked.from_server(OK)
        self.assertEqual(checked.from_client(b""), query)

    def test_too_much_that_waits(self) -> None:
        checked = check("password")
        checked.from_server(CLEARTEXT)
        checked.from_client(message(b"p", b"secret\0"))
        with self.assertRaises(ProtocolViolation):
            checked.from_client(message(b"Q", bytes(70000)))

    def test_several_requests_at_once(self) -> None:
        checked = check("!none")
        md5 = message(b"R", struct.pack("!I", 5) + b"salt")
        self.assertEqual(checked.from_server(md5 + CLEARTEXT), md5 + CLEARTEXT)
        answers = message(b"p", b"md5\0") + message(b"p", b"secret\0")
        self.assertEqual(checked.from_client(answers), answers)

    def test_what_another_method_has_finished_stays_finished(self) -> None:
        checked = check("!none")
        for request in (CLEARTEXT, SASL_BOTH):
            checked.from_server(request)
        self.assertEqual(checked.from_server(OK), OK)

    def test_the_end_of_SCRAM_without_its_middle(self) -> None:
        checked = check("scram-sha-256")
        checked.from_server(SASL_BOTH)
        self.assertIn("SASL authentication was not completed", self.refused(checked, FINAL))

    def test_SCRAM_twice(self) -> None:
        checked = check("scram-sha-256")
        checked.from_server(SASL_BOTH)
        self.assertEqual(self.refused(checked, SASL_BOTH), "duplicate SASL authentication request")

    def test_a_session_that_begins_without_AuthenticationOk(self) -> None:
        for opening in (message(b"Z", b"I"), STATUS, message(b"K", bytes(8))):
            self.assertIn(
                "expected authentication request from server, but received",
                self.refused(check("none"), opening),
            )

    def test_what_a_client_has_sent_of_its_next_message_is_not_lost(self) -> None:
        checked = check("password")
        checked.from_server(CLEARTEXT)
        answer = message(b"p", b"secret\0")
        self.assertEqual(checked.from_client(answer + b"Q\0"), answer)
        checked.from_server(OK)
        self.assertEqual(checked.from_client(b"\0\0\x04"), b"Q\0\0\0\x04")
        self.assertEqual(checked.from_client(b"Q"), b"Q")

    @settings(deadline=None)
    @given(st.data())
    def test_any_split_comes_to_the_same(self, data: st.DataObject) -> None:
        steps = [SASL_PLUS, CONTINUE, FINAL + OK + STATUS]
        answers = [initial(b"SCRAM-SHA-256-PLUS"), message(b"p", b"c="), message(b"Q", b"\0")]
        checked = check("scram-sha-256", binding=True)
        for step, answer in zip(steps, answers, strict=True):
            passed = b"".join(checked.from_server(piece) for piece in pieces(data, step))
            self.assertEqual(passed, step)
            passed = b"".join(checked.from_client(piece) for piece in pieces(data, answer))
            self.assertEqual(passed, answer)
        self.assertTrue(checked.completed)
