"""What ``pgtls probe`` makes of servers that no PostgreSQL is: each answer that can be wrong.

Most tests run the real libpq against the same script, and it must come to the same outcome over as
many connections.
"""

from __future__ import annotations

import json
import sys
from typing import Any, cast

from twisted.internet import reactor as _reactor
from twisted.trial.unittest import TestCase

from pgtls.commands.probe import ProbeResult, run_probe
from pgtls.conninfo.connection_string import ConnInfo
from pgtls.probe import connection_probe
from pgtls.wire.messages import SSL_REQUEST, ErrorResponse
from tests.support import libpq
from tests.support.certificates import authority
from tests.support.fake_servers import (
    AUTHENTICATION_OK,
    READY_FOR_QUERY,
    SASL,
    FakeServer,
    Peer,
    Script,
)
from tests.support.processes import run
from tests.support.transports import Transports

reactor = cast(Any, _reactor)

SESSION = AUTHENTICATION_OK + READY_FOR_QUERY
SECRET = "pay 100 to mallory"
DIRECT: dict[str, Any] = {"sslmode": "require", "sslnegotiation": "direct"}


def fatal(sqlstate: str, message: str = "no") -> bytes:
    """An ErrorResponse."""
    return ErrorResponse.fatal(sqlstate, message).encode()


def negotiate(major: int, minor: int) -> bytes:
    """NegotiateProtocolVersion: no newer than that."""
    version = major.to_bytes(2, "big") + minor.to_bytes(2, "big")
    return b"v" + (12).to_bytes(4, "big") + version + bytes(4)


# Scripts -----------------------------------------------------------------------------------------


def replies(data: bytes) -> Script:
    """Answer the first packet so, and say no more."""

    async def script(peer: Peer) -> None:
        await peer.packet()
        peer.send(data)

    return script


def in_plaintext(data: bytes, close: bool = False) -> Script:
    """Refuse SSL, and answer the StartupMessage so."""

    async def script(peer: Peer) -> None:
        if await peer.packet() == SSL_REQUEST[4:]:
            peer.send(b"N")
            await peer.packet()
        peer.send(data)
        if close:
            peer.close()

    return script


def inside_tls(data: bytes, alpn: bytes | None = None, close: bool = False) -> Script:
    """Accept SSL, and answer the StartupMessage so."""

    async def script(peer: Peer) -> None:
        await peer.packet()
        peer.send(b"S")
        await peer.start_tls(alpn)
        await peer.packet()
        peer.send(data)
        if close:
            peer.close()

    return script


def directly(alpn: bytes | None) -> Script:
    """TLS from the first byte on, and a session in it."""

    async def script(peer: Peer) -> None:
        await peer.start_tls(alpn)
        await peer.packet()
        peer.send(SESSION)

    return script


async def closes_at_once(peer: Peer) -> None:
    peer.close()


async def closes_after_the_request(peer: Peer) -> None:
    await peer.packet()
    peer.close()


async def says_nothing(peer: Peer) -> None:
    pass


async def garbage_for_tls(peer: Peer) -> None:
    """Accept SSL, and then speak something else."""
    await peer.packet()
    peer.send(b"S")
    await peer.take(1)
    peer.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")


async def closes_instead_of_tls(peer: Peer) -> None:
    await peer.packet()
    peer.send(b"S")
    await peer.take(1)
    peer.close()


# -------------------------------------------------------------------------------------------------


