"""``require_auth`` and ``channel_binding=require``, in the probe, the endpoint and the gateway.

What the server asks for is held against libpq, the real one, with the same script.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator
from itertools import product
from typing import Any, cast

import psycopg
from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.threads import deferToThread
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from pgtls.conninfo.connection_string import ConnInfo
from pgtls.errors import AuthenticationNotAllowed
from pgtls.probe.connection_probe import run_probe
from pgtls.protocols.endpoint import PgTLSClientEndpoint
from pgtls.wire.messages import SSL_REQUEST, StartupMessage
from pgtls.wire.required_authentication import sasl_request
from tests.support import libpq
from tests.support.fake_servers import READY_FOR_QUERY, FakeServer, Peer, Script
from tests.support.gateway_daemon import Gateway
from tests.support.processes import TIMEOUT
from tests.support.servers import HOST
from tests.support.transports import OnTwistedsTransports, Transports

reactor = cast(Any, _reactor)

PASSWORD = b"the password of somebody"


def request(code: int, rest: bytes = b"") -> bytes:
    """An authentication request."""
    return b"R" + struct.pack("!II", 8 + len(rest), code) + rest


OK = request(0)
CLEARTEXT = request(3)
MD5 = request(5, b"salt")
SASL = sasl_request(["SCRAM-SHA-256"])
SASL_PLUS = sasl_request(["SCRAM-SHA-256-PLUS", "SCRAM-SHA-256"])
#: What a server may ask for first.
FIRST = {
    "ok": OK,
    "kerberos 4": request(1),
    "kerberos 5": request(2),
    "cleartext": CLEARTEXT,
    "crypt": request(4, b"xx"),
    "md5": MD5,
    "gss": request(7),
    "gss continue": request(8, b"token"),
    "sspi": request(9),
    "sasl": SASL,
    "sasl plus": SASL_PLUS,
    "sasl plus alone": sasl_request(["SCRAM-SHA-256-PLUS"]),
    "sasl oauth": sasl_request(["OAUTHBEARER"]),
    "sasl oauth and scram": sasl_request(["OAUTHBEARER", "SCRAM-SHA-256"]),
    "sasl unknown": sasl_request(["SCRAM-SHA-512"]),
    "sasl nothing": sasl_request([]),
    "sasl continue": request(11, b"r=x"),
    "sasl final": request(12, b"v=x"),
    "unknown": request(99),
}

REQUIRE_AUTH = (
    None,
    "scram-sha-256",
    "password",
    "md5",
    "gss",
    "sspi",
    "oauth",
    "none",
    "scram-sha-256,none",
    "password,md5,scram-sha-256",
    "!password",
    "!password,!md5,!none",
    "!scram-sha-256,!oauth",
    "!sspi",
    "!none",
)

#: The sentences of libpq's that are about what a server may ask for. Of others, libpq has more than
#: we, for it goes on where we leave the answer to somebody else.
_ABOUT = re.compile(
    r"(authentication method requirement|channel binding|server offered SCRAM-SHA-256-PLUS"
    r"|none of the server's SASL|fe_sendauth: invalid authentication request from server).*"
)


def answers(*steps: bytes, tls: bool = False, close: bool = False) -> Script:
    """Send each of these, the next one when the client has answered; then close.

    :param close: do not wait for the answer to the last one.
    """

    async def script(peer: Peer) -> None:
        if await peer.packet() == SSL_REQUEST[4:]:
            peer.send(b"S" if tls else b"N")
            if tls:
                await peer.start_tls()
            await peer.packet()
        for step in steps:
            peer.send(step)
            if close and step is steps[-1]:
                break
            await peer.take(1)
            await peer.packet()
        peer.close()

    return script


def sentence(complaint: str) -> str:
    """The part of a complaint that is about what is required; empty where none is."""
    found = _ABOUT.search(complaint)
    return found[0].strip() if found else ""


class ProbeTests(Transports, TestCase):
    """The probe, against libpq."""

    timeout = 240

    async def compare(self, tls: bool) -> None:
        async def script(peer: Peer) -> None:
            await answers(FIRST[name], tls=tls, close=True)(peer)

        server = FakeServer(self, script)
        for name, require_auth, binding in product(FIRST, REQUIRE_AUTH, ("prefer", "require")):
            if require_auth is None and binding == "prefer":
                continue
            parameters: dict[str, str | int | None] = {
                "sslmode": "require" if tls else "disable",
                "require_auth": require_auth,
                "channel_binding": binding,
                "password": "secret",
            }
            conninfo = server.conninfo(**parameters)
            result = await run_probe(reactor, ConnInfo.parse(conninfo, {"HOME": "/nonexistent"}))
            complaint = sentence(await libpq.connects(conninfo))
            self.assertEqual(sentence(result.error or ""), complaint, (name, parameters))
            if complaint:
                self.assertEqual(result.outcome, "fail")

    async def test_in_plaintext(self) -> None:
        await self.compare(tls=False)

    async def test_inside_TLS(self) -> None:
        await self.compare(tls=True)

    async def test_the_event_and_the_whole_error(self) -> None:
        server = FakeServer(self, answers(CLEARTEXT))
        conninfo = server.conninfo(require_auth="scram-sha-256", sslmode="disable")
        result = await run_probe(reactor, ConnInfo.parse(conninfo, {"HOME": "/nonexistent"}))
        self.assertEqual((result.events, result.outcome), (["connect", "authrequest"], "fail"))
        self.assertEqual(
            result.error,
            f'connection to server at "{HOST}", port {server.port} failed: authentication method '
            'requirement "scram-sha-256" failed: server requested a cleartext password',
        )

    async def test_neither_another_method_nor_another_host_is_tried(self) -> None:
        server = FakeServer(self, answers(CLEARTEXT, tls=True))
        conninfo = server.conninfo(
            host=f"{HOST},{HOST}",
            port=f"{server.port},{server.port}",
            sslmode="prefer",
            require_auth="none",
        )
        await run_probe(reactor, ConnInfo.parse(conninfo, {"HOME": "/nonexistent"}))
        self.assertEqual(len(server.peers), 1)


class OnTwisteds(OnTwistedsTransports, ProbeTests):
    """The same on Twisted's own transports."""


