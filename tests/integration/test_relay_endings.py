"""Sessions that end in the middle: a side that leaves, dies, or is made to.

For each kind of connection to the client and to the server, with the fast transports and with
Twisted's own.
"""

from __future__ import annotations

import signal
import subprocess
import sys

from tests.support.processes import environment
from tests.support.relay_case import RelayCase, copy_data, other_kinds, upstream_conninfo
from tests.support.relay_client import Session, whole_messages
from tests.support.servers import psql

MEGABYTE = 1 << 20

#: Less than is on the way between a server and a client that does not read.
ON_THE_WAY = "SELECT repeat('x', 1000) FROM generate_series(1, 150)"

#: More than that.
TOO_MUCH = "SELECT repeat('x', 1000) FROM generate_series(1, 50000)"

ADMIN_SHUTDOWN = b"SFATAL\0VFATAL\0C57P01\0Mterminating connection due to administrator command\0"


#: ``twistd`` of a gateway that gives a side half a second to read what is left for it.
SHORT_DRAIN = (
    "import pgtls.gateway.relay; pgtls.gateway.relay.DRAIN_TIMEOUT = 0.5; "
    "from twisted.scripts.twistd import run; run()"
)


class TLSToPlain(RelayCase):
    """TLS to the client, none to the server."""

    def psql(self, sql: str) -> subprocess.Popen[bytes]:
        """Start it: nobody reads what it prints."""
        name = f"psql of {self.id()}"[-60:]
        client = subprocess.Popen(
            [psql(17), "-Xc", sql, self.conninfo(application_name=name)],
            env=environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self.addCleanup(client.communicate)
        self.addCleanup(client.kill)
        self.wait_for_backends(1, "query LIKE 'COPY%%' AND application_name", name)
        self.name = name
        return client

    def killed(self, sql: str) -> None:
        self.psql(sql).kill()
        self.wait_for_backends(0, "application_name", self.name)

    def test_a_client_is_killed_that_was_reading(self) -> None:
        self.killed(f"COPY ({TOO_MUCH}) TO STDOUT")

    def test_a_client_is_killed_that_was_sending(self) -> None:
        self.server.psql("CREATE TABLE IF NOT EXISTS killed (line text)")
        self.killed("COPY killed FROM STDIN")

    def test_a_client_resets_with_an_answer_on_the_way(self) -> None:
        session = self.session(receive_buffer=4096)
        session.query(TOO_MUCH)
        self.wait_for_backends(1, "wait_event = 'ClientWrite' AND pid", session.pid)
        session.reset()
        self.wait_for_backends(0, "pid", session.pid)

    def test_a_client_resets_with_its_data_on_the_way(self) -> None:
        session = self.session()
        self.begin_copy_from(session)
        self.freeze(session)
        self.fill(session)
        session.reset()
        self.thaw(session)
        self.wait_for_backends(0, "pid", session.pid)

    def test_a_client_resets_whose_backend_is_busy(self) -> None:
        """What it has sent and nobody has read is dropped: PostgreSQL sees at once that the client
        has gone, not when it has been given all of that."""
        if not self.fast:
            return  # Twisted's transports notice nothing while nobody reads from them
        session = self.session()
        self.answer(session, "SET client_connection_check_interval = '100ms'")
        session.query("SELECT pg_sleep(3600)")
        session.send_what_goes(b"Q\0\0\x10\x04" * 8 * MEGABYTE)
        session.reset()
        self.wait_for_backends(0, "pid", session.pid)

    def fill(self, session: Session) -> None:
        """Send more than is on the way to a server that does not read."""
        session.send_what_goes(copy_data(b"x\n" * (16 * MEGABYTE)))

    def test_the_server_ends_an_idle_session(self) -> None:
        session = self.session()
        self.terminate(session)
        self.says_why(session.read_all())

    def says_why(self, data: bytes) -> None:
        """The last message, which is whole, is PostgreSQL's."""
        kind, body = whole_messages(data)[-1]
        self.assertEqual((kind, body[: len(ADMIN_SHUTDOWN)]), (b"E", ADMIN_SHUTDOWN))

    def test_the_server_ends_a_session_whose_answer_has_not_been_read(self) -> None:
        session = self.session(receive_buffer=4096)
        session.query(ON_THE_WAY)
        self.wait_for_backends(1, "state = 'idle' AND query LIKE '%%repeat%%' AND pid", session.pid)
        self.terminate(session)
        self.wait_for_backends(0, "pid", session.pid)
        data = session.read_all()
        rows = [kind for kind, _ in whole_messages(data)].count(b"D")
        self.assertEqual(rows, 150)
        self.says_why(data)

    def test_a_write_is_what_tells_the_gateway(self) -> None:
        """The server has gone while the gateway slept, without having read all, so that TCP resets;
        the gateway's first event is that the client has sent more."""
        session = self.session()
        self.freeze(session)
        session.query("SELECT 'not read'")
        self.relay.wait_until_read(session.socket)
        self.terminate(session)
        self.relay.signal(signal.SIGSTOP)
        try:
            session.query("SELECT 'more'")
            self.thaw(session)
            self.wait_for_backends(0, "pid", session.pid)
        finally:
            self.relay.signal(signal.SIGCONT)
        self.says_why(session.read_all())

    def test_the_server_ends_a_session_in_the_middle_of_an_answer(self) -> None:
        """PostgreSQL then says nothing more; what it has said before arrives."""
        session = self.session(receive_buffer=4096)
        session.query(TOO_MUCH)
        self.wait_for_backends(1, "wait_event = 'ClientWrite' AND pid", session.pid)
        self.terminate(session)
        self.wait_for_backends(0, "pid", session.pid)
        self.assertGreater(len(session.read_all()), 100000)

    def test_a_client_that_never_reads_keeps_no_place_when_its_backend_has_ended(self) -> None:
        if not self.fast or self.upstream != "Unix":
            # Twisted's transports do not tell of an end behind data that nobody reads. Neither does
            # TCP, where that is more than the kernels' buffers hold.
            return
        relay = self.gateway(
            *("--ssl", "on", "--upstream", upstream_conninfo(self.upstream)),
            program=(sys.executable, "-c", SHORT_DRAIN, "-n"),
        )
        at_rest = relay.open_files_at_rest()
        session = Session(relay.address, self.tls, receive_buffer=4096)
        self.addCleanup(session.close)
        session.query(TOO_MUCH)
        self.wait_for_backends(1, "wait_event = 'ClientWrite' AND pid", session.pid)
        self.terminate(session)
        relay.wait_for_open_files(at_rest)

    def test_the_server_ends_a_session_that_sends(self) -> None:
        session = self.session()
        self.begin_copy_from(session)
        self.freeze(session)
        self.fill(session)
        self.terminate(session)
        self.thaw(session)
        self.says_why(session.read_all())


globals().update(other_kinds(TLSToPlain))