class FakeCase(Transports, TestCase):
    """A test case with a fake server."""

    async def probe(self, *scripts: Script, **parameters: str | int | None) -> ProbeResult:
        """Probe a new server, then :attr:`server`; ``{port}`` in a value stands for its port."""
        self.server = FakeServer(self, *scripts)
        given = {
            name: value.replace("{port}", str(self.server.port))
            if isinstance(value, str)
            else value
            for name, value in parameters.items()
        }
        return await self.probe_conninfo(self.server.conninfo(**given))

    async def probe_conninfo(self, conninfo: str) -> ProbeResult:
        environ = {"HOME": "/nonexistent"}
        result = await run_probe(reactor, ConnInfo.parse(conninfo, environ))
        if len(result.events) > 1:  # the server has said something
            self.check_transports()
        return result

    async def check(
        self,
        expected: str,
        *scripts: Script,
        error: str = "",
        as_libpq: bool = True,
        **parameters: str | int | None,
    ) -> ProbeResult:
        """Probe, and see that events, outcome and error are as expected.

        :param expected: ``connect, authok -> plain``.
        :param error: what is in the error's text.
        :param as_libpq: whether libpq comes to the same outcome.
        """
        result = await self.probe(*scripts, **parameters)
        told = f"{', '.join(result.events)} -> {result.outcome}"
        self.assertEqual((told, result.error or ""), (expected, result.error or ""))
        self.assertIn(error, result.error or "")
        self.assertEqual(result.outcome == "fail", result.error is not None)
        self.assertNotIn(SECRET, repr(result))
        if as_libpq:
            other = FakeServer(self, *scripts)
            complaint = await libpq.connects(other.conninfo(**parameters))
            self.assertEqual(
                (result.outcome == "fail", len(self.server.peers)),
                (complaint != "", len(other.peers)),
                complaint,
            )
        return result


class AnswerETests(FakeCase):
    """``E`` for an SSLRequest. What stands behind it came from nobody in particular."""

    error = "server sent an error response during SSL exchange"
    texts = (fatal("0A000", SECRET), f"E{SECRET}\n\0".encode(), f"E{SECRET}".encode(), b"E")

    async def test_prefer_goes_on_without_ssl_on_a_new_connection(self) -> None:
        # libpq gives up here; README.SSL and the protocol's documentation do not.
        for text in self.texts:
            await self.check(
                "connect, sslerror, reconnect, authok -> plain",
                replies(text),
                in_plaintext(SESSION),
                sslmode="prefer",
                as_libpq=False,
            )
            first, second = self.server.peers
            self.assertEqual(first.received, SSL_REQUEST)
            self.assertNotIn(SSL_REQUEST, second.received)

    async def test_what_fails_then_names_both_attempts(self) -> None:
        result = await self.check(
            "connect, sslerror, reconnect, authfail -> fail",
            replies(fatal("0A000", SECRET)),
            in_plaintext(fatal("28000", "not in plaintext")),
            sslmode="prefer",
            error="FATAL: not in plaintext; before that: ",
            as_libpq=False,
        )
        self.assertIn(self.error, result.error or "")

    async def test_stricter_modes_fail(self) -> None:
        for text in self.texts:
            await self.check(
                "connect, sslerror -> fail", replies(text), sslmode="require", error=self.error
            )

    async def test_allow_makes_no_third_attempt(self) -> None:
        await self.check(
            "connect, authfail, reconnect, sslerror -> fail",
            in_plaintext(fatal("28000")),
            replies(fatal("0A000", SECRET)),
            in_plaintext(SESSION),
            sslmode="allow",
            error=self.error,
        )

    async def test_the_command_shows_nothing_of_the_text(self) -> None:
        server = FakeServer(self, replies(fatal("0A000", SECRET)))
        command = "from pgtls.commands.main import main; main()"
        conninfo = server.conninfo(sslmode="require")
        done = await run([sys.executable, "-c", command, "probe", conninfo, "--json"])
        self.assertNotIn(SECRET, done.out + done.err)
        where = f'connection to server at "127.0.0.1", port {server.port}'
        self.assertEqual((done.code, done.err), (1, f"pgtls probe: {where} failed: {self.error}\n"))
        self.assertEqual(json.loads(done.out)["events"], ["connect", "sslerror"])


class AnswerNTests(FakeCase):
    """``N`` for an SSLRequest."""

    async def test_prefer_goes_on_in_plaintext_on_the_same_connection(self) -> None:
        await self.check(
            "connect, sslreject, authok -> plain", in_plaintext(SESSION), sslmode="prefer"
        )
        self.assertEqual(len(self.server.peers), 1)

    async def test_stricter_modes_fail_and_say_nothing_in_plaintext(self) -> None:
        for sslmode in ("require", "verify-ca", "verify-full"):
            await self.check(
                "connect, sslreject -> fail",
                in_plaintext(SESSION),
                sslmode=sslmode,
                error="server does not support SSL, but SSL was required",
            )
            self.assertEqual(self.server.peers[0].received, SSL_REQUEST)

    async def test_allow_fails_where_plaintext_was_refused_before(self) -> None:
        await self.check(
            "connect, authfail, reconnect, sslreject -> fail",
            in_plaintext(fatal("28000", "come with SSL")),
            sslmode="allow",
            error="server does not support SSL, but SSL was required; before that: ",
        )