class Application(Protocol):
    """A driver that answers whatever it is asked, with its password or a SCRAM message.

    :ivar ready: fires when the server is ready for queries.
    :ivar lost: fires with what it is told when the connection is gone.
    """

    def __init__(self) -> None:
        self.received = b""
        self.lost: Deferred[BaseException] = Deferred()
        self.ready: Deferred[None] = Deferred()

    def dataReceived(self, data: bytes) -> None:
        self.received += data
        while len(self.received) > 5 and self.received[:1] == b"R":
            end = 1 + int.from_bytes(self.received[1:5], "big")
            message, self.received = self.received[:end], self.received[end:]
            self.answer(int.from_bytes(message[5:9], "big"), message[9:])
        if self.received[:1] == b"Z":
            self.ready.callback(None)

    def answer(self, code: int, body: bytes) -> None:
        if code == 10:
            mechanism = body.split(b"\0")[0]
            self.say(mechanism + b"\0" + struct.pack("!I", 8) + b"n,,n=,r=")
        elif code == 11:
            self.say(b"c=,r=,p=")
        elif code not in (0, 12):
            self.say(PASSWORD + b"\0")

    def say(self, body: bytes) -> None:
        assert self.transport is not None
        self.transport.write(b"p" + struct.pack("!I", 4 + len(body)) + body)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost.callback(reason.value)


