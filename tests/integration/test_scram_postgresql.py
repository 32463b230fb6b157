"""Our SCRAM against PostgreSQL's: a login with each role played by either, the same refusals."""

from __future__ import annotations

import hashlib
import socket
import ssl
import struct
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import psycopg
from twisted.trial.unittest import SynchronousTestCase

from pgtls.wire.messages import ErrorResponse
from pgtls.wire.scram import KnownKeys, ScramClient
from pgtls.wire.scram_secret import ScramKeys, ScramSecret
from pgtls.wire.scram_server import ScramRefused, ScramServer
from tests.support.processes import TIMEOUT
from tests.support.raw_client import SSL_REQUEST, startup_message
from tests.support.servers import HOST, Server, available, scram_server

SASL, SASL_CONTINUE, SASL_FINAL = 10, 11, 12


class Wire:
    """Messages on a socket."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self._reader = connection.makefile("rb")

    def send(self, kind: bytes, body: bytes) -> None:
        self.connection.sendall(kind + struct.pack("!I", 4 + len(body)) + body)

    def message(self) -> tuple[bytes, bytes]:
        kind, length = struct.unpack("!cI", self._reader.read(5))
        return kind, self._reader.read(length - 4)

    def startup(self) -> bytes:
        """A client's StartupMessage."""
        (length,) = struct.unpack("!I", self._reader.read(4))
        return self._reader.read(length - 4)


@contextmanager
def asked_for_sasl(server: Server, *, tls: bool = False) -> Iterator[Wire]:
    """A connection on which the server has asked ``scramuser`` for SASL."""
    connection: socket.socket = socket.create_connection((HOST, server.port), timeout=TIMEOUT)
    if tls:
        connection.sendall(SSL_REQUEST)
        assert connection.recv(1) == b"S"
        context = ssl.create_default_context(cafile=server.root_crt)
        context.check_hostname = False
        connection = context.wrap_socket(connection)
    with connection:
        wire = Wire(connection)
        connection.sendall(startup_message(user="scramuser"))
        kind, body = wire.message()
        assert (kind, body[:4]) == (b"R", struct.pack("!I", SASL)), body
        yield wire


def stored_secret(server: Server) -> ScramSecret:
    """What pg_authid has."""
    text = server.psql("SELECT rolpassword FROM pg_authid WHERE rolname = 'scramuser'")
    return ScramSecret.parse(text.strip())


def log_in(wire: Wire, client: ScramClient) -> bytes:
    """:returns: the body of the message that follows the exchange."""
    wire.send(b"p", client.initial_response())
    kind, body = wire.message()
    assert (kind, body[:4]) == (b"R", struct.pack("!I", SASL_CONTINUE)), body
    wire.send(b"p", client.receive_continue(body[4:]))
    kind, body = wire.message()
    assert (kind, body[:4]) == (b"R", struct.pack("!I", SASL_FINAL)), body
    client.receive_final(body[4:])
    return wire.message()[1]


class ClientTests(SynchronousTestCase):
    """PostgreSQL is the server."""

    def test_a_secret_is_what_postgresql_makes_of_the_password(self) -> None:
        for version in (17, 18):
            secret = stored_secret(scram_server(version))
            self.assertEqual(ScramSecret.build("secret", secret.salt, secret.iterations), secret)

    def test_logins_with_a_password_and_with_the_keys(self) -> None:
        for version in (15, 17, 18):
            if not available(version):
                continue
            server = scram_server(version)
            secret = stored_secret(server)
            keys = ScramKeys.derive("secret", secret.salt, secret.iterations)
            for source in (
                lambda salt, i: ScramKeys.derive("secret", salt, i),
                KnownKeys(secret, keys),
            ):
                with asked_for_sasl(server) as wire:
                    client = ScramClient(source)
                    self.assertEqual(log_in(wire, client), bytes(4))
                    self.assertTrue(client.done)

    def test_the_channel_is_bound(self) -> None:
        server = scram_server(17, ssl=True)
        with asked_for_sasl(server, tls=True) as wire:
            connection = wire.connection
            assert isinstance(connection, ssl.SSLSocket)
            certificate = connection.getpeercert(binary_form=True)
            assert certificate is not None
            client = ScramClient(
                lambda salt, i: ScramKeys.derive("secret", salt, i),
                certificate_hash=hashlib.sha256(certificate).digest(),
            )
            self.assertEqual(log_in(wire, client), bytes(4))