class OtherAnswerTests(FakeCase):
    """Neither ``S`` nor ``N`` nor ``E``, or more than that: no other attempt follows."""

    async def test_the_byte_is_named(self) -> None:
        for reply, name in ((b"X", "X"), (b"\0", "0x00"), (b"\x16", "0x16"), (b"\xff", "0xFF")):
            for sslmode in ("prefer", "require"):
                await self.check(
                    "connect -> fail",
                    replies(reply + SECRET.encode()),
                    sslmode=sslmode,
                    error=f"received invalid response to SSL negotiation: {name}",
                )

    async def test_bytes_behind_the_S(self) -> None:
        # libpq, told the same in one piece, waits for more before it notices.
        for more in (b"x", SESSION, fatal("28000", SECRET)):
            for sslmode in ("prefer", "require"):
                await self.check(
                    "connect, sslaccept -> fail",
                    replies(b"S" + more),
                    sslmode=sslmode,
                    error="received unencrypted data after SSL response",
                    as_libpq=False,
                )
                self.assertEqual(self.server.peers[0].received, SSL_REQUEST)

    async def test_a_close_instead_of_an_answer(self) -> None:
        for script in (closes_at_once, closes_after_the_request):
            for sslmode in ("disable", "allow", "prefer", "require"):
                await self.check(
                    "connect -> fail",
                    script,
                    sslmode=sslmode,
                    error="server closed the connection unexpectedly",
                )

    async def test_no_answer_at_all(self) -> None:
        for parameters in ({"sslmode": "disable"}, {"sslmode": "prefer"}, DIRECT):
            await self.check(
                "connect -> fail",
                says_nothing,
                error="timeout expired",
                connect_timeout=1,
                as_libpq=False,
                **parameters,
            )

    async def test_no_answer_and_another_host(self) -> None:
        silent = FakeServer(self, says_nothing)
        result = await self.probe(
            in_plaintext(SESSION),
            host="127.0.0.1,127.0.0.1",
            port=f"{silent.port},{{port}}",
            connect_timeout=1,
        )
        self.assertEqual(result.events, ["connect", "connect", "sslreject", "authok"])


class AnswerSTests(FakeCase):
    """``S``, and then no TLS as it should be."""

    async def test_prefer_goes_on_in_plaintext_on_a_new_connection(self) -> None:
        for script in (garbage_for_tls, closes_instead_of_tls):
            await self.check(
                "connect, sslaccept, reconnect, authok -> plain",
                script,
                in_plaintext(SESSION),
                sslmode="prefer",
            )

    async def test_something_else_than_tls(self) -> None:
        await self.check(
            "connect, sslaccept -> fail",
            garbage_for_tls,
            in_plaintext(SESSION),
            sslmode="require",
            error="SSL error: ",
        )

    async def test_a_close_instead_of_tls(self) -> None:
        await self.check(
            "connect, sslaccept -> fail",
            closes_instead_of_tls,
            in_plaintext(SESSION),
            sslmode="require",
            error="EOF detected",
        )

    async def test_tls_never_begins(self) -> None:
        await self.check(
            "connect, sslaccept -> fail",
            replies(b"S"),
            sslmode="require",
            error="timeout expired",
            connect_timeout=1,
            as_libpq=False,
        )

    async def test_a_server_that_knows_no_alpn_will_do(self) -> None:
        result = await self.check(
            "connect, sslaccept, authok -> ssl", inside_tls(SESSION), sslmode="require"
        )
        self.assertIsNone((result.tls or {})["alpn"])

    async def test_a_server_that_selects_another_alpn(self) -> None:
        await self.check(
            "connect, sslaccept -> fail",
            inside_tls(SESSION, b"h2"),
            sslmode="require",
            error="SSL error: ",
        )

    async def test_without_a_user_no_session_is_asked_for(self) -> None:
        result = await self.probe(inside_tls(SESSION), user=None, sslmode="require")
        self.assertEqual((result.events, result.outcome), (["connect", "sslaccept"], "ssl"))
        self.assertEqual(self.server.peers[0].received, SSL_REQUEST)


