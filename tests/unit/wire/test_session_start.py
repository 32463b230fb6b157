"""The beginning of a session, watched on its way to the client: nothing of it may get lost."""

from __future__ import annotations

from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from pgtls.wire.first_answer import MAX_ERROR_LENGTH
from pgtls.wire.messages import MAX_CANCEL_KEY_LENGTH, ErrorResponse
from pgtls.wire.session_start import SessionStart
from tests.unit.wire.test_messages import message, pieces

OK = message(b"R", bytes(4))
STATUS = message(b"S", b"server_version\x0018.0\0")
KEY = message(b"K", b"\0\0\0\7" + b"k" * 32)
READY = message(b"Z", b"I")
ERROR = ErrorResponse.fatal("3D000", 'database "x" does not exist').encode()

messages = st.lists(
    st.one_of(
        st.sampled_from([OK, STATUS, KEY, READY, ERROR]),
        st.builds(message, st.sampled_from([b"R", b"K", b"E", b"S", b"N"]), st.binary(max_size=30)),
        st.binary(max_size=12),
    ),
    max_size=8,
).map(b"".join)


class SessionStartTests(SynchronousTestCase):
    """SessionStart."""

    def test_the_cancel_key_is_read(self) -> None:
        start = SessionStart()
        start.receive(OK + STATUS + KEY + READY)
        self.assertEqual(start.key, b"\0\0\0\7" + b"k" * 32)
        self.assertTrue(start.done)
        self.assertIs(start.error, None)

    def test_authentication_is_over_when_the_server_says_so(self) -> None:
        for request, over in (
            (message(b"R", b"\0\0\0\3"), False),
            (message(b"R", b"\0\0\0\x0cv=x"), False),
            (OK, True),
            (message(b"R", bytes(5)), True),  # of a look-alike
        ):
            start = SessionStart()
            start.receive(request)
            self.assertIs(start.authenticated, over)

    def test_the_longest_cancel_key(self) -> None:
        start = SessionStart()
        key = b"\0\0\0\7" + b"k" * MAX_CANCEL_KEY_LENGTH
        start.receive(OK + message(b"K", key))
        self.assertEqual(start.key, key)

    def test_an_error_is_read(self) -> None:
        start = SessionStart()
        self.assertEqual(start.receive(OK + ERROR), OK + ERROR)
        assert start.error is not None
        self.assertEqual((start.error.sqlstate, start.error.raw), ("3D000", ERROR))

    def test_after_ReadyForQuery_nothing_is_watched(self) -> None:
        start = SessionStart()
        start.receive(OK + READY)
        self.assertEqual(start.receive(KEY + ERROR[:7]), KEY + ERROR[:7])
        self.assertEqual((start.key, start.error), (b"", None))

    def test_a_key_is_held_until_it_is_whole(self) -> None:
        start = SessionStart()
        self.assertEqual(start.receive(OK + KEY[:20]), OK)
        self.assertEqual(start.receive(KEY[20:]), KEY)

    def test_a_long_message_passes_as_it_comes(self) -> None:
        start = SessionStart()
        notice = message(b"N", bytes(100_000))
        self.assertEqual(start.receive(notice[:50_000]), notice[:50_000])
        self.assertEqual(start.receive(notice[50_000:] + KEY), notice[50_000:] + KEY)
        self.assertEqual(start.key, KEY[5:])

    def test_a_length_that_cannot_be_ends_the_watch(self) -> None:
        start = SessionStart()
        impossible = b"K" + bytes(4) + b"not a key"
        self.assertEqual(start.receive(impossible), impossible)
        self.assertTrue(start.done)
        self.assertEqual(start.key, b"")

    def test_requests_and_errors_can_be_edited(self) -> None:
        start = SessionStart(lambda whole: whole.lower())
        self.assertEqual(start.receive(ERROR[:9]), b"")
        self.assertEqual(start.receive(ERROR[9:] + STATUS), ERROR.lower() + STATUS)

    @settings(deadline=None)
    @given(st.data(), messages)
    def test_what_comes_out_is_what_came_in(self, data: st.DataObject, whole: bytes) -> None:
        start = SessionStart()
        out = b""
        for piece in pieces(data, whole):
            out += start.receive(piece)
        at_once = SessionStart()
        self.assertEqual(out, at_once.receive(whole))
        self.assertEqual(out + start.held, whole)
        self.assertEqual(
            (start.done, start.key, start.error), (at_once.done, at_once.key, at_once.error)
        )

    @settings(deadline=None)
    @given(
        st.lists(st.binary(max_size=9000), max_size=20), st.sampled_from([b"", b"E\0\0\x75\x30"])
    )
    @example([b"K" + bytes(4) + b"x" * 300], b"")
    def test_little_is_held(self, chunks: list[bytes], opening: bytes) -> None:
        start = SessionStart()
        for chunk in [opening, *chunks]:
            start.receive(chunk)
            self.assertLessEqual(len(start.held), MAX_ERROR_LENGTH)
            self.assertLessEqual(len(start.key), 4 + MAX_CANCEL_KEY_LENGTH)
