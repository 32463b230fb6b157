"""SCRAM, both roles: RFC 7677's example, each other, and a second implementation (scramp)."""

from __future__ import annotations

from base64 import b64decode
from typing import Any

import scramp
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from pgtls.errors import NegotiationRefused, PgTLSError, ProtocolViolation
from pgtls.wire.scram import KnownKeys, ScramClient, StaleSecret
from pgtls.wire.scram_secret import ScramKeys, ScramSecret, saslprep
from pgtls.wire.scram_server import ScramRefused, ScramServer

SALT = b64decode("W22ZaJ0SNY7soEsUEjb6gQ==")
SECRET = ScramSecret.build("pencil", SALT, 4096)
HASH = bytes(range(32))
MOCK = b"a nonce of the daemon's"

# RFC 7677, section 3.
CLIENT_NONCE = "rOprNGfwEbeRWgbNEkqO"
SERVER_NONCE = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
CLIENT_FIRST = b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO"
SERVER_FIRST = (
    b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
)
CLIENT_FINAL = (
    b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,"
    b"p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
)
SERVER_FINAL = b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="


def server(
    secret: ScramSecret | None = SECRET, certificate_hash: bytes | None = None, nonce: str = ""
) -> ScramServer:
    makes = {"make_nonce": lambda: nonce} if nonce else {}
    return ScramServer(b"user", secret, mock_nonce=MOCK, certificate_hash=certificate_hash, **makes)


def initial(first: bytes, mechanism: bytes = b"SCRAM-SHA-256") -> bytes:
    """The body of a SASLInitialResponse."""
    return mechanism + b"\0" + len(first).to_bytes(4, "big") + first


def client(password: str = "pencil", **settings: Any) -> ScramClient:
    return ScramClient(lambda salt, i: ScramKeys.derive(password, salt, i), **settings)


def exchange(client_side: ScramClient, server_side: ScramServer) -> None:
    """All four messages."""
    first = server_side.receive(client_side.initial_response())
    client_side.receive_final(server_side.receive(client_side.receive_continue(first)))


