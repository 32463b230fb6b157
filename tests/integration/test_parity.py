"""The same bytes to the gateway and to PostgreSQL 17: the same class of answer.

What is compared is what a client can tell apart: the byte that answers a request, the kind of each
message up to the end of the startup phase, an error's SQLSTATE and form, a TLS alert, a close. The
rows are those of the server's table in the contract, one test for each; every test goes to a server
with SSL and to one without, and to gateways with ``ssl=on`` and ``ssl=off``. What differs by design
is at the end.
"""

from __future__ import annotations

import atexit
import re
import socket
import ssl
import struct
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import cache
from typing import NamedTuple

from pgtls.wire.messages import GSSENC_REQUEST, SSL_REQUEST
from tests.support.certificates import Files, localhost
from tests.support.gateway_daemon import Gateway, GatewayCase, twistd
from tests.support.in_memory import python_client
from tests.support.processes import TIMEOUT
from tests.support.servers import HOST, Server, negotiation_server, postgres

# What a client does ------------------------------------------------------------------------------


class Hello(NamedTuple):
    """Start TLS; then the rest of the conversation is inside it."""

    alpn: tuple[str, ...] = ("postgresql",)


class Step:
    """Something else than bytes to send."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __repr__(self) -> str:
        return self._name


ONE = Step("read one byte")
ALL = Step("read messages until the session begins or the server closes")
END = Step("close for writing")


def packet(code: int, body: bytes = b"", length: int | None = None) -> bytes:
    """A packet of the startup phase; ``length`` is what its length word says."""
    return struct.pack("!II", 8 + len(body) if length is None else length, code) + body


def startup(major: int = 3, minor: int = 0, **parameters: str) -> bytes:
    """A StartupMessage: user and database ``postgres``, and ``parameters``."""
    every = {"user": "postgres", "database": "postgres"} | parameters
    pairs = "".join(f"{name}\0{value}\0" for name, value in every.items()) + "\0"
    return packet(major << 16 | minor, pairs.encode())


def cancel(key: bytes) -> bytes:
    """A CancelRequest for a session that there is not."""
    return packet(80877102, struct.pack("!I", 0x7FFFFFFF) + key)


CLIENT_HELLO_RECORD = bytes.fromhex("16 03 01 02 00 01")
"""How direct TLS begins; the rest never comes."""

GARBAGE_RECORD = bytes.fromhex("16 03 01 00 05") + b"garba"

NO_APPLICATION_PROTOCOL = "tlsv1 alert no application protocol"

QUERY = b"Q" + struct.pack("!I", 13) + b"SELECT 1\0"

# What it gets to see -----------------------------------------------------------------------------


class Conversation:
    """One connection. Its :attr:`answers` is what came, for a person to read."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection((HOST, port), TIMEOUT)
        self.answers: list[str] = []
        self._ended = False  # then an alert is as good as a close: nobody waits for more

    def close(self) -> None:
        self._socket.close()

    def step(self, step: bytes | Step | Hello) -> bool:
        """Take one step.

        :returns: whether the conversation goes on.
        """
        try:
            if isinstance(step, bytes):
                self._socket.sendall(step)
            elif isinstance(step, Hello):
                self._start_tls(step.alpn)
            elif step is END:
                self._ended = True
                socket.socket.shutdown(self._socket, socket.SHUT_WR)  # TCP alone, not TLS
            elif step is ONE:
                self.answers.append(self._read(1).decode("ascii", "backslashreplace"))
            else:
                while self._message():
                    pass
        except (EOFError, ConnectionError):
            self.answers.append("closed")
            return False
        except TimeoutError:
            self.answers.append("silence")
            return False
        except ssl.SSLError as error:
            alert = re.sub(r".*?\] *(.*?) *\(.*", r"\1", str(error))
            self.answers.append("closed" if self._ended else alert)
            return False
        return True

    def _start_tls(self, alpn: tuple[str, ...]) -> None:
        context = python_client()
        if alpn:
            context.set_alpn_protocols(list(alpn))
        secured = context.wrap_socket(self._socket, suppress_ragged_eofs=True)
        self._socket = secured
        self.answers.append(f"TLS, ALPN {secured.selected_alpn_protocol()}")

    def _read(self, count: int) -> bytes:
        """:raises EOFError: the server closed, with or without a word."""
        data = b""
        while len(data) < count:
            piece = self._socket.recv(count - len(data))
            if not piece:
                raise EOFError
            data += piece
        return data

    def _message(self) -> bool:
        """Read a message.

        :returns: whether another one is to be read.
        """
        kind = self._read(1)
        if kind == b"\x15":  # a TLS alert in plaintext: TLS never came up
            self._read(6)
            if not self._ended:
                self.answers.append("alert")
            return True
        length = self._read(4)
        if kind == b"E" and length == b"FATA":
            self.answers.append("FATAL of protocol 2")
            return True
        body = self._read(int.from_bytes(length) - 4)
        if kind == b"E":
            fields = {field[:1]: field[1:] for field in body.split(b"\0") if field}
            self.answers.append(f"{fields[b'V'].decode()} {fields[b'C'].decode()}")
        elif kind == b"v":
            self.answers.append("NegotiateProtocolVersion")
        elif kind == b"Z":
            self.answers.append("session")
        return kind != b"Z"