class EndpointTests(Transports, TestCase):
    """An application's driver behind the endpoint."""

    timeout = TIMEOUT

    async def connect(self, script: Script, *, startup: bool, **parameters: str) -> Application:
        """A driver's connection; the StartupMessage is its own or the endpoint's."""
        self.server = FakeServer(self, script)
        opening = StartupMessage.build({b"user": b"somebody"})
        endpoint = PgTLSClientEndpoint(
            reactor,
            ConnInfo.parse(self.server.conninfo(**parameters), {"HOME": "/nonexistent"}),
            startup=opening if startup else None,
        )
        application = await endpoint.connect(Factory.forProtocol(Application))
        assert isinstance(application, Application)
        if not startup:
            assert application.transport is not None
            application.transport.write(opening.raw)
        return application

    async def refused(self, script: Script, expected: str, **parameters: str) -> None:
        """The connection fails, with this sentence, and the server never sees the password."""
        for startup in (False, True):
            try:
                application = await self.connect(script, startup=startup, **parameters)
            except AuthenticationNotAllowed as error:
                found: BaseException = error
            else:
                found = await application.lost
            self.assertIsInstance(found, AuthenticationNotAllowed)
            self.assertEqual(
                str(found),
                f'connection to server at "{HOST}", port {self.server.port} failed: {expected}',
            )
            await self.server.peers[0].gone
            self.assertNotIn(PASSWORD, self.server.peers[0].received)

    async def test_a_password_in_the_clear(self) -> None:
        await self.refused(
            answers(CLEARTEXT),
            'authentication method requirement "scram-sha-256" failed: '
            "server requested a cleartext password",
            sslmode="disable",
            require_auth="scram-sha-256",
        )

    async def test_let_in_for_nothing(self) -> None:
        await self.refused(
            answers(OK + READY_FOR_QUERY),
            'authentication method requirement "scram-sha-256" failed: '
            "server did not complete authentication",
            sslmode="disable",
            require_auth="scram-sha-256",
        )

    async def test_SCRAM_that_ends_without_the_servers_signature(self) -> None:
        for steps in ([SASL, OK], [SASL, request(11, b"r="), OK]):
            await self.refused(
                answers(*steps),
                'authentication method requirement "scram-sha-256" failed: '
                "server did not complete authentication",
                sslmode="disable",
                require_auth="scram-sha-256",
            )

    async def test_SCRAM_and_then_the_password(self) -> None:
        for steps in ([SASL, CLEARTEXT], [SASL, request(11, b"r="), MD5]):
            await self.refused(
                answers(*steps),
                'authentication method requirement "!password,!md5" failed: server requested a '
                + ("cleartext" if steps[-1] == CLEARTEXT else "hashed")
                + " password",
                sslmode="disable",
                require_auth="!password,!md5",
            )

    async def test_without_channel_binding(self) -> None:
        for steps, expected in {
            (CLEARTEXT,): "channel binding required but not supported by server's "
            "authentication request",
            (OK,): "channel binding required, but server authenticated client without channel "
            "binding",
            (SASL,): "channel binding is required, but server did not offer an authentication "
            "method that supports channel binding",
            (SASL_PLUS, OK): "channel binding required, but server authenticated client without "
            "channel binding",
        }.items():
            await self.refused(
                answers(*steps, tls=True),
                expected,
                sslmode="require",
                channel_binding="require",
            )

    async def test_an_application_is_offered_only_what_is_allowed(self) -> None:
        script = answers(
            SASL_PLUS, request(11, b"r="), request(12, b"v=") + OK + READY_FOR_QUERY, tls=True
        )
        for startup in (False, True):
            application = await self.connect(
                script, startup=startup, sslmode="require", channel_binding="require"
            )
            assert application.transport is not None
            await application.ready
            application.transport.loseConnection()
            self.assertNotIsInstance(await application.lost, AuthenticationNotAllowed)
            await self.server.peers[0].gone
            self.assertIn(b"p\0\0\0\x23SCRAM-SHA-256-PLUS\0", self.server.peers[0].received)

    async def test_after_AuthenticationOk_nothing_is_looked_at(self) -> None:
        for startup in (False, True):
            application = await self.connect(
                answers(CLEARTEXT, OK + CLEARTEXT),
                startup=startup,
                sslmode="disable",
                require_auth="password",
            )
            self.assertNotIsInstance(await application.lost, AuthenticationNotAllowed)
            self.assertEqual(self.server.peers[0].received.count(PASSWORD), 2)


class EndpointOnTwisteds(OnTwistedsTransports, EndpointTests):
    """The same on Twisted's own transports."""


#: The gateways of one daemon: each with an upstream that requires something.
UPSTREAMS = {
    "scram": "sslmode=disable require_auth=scram-sha-256",
    "password": "sslmode=disable require_auth=password",
    "binding": "sslmode=require channel_binding=require",
    "nothing": "sslmode=disable",
}