class ServerTests(SynchronousTestCase):
    """The server's role."""

    def refusal(self, *bodies: bytes, **settings: Any) -> tuple[str, str, str]:
        """SQLSTATE, message and detail of what the last of the bodies is refused with."""
        side = server(**settings)
        for body in bodies[:-1]:
            side.receive(body)
        error = self.assertRaises(ScramRefused, side.receive, bodies[-1])
        self.assertIsNone(side.keys)
        fields = error.response.fields
        return fields["C"], fields["M"], fields.get("D", "")

    def test_the_example_of_the_rfc(self) -> None:
        side = server(nonce=SERVER_NONCE)
        self.assertEqual(side.receive(initial(CLIENT_FIRST)), SERVER_FIRST)
        self.assertIsNone(side.keys)
        self.assertEqual(side.receive(CLIENT_FINAL), SERVER_FINAL)
        self.assertEqual(side.keys, ScramKeys.derive("pencil", SALT, 4096))

    def test_a_role_without_a_secret_fails_in_the_last_message(self) -> None:
        side = server(secret=None, nonce=SERVER_NONCE)
        first = side.receive(initial(CLIENT_FIRST))
        self.assertIn(b",i=4096", first)
        error = self.assertRaises(ScramRefused, side.receive, CLIENT_FINAL)
        self.assertEqual(
            error.response.fields,
            {
                "S": "FATAL",
                "V": "FATAL",
                "C": "28P01",
                "M": 'password authentication failed for user "user"',
            },
        )
        self.assertEqual(error.log_detail, 'Role "user" has no secret in the auth_file.')

    def test_a_role_without_a_secret_has_the_same_salt_each_time_and_its_own(self) -> None:
        def salt(role: bytes, nonce: bytes) -> bytes:
            return ScramSecret.mock(role, nonce).salt

        self.assertEqual(salt(b"alice", MOCK), salt(b"alice", MOCK))
        self.assertNotEqual(salt(b"alice", MOCK), salt(b"bob", MOCK))
        self.assertNotEqual(salt(b"alice", MOCK), salt(b"alice", b"another"))
        self.assertEqual(len(salt(b"alice", MOCK)), len(SALT))

    def test_a_mock_secret_lets_nobody_in(self) -> None:
        # Its StoredKey is known: no proof may fit it, whatever the client makes of it.
        mock = ScramSecret.mock(b"user", MOCK)
        for keys in (ScramKeys(bytes(32), bytes(32)), ScramKeys.derive("", mock.salt, 4096)):
            side = ScramClient(lambda *_, keys=keys: keys)
            self.assertRaises(ScramRefused, exchange, side, server(secret=None))

    def test_y_is_refused_where_plus_was_offered_and_only_there(self) -> None:
        said = initial(b"y,,n=,r=abc")
        self.assertEqual(
            self.refusal(said, certificate_hash=HASH),
            (
                "28000",
                "SCRAM channel binding negotiation error",
                "The client supports SCRAM channel binding but thinks the server does not.  "
                "However, this server does support channel binding.",
            ),
        )
        exchange(client(could_bind=True), server())

    def test_plus_is_offered_where_there_is_a_hash(self) -> None:
        self.assertEqual(server().mechanisms, ("SCRAM-SHA-256",))
        self.assertEqual(
            server(certificate_hash=HASH).mechanisms, ("SCRAM-SHA-256-PLUS", "SCRAM-SHA-256")
        )
        self.assertEqual(
            self.refusal(initial(b"p=tls-server-end-point,,n=,r=a", b"SCRAM-SHA-256-PLUS")),
            ("08P01", "client selected an invalid SASL authentication mechanism", ""),
        )

    def test_another_channel_is_refused(self) -> None:
        error = self.assertRaises(
            ScramRefused,
            exchange,
            client(certificate_hash=bytes(32)),
            server(certificate_hash=HASH),
        )
        self.assertEqual(error.response.sqlstate, "28000")
        self.assertEqual(error.response.message, "SCRAM channel binding check failed")

    def test_the_flag_must_be_that_of_before(self) -> None:
        side = server(nonce=SERVER_NONCE)
        side.receive(initial(CLIENT_FIRST))
        error = self.assertRaises(
            ScramRefused, side.receive, CLIENT_FINAL.replace(b"c=biws", b"c=eSws")
        )
        self.assertEqual(
            error.response.message,
            "unexpected SCRAM channel-binding attribute in client-final-message",
        )

    def test_a_client_may_wait_for_an_empty_challenge(self) -> None:
        side = server(nonce=SERVER_NONCE)
        self.assertEqual(side.receive(b"SCRAM-SHA-256\0\xff\xff\xff\xff"), b"")
        self.assertEqual(side.receive(CLIENT_FIRST), SERVER_FIRST)
        self.assertEqual(side.receive(CLIENT_FINAL), SERVER_FINAL)

    def test_nothing_is_taken_after_the_end(self) -> None:
        side = server()
        exchange(client(), side)
        self.assertRaises(ScramRefused, side.receive, CLIENT_FINAL)
        side = server()
        self.assertRaises(ScramRefused, exchange, client("pen"), side)
        self.assertRaises(ScramRefused, side.receive, CLIENT_FINAL)

    @given(st.binary(max_size=80))
    def test_no_bytes_do_more_than_to_be_refused(self, data: bytes) -> None:
        for bodies in ([data], [initial(data)], [initial(CLIENT_FIRST), data]):
            side = server(nonce=SERVER_NONCE, certificate_hash=HASH)
            try:
                for body in bodies:
                    side.receive(body)
            except ScramRefused as error:
                self.assertTrue(error.response.message)
            self.assertIsNone(side.keys)