class DirectTests(FakeCase):
    """``sslnegotiation=direct``: TLS without being asked, and with ALPN."""

    async def test_the_protocol_of_postgresql(self) -> None:
        result = await self.check(
            "connect, directsslaccept, authok -> ssl", directly(b"postgresql"), **DIRECT
        )
        self.assertEqual((result.tls or {})["alpn"], "postgresql")

    async def test_no_alpn(self) -> None:
        await self.check(
            "connect, directsslreject -> fail",
            directly(None),
            error="direct SSL connection was established without ALPN protocol negotiation",
            **DIRECT,
        )
        self.assertEqual(self.server.peers[0].received, b"")

    async def test_another_protocol(self) -> None:
        await self.check("connect, directsslreject -> fail", directly(b"h2"), **DIRECT)
        self.assertEqual(self.server.peers[0].received, b"")

    async def test_a_server_that_waits_for_an_SSLRequest_and_closes(self) -> None:
        await self.check(
            "connect, directsslreject -> fail",
            closes_at_once,
            error="SSL SYSCALL error: EOF detected",
            **DIRECT,
        )

    async def test_an_answer_in_plaintext(self) -> None:
        async def answers(peer: Peer) -> None:
            await peer.take(1)
            peer.send(fatal("08P01", SECRET))

        await self.check(
            "connect, directsslreject -> fail",
            answers,
            error="SSL error: ",
            **DIRECT,
        )

    async def test_only_the_name_is_wrong(self) -> None:
        server = FakeServer(self, directly(b"postgresql"))
        root = self.mktemp()
        with open(root, "wb") as file:
            file.write(authority().pem())
        result = await self.probe_conninfo(
            server.conninfo(
                host="elsewhere.example",
                hostaddr="127.0.0.1",
                sslmode="verify-full",
                sslnegotiation="direct",
                sslrootcert=root,
            )
        )
        # TLS and ALPN succeeded, and so PostgreSQL would have logged it.
        self.assertEqual(result.events, ["connect", "directsslaccept"])
        self.assertIn('does not match host name "elsewhere.example"', result.error or "")
        self.assertEqual(server.peers[0].received, b"")


