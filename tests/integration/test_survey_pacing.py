"""``pgtls probe --all`` of servers that take few connections at a time: slower, and as right."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, cast

from twisted.internet import reactor as _reactor
from twisted.internet.interfaces import IAddress
from twisted.trial.unittest import TestCase

from pgtls.conninfo.connection_string import ConnInfo
from pgtls.probe.assessment import Status, assess
from pgtls.probe.survey import Survey
from pgtls.probe.survey_questions import SurveyQuestions
from pgtls.wire.messages import GSSENC_REQUEST, SSL_REQUEST, ErrorResponse
from tests.support.fake_servers import AUTHENTICATION_OK, READY_FOR_QUERY, FakeServer, Peer
from tests.support.processes import TIMEOUT
from tests.support.servers import HOST, Server

reactor = cast(Any, _reactor)


async def plain_server(peer: Peer) -> None:
    """A server without TLS that lets everybody in."""
    while await peer.packet() in (SSL_REQUEST[4:], GSSENC_REQUEST[4:]):
        peer.send(b"N")
    peer.send(AUTHENTICATION_OK + READY_FOR_QUERY)


async def tls_server(peer: Peer) -> None:
    """A server with TLS that lets everybody in, inside TLS and outside."""
    while (packet := await peer.packet()) in (SSL_REQUEST[4:], GSSENC_REQUEST[4:]):
        if packet == SSL_REQUEST[4:]:
            peer.send(b"S")
            await peer.start_tls()
            await peer.packet()
            break
        peer.send(b"N")
    peer.send(AUTHENTICATION_OK + READY_FOR_QUERY)


class LimitedServer(FakeServer):
    """A server that looks at each connection when it comes.

    :ivar refuses: whether it is one too many: that one is closed.
    :ivar says: what it is told before.
    """

    refuses: Callable[[], bool]
    says = b""

    def open(self) -> int:
        """How many connections are open."""
        return sum(not peer.gone.called for peer in self.peers)

    def buildProtocol(self, addr: IAddress | None) -> Peer:
        refused = self.refuses()
        peer = super().buildProtocol(addr)
        return _Closing(self.peers, self.says) if refused else peer


class _Closing(Peer):
    """Takes the place of the last one, and closes."""

    def __init__(self, peers: list[Peer], says: bytes) -> None:
        super().__init__()
        self._says = says
        peers[-1] = self

    def connectionMade(self) -> None:
        self.transport.write(self._says)
        self.transport.loseConnection()


def _some_are_open(server: LimitedServer) -> bool:
    return server.open() > 0


class PacingTests(TestCase):
    """Whatever the limit is, the verdicts are those of a server without one."""

    timeout = 4 * TIMEOUT

    async def survey(self, conninfo: str) -> Survey:
        parsed = ConnInfo.parse(conninfo, {"HOME": "/nonexistent"})
        return await SurveyQuestions(reactor, parsed).everything()

    def check_plaintext(self, survey: Survey) -> None:
        outcomes = {mode: result.outcome for mode, result in survey.sslmodes.items()}
        self.assertEqual(
            outcomes,
            {
                **dict.fromkeys(("disable", "allow", "prefer"), "plain"),
                **dict.fromkeys(("require", "verify-ca", "verify-full"), "fail"),
            },
        )
        for mode in ("require", "verify-ca", "verify-full"):
            error = survey.sslmodes[mode].error
            self.assertIn("server does not support SSL, but SSL was required", error or "")
        self.assertEqual((survey.ssl_request, survey.gssenc_request), ("N", "N"))
        self.assertEqual(survey.protocol, "3.2")
        assert survey.authentication is not None
        self.assertEqual(survey.authentication.method, "trust")

    def check_tls(self, survey: Survey) -> None:
        outcomes = {mode: result.outcome for mode, result in survey.sslmodes.items()}
        self.assertEqual(
            outcomes,
            {
                **dict.fromkeys(("disable", "allow"), "plain"),
                **dict.fromkeys(("prefer", "require"), "ssl"),
                **dict.fromkeys(("verify-ca", "verify-full"), "fail"),
            },
        )
        assert survey.key_exchange is not None
        self.assertTrue(survey.tls_versions["TLSv1.3"].accepted)
        self.assertTrue(survey.tls_versions["TLSv1.2"].accepted)
        assert survey.direct_tls is not None
        self.assertFalse(survey.direct_tls.accepted)

    def line(self, survey: Survey) -> str:
        """What the survey says of connections; empty where it says nothing."""
        lines = [each for each in assess(survey) if each.name == "connections"]
        self.assertLess(len(lines), 2)
        self.assertTrue(all(line.status is Status.NOTE for line in lines))
        return lines[0].found if lines else ""

    async def test_one_connection_at_a_time(self) -> None:
        server = LimitedServer(self, plain_server)
        server.refuses = lambda: server.open() > 0
        survey = await self.survey(server.conninfo())
        self.check_plaintext(survey)
        self.assertIn("one at a time", self.line(survey))

    async def test_one_connection_at_a_time_and_an_error_for_the_others(self) -> None:
        """It comes before the answer to SSLRequest, as PostgreSQL's own may (a failed fork)."""
        for script, check in ((plain_server, self.check_plaintext), (tls_server, self.check_tls)):
            server = LimitedServer(self, script)
            server.refuses = partial(_some_are_open, server)
            server.says = ErrorResponse.fatal("53300", "sorry, too many clients already").encode()
            survey = await self.survey(server.conninfo())
            check(survey)
            self.assertIn("one at a time", self.line(survey))

    async def test_one_connection_at_a_time_with_TLS(self) -> None:
        server = LimitedServer(self, tls_server)
        server.refuses = lambda: server.open() > 0
        survey = await self.survey(server.conninfo(connect_timeout=2))
        self.check_tls(survey)
        self.assertIn("one at a time", self.line(survey))

    async def test_two_connections_at_a_time(self) -> None:
        server = LimitedServer(self, plain_server)
        server.refuses = lambda: server.open() > 1
        survey = await self.survey(server.conninfo())
        self.check_plaintext(survey)
        self.assertEqual(survey.concurrent, 2)
        self.assertIn("fewer than 4 at a time", self.line(survey))

    async def test_a_limit_on_how_many_come_in_a_second(self) -> None:
        server = LimitedServer(self, plain_server)
        came: list[float] = []

        def refuses() -> bool:
            came.append(reactor.seconds())
            return sum(came[-1] - each < 1 for each in came) > 5

        server.refuses = refuses
        self.check_plaintext(await self.survey(server.conninfo()))

    async def test_no_limit(self) -> None:
        server = FakeServer(self, plain_server)
        survey = await self.survey(server.conninfo())
        self.check_plaintext(survey)
        self.assertEqual(self.line(survey), "")

    async def test_PostgreSQL_with_few_slots(self) -> None:
        server = Server(
            17,
            ssl=True,
            conf={
                "max_connections": "2",
                "superuser_reserved_connections": "0",
                "max_wal_senders": "0",
            },
        )
        self.addCleanup(server.stop)
        conninfo = server.conninfo(host="localhost", hostaddr=HOST, sslrootcert=server.root_crt)
        survey = await self.survey(conninfo)
        outcomes = {mode: result.outcome for mode, result in survey.sslmodes.items()}
        self.assertEqual(
            outcomes,
            {
                **dict.fromkeys(("disable", "allow"), "plain"),
                **dict.fromkeys(("prefer", "require", "verify-ca", "verify-full"), "ssl"),
            },
        )
        self.assertEqual(survey.protocol, "3.0")