class GatewayTests(TestCase):
    """The gateway: its client authenticates, and is not asked for what is not allowed."""

    timeout = 4 * TIMEOUT

    def setUp(self) -> None:
        self.script: Script = answers()

        async def script(peer: Peer) -> None:
            await self.script(peer)

        self.server = FakeServer(self, script)
        tables = (
            f'[[gateway]]\nlisten = "tcp:0:interface={HOST}"\nssl = "on"\n'
            f'upstream = "host={HOST} port={self.server.port} {upstream}"\n'
            for upstream in UPSTREAMS.values()
        )
        self.daemon = Gateway(config='state_dir = "{state}"\n' + "".join(tables))
        self.addCleanup(self.daemon.remove)
        self.ports = dict(
            zip(UPSTREAMS, (int(port) for _, port in self.daemon.places), strict=True)
        )

    async def complaint(self, upstream: str, script: Script, sslmode: str = "require") -> str:
        """What psycopg, with a password, says when it connects through the gateway."""
        self.script = script
        conninfo = (
            f"host={HOST} port={self.ports[upstream]} sslmode={sslmode} user=somebody "
            f"password='{PASSWORD.decode()}' connect_timeout={int(TIMEOUT)} gssencmode=disable"
        )
        before = len(self.server.peers)

        def connect() -> str:
            try:
                psycopg.connect(conninfo).close()
            except psycopg.OperationalError as error:
                return str(error)
            return ""

        complaint: str = await deferToThread(connect)
        for peer in self.server.peers[before:]:
            await peer.gone
        self.received = b"".join(peer.received for peer in self.server.peers[before:])
        return complaint

    def check_log(self, expected: str) -> None:
        pattern = r"error\] .*user=somebody .*upstream: .*failed: " + re.escape(expected)
        self.daemon.wait_for_log(pattern)

    async def test_what_is_not_allowed(self) -> None:
        did_not = (
            'authentication method requirement "scram-sha-256" failed: '
            "server did not complete authentication"
        )
        for upstream, steps, expected in (
            (
                "scram",
                [CLEARTEXT],
                'authentication method requirement "scram-sha-256" failed: '
                "server requested a cleartext password",
            ),
            (
                "scram",
                [MD5],
                'authentication method requirement "scram-sha-256" failed: '
                "server requested a hashed password",
            ),
            ("scram", [OK + READY_FOR_QUERY], did_not),
            ("scram", [SASL, OK + READY_FOR_QUERY], did_not),
            (
                "scram",
                [SASL, CLEARTEXT],
                'authentication method requirement "scram-sha-256" failed: '
                "server requested a cleartext password",
            ),
            (
                "password",
                [SASL],
                'authentication method requirement "password" failed: '
                "server requested SASL authentication",
            ),
            (
                "binding",
                [CLEARTEXT],
                "channel binding required but not supported by server's authentication request",
            ),
            (
                "binding",
                [SASL_PLUS, OK + READY_FOR_QUERY],
                "channel binding required, but server authenticated client without channel binding",
            ),
        ):
            script = answers(*steps, tls=upstream == "binding")
            complaint = await self.complaint(upstream, script)
            self.assertIn("FATAL:  could not make a secure connection to the", complaint)
            self.assertIn(f"upstream server: {expected}\n", complaint + "\n")
            self.assertNotIn(PASSWORD, self.received)
            self.assertNotIn(b"md5", self.received)
            self.check_log(expected)

    async def test_a_client_without_TLS_cannot_bind_the_channel(self) -> None:
        expected = "channel binding required, but the client's connection has no SSL"
        complaint = await self.complaint("binding", answers(SASL_PLUS, tls=True), "disable")
        self.assertIn(expected, complaint)
        self.assertNotIn(b"SCRAM", self.received)

    async def test_a_client_that_takes_what_was_not_offered(self) -> None:
        self.script = answers(SASL_PLUS, OK, tls=True)
        said = await deferToThread(self.choose, b"SCRAM-SHA-256")
        self.assertIn(b"channel binding required, but client chose", said)
        await self.server.peers[-1].gone
        self.assertNotIn(b"n,,n=", self.server.peers[-1].received)

    def choose(self, mechanism: bytes) -> bytes:
        """Answer an offer by hand, in TLS, before it has come."""
        from tests.support.relay_client import Session  # noqa: PLC0415

        class Unfinished(Session):
            """One that does not log in."""

            def messages(self, read: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
                yield b"K", bytes(8)

        session = Unfinished((HOST, self.ports["binding"]), tls=True)
        kind, _ = session.message()
        assert kind == b"R"
        body = mechanism + b"\0" + struct.pack("!I", 8) + b"n,,n=,r="
        session.send(b"p" + struct.pack("!I", 4 + len(body)) + body)
        said = session.read_all()
        session.close()
        return said

    async def test_what_is_allowed(self) -> None:
        login: Callable[..., Script] = lambda *steps: answers(*steps, OK + READY_FOR_QUERY)  # noqa: E731
        for upstream in ("password", "nothing"):
            self.assertEqual(await self.complaint(upstream, login(CLEARTEXT)), "")
            self.assertIn(PASSWORD, self.received)
        self.assertEqual(await self.complaint("nothing", login()), "")