def conversation(port: int, *steps: bytes | Step | Hello) -> list[str]:
    """What comes back at that port."""
    with closing(Conversation(port)) as talk:
        for step in steps:
            if not talk.step(step):
                break
        return talk.answers


@cache
def gateway(setting: str, upstream: Server, sslmode: str, fast: bool) -> Gateway:
    """A gateway that all tests share."""
    files = Files(upstream.data.parent / f"gateway-{setting}")
    certificate, key = files.pair("server", localhost())
    started = Gateway(
        *("--ssl", setting),
        *("--ssl-cert-file", certificate, "--ssl-key-file", key),
        *("--upstream", upstream.conninfo(user=None, dbname=None, sslmode=sslmode)),
        program=twistd(fast),
    )
    atexit.register(started.remove)
    assert started.has_fast_transports() is fast
    return started


class ParityCase(GatewayCase):
    """A test case that compares a gateway with a server."""

    maxDiff = None

    def ours(self, setting: str, upstream: Server | None = None, sslmode: str = "disable") -> int:
        """The port of a gateway with that ``ssl``."""
        return gateway(setting, upstream or postgres(17), sslmode, self.fast).port

    def on(self, *steps: bytes | Step | Hello) -> list[str]:
        """Compare with SSL on both.

        :returns: what both answer.
        """
        return self._compare(postgres(17, ssl=True).port, self.ours("on"), *steps)

    def off(self, *steps: bytes | Step | Hello) -> list[str]:
        """Compare without SSL on either.

        :returns: what both answer.
        """
        return self._compare(postgres(17).port, self.ours("off"), *steps)

    def both(self, *steps: bytes | Step | Hello) -> list[str]:
        """Compare with and without, where it makes no difference.

        :returns: what all four answer.
        """
        answers = self.on(*steps)
        self.assertEqual(self.off(*steps), answers, steps)
        return answers

    def _compare(self, server: int, ours: int, *steps: bytes | Step | Hello) -> list[str]:
        expected = conversation(server, *steps)
        self.assertEqual(conversation(ours, *steps), expected, steps)
        return expected


class SSLRequestTests(ParityCase):
    def test_on(self) -> None:
        answers = self.on(SSL_REQUEST, ONE, Hello(), startup(), ALL)
        self.assertEqual(answers, ["S", "TLS, ALPN postgresql", "session"])

    def test_on_byte_by_byte(self) -> None:
        pieces = [bytes([byte]) for byte in SSL_REQUEST]
        self.assertEqual(self.on(*pieces, ONE, Hello(), startup(), ALL)[-1], "session")

    def test_off(self) -> None:
        self.assertEqual(self.off(SSL_REQUEST, ONE, startup(), ALL), ["N", "session"])

    def test_off_and_nothing_more(self) -> None:
        self.assertEqual(self.off(SSL_REQUEST, ONE, END, ALL), ["N", "closed"])

    def test_off_and_again(self) -> None:
        answers = self.off(SSL_REQUEST, ONE, SSL_REQUEST, ALL)
        self.assertEqual(answers, ["N", "FATAL 0A000", "closed"])

    def test_again_inside_tls(self) -> None:
        answers = self.on(SSL_REQUEST, ONE, Hello(), SSL_REQUEST, ALL)
        self.assertEqual(answers[-2:], ["FATAL 0A000", "closed"])

    def test_off_and_bytes_behind_it(self) -> None:
        for more in (b"x", startup(), CLIENT_HELLO_RECORD):
            answers = self.off(SSL_REQUEST + more, ONE, ALL)
            self.assertEqual(answers, ["N", "FATAL 08P01", "closed"])

    def test_with_a_body(self) -> None:
        self.assertEqual(self.on(packet(80877103, b"body"), ONE), ["S"])

    def test_no_alpn(self) -> None:
        answers = self.on(SSL_REQUEST, ONE, Hello(()), startup(), ALL)
        self.assertEqual(answers, ["S", "TLS, ALPN None", "session"])

    def test_another_alpn(self) -> None:
        answers = self.on(SSL_REQUEST, ONE, Hello(("h2",)), startup(), ALL)
        self.assertEqual(answers[1:], [NO_APPLICATION_PROTOCOL])

    def test_another_alpn_beside_it(self) -> None:
        answers = self.on(SSL_REQUEST, ONE, Hello(("h2", "postgresql")), startup(), ALL)
        self.assertEqual(answers[1:], ["TLS, ALPN postgresql", "session"])

    def test_no_tls_follows(self) -> None:
        for instead in (startup(), GARBAGE_RECORD, bytes(8)):
            self.assertEqual(self.on(SSL_REQUEST, ONE, instead, ALL)[-1], "closed")


