"""A client that sends its query and then says that it will send no more gets the whole answer.

As from PostgreSQL itself, which reads the end only when it has answered. In TLS this is a
close_notify on a connection that stays open. Twisted's own transports cannot have it: they end the
connection where one comes, and send none. So where there is TLS the fast ones alone are tested.
"""

from __future__ import annotations

from tests.support.relay_case import COPY_DONE, RelayCase, copy_data, other_kinds
from tests.support.relay_client import whole_messages

#: More than one read's worth, and more than a buffer.
ROWS = 3000
ANSWER = f"SELECT repeat('x', 1000) FROM generate_series(1, {ROWS})"


class TLSToPlain(RelayCase):
    """TLS to the client, none to the server."""

    def kinds(self, data: bytes) -> list[bytes]:
        """The kind of each message."""
        return [kind for kind, _ in whole_messages(data)]

    def test_behind_a_query(self) -> None:
        session = self.session()
        session.query(ANSWER)
        session.say_no_more()
        kinds = self.kinds(session.read_all())
        self.assertEqual((kinds.count(b"D"), kinds[-2:]), (ROWS, [b"C", b"Z"]))
        self.wait_for_backends(0, "pid", session.pid)

    def test_behind_a_query_whose_answer_is_read_slowly(self) -> None:
        session = self.session(receive_buffer=4096)
        session.query(ANSWER)
        session.say_no_more()
        self.relay.wait_until_read(session.socket)
        first = session.read(1)
        kinds = self.kinds(first + session.read_all())
        self.assertEqual((kinds.count(b"D"), kinds[-2:]), (ROWS, [b"C", b"Z"]))

    def test_behind_data_that_the_server_has_not_read(self) -> None:
        """It comes behind what is on the way, not in front of it."""
        session = self.session()
        self.begin_copy_from(session)
        self.freeze(session)
        session.send(copy_data(b"x\n" * 100000) + COPY_DONE)
        session.say_no_more()
        self.thaw(session)
        self.assertEqual(
            whole_messages(session.read_all()), [(b"C", b"COPY 100000\0"), (b"Z", b"I")]
        )

    def test_in_the_middle_of_a_message(self) -> None:
        """PostgreSQL ends the session, and so does the gateway."""
        session = self.session()
        session.send(b"Q\0\0")
        session.say_no_more()
        self.assertNotIn(b"Z", self.kinds(session.read_all()))
        self.wait_for_backends(0, "pid", session.pid)

    def test_of_an_idle_session(self) -> None:
        session = self.session()
        session.say_no_more()
        self.assertEqual(session.read_all(), b"")
        self.wait_for_backends(0, "pid", session.pid)


globals().update(other_kinds(TLSToPlain, on_twisteds=("PlainToPlain",)))