class ServerTests(SynchronousTestCase):
    """libpq is the client."""

    def serve(self, listener: socket.socket, secret: ScramSecret | None) -> ScramKeys | None:
        """Authenticate one client, and let it in.

        :returns: the keys that its proof gave.
        """
        connection, _ = listener.accept()
        with connection:
            wire = Wire(connection)
            if wire.startup() == SSL_REQUEST[4:]:
                connection.sendall(b"N")
                wire.startup()
            server = ScramServer(b"scramuser", secret, mock_nonce=b"mock", certificate_hash=None)
            offered = b"".join(name.encode() + b"\0" for name in server.mechanisms) + b"\0"
            wire.send(b"R", struct.pack("!I", SASL) + offered)
            try:
                while server.keys is None:
                    answer = server.receive(wire.message()[1])
                    kind = SASL_CONTINUE if server.keys is None else SASL_FINAL
                    wire.send(b"R", struct.pack("!I", kind) + answer)
            except ScramRefused as error:
                connection.sendall(error.response.encode())
                return None
            wire.send(b"R", bytes(4))
            wire.send(b"Z", b"I")
            wire.message()
            return server.keys

    def logged_in(self, secret: ScramSecret | None, password: str) -> ScramKeys | None:
        with socket.create_server((HOST, 0)) as listener, ThreadPoolExecutor(1) as pool:
            served = pool.submit(self.serve, listener, secret)
            psycopg.connect(
                host=HOST,
                port=listener.getsockname()[1],
                user="scramuser",
                password=password,
                require_auth="scram-sha-256",
                connect_timeout=int(TIMEOUT),
            ).close()
            return served.result(TIMEOUT)

    def test_the_keys_are_those_of_the_password(self) -> None:
        for password in ("secret", "s\u00e9cret\u00a0\u2168", "\u0627\u0031"):
            secret = ScramSecret.build(password, b"a salt of any length", 4096)
            keys = self.logged_in(secret, password)
            self.assertEqual(keys, ScramKeys.derive(password, secret.salt, 4096))

    def test_a_wrong_password_and_an_unknown_role(self) -> None:
        for secret in (ScramSecret.build("secret", b"salt", 4096), None):
            error = self.assertRaises(psycopg.OperationalError, self.logged_in, secret, "another")
            self.assertIn('FATAL:  password authentication failed for user "scramuser"', str(error))


def response(first: bytes, mechanism: bytes = b"SCRAM-SHA-256") -> bytes:
    """The body of a SASLInitialResponse."""
    return mechanism + b"\0" + len(first).to_bytes(4, "big") + first


GOOD = response(b"n,,n=,r=abc")
PLUS = b"SCRAM-SHA-256-PLUS"