class ErrorResponseTests(FakeCase):
    """An ErrorResponse to the StartupMessage."""

    async def test_authfail_is_class_28_and_everything_else_backenderror(self) -> None:
        for sqlstate, event in {
            "28000": "authfail",
            "28P01": "authfail",
            "53300": "backenderror",
            "57P03": "backenderror",
            "08P01": "backenderror",
        }.items():
            await self.check(
                f"connect, {event} -> fail",
                in_plaintext(fatal(sqlstate, "this is why")),
                sslmode="disable",
                error="FATAL: this is why",
            )

    async def test_prefer_goes_on_in_plaintext(self) -> None:
        for sqlstate, event in (("28000", "authfail"), ("53300", "backenderror")):
            await self.check(
                f"connect, sslaccept, {event}, reconnect, authok -> plain",
                inside_tls(fatal(sqlstate)),
                in_plaintext(SESSION),
                sslmode="prefer",
            )

    async def test_prefer_goes_on_in_plaintext_once(self) -> None:
        result = await self.check(
            "connect, sslaccept, authfail, reconnect, authfail -> fail",
            inside_tls(fatal("28000", "with SSL")),
            in_plaintext(fatal("28000", "without SSL")),
            in_plaintext(SESSION),
            sslmode="prefer",
            error="FATAL: without SSL; before that: ",
        )
        self.assertIn("FATAL: with SSL", result.error or "")

    async def test_allow_goes_on_with_tls(self) -> None:
        for sqlstate, event in (("28000", "authfail"), ("53300", "backenderror")):
            await self.check(
                f"connect, {event}, reconnect, sslaccept, authok -> ssl",
                in_plaintext(fatal(sqlstate)),
                inside_tls(SESSION),
                sslmode="allow",
            )

    async def test_require_does_not_go_on(self) -> None:
        await self.check(
            "connect, sslaccept, authfail -> fail",
            inside_tls(fatal("28000")),
            in_plaintext(SESSION),
            sslmode="require",
        )

    async def test_57P03_leads_to_no_other_method(self) -> None:
        await self.check(
            "connect, sslaccept, backenderror -> fail",
            inside_tls(fatal("57P03", "the database system is starting up")),
            in_plaintext(SESSION),
            sslmode="prefer",
            error="FATAL: the database system is starting up",
        )

    async def test_57P03_leads_to_the_next_host(self) -> None:
        starting = FakeServer(self, inside_tls(fatal("57P03")))
        result = await self.probe(
            inside_tls(SESSION),
            host="127.0.0.1,127.0.0.1",
            port=f"{starting.port},{{port}}",
        )
        self.assertEqual(
            result.events,
            ["connect", "sslaccept", "backenderror", "connect", "sslaccept", "authok"],
        )
        self.assertEqual((result.outcome, result.error), ("ssl", None))

    async def test_another_error_leads_to_no_other_host(self) -> None:
        full = FakeServer(self, in_plaintext(fatal("53300", "sorry, too many clients already")))
        result = await self.probe(
            in_plaintext(SESSION),
            host="127.0.0.1,127.0.0.1",
            port=f"{full.port},{{port}}",
        )
        self.assertEqual(result.events, ["connect", "sslreject", "backenderror"])
        self.assertEqual(self.server.peers, [])

    async def test_what_could_steer_a_terminal_is_escaped(self) -> None:
        result = await self.probe(in_plaintext(fatal("28000", "\x1b[2J\nall is well\u202e")))
        self.assertIn("FATAL: \\x1b[2J all is well\\u202e", result.error or "")

    async def test_of_protocol_2(self) -> None:
        for sslmode in ("disable", "allow"):
            await self.check(
                "connect, backenderror -> fail",
                in_plaintext(b"Ecould not fork new process for connection\n\0", close=True),
                sslmode=sslmode,
            )


class FirstAnswerTests(FakeCase):
    """Other answers to the StartupMessage."""

    async def test_a_password_is_asked_for(self) -> None:
        md5 = b"R\0\0\0\x0c\0\0\0\x05salt"
        for request in (SASL, md5, b"R\0\0\0\x08\0\0\0\x03"):
            await self.check(
                "connect, sslreject, authrequest -> plain", in_plaintext(request), as_libpq=False
            )

    async def test_a_password_is_asked_for_inside_tls(self) -> None:
        # libpq, which must go on, has no password to send.
        await self.check("connect, sslaccept, authrequest -> ssl", inside_tls(SASL), as_libpq=False)

    async def test_an_older_protocol(self) -> None:
        await self.check(
            "connect, sslreject, authok -> plain",
            in_plaintext(negotiate(3, 0) + SESSION),
            max_protocol_version="3.2",
        )

    async def test_a_protocol_that_is_too_old(self) -> None:
        await self.check(
            "connect, sslreject -> fail",
            in_plaintext(negotiate(3, 0) + SESSION),
            min_protocol_version="3.2",
            error="server only supports protocol version 3.0, "
            'but "min_protocol_version" was set to 3.2',
        )

    async def test_the_protocol_negotiated_twice(self) -> None:
        await self.check(
            "connect, sslreject -> fail",
            in_plaintext(negotiate(3, 0) * 2 + SESSION),
            max_protocol_version="3.2",
            error="received duplicate protocol negotiation message",
        )

    async def test_no_PostgreSQL(self) -> None:
        await self.check(
            "connect -> fail",
            in_plaintext(b"HTTP/1.1 400 Bad Request\r\n\r\n"),
            sslmode="disable",
            error="expected authentication request from server, but received H",
        )

    async def test_a_length_that_cannot_be(self) -> None:
        await self.check(
            "connect, sslreject -> fail",
            in_plaintext(b"R\0\0\xff\xff\0\0\0\0"),
            error="received invalid authentication request",
        )

    async def test_a_close(self) -> None:
        await self.check(
            "connect, sslreject -> fail",
            in_plaintext(b"", close=True),
            error="server closed the connection unexpectedly",
        )
        await self.check(
            "connect, sslaccept -> fail",
            inside_tls(b"", close=True),
            in_plaintext(SESSION),
            error="server closed the connection unexpectedly",
        )