class GSSENCRequestTests(ParityCase):
    """PostgreSQL 17 here can do GSSAPI and says ``G``; PostgreSQL 18 is built without it, as we."""

    def off(self, *steps: bytes | Step | Hello) -> list[str]:
        return self._compare(postgres(18).port, self.ours("off"), *steps)

    def test_then_a_session(self) -> None:
        self.assertEqual(self.off(GSSENC_REQUEST, ONE, startup(), ALL), ["N", "session"])

    def test_then_ssl(self) -> None:
        steps = (GSSENC_REQUEST, ONE, SSL_REQUEST, ONE, Hello(), startup(), ALL)
        answers = conversation(self.ours("on"), *steps)
        self.assertEqual(answers, ["N", "S", "TLS, ALPN postgresql", "session"])

    def test_then_no_ssl(self) -> None:
        answers = self.off(GSSENC_REQUEST, ONE, SSL_REQUEST, ONE, startup(), ALL)
        self.assertEqual(answers, ["N", "N", "session"])

    def test_behind_an_SSLRequest(self) -> None:
        answers = self.off(SSL_REQUEST, ONE, GSSENC_REQUEST, ONE, startup(), ALL)
        self.assertEqual(answers, ["N", "N", "session"])

    def test_again(self) -> None:
        answers = self.off(GSSENC_REQUEST, ONE, GSSENC_REQUEST, ALL)
        self.assertEqual(answers, ["N", "FATAL 0A000", "closed"])

    def test_inside_tls(self) -> None:
        steps = (SSL_REQUEST, ONE, Hello(), GSSENC_REQUEST, ALL)
        answers = conversation(self.ours("on"), *steps)
        self.assertEqual(answers[-2:], ["FATAL 0A000", "closed"])

    def test_bytes_behind_it(self) -> None:
        for more in (b"x", startup(), SSL_REQUEST):
            answers = self.off(GSSENC_REQUEST + more, ONE, ALL)
            self.assertEqual(answers, ["N", "FATAL 08P01", "closed"])


class DirectTLSTests(ParityCase):
    def test_on(self) -> None:
        self.assertEqual(self.on(Hello(), startup(), ALL), ["TLS, ALPN postgresql", "session"])

    def test_off(self) -> None:
        self.assertEqual(self.off(CLIENT_HELLO_RECORD, ALL), ["closed"])

    def test_no_alpn(self) -> None:
        self.assertEqual(self.on(Hello(()), ALL), ["TLS, ALPN None", "closed"])

    def test_another_alpn(self) -> None:
        self.assertEqual(self.on(Hello(("h2",)), ALL), [NO_APPLICATION_PROTOCOL])

    def test_broken_off(self) -> None:
        for part in (b"\x16", CLIENT_HELLO_RECORD):
            self.assertEqual(self.on(part, END, ALL), ["closed"])

    def test_garbage_in_a_record(self) -> None:
        self.assertEqual(self.on(GARBAGE_RECORD, ALL), ["alert", "closed"])

    def test_a_startup_message_inside_twice(self) -> None:
        answers = self.on(Hello(), startup(user="nobody") + startup(), ALL)
        self.assertEqual(answers[1:], ["FATAL 28000", "closed"])