class ClientTests(SynchronousTestCase):
    """The client's role."""

    def test_the_server_must_know_the_secret_too(self) -> None:
        side = client(make_nonce=lambda: CLIENT_NONCE)
        side.initial_response()
        side.receive_continue(SERVER_FIRST)
        error = self.assertRaises(NegotiationRefused, side.receive_final, SERVER_FINAL)
        self.assertEqual(str(error), "incorrect server signature")
        self.assertFalse(side.done)

    def test_what_a_server_may_not_send_first(self) -> None:
        for message, complaint in (
            (b"", "malformed SCRAM message (empty message)"),
            (SERVER_FIRST + b"\0", "malformed SCRAM message (length mismatch)"),
            (b"s=" + SERVER_FIRST, 'malformed SCRAM message (attribute "r" expected)'),
            (
                b"r" + SERVER_FIRST,
                'malformed SCRAM message (expected character "=" for attribute "r")',
            ),
            (SERVER_FIRST.replace(b"rOpr", b"ropr"), "invalid SCRAM response (nonce mismatch)"),
            (SERVER_FIRST.replace(b"s=W", b"s=*"), "malformed SCRAM message (invalid salt)"),
            (
                SERVER_FIRST.replace(b"i=4096", b"i=0"),
                "malformed SCRAM message (invalid iteration count)",
            ),
            (
                SERVER_FIRST + b",x=y",
                "malformed SCRAM message (garbage at end of server-first-message)",
            ),
        ):
            side = client(make_nonce=lambda: CLIENT_NONCE)
            side.initial_response()
            error = self.assertRaises(ProtocolViolation, side.receive_continue, message)
            self.assertEqual(str(error), complaint)

    def test_what_a_server_may_not_send_last(self) -> None:
        for message, complaint in (
            (b"", "malformed SCRAM message (empty message)"),
            (
                b"e=other-error",
                "error received from server in SCRAM exchange: other-error",
            ),
            (b"e=\x1b[31m", "error received from server in SCRAM exchange: ?[31m"),
            (b"v=*", "malformed SCRAM message (invalid server signature)"),
            (b"v=AAAA", "malformed SCRAM message (invalid server signature)"),
            (
                SERVER_FINAL + b",a=b",
                "malformed SCRAM message (garbage at end of server-final-message)",
            ),
        ):
            side = client(make_nonce=lambda: CLIENT_NONCE)
            side.initial_response()
            side.receive_continue(SERVER_FIRST)
            error = self.assertRaises(PgTLSError, side.receive_final, message)
            self.assertEqual(str(error), complaint)
            self.assertFalse(side.done)

    def test_messages_out_of_place(self) -> None:
        side = client()
        self.assertRaises(ProtocolViolation, side.receive_continue, SERVER_FIRST)
        self.assertRaises(ProtocolViolation, side.receive_final, SERVER_FINAL)

    def test_recovered_keys_hold_for_their_own_secret(self) -> None:
        side = server()
        exchange(client(), side)
        assert side.keys is not None
        again = ScramClient(KnownKeys(SECRET, side.keys))
        exchange(again, server())
        self.assertTrue(again.done)
        changed = ScramSecret.build("pencil", b"another salt", 4096)
        self.assertRaises(
            StaleSecret, exchange, ScramClient(KnownKeys(SECRET, side.keys)), server(changed)
        )

    def test_keys_are_not_in_a_repr(self) -> None:
        keys = ScramKeys.derive("pencil", SALT, 4096)
        for value in (keys, SECRET, KnownKeys(SECRET, keys), server(), client()):
            for secret in (keys.client_key, keys.server_key, keys.stored_key):
                self.assertNotIn(repr(secret)[2:-1], repr(value))


class SecondOpinionTests(SynchronousTestCase):
    """scramp in the other role."""

    def bound(self, plus: bool) -> dict[str, Any]:
        return {"channel_binding": ("tls-server-end-point", HASH)} if plus else {}

    def test_scramp_is_the_client(self) -> None:
        for plus in (False, True):
            ours = server(certificate_hash=HASH if plus else None)
            theirs = scramp.ScramClient(list(ours.mechanisms), "user", "pencil", **self.bound(plus))
            name = theirs.mechanism_name.encode()
            first = ours.receive(initial(theirs.get_client_first().encode(), name))
            theirs.set_server_first(first.decode())
            theirs.set_server_final(ours.receive(theirs.get_client_final().encode()).decode())
            self.assertEqual(ours.keys, ScramKeys.derive("pencil", SALT, 4096))


class SecretTests(SynchronousTestCase):
    """pg_authid's text."""

    TEXT = (
        "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$"
        "WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="
    )

    def test_the_example_of_the_rfc_as_postgresql_stores_it(self) -> None:
        self.assertEqual(ScramSecret.parse(self.TEXT), SECRET)
        self.assertEqual(str(SECRET), self.TEXT)

    def test_what_is_none(self) -> None:
        for text in (
            "",
            "pencil",
            "md5" + "0" * 32,
            self.TEXT.replace("256", "512"),
            self.TEXT.replace("4096", "x"),
            self.TEXT.replace("4096", "0"),
            self.TEXT.replace("4096", "-1"),
            self.TEXT.replace("4096", "٤"),
            self.TEXT.replace("4096", "9999999999"),
            self.TEXT[:-1],
            self.TEXT[:-4],
            self.TEXT.replace("W22", "*22"),
            self.TEXT.replace("WG5d", ""),
            self.TEXT.replace("$WG", ":WG"),
        ):
            error = self.assertRaises(ValueError, ScramSecret.parse, text)
            self.assertNotIn("WG5d", str(error))


class SaslprepTests(SynchronousTestCase):
    """RFC 4013's examples, and what PostgreSQL leaves alone."""

    def test_each(self) -> None:
        for password, prepared in (
            ("I\u00adX", b"IX"),
            ("user", b"user"),
            ("\u00aa", b"a"),
            ("\u2168", b"IX"),
            ("a\u00a0b", b"a b"),
            ("\u0007", b"\x07"),  # ASCII stays as it is
            ("\u0627\u0031", "\u06271".encode()),  # not allowed: RandALCat at one end only
            ("\u00e9\u0007", "\u00e9\u0007".encode()),  # not allowed: a control character
            ("\u00ad", "\u00ad".encode()),  # nothing would be left
            (b"\xff\xfe", b"\xff\xfe"),  # not UTF-8
        ):
            self.assertEqual(saslprep(password), prepared, password)
