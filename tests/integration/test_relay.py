"""What goes through a gateway comes out as it went in, however slow the other side is.

For each kind of connection to the client and to the server, with the fast transports and with
Twisted's own. A server is slow where a signal stops its backend.
"""

from __future__ import annotations

import hashlib
import random
from functools import cache

import psycopg

from tests.support.gateway_daemon import in_thread
from tests.support.processes import TIMEOUT
from tests.support.relay_case import ALLOWANCE, COPY_DONE, RelayCase, copy_data, other_kinds
from tests.support.relay_client import Session

#: More than all the buffers between a client and a server hold.
LINES = 24 * 1024


@cache
def text() -> bytes:
    """Lines for COPY, of up to 2,000 bytes, no two alike."""

    def line(number: int) -> str:
        digits = hashlib.md5(str(number).encode()).hexdigest() * 63
        return f"{number}-{digits[: 7919 * number % 2000]}\n"

    return "".join(map(line, range(LINES))).encode()


#: The same lines, as PostgreSQL makes them.
GENERATED = (
    "SELECT n || '-' || left(repeat(md5(n::text), 63), 7919 * n % 2000) "
    f"FROM generate_series(0, {LINES - 1}) n"
)

#: The digest of what was copied in, as PostgreSQL makes it.
STORED = (
    "SELECT encode(sha256(string_agg(line || E'\\n', '' ORDER BY number)::bytea), 'hex') "
    "FROM copied"
)


def digest(data: bytes) -> str:
    """As text, for a person to compare."""
    return hashlib.sha256(data).hexdigest()


class TLSToPlain(RelayCase):
    """TLS to the client, none to the server."""

    def test_copy_both_ways(self) -> None:
        with psycopg.connect(self.conninfo()) as connection, connection.cursor() as cursor:
            cursor.execute("CREATE TEMPORARY TABLE copied (number serial, line text)")
            with cursor.copy("COPY copied (line) FROM STDIN") as copy:
                copy.write(text())
            self.assertEqual(cursor.execute(STORED).fetchone(), (digest(text()),))
            with cursor.copy("COPY (SELECT line FROM copied ORDER BY number) TO STDOUT") as copy:
                copied = b"".join(copy)
            self.assertEqual(digest(copied), digest(text()))

    def test_a_client_that_reads_slowly(self) -> None:
        """Nothing, then a byte or some at a time, then nothing while another session copies as fast
        as it can, then the rest."""
        slow = self.session(receive_buffer=65536)
        before = self.relay.memory()
        # Twice, since Linux may let the gateway's socket alone take 32 MB before it is read from.
        slow.query(f"COPY ({GENERATED} UNION ALL {GENERATED}) TO STDOUT")
        self.relay.wait_until_still()
        self.wait_for_backends(1, "wait_event = 'ClientWrite' AND pid", slow.pid)
        chance = random.Random(0)
        read = b"".join(slow.read(chance.choice([1, 5, 100, 10000])) for _ in range(2000))
        self.test_copy_both_ways()
        self.assertLess(self.relay.memory() - before, ALLOWANCE)
        self.assertEqual(digest(lines_of(slow, read)), digest(text() * 2))

    def test_a_server_that_reads_slowly(self) -> None:
        session = self.session()
        self.begin_copy_from(session)
        before = self.relay.memory()
        self.freeze(session)
        sending = in_thread(lambda: session.send(copy_data(text()) + COPY_DONE))
        self.relay.wait_until_still()
        self.assertTrue(sending.is_alive(), "everything went into buffers")
        self.assertLess(self.relay.memory() - before, ALLOWANCE)
        self.thaw(session)
        sending.join(TIMEOUT)
        self.assertEqual([kind for kind, _ in session.messages()], [b"C", b"Z"])
        self.assertEqual(self.answer(session, STORED), [digest(text()).encode()])

    def test_both_directions_at_once(self) -> None:
        """A client that sends its next queries while it has not read the answers."""
        session = self.session()
        query = f"SELECT repeat('x', 100000) -- {'y' * 100000}"
        sending = in_thread(lambda: [session.query(query) for _ in range(100)])
        for _ in range(100):
            rows = [body[6:] for kind, body in session.messages() if kind == b"D"]
            self.assertEqual(rows, [b"x" * 100000])
        sending.join(TIMEOUT)


def lines_of(session: Session, read: bytes) -> bytes:
    """The lines of a COPY, of which some bytes have been read."""
    return b"".join(body for kind, body in session.messages(read) if kind == b"d")


globals().update(other_kinds(TLSToPlain))