class StartupMessageTests(ParityCase):
    def test_a_session(self) -> None:
        self.assertEqual(self.both(startup(), ALL), ["session"])

    def test_in_pieces(self) -> None:
        message = startup()
        pieces = [message[:2], message[2:4], message[4:7], message[7:20], message[20:]]
        self.assertEqual(self.both(*pieces, ALL), ["session"])

    def test_a_newer_protocol(self) -> None:
        for minor in (1, 2, 9999):
            answers = self.both(startup(3, minor), ALL)
            self.assertEqual(answers, ["NegotiateProtocolVersion", "session"])

    def test_an_unknown_protocol_option(self) -> None:
        answers = self.both(startup(3, 0, **{"_pq_.test_protocol_negotiation": ""}), ALL)
        self.assertEqual(answers, ["NegotiateProtocolVersion", "session"])

    def test_another_major_version(self) -> None:
        for major in (4, 1234, 0xFFFF):
            answers = self.both(startup(major), ALL)
            self.assertEqual(answers, ["FATAL 0A000", "closed"])

    def test_protocol_2(self) -> None:
        for major in (1, 2):
            answers = self.both(startup(major), ALL)
            self.assertEqual(answers[0], "FATAL of protocol 2")

    def test_protocol_0(self) -> None:
        self.assertEqual(self.both(startup(0), ALL), ["FATAL 0A000", "closed"])

    def test_replication(self) -> None:
        self.assertEqual(self.both(startup(replication="true"), ALL), ["session"])
        self.assertEqual(self.both(startup(replication="database"), ALL), ["session"])

    def test_the_longest(self) -> None:
        room = 10004 - len(startup(application_name=""))
        self.assertEqual(self.both(startup(application_name="x" * room), ALL), ["session"])
        self.assertEqual(self.both(startup(application_name="x" * (room + 1)), ALL), ["closed"])

    def test_a_query_right_behind_it(self) -> None:
        self.assertEqual(self.both(startup() + QUERY, ALL), ["session"])

    def test_no_user(self) -> None:
        for user in (packet(0x30000, b"\0"), startup(user="")):
            self.assertEqual(self.both(user, ALL), ["FATAL 28000", "closed"])

    def test_no_such_role(self) -> None:
        self.assertEqual(self.both(startup(user="nobody"), ALL), ["FATAL 28000", "closed"])

    def test_no_such_database(self) -> None:
        self.assertEqual(self.both(startup(database="none"), ALL), ["FATAL 3D000", "closed"])

    def test_the_terminator_is_not_the_last_byte(self) -> None:
        for body in (b"", b"user\0postgres\0", b"user\0postgres\0\0\0", b"user\0postgres"):
            answers = self.both(packet(0x30000, body), ALL)
            self.assertEqual(answers, ["FATAL 08P01", "closed"], body)

    def test_a_parameter_that_the_server_refuses(self) -> None:
        answers = self.both(startup(work_mem="much"), ALL)
        self.assertEqual(answers, ["FATAL 22023", "closed"])


class CancelRequestTests(ParityCase):
    def test_in_plaintext(self) -> None:
        self.assertEqual(self.both(cancel(b"0123"), ALL), ["closed"])

    def test_inside_tls(self) -> None:
        self.assertEqual(self.on(SSL_REQUEST, ONE, Hello(), cancel(b"0123"), ALL)[-1], "closed")
        self.assertEqual(self.on(Hello(), cancel(b"0123"), ALL)[-1], "closed")

    def test_behind_a_refused_SSLRequest(self) -> None:
        self.assertEqual(self.off(SSL_REQUEST, ONE, cancel(b"0123"), ALL), ["N", "closed"])

    def test_any_length_of_the_key(self) -> None:
        for length in (0, 1, 32, 256, 257):
            self.assertEqual(self.both(cancel(bytes(length)), ALL), ["closed"])

    def test_no_process_id(self) -> None:
        self.assertEqual(self.both(packet(80877102), ALL), ["closed"])