#: Bodies of "p" messages; "{nonce}" is the whole nonce.
MALFORMED: list[list[bytes]] = [
    [b""],
    [b"SCRAM-SHA-256"],
    [b"SCRAM-SHA-256\0"],
    [b"SCRAM-SHA-256\0\0\0"],
    [b"SCRAM-SHA-1\0\0\0\0\5n,,n="],
    [b"scram-sha-256\0\0\0\0\5n,,n="],
    [b"SCRAM-SHA-256\0\0\0\0\0"],
    [b"SCRAM-SHA-256\0\0\0\0\4n,,"],
    [b"SCRAM-SHA-256\0\0\0\0\1n,,n=,r=abc"],
    [b"SCRAM-SHA-256\0\xff\xff\xff\xfen,,n=,r=abc"],
    [b"SCRAM-SHA-256\0\xff\xff\xff\xff", b""],
    [b"SCRAM-SHA-256\0\xff\xff\xff\xff", b"x"],
    [response(b"n,,n=,r=a\0b")],
    [response(b"n")],
    [response(b"nx,n=,r=abc")],
    [response(b"x,,n=,r=abc")],
    [response(b"\x7f,,n=,r=abc")],
    [response(b"\xe9,,n=,r=abc")],
    [response(b"n,a=admin,n=,r=abc")],
    [response(b"n,x,n=,r=abc")],
    [response(b"n,\xff,n=,r=abc")],
    [response(b"n,,")],
    [response(b"n,,m=ext,n=,r=abc")],
    [response(b"n,,x=,r=abc")],
    [response(b"n,,n,r=abc")],
    [response(b"n,,n=")],
    [response(b"n,,n=user")],
    [response(b"n,,n=,r")],
    [response(b"n,,n=,r=a\x01c")],
    [response(b"n,,n=,r=\xe9")],
    [response(b"n,,n=,r=abc,1=x")],
    [response(b"n,,n=,r=abc,x")],
    [response(b"n,,n=,r=abc,\xe9=x")],
    [response(b"p=tls-server-end-point,,n=,r=abc")],
    [response(b"p=tls-server-end-point,,n=,r=abc", PLUS)],
    [response(b"n,,n=,r=abc", PLUS)],
    [response(b"y,,n=,r=abc", PLUS)],
    [response(b"p=tls-unique,,n=,r=abc", PLUS)],
    [response(b"p,,n=,r=abc", PLUS)],
    [response(b"p=tls-server-end-point,a=x,n=,r=abc", PLUS)],
    [response(b"p=tls-server-end-point,,n=,r=abc", PLUS), b"c=biws,r={nonce},p=AAAA"],
    [response(b"y,,n=,r=abc")],
    [response(b"y,,n=,r=abc"), b"c=biws,r={nonce},p=AAAA"],
    [GOOD, b""],
    [GOOD, b"r={nonce}"],
    [GOOD, b"c=,r={nonce},p=AAAA"],
    [GOOD, b"c=eSws,r={nonce},p=AAAA"],
    [GOOD, b"c=biws"],
    [GOOD, b"c=biws,x={nonce},p=AAAA"],
    [GOOD, b"c=biws,r={nonce}"],
    [GOOD, b"c=biws,r={nonce},"],
    [GOOD, b"c=biws,r={nonce},p"],
    [GOOD, b"c=biws,r={nonce},p="],
    [GOOD, b"c=biws,r={nonce},p=AAAA"],
    [GOOD, b"c=biws,r={nonce},p=****"],
    [GOOD, b"c=biws,r={nonce},2=x,p=AAAA"],
    [GOOD, b"c=biws,r={nonce},x=y,p=" + b"A" * 43 + b"="],
    [GOOD, b"c=biws,r={nonce},p=" + b"A" * 43 + b"=,x=y"],
    [GOOD, b"c=biws,r={nonce}x,p=" + b"A" * 43 + b"="],
    [GOOD, b"c=biws,r=abc,p=" + b"A" * 43 + b"="],
    [GOOD, b"c=biws,r={nonce},p=" + b"A" * 42 + b"\n A="],
    [GOOD, b"c=biws,r={nonce},p=" + b"A" * 43 + b"="],
]


class RefusalTests(SynchronousTestCase):
    """The same messages to PostgreSQL 17 and to ours: SQLSTATE, message and detail."""

    def theirs(self, server: Server, bodies: list[bytes], *, tls: bool) -> tuple[str, ...]:
        """What is refused; nothing where all of it is taken."""
        with asked_for_sasl(server, tls=tls) as wire:
            nonce = b""
            for body in bodies:
                wire.send(b"p", body.replace(b"{nonce}", nonce))
                kind, answer = wire.message()
                if kind == b"E":
                    return self.shown(ErrorResponse.parse(answer, b""))
                nonce = answer[6:].partition(b",")[0]
            return ()

    def ours(self, secret: ScramSecret, bodies: list[bytes], *, tls: bool) -> tuple[str, ...]:
        side = ScramServer(
            b"scramuser",
            secret,
            mock_nonce=b"mock",
            certificate_hash=bytes(32) if tls else None,
        )
        nonce = b""
        try:
            for body in bodies:
                answer = side.receive(body.replace(b"{nonce}", nonce))
                nonce = answer[2:].partition(b",")[0]
        except ScramRefused as error:
            return self.shown(error.response)
        return ()

    def shown(self, error: ErrorResponse) -> tuple[str, ...]:
        return tuple(error.fields.get(name, "") for name in "SVCMD")

    def test_each(self) -> None:
        for tls in (False, True):
            server = scram_server(17, ssl=tls)
            secret = stored_secret(server)
            for bodies in MALFORMED:
                self.assertEqual(
                    self.ours(secret, bodies, tls=tls),
                    self.theirs(server, bodies, tls=tls),
                    (tls, bodies),
                )
