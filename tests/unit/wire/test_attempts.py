"""Which attempts an sslmode allows, and what they come to: both sides wired to each other.

Every sslmode and sslnegotiation meets every kind of server. The notation is that of PostgreSQL's
``src/interfaces/libpq/t/005_negotiate_encryption.pl``; a row that is not there follows from
PQconnectPoll(), encryption_negotiation_failed(), connection_failed() and
select_next_encryption_method() in ``src/interfaces/libpq/fe-connect.c``. Rows with ``sslerror``
under allow and prefer are ours: libpq gives up there.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from twisted.trial.unittest import SynchronousTestCase

from pgtls.errors import NegotiationRefused
from pgtls.wire import client_negotiation as client
from pgtls.wire import server_negotiation as server
from pgtls.wire.attempts import Attempts, Method, SSLMode, SSLNegotiation, combination_error
from pgtls.wire.client_negotiation import (
    ClientNegotiation,
    Event,
    Fail,
    NextHost,
    Ready,
    Reconnect,
    Report,
)
from pgtls.wire.messages import SSL_REQUEST, ErrorResponse, StartupMessage
from pgtls.wire.negotiation import Send
from pgtls.wire.server_negotiation import SSL, Close, ServerNegotiation, ServerPolicy, Startup
from tests.unit.wire.test_messages import message

STARTUP = StartupMessage.build({b"user": b"alice"}).raw
OK = message(b"R", bytes(4))
SASL = message(b"R", bytes([0, 0, 0, 10]) + b"SCRAM-SHA-256\0\0")
NO_ENTRY = ErrorResponse.fatal("28000", "no pg_hba.conf entry").encode()
TOO_MANY = ErrorResponse.fatal("53300", "sorry, too many clients already")
STARTING_UP = ErrorResponse.fatal("57P03", "the database system is starting up").encode()
PROTOCOL_2_ERROR = b"EFATAL:  could not fork new process for connection\n\0"

STRICT = (SSLMode.REQUIRE, SSLMode.VERIFY_CA, SSLMode.VERIFY_FULL)


class Peer(Protocol):
    """A server for one connection."""

    def receive(self, data: bytes) -> list[server.Action]:
        """Bytes from the client."""

    def handshake(self) -> tuple[bool, list[server.Action]]:
        """Whether a TLS handshake succeeds here, and what follows."""


class RealServer:
    """Our own server, with a session behind it.

    :param plain, ssl: the answer to a StartupMessage in plaintext and inside TLS.
    :param full: it refuses everything, handshakes too.
    """

    def __init__(
        self, policy: ServerPolicy, plain: bytes = OK, ssl: bytes = OK, *, full: bool = False
    ) -> None:
        refusal = TOO_MANY if full else None
        self._negotiation = ServerNegotiation(policy, lambda: refusal, lambda: refusal)
        self._answers = {False: plain, True: ssl}
        self._tls = False

    def receive(self, data: bytes) -> list[server.Action]:
        """Bytes from the client."""
        actions = self._negotiation.receive(data)
        if any(isinstance(action, Startup) for action in actions):
            return [Send(self._answers[self._tls])]
        return actions

    def handshake(self) -> tuple[bool, list[server.Action]]:
        """It succeeds."""
        self._tls = True
        return True, self._negotiation.handshake_completed(server.ALPN)


@dataclass(frozen=True, slots=True)
class FakeServer:
    """A server that says to SSLRequest what it was told to say; no handshake succeeds with it.

    :ivar reply: to SSLRequest; None to close instead.
    :ivar answer: to a StartupMessage; None to close instead.
    """

    reply: bytes | None
    answer: bytes | None = OK

    def receive(self, data: bytes) -> list[server.Action]:
        """Bytes from the client."""
        said = self.reply if data == SSL_REQUEST else self.answer
        return [Close(None)] if said is None else [Send(said)]

    def handshake(self) -> tuple[bool, list[server.Action]]:
        """It fails."""
        return False, []


class Connection:
    """A client and a server with nothing between them."""

    def __init__(self, negotiation: ClientNegotiation, peer: Peer) -> None:
        self.events: list[str] = []
        self.tls = False
        self._negotiation = negotiation
        self._peer = peer
        self._outcome: Ready | Reconnect | NextHost | Fail | None = None
        self._steps: deque[Callable[[], None]] = deque()

    def run(self) -> Ready | Reconnect | NextHost | Fail:
        """What the client comes to."""
        self._as_client(self._negotiation.connected())
        while self._outcome is None:
            self._steps.popleft()()
        return self._outcome

    def _as_client(self, actions: list[client.Action]) -> None:
        for action in actions:
            match action:
                case Report(event):
                    self.events.append(event.value)
                case Send(data):
                    self._steps.append(partial(self._to_server, data))
                case client.StartTLS():
                    self._steps.append(self._shake_hands)
                case Ready() | Reconnect() | NextHost() | Fail():
                    self._outcome = action

    def _as_server(self, actions: list[server.Action]) -> None:
        for action in actions:
            match action:
                case Send(data):
                    self._steps.append(partial(self._to_client, data))
                case Close():
                    self._steps.append(self._lost)

    def _to_server(self, data: bytes) -> None:
        self._as_server(self._peer.receive(data))

    def _to_client(self, data: bytes) -> None:
        self._as_client(self._negotiation.receive(data))

    def _lost(self) -> None:
        self._as_client(self._negotiation.lost())

    def _shake_hands(self) -> None:
        succeeds = True
        if Event.SSLACCEPT not in self.events:  # direct: the server has not heard of TLS yet
            replies = self._peer.receive(b"\x16\x03\x01\x02\x00")
            succeeds = any(isinstance(reply, server.StartTLS) for reply in replies)
        if succeeds:
            succeeds, actions = self._peer.handshake()
            self._as_server(actions)
        self.tls = succeeds
        if succeeds:
            self._as_client(self._negotiation.handshake_completed(server.ALPN))
        else:
            error = NegotiationRefused("handshake failure")
            self._as_client(self._negotiation.handshake_failed(error))


def outcome(attempts: Attempts, peer: Callable[[], Peer], startup: bytes | None) -> str:
    """All attempts at one host, in words: the events and what they come to."""
    events: list[str] = []
    opening = Event.CONNECT
    while True:
        connection = Connection(ClientNegotiation(attempts, startup, opening), peer())
        result = connection.run()
        events += connection.events
        match result:
            case Reconnect():
                attempts, opening = result.attempts, Event.RECONNECT
                continue
            case Ready():
                end = "ssl" if connection.tls else "plain"
            case NextHost():
                end = "next host"
            case Fail():
                end = "fail"
        return f"{', '.join(events)} -> {end}"


def policy(ssl: SSL) -> ServerPolicy:
    """Our server under this setting."""
    return ServerPolicy(ssl=ssl)


#: What a client may meet, by name.
SERVERS: dict[str, Callable[[], Peer]] = {
    "ssl=off": lambda: RealServer(policy(SSL.OFF)),
    "ssl=on": lambda: RealServer(policy(SSL.ON)),
    "ssl=require": lambda: RealServer(policy(SSL.REQUIRE)),
    "password": lambda: RealServer(policy(SSL.ON), SASL, SASL),
    "hostssl": lambda: RealServer(policy(SSL.ON), plain=NO_ENTRY),
    "hostnossl": lambda: RealServer(policy(SSL.ON), ssl=NO_ENTRY),
    "nobody": lambda: RealServer(policy(SSL.ON), NO_ENTRY, NO_ENTRY),
    "off, nobody": lambda: RealServer(policy(SSL.OFF), NO_ENTRY),
    "53300": lambda: RealServer(policy(SSL.ON), TOO_MANY.encode(), TOO_MANY.encode()),
    "57P03": lambda: RealServer(policy(SSL.ON), STARTING_UP, STARTING_UP),
    "protocol 2": lambda: RealServer(policy(SSL.ON), PROTOCOL_2_ERROR, PROTOCOL_2_ERROR),
    "off, protocol 2": lambda: RealServer(policy(SSL.OFF), PROTOCOL_2_ERROR),
    "full": lambda: RealServer(policy(SSL.ON), full=True),
    "N": lambda: FakeServer(b"N"),
    "E": lambda: FakeServer(PROTOCOL_2_ERROR),
    "E, 57P03": lambda: FakeServer(STARTING_UP),
    "E, nobody": lambda: FakeServer(b"E", NO_ENTRY),
    "garbage": lambda: FakeServer(b"HTTP/1.1 400", b"HTTP/1.1 400"),
    "S and more": lambda: FakeServer(b"S" + OK),
    "S and more, nobody": lambda: FakeServer(b"S" + OK, NO_ENTRY),
    "closes": lambda: FakeServer(None, None),
    "handshake fails": lambda: FakeServer(b"S"),
    "handshake fails, nobody": lambda: FakeServer(b"S", NO_ENTRY),
}

#: sslmode (``require`` for the verifying ones too), ``direct`` for sslnegotiation=direct.
TABLE = {
    # No SSL to be had: N, then plaintext on the same connection where that is allowed
    # (ENCRYPTION_NEGOTIATION_FAILED). A ClientHello is just a packet of an invalid length.
    "ssl=off": """
        disable  connect, authok -> plain
        allow    connect, authok -> plain
        prefer   connect, sslreject, authok -> plain
        require  connect, sslreject -> fail
        direct   connect, directsslreject -> fail
    """,
    "N": """
        disable  connect, authok -> plain
        allow    connect, authok -> plain
        prefer   connect, sslreject, authok -> plain
        require  connect, sslreject -> fail
        direct   connect, directsslreject -> fail
    """,
    "off, nobody": """
        disable  connect, authfail -> fail
        allow    connect, authfail, reconnect, sslreject -> fail
        prefer   connect, sslreject, authfail -> fail
        require  connect, sslreject -> fail
        direct   connect, directsslreject -> fail
    """,
    # Both to be had: what the sslmode tries first.
    "ssl=on": """
        disable  connect, authok -> plain
        allow    connect, authok -> plain
        prefer   connect, sslaccept, authok -> ssl
        require  connect, sslaccept, authok -> ssl
        direct   connect, directsslaccept, authok -> ssl
    """,
    "password": """
        disable  connect, authrequest -> plain
        allow    connect, authrequest -> plain
        prefer   connect, sslaccept, authrequest -> ssl
        require  connect, sslaccept, authrequest -> ssl
        direct   connect, directsslaccept, authrequest -> ssl
    """,
    # An ErrorResponse to the StartupMessage: CONNECTION_FAILED, the other method on a new
    # connection. Our own refusal of plaintext is one, as a pg_hba.conf with hostssl lines is.
    "ssl=require": """
        disable  connect, authfail -> fail
        allow    connect, authfail, reconnect, sslaccept, authok -> ssl
        prefer   connect, sslaccept, authok -> ssl
        require  connect, sslaccept, authok -> ssl
        direct   connect, directsslaccept, authok -> ssl
    """,
    "hostssl": """
        disable  connect, authfail -> fail
        allow    connect, authfail, reconnect, sslaccept, authok -> ssl
        prefer   connect, sslaccept, authok -> ssl
        require  connect, sslaccept, authok -> ssl
        direct   connect, directsslaccept, authok -> ssl
    """,
    "hostnossl": """
        disable  connect, authok -> plain
        allow    connect, authok -> plain
        prefer   connect, sslaccept, authfail, reconnect, authok -> plain
        require  connect, sslaccept, authfail -> fail
        direct   connect, directsslaccept, authfail -> fail
    """,
    "nobody": """
        disable  connect, authfail -> fail
        allow    connect, authfail, reconnect, sslaccept, authfail -> fail
        prefer   connect, sslaccept, authfail, reconnect, authfail -> fail
        require  connect, sslaccept, authfail -> fail
        direct   connect, directsslaccept, authfail -> fail
    """,
    # libpq does not ask which error it is,
    "53300": """
        disable  connect, backenderror -> fail
        allow    connect, backenderror, reconnect, sslaccept, backenderror -> fail
        prefer   connect, sslaccept, backenderror, reconnect, backenderror -> fail
        require  connect, sslaccept, backenderror -> fail
        direct   connect, directsslaccept, backenderror -> fail
    """,
    # except for ERRCODE_CANNOT_CONNECT_NOW: try_next_host.
    "57P03": """
        disable  connect, backenderror -> next host
        allow    connect, backenderror -> next host
        prefer   connect, sslaccept, backenderror -> next host
        require  connect, sslaccept, backenderror -> next host
        direct   connect, directsslaccept, backenderror -> next host
    """,
    # "Handle error from a pre-3.0 server": error_return, no other attempt.
    "protocol 2": """
        disable  connect, backenderror -> fail
        allow    connect, backenderror -> fail
        prefer   connect, sslaccept, backenderror -> fail
        require  connect, sslaccept, backenderror -> fail
        direct   connect, directsslaccept, backenderror -> fail
    """,
    "off, protocol 2": """
        disable  connect, backenderror -> fail
        allow    connect, backenderror -> fail
        prefer   connect, sslreject, backenderror -> fail
        require  connect, sslreject -> fail
        direct   connect, directsslreject -> fail
    """,
    # E to SSLRequest: a new connection without SSL where plaintext is allowed and has not been
    # refused. libpq: "connect, sslerror -> fail" under prefer.
    "E": """
        disable  connect, authok -> plain
        allow    connect, authok -> plain
        prefer   connect, sslerror, reconnect, authok -> plain
        require  connect, sslerror -> fail
        direct   connect, directsslreject -> fail
    """,
    "E, 57P03": """
        disable  connect, authok -> plain
        allow    connect, authok -> plain
        prefer   connect, sslerror, reconnect, authok -> plain
        require  connect, sslerror -> fail
        direct   connect, directsslreject -> fail
    """,
    "E, nobody": """
        disable  connect, authfail -> fail
        allow    connect, authfail, reconnect, sslerror -> fail
        prefer   connect, sslerror, reconnect, authfail -> fail
        require  connect, sslerror -> fail
        direct   connect, directsslreject -> fail
    """,
    # Our own server beyond max_connections says it to SSLRequest already.
    "full": """
        disable  connect, backenderror -> fail
        allow    connect, backenderror, reconnect, sslerror -> fail
        prefer   connect, sslerror, reconnect, backenderror -> fail
        require  connect, sslerror -> fail
        direct   connect, directsslreject -> fail
    """,
    # Not a server to be talked to: error_return, in every state.
    "garbage": """
        disable  connect -> fail
        allow    connect -> fail
        prefer   connect -> fail
        require  connect -> fail
        direct   connect, directsslreject -> fail
    """,
    "closes": """
        disable  connect -> fail
        allow    connect -> fail
        prefer   connect -> fail
        require  connect -> fail
        direct   connect, directsslreject -> fail
    """,
    # "received unencrypted data after SSL response": error_return, prefer does not fall back.
    "S and more": """
        disable  connect, authok -> plain
        allow    connect, authok -> plain
        prefer   connect, sslaccept -> fail
        require  connect, sslaccept -> fail
        direct   connect, directsslreject -> fail
    """,
    "S and more, nobody": """
        disable  connect, authfail -> fail
        allow    connect, authfail, reconnect, sslaccept -> fail
        prefer   connect, sslaccept -> fail
        require  connect, sslaccept -> fail
        direct   connect, directsslreject -> fail
    """,
    # "SSL handshake failed.  We will retry with a plaintext connection, if permitted by sslmode."
    "handshake fails": """
        disable  connect, authok -> plain
        allow    connect, authok -> plain
        prefer   connect, sslaccept, reconnect, authok -> plain
        require  connect, sslaccept -> fail
        direct   connect, directsslreject -> fail
    """,
    "handshake fails, nobody": """
        disable  connect, authfail -> fail
        allow    connect, authfail, reconnect, sslaccept -> fail
        prefer   connect, sslaccept, reconnect, authfail -> fail
        require  connect, sslaccept -> fail
        direct   connect, directsslreject -> fail
    """,
}

#: The same without a StartupMessage: no user is named, or the application sends it.
TRANSPORT_TABLE = {
    "ssl=off": """
        disable  connect -> plain
        allow    connect -> plain
        prefer   connect, sslreject -> plain
        require  connect, sslreject -> fail
        direct   connect, directsslreject -> fail
    """,
    "ssl=require": """
        disable  connect -> plain
        allow    connect -> plain
        prefer   connect, sslaccept -> ssl
        require  connect, sslaccept -> ssl
        direct   connect, directsslaccept -> ssl
    """,
    "E": """
        disable  connect -> plain
        allow    connect -> plain
        prefer   connect, sslerror, reconnect -> plain
        require  connect, sslerror -> fail
        direct   connect, directsslreject -> fail
    """,
    "handshake fails": """
        disable  connect -> plain
        allow    connect -> plain
        prefer   connect, sslaccept, reconnect -> plain
        require  connect, sslaccept -> fail
        direct   connect, directsslreject -> fail
    """,
}


def plans(name: str) -> list[Attempts]:
    """The attempts that the first word of a row stands for."""
    if name == "direct":
        return [Attempts.plan(sslmode, SSLNegotiation.DIRECT) for sslmode in STRICT]
    modes = STRICT if name == "require" else (SSLMode(name),)
    return [Attempts.plan(sslmode) for sslmode in modes]


class TableTests(SynchronousTestCase):
    """Both sides wired to each other, for every sslmode and every server."""

    def check(self, table: dict[str, str], startup: bytes | None) -> None:
        """All rows give what they say."""
        for name, rows in table.items():
            for row in rows.strip().splitlines():
                mode, expected = row.split(maxsplit=1)
                for attempts in plans(mode):
                    self.assertEqual(
                        f"{name}: {mode} {outcome(attempts, SERVERS[name], startup)}",
                        f"{name}: {mode} {expected}",
                    )

    def test_events_and_outcome(self) -> None:
        self.check(TABLE, STARTUP)

    def test_events_and_outcome_without_a_StartupMessage(self) -> None:
        self.check(TRANSPORT_TABLE, None)

    def test_every_server_has_a_row_for_every_sslmode(self) -> None:
        self.assertEqual(set(TABLE), set(SERVERS))
        for rows in TABLE.values():
            modes = [row.split()[0] for row in rows.strip().splitlines()]
            self.assertEqual(modes, ["disable", "allow", "prefer", "require", "direct"])

    def test_a_Unix_socket_is_plain_whatever_the_sslmode(self) -> None:
        unix_socket = ServerPolicy(ssl=SSL.ON, tls_available=False)
        for sslmode in SSLMode:
            self.assertEqual(
                outcome(
                    Attempts.plan(sslmode, unix_socket=True),
                    lambda: RealServer(unix_socket),
                    STARTUP,
                ),
                "connect, authok -> plain",
            )


class AttemptsTests(SynchronousTestCase):
    """Attempts."""

    def test_the_methods_in_their_order(self) -> None:
        plain, ssl = Method.PLAIN, Method.SSL
        expected = {
            SSLMode.DISABLE: (plain,),
            SSLMode.ALLOW: (plain, ssl),
            SSLMode.PREFER: (ssl, plain),
            SSLMode.REQUIRE: (ssl,),
            SSLMode.VERIFY_CA: (ssl,),
            SSLMode.VERIFY_FULL: (ssl,),
        }
        for sslmode, methods in expected.items():
            self.assertEqual(Attempts.plan(sslmode).remaining, methods)

    def test_what_is_left_after_a_failure(self) -> None:
        rest = Attempts.plan(SSLMode.PREFER).failed()
        assert rest is not None
        self.assertIs(rest.current, Method.PLAIN)
        self.assertIs(rest.failed(), None)

    def test_sslnegotiation_is_kept(self) -> None:
        attempts = Attempts((Method.PLAIN, Method.SSL), SSLNegotiation.DIRECT).failed()
        assert attempts is not None
        self.assertIs(attempts.negotiation, SSLNegotiation.DIRECT)

    def test_which_sslmodes_require_TLS(self) -> None:
        self.assertEqual(tuple(mode for mode in SSLMode if mode.tls_required), STRICT)

    def test_direct_needs_require_or_stricter(self) -> None:
        for sslmode in (SSLMode.DISABLE, SSLMode.ALLOW, SSLMode.PREFER):
            self.assertEqual(
                combination_error(sslmode, SSLNegotiation.DIRECT),
                f'weak sslmode "{sslmode}" may not be used with sslnegotiation=direct '
                '(use "require", "verify-ca", or "verify-full")',
            )
            self.assertIs(combination_error(sslmode, SSLNegotiation.POSTGRES), None)
        for sslmode in STRICT:
            for negotiation in SSLNegotiation:
                self.assertIs(combination_error(sslmode, negotiation), None)