class BrokenPacketTests(ParityCase):
    def test_lengths_that_cannot_be(self) -> None:
        for length in (0, 4, 7, 10005, 0x7FFFFFFF, 0xFFFFFFFF):
            self.assertEqual(self.both(struct.pack("!I", length), ALL), ["closed"], length)

    def test_the_length_inside_tls(self) -> None:
        answers = self.on(SSL_REQUEST, ONE, Hello(), struct.pack("!I", 10005), ALL)
        self.assertEqual(answers[-1], "closed")

    def test_nothing(self) -> None:
        self.assertEqual(self.both(END, ALL), ["closed"])

    def test_a_part(self) -> None:
        whole = startup()
        for part in (whole[:1], whole[:3], whole[:4], whole[:8], whole[:-1], SSL_REQUEST[:7]):
            self.assertEqual(self.both(part, END, ALL), ["closed"], part)

    def test_a_part_inside_tls(self) -> None:
        for part in (b"", startup()[:3], startup()[:-1]):
            self.assertEqual(self.on(Hello(), part, END, ALL)[-1], "closed")

    def test_another_protocol(self) -> None:
        for text in (b"GET / HTTP/1.1\r\n\r\n", b"SSH-2.0-OpenSSH_9.2\r\n", b"\xff" * 64):
            self.assertEqual(self.both(text, ALL), ["closed"], text)


class TimeoutTests(ParityCase):
    def test_nothing_complete_in_time(self) -> None:
        server = Server(17, ssl=True, conf={"authentication_timeout": "1"})
        self.addCleanup(server.stop)
        ours = self.gateway(
            *("--authentication-timeout", "1", "--ssl", "on"),
            *("--upstream", postgres(17).conninfo(user=None, dbname=None, sslmode="disable")),
        )
        slow = ((ALL,), (SSL_REQUEST[:5], ALL), (SSL_REQUEST, ONE, ALL), (Hello(), ALL))
        with ThreadPoolExecutor() as threads:
            theirs = [threads.submit(conversation, server.port, *steps) for steps in slow]
            answers = [threads.submit(conversation, ours.port, *steps) for steps in slow]
        self.assertEqual(
            [each.result() for each in answers], [each.result() for each in theirs], slow
        )
        self.assertEqual({each.result()[-1] for each in answers}, {"closed"})


class RequireTests(ParityCase):
    """``ssl=require`` is to everyone what pg_hba.conf's hostssl is to ``ssluser``."""

    def compare(self, *steps: bytes | Step | Hello) -> list[str]:
        server = negotiation_server(True)
        return self._compare(server.port, self.ours("require", server, "require"), *steps)

    def test_plaintext(self) -> None:
        answers = self.compare(startup(user="ssluser"), ALL)
        self.assertEqual(answers, ["FATAL 28000", "closed"])

    def test_inside_tls(self) -> None:
        answers = self.compare(SSL_REQUEST, ONE, Hello(), startup(user="ssluser"), ALL)
        self.assertEqual(answers[-1], "session")

    def test_a_cancel_request_in_plaintext(self) -> None:
        self.assertEqual(self.compare(cancel(b"0123"), ALL), ["closed"])


class DifferenceTests(ParityCase):
    """Where we want to be different."""

    def differ(self, postgresql: list[str], ours: list[str], *steps: bytes | Step | Hello) -> None:
        """See what each of the two answers with SSL on."""
        answers = [
            conversation(port, *steps) for port in (postgres(17, ssl=True).port, self.ours("on"))
        ]
        self.assertEqual(answers, [postgresql, ours])

    def test_no_S_for_an_SSLRequest_with_bytes_behind_it(self) -> None:
        """CVE-2021-23214: PostgreSQL says ``S`` and hands them to TLS, which fails."""
        stuffed = SSL_REQUEST + startup()
        self.differ(["S"], ["E"], stuffed, ONE)
        self.assertEqual(conversation(self.ours("on"), stuffed, ALL), ["FATAL 08P01", "closed"])

    def test_an_SSLRequest_inside_direct_tls(self) -> None:
        """PostgreSQL answers ``N`` and goes on."""
        secured = "TLS, ALPN postgresql"
        self.differ([secured, "N"], [secured, "E"], Hello(), SSL_REQUEST, ONE)
        answers = conversation(self.ours("on"), Hello(), SSL_REQUEST, ALL)
        self.assertEqual(answers, [secured, "FATAL 0A000", "closed"])

    def test_a_GSSENCRequest_inside_direct_tls(self) -> None:
        """CVE-2026-14681: PostgreSQL takes it, where it is built with GSSAPI."""
        answers = conversation(self.ours("on"), Hello(), GSSENC_REQUEST, ALL)
        self.assertEqual(answers, ["TLS, ALPN postgresql", "FATAL 0A000", "closed"])