class AfterAuthenticationTests(FakeCase):
    """The server lets the user in, and then there is no session all the same."""

    async def test_no_such_database(self) -> None:
        result = await self.check(
            "connect, sslreject, authok, backenderror -> fail",
            in_plaintext(AUTHENTICATION_OK + fatal("3D000", "no such database"), close=True),
            error='connection to server at "127.0.0.1", port',
        )
        self.assertIn("failed: FATAL: no such database", result.error or "")

    async def test_no_such_role(self) -> None:
        await self.check(
            "connect, sslreject, authok, authfail -> fail",
            in_plaintext(AUTHENTICATION_OK + fatal("28000", "no such role"), close=True),
            error="FATAL: no such role",
        )

    async def test_neither_another_method_nor_another_host_follows(self) -> None:
        await self.check(
            "connect, sslaccept, authok, backenderror -> fail",
            inside_tls(AUTHENTICATION_OK + fatal("57P03"), close=True),
            in_plaintext(SESSION),
            sslmode="prefer",
        )

    async def test_a_close(self) -> None:
        await self.check(
            "connect, sslreject, authok -> fail",
            in_plaintext(AUTHENTICATION_OK, close=True),
            error="server closed the connection unexpectedly",
        )

    async def test_what_was_negotiated_is_told_all_the_same(self) -> None:
        result = await self.probe(inside_tls(AUTHENTICATION_OK + fatal("3D000"), close=True))
        self.assertEqual((result.tls or {})["version"], "TLSv1.3")
        self.assertEqual((result.certificate or {})["names"], ["localhost", "127.0.0.1", "::1"])


class SilentHostTests(FakeCase):
    """A host that takes connections and says nothing, in front of one that answers."""

    async def test_without_connect_timeout_a_client_would_never_come_to_the_next_one(self) -> None:
        self.patch(connection_probe, "DEFAULT_TIMEOUT", 0.1)
        silent, other = FakeServer(self, says_nothing), FakeServer(self, in_plaintext(SESSION))
        conninfo = other.conninfo(host="127.0.0.1,127.0.0.1", port=f"{silent.port},{other.port}")
        result = await self.probe_conninfo(conninfo)
        self.assertEqual((result.outcome, result.error), ("plain", None))
        (warning,) = result.warnings
        self.assertIn(f'(connection to server at "127.0.0.1", port {silent.port})', warning)
        self.assertIn("without connect_timeout a client waits there without end", warning)

    async def test_with_connect_timeout_it_does(self) -> None:
        silent, other = FakeServer(self, says_nothing), FakeServer(self, in_plaintext(SESSION))
        result = await self.probe_conninfo(
            other.conninfo(
                host="127.0.0.1,127.0.0.1", port=f"{silent.port},{other.port}", connect_timeout=1
            )
        )
        self.assertEqual((result.outcome, result.warnings), ("plain", []))


class ByteByByteTests(FakeCase):
    """How the answers are cut makes no difference."""

    async def test_in_plaintext(self) -> None:
        async def script(peer: Peer) -> None:
            await peer.packet()
            peer.send(b"N")
            await peer.packet()
            peer.send_byte_by_byte(negotiate(3, 0) + SESSION)

        await self.check("connect, sslreject, authok -> plain", script, max_protocol_version="3.2")

    async def test_inside_tls(self) -> None:
        async def script(peer: Peer) -> None:
            await peer.packet()
            peer.send(b"S")
            await peer.start_tls()
            await peer.packet()
            peer.send_byte_by_byte(fatal("28000", "this is why"))

        await self.check(
            "connect, sslaccept, authfail -> fail",
            script,
            sslmode="require",
            error="FATAL: this is why",
        )

    async def test_an_error_instead_of_S(self) -> None:
        async def script(peer: Peer) -> None:
            await peer.packet()
            peer.send_byte_by_byte(fatal("0A000", SECRET))

        await self.check("connect, sslerror -> fail", script, sslmode="require")
