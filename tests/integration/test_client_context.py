"""A client's files, roots, socket and other checks, where the ssl suite has no row for them."""

from __future__ import annotations

import contextlib
import os
import pwd
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from cryptography.hazmat.primitives.serialization import Encoding
from OpenSSL import SSL
from twisted.internet import reactor as _reactor
from twisted.internet.address import IPv4Address
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import (
    IAddress,
    IHostnameResolver,
    IHostResolution,
    IOpenSSLServerConnectionCreator,
    IResolutionReceiver,
)
from twisted.internet.protocol import Factory, Protocol
from twisted.logger import LogEvent, formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface import implementer

from pgtls import PgTLSClientEndpoint, negotiated_tls
from pgtls.conninfo.connection_string import ConnInfo
from pgtls.errors import (
    CertificateNotVerified,
    ConfigurationError,
    ConnectFailed,
    NegotiationRefused,
    PgTLSError,
    ProtocolViolation,
)
from pgtls.policy.client_identity import ClientCert
from pgtls.tls.client_context import ClientTLS
from pgtls.transport import dialer
from pgtls.wire.client_negotiation import Event
from pgtls.wire.messages import StartupMessage
from tests.support.certificates import Authority, Files, authority, localhost
from tests.support.fake_servers import AUTHENTICATION_OK, READY_FOR_QUERY, SASL, FakeServer, Peer
from tests.support.in_memory import server_context
from tests.support.servers import free_port
from tests.support.ssl_suite import InProcess, certificates, libpq, probe

reactor = cast(Any, _reactor)

STARTUP = StartupMessage.build({b"user": b"somebody"})


class _Application(Protocol):
    """An application that waits, and can be waited for."""

    def __init__(self) -> None:
        self.received = b""
        self.closed: Deferred[None] = Deferred()

    def dataReceived(self, data: bytes) -> None:
        self.received += data

    def connectionLost(self, reason: object = None) -> None:
        self.closed.callback(None)


class _Applications(Factory):
    noisy = False
    protocol = _Application


class ClientCase(TestCase):
    """Connects, with a home directory of its own.

    :ivar events: what the endpoint reported.
    """

    def setUp(self) -> None:
        self.home = Path(self.mktemp()).absolute()
        self.files = Files(self.home / ".postgresql")
        self.events: list[Event] = []

    def conninfo(self, text: str) -> ConnInfo:
        return ConnInfo.parse(text, {"HOME": str(self.home)})

    async def connect(self, text: str, **arguments: Any) -> _Application:
        """Connect, until the test ends."""
        endpoint = PgTLSClientEndpoint(
            reactor, self.conninfo(text), observe=self.events.append, **arguments
        )
        application = cast(_Application, await endpoint.connect(_Applications()))
        self.addCleanup(lambda: application.closed)
        self.addCleanup(cast(Any, application.transport).abortConnection)
        return application

    async def refusal(self, kind: type[PgTLSError], text: str, **arguments: Any) -> PgTLSError:
        """The error that connecting ends with."""
        error = await self.assertFailure(
            Deferred.fromCoroutine(self.connect(text, **arguments)), kind
        )
        return cast(PgTLSError, error)


# Scripts of fake servers --------------------------------------------------------------------------


async def let_in(peer: Peer) -> None:
    """Without TLS."""
    await peer.packet()
    peer.send(AUTHENTICATION_OK + READY_FOR_QUERY)


async def tls_and_let_in(peer: Peer) -> None:
    await tls(peer)
    await let_in(peer)


async def say_nothing(peer: Peer) -> None:
    await peer.gone


async def tls(peer: Peer) -> None:
    await peer.packet()
    peer.send(b"S")
    await peer.start_tls()


class Unix(ClientCase):
    """requirepeer."""

    def listen(self) -> str:
        """A server of ours on a Unix socket; where it is, as a connection string."""
        directory = Path(self.mktemp()).absolute()
        directory.mkdir()
        short = Path("/tmp") / f"pgtls-{os.getpid()}-{free_port()}"
        short.symlink_to(directory)  # a socket's path has to be short
        self.addCleanup(short.unlink)
        self.received = b""
        case = self

        class Server(Protocol):
            def dataReceived(self, data: bytes) -> None:
                case.received += data
                cast(Any, self.transport).write(AUTHENTICATION_OK + READY_FOR_QUERY)

            def connectionLost(self, reason: object = None) -> None:
                gone.callback(None)

            def connectionMade(self) -> None:
                case.addCleanup(lambda: gone)

        gone: Deferred[None] = Deferred()
        factory = Factory.forProtocol(Server)
        factory.noisy = False
        listening = reactor.listenUNIX(str(short / ".s.PGSQL.5432"), factory)
        self.addCleanup(listening.stopListening)
        return f"host={short} user=somebody"

    async def test_the_right_user(self) -> None:
        """A server of that user is talked to."""
        me = pwd.getpwuid(os.geteuid()).pw_name
        found = await probe(f"{self.listen()} requirepeer={me}", str(self.home))
        self.assertEqual(found, ("plain", ""))

    async def test_another_user(self) -> None:
        """Another user's gets not a byte; the words are libpq's."""
        conninfo = f"{self.listen()} requirepeer=nosuchuser"
        error = await self.refusal(NegotiationRefused, conninfo, startup=STARTUP)
        me = pwd.getpwuid(os.geteuid()).pw_name
        self.assertEqual(
            error.reason,
            f'requirepeer specifies "nosuchuser", but actual peer user name is "{me}"',
        )
        self.assertEqual((self.events, self.received), ([Event.CONNECT], b""))

    async def test_libpq_says_the_same(self) -> None:
        """The same server, libpq."""
        conninfo = f"{self.listen()} requirepeer=nosuchuser"
        theirs = await libpq(self, conninfo, str(self.home))
        self.assertIn('requirepeer specifies "nosuchuser", but actual peer', theirs.error)

    async def test_tcp(self) -> None:
        """On TCP it says nothing."""
        server = FakeServer(self, let_in)
        await self.connect(server.conninfo(sslmode="disable", requirepeer="nosuchuser"))
        self.assertEqual(self.events, [Event.CONNECT])


class Socket(ClientCase):
    """keepalives and its relatives."""

    async def options(self, **parameters: str | int) -> dict[str, int]:
        """What is set on the socket of a connection with these parameters."""
        server = FakeServer(self, let_in)
        conninfo = server.conninfo(sslmode="disable", **parameters)
        application = await self.connect(conninfo)
        connection = cast(Any, application.transport).getHandle()
        names = ("TCP_NODELAY", "TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT", "TCP_USER_TIMEOUT")
        options = {
            name: connection.getsockopt(socket.IPPROTO_TCP, getattr(socket, name)) for name in names
        }
        alive = connection.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        return options | {"SO_KEEPALIVE": alive}

    async def test_defaults(self) -> None:
        """Keepalives are on, with the system's times."""
        options = await self.options()
        self.assertEqual((options["SO_KEEPALIVE"], options["TCP_NODELAY"]), (1, 1))
        self.assertEqual(options["TCP_USER_TIMEOUT"], 0)

    async def test_all(self) -> None:
        """Each parameter sets its option."""
        options = await self.options(
            keepalives_idle=11, keepalives_interval=12, keepalives_count=13, tcp_user_timeout=14000
        )
        self.assertEqual(
            options,
            {
                "SO_KEEPALIVE": 1,
                "TCP_NODELAY": 1,
                "TCP_KEEPIDLE": 11,
                "TCP_KEEPINTVL": 12,
                "TCP_KEEPCNT": 13,
                "TCP_USER_TIMEOUT": 14000,
            },
        )

    async def test_off(self) -> None:
        """Without keepalives nothing is set, tcp_user_timeout neither: libpq's way."""
        options = await self.options(keepalives=0, keepalives_idle=11, tcp_user_timeout=14000)
        self.assertEqual((options["SO_KEEPALIVE"], options["TCP_USER_TIMEOUT"]), (0, 0))
        self.assertNotEqual(options["TCP_KEEPIDLE"], 11)

    async def test_a_value_that_the_system_refuses(self) -> None:
        """Said in libpq's words, and the next host is tried."""
        servers = [FakeServer(self, let_in) for _ in range(2)]
        ports = ",".join(str(server.port) for server in servers)
        conninfo = (
            f"host=127.0.0.1,127.0.0.1 port={ports} user=somebody sslmode=disable "
            "keepalives_idle=100000"
        )
        error = await self.refusal(ConnectFailed, conninfo)
        self.assertEqual(error.reason, "setsockopt(TCP_KEEPIDLE) failed: Invalid argument")
        self.assertIn(error.reason, str(error.__notes__))
        theirs = await libpq(self, conninfo, str(self.home))
        self.assertEqual(theirs.error.count(error.reason), 2)


@implementer(IHostnameResolver)
class _Names:
    """A resolver that knows what a test tells it, and of the rest never gives an answer.

    :ivar asked: the names that it was asked for.
    """

    def __init__(self, **known: list[str]) -> None:
        self._known = known
        self.asked: list[str] = []
        self.unanswered: Deferred[None] = Deferred()

    def resolveHostName(
        self,
        resolutionReceiver: IResolutionReceiver,
        hostName: str,
        portNumber: int = 0,
        addressTypes: object = None,
        transportSemantics: str = "TCP",
    ) -> IHostResolution:
        self.asked.append(hostName)
        resolutionReceiver.resolutionBegan(cast(Any, None))
        if hostName not in self._known:
            reactor.callLater(0, self.unanswered.callback, None)
            return cast(Any, None)
        for address in self._known[hostName]:
            resolutionReceiver.addressResolved(_address(address))
        resolutionReceiver.resolutionComplete()
        return cast(Any, None)


def _address(text: str) -> IAddress:
    return cast(IAddress, IPv4Address("TCP", text, 0))


class CheckAddress(ClientCase):
    """check_address=1: the name that was verified has to resolve to the server's address."""

    def setUp(self) -> None:
        super().setUp()
        self.files.write("root.crt", authority().pem())

    def names(self, **known: list[str]) -> _Names:
        names = _Names(**known)
        before = reactor.installNameResolver(names)
        self.addCleanup(reactor.installNameResolver, before)
        return names

    def text(self, server: FakeServer, **parameters: str | int) -> str:
        every = {"host": "localhost", "hostaddr": "127.0.0.1", "sslmode": "verify-full"}
        return server.conninfo(**{**every, "check_address": 1, **parameters})

    async def test_one_of_its_addresses(self) -> None:
        """The address is among several."""
        self.names(localhost=["192.0.2.7", "127.0.0.1"])
        application = await self.connect(self.text(FakeServer(self, tls)))
        self.assertIsNotNone(negotiated_tls(cast(Any, application.transport)))

    async def test_another_address(self) -> None:
        """The certificate is good, the name leads elsewhere: nothing but a closed connection."""
        self.names(localhost=["192.0.2.7", "192.0.2.8"])
        server = FakeServer(self, tls)
        error = await self.refusal(CertificateNotVerified, self.text(server), startup=STARTUP)
        self.assertEqual(
            error.reason,
            'host name "localhost" does not resolve to the address of the server, "127.0.0.1", '
            "but to 192.0.2.7, 192.0.2.8 (check_address=1)",
        )
        await server.peers[0].gone
        self.assertEqual(len(server.peers[0].received), 8)

    async def test_no_address(self) -> None:
        """A name without an address is nobody's."""
        self.names(localhost=[])
        error = await self.refusal(CertificateNotVerified, self.text(FakeServer(self, tls)))
        self.assertIn("but to none", error.reason)

    async def test_the_names_own_address(self) -> None:
        """Without hostaddr the name is looked up twice: to connect, and to check."""
        names = self.names(localhost=["127.0.0.1"])
        await self.connect(self.text(FakeServer(self, tls), hostaddr="''"), startup=None)
        self.assertEqual(names.asked, ["localhost", "localhost"])

    async def test_the_systems_resolver(self) -> None:
        """The reactor's own resolver knows localhost."""
        await self.connect(self.text(FakeServer(self, tls)))

    async def test_a_wrong_certificate_is_not_looked_up(self) -> None:
        """The certificate's name comes first."""
        names = self.names(wronghost=["127.0.0.1"])
        server = FakeServer(self, tls)
        error = await self.refusal(CertificateNotVerified, self.text(server, host="wronghost"))
        self.assertIn("does not match host name", error.reason)
        self.assertEqual(names.asked, [])

    async def test_not_asked_for(self) -> None:
        """By default nobody is asked."""
        names = self.names()
        await self.connect(self.text(FakeServer(self, tls), check_address=0))
        self.assertEqual(names.asked, [])

    async def test_a_resolver_that_does_not_answer(self) -> None:
        """connect_timeout runs on."""
        self.names()
        server = FakeServer(self, tls)
        error = await self.refusal(ConnectFailed, self.text(server, connect_timeout=1))
        self.assertEqual(error.reason, "timeout expired")
        await server.peers[0].gone

    async def test_cancelling(self) -> None:
        """Cancelling the connect closes the connection while the name is being looked up."""
        names = self.names()
        server = FakeServer(self, tls)
        connecting = Deferred.fromCoroutine(self.connect(self.text(server)))
        await names.unanswered
        connecting.cancel()
        await self.assertFailure(connecting, CancelledError)
        await server.peers[0].gone

    async def test_a_server_that_closes(self) -> None:
        """The server's end is noticed while the name is being looked up."""
        names = self.names()
        server = FakeServer(self, tls)
        connecting = Deferred.fromCoroutine(self.refusal(ConnectFailed, self.text(server)))
        await names.unanswered
        server.peers[0].close()
        error = await connecting
        self.assertIn("server closed the connection unexpectedly", error.reason)

    async def test_a_server_that_speaks_first(self) -> None:
        """Nothing is to come before the StartupMessage, and nothing that does reaches anybody."""
        names = self.names()
        server = FakeServer(self, tls)
        connecting = Deferred.fromCoroutine(self.refusal(ProtocolViolation, self.text(server)))
        await names.unanswered
        server.peers[0].send(AUTHENTICATION_OK)
        error = await connecting
        self.assertEqual(error.reason, "received data before the startup packet was sent")

    async def test_an_application_that_fails(self) -> None:
        """What an application raises when it begins is logged, and its connection closed."""
        self.names(localhost=["127.0.0.1"])

        class Failing(_Application):
            def connectionMade(self) -> None:
                raise ZeroDivisionError

        failing = cast(Any, Factory.forProtocol(Failing))
        failing.noisy = False
        server = FakeServer(self, tls)
        for check_address in (0, 1):
            conninfo = self.conninfo(self.text(server, check_address=check_address))
            connecting = PgTLSClientEndpoint(reactor, conninfo).connect(failing)
            await self.assertFailure(connecting, ConnectFailed)
            await server.peers[-1].gone
            self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)


class InMemory(ClientCase):
    """Roots, certificate and key that an application brings along."""

    def setUp(self) -> None:
        super().setUp()
        # Nothing of this may be read.
        self.files.write("root.crt", Authority("another").pem())
        self.files.write("root.crl", Authority("another").crl())
        self.files.write("postgresql.crt", b"nothing\n")
        certificates()
        self.client = Authority("clients")
        self.own = self.client.issue(cn="somebody", client=True)

    def listen(self) -> str:
        """A server that wants a certificate."""
        Files("ssl").write("in-memory.crt", self.client.pem())
        port = InProcess(
            "server-cn-only",
            chain=True,
            ssl_ca_file="ssl/in-memory.crt",
            clientcert=ClientCert.VERIFY_CA,
        ).listen(self)
        return (
            "host=common-name.pg-ssltest.test hostaddr=127.0.0.1 "
            f"port={port} user=somebody sslmode=verify-full"
        )

    async def accepted(self, text: str = "", **arguments: Any) -> None:
        """It connects, with the certificate."""
        given = {"certificate": self.own.pem(), "key": self.own.key.pem(), **arguments}
        given.setdefault("roots", Path("ssl/root_ca.crt").read_bytes())
        await self.connect(f"{self.listen()} {text}", startup=STARTUP, **given)
        self.assertEqual(self.events[-1], Event.AUTHOK)

    async def test_pem(self) -> None:
        """All in PEM."""
        await self.accepted()

    async def test_objects(self) -> None:
        """All as cryptography's objects; several roots."""
        root = Authority("yet another").issued.certificate
        right = certificates()["server-cn-only"].intermediates[-1]
        await self.accepted(
            roots=[root, Path("ssl/root_ca.crt").read_bytes(), right],
            certificate=self.own.certificate,
            key=self.own.key.private,
        )

    async def test_der(self) -> None:
        """All in DER."""
        await self.accepted(
            roots=Path("ssl/root_ca.der").read_bytes(),
            certificate=self.own.certificate.public_bytes(Encoding.DER),
            key=self.own.key.der(),
        )

    async def test_encrypted_key(self) -> None:
        """sslpassword is for a key in memory too."""
        await self.accepted("sslpassword=secret", key=self.own.key.pem("secret"))

    async def test_intermediates(self) -> None:
        """A certificate in PEM brings its intermediates along."""
        own = self.client.intermediate("between").issue(cn="somebody", client=True)
        await self.accepted(certificate=own.chain(), key=own.key.pem())

    async def test_they_come_before_the_connection_strings(self) -> None:
        """They take the place of what the string names."""
        await self.accepted("sslrootcert=ssl/other_ca.crt sslcert=ssl/no.crt sslkey=ssl/no.key")

    async def test_wrong_roots(self) -> None:
        """Roots in memory are what is verified against, in every mode."""
        text = self.listen().replace("verify-full", "require sslcertmode=disable")
        error = await self.refusal(
            CertificateNotVerified, text, roots=Authority("another").pem(), startup=STARTUP
        )
        self.assertIn("certificate verify failed", error.reason)

    async def test_sslcrl_counts(self) -> None:
        """A CRL that is named is asked."""
        text = f"{self.listen()} sslcrl=ssl/client.crl sslcertmode=disable"
        root = Path("ssl/root_ca.crt").read_bytes()
        error = await self.refusal(CertificateNotVerified, text, roots=root)
        self.assertIn("unable to get certificate CRL", error.reason)

    async def test_sslcertmode_disable(self) -> None:
        """Nothing is shown then."""
        with self.assertRaisesRegex(PgTLSError, "requires a valid client certificate"):
            await self.accepted("sslcertmode=disable")

    async def test_a_session_of_an_endpoint(self) -> None:
        """for_session() keeps them."""
        endpoint = PgTLSClientEndpoint(
            reactor,
            self.conninfo(self.listen()),
            roots=Path("ssl/root_ca.crt").read_bytes(),
            certificate=self.own.pem(),
            key=self.own.key.pem(),
            startup=STARTUP,
        )
        endpoint.check()
        session = endpoint.for_session()
        application = cast(_Application, await session.connect(_Applications()))
        cast(Any, application.transport).loseConnection()
        await application.closed


class Names(ClientCase):
    """A name is looked up for each connection, but not a thousand times a second."""

    async def test_sessions_use_what_another_one_has_just_found(self) -> None:
        names = _Names(localhost=["127.0.0.1"])
        self.addCleanup(reactor.installNameResolver, reactor.installNameResolver(names))
        conninfo = FakeServer(self, say_nothing).conninfo(
            host="localhost", hostaddr="''", sslmode="disable"
        )
        endpoint = PgTLSClientEndpoint(reactor, conninfo)
        for lifetime, asked in ((60.0, 1), (60.0, 1), (0.0, 2), (0.0, 3)):
            self.patch(dialer, "NAME_LIFETIME", lifetime)
            application = await endpoint.for_session().connect(_Applications())
            self.assertEqual(names.asked, ["localhost"] * asked)
            cast(Any, application).transport.loseConnection()
            await cast(_Application, application).closed


class Mistakes(SynchronousTestCase):
    """What ClientTLS refuses."""

    def refused(self, text: str = "sslmode=require", **arguments: Any) -> str:
        conninfo = replace(ConnInfo.parse(f"host=db {text}", {"HOME": "/nonexistent"}), home=None)
        return str(self.assertRaises(ConfigurationError, ClientTLS, conninfo, **arguments))

    def test_half_a_pair(self) -> None:
        """A certificate needs a key, a key a certificate."""
        own = localhost()
        for half in ({"certificate": own.pem()}, {"key": own.key.pem()}):
            self.assertEqual(self.refused(**half), "certificate and key are to be given together")

    def test_no_roots(self) -> None:
        """An empty list trusts nobody: a mistake."""
        self.assertEqual(self.refused(roots=[]), "there is no root certificate")

    def test_what_cannot_be_read(self) -> None:
        """Bytes that are nothing, a key of another certificate, an encrypted key."""
        own, other = localhost(), Authority("another").issue(["db"])
        for arguments, error in (
            ({"roots": b"nothing"}, "could not read certificate in memory"),
            ({"certificate": b"", "key": own.key.pem()}, "could not read certificate in memory"),
            ({"certificate": own.pem(), "key": b""}, "could not load private key in memory"),
            ({"certificate": own.pem(), "key": other.key.pem()}, "does not match private key"),
            ({"certificate": own.pem(), "key": own.key.pem("x")}, "it is encrypted"),
        ):
            self.assertIn(error, self.refused(**arguments))

    def test_no_home(self) -> None:
        """libpq's words where there is no home directory, and no file is named."""
        for mode in ("verify-ca", "verify-full"):
            self.assertIn(
                "could not get home directory to locate root certificate file",
                self.refused(f"sslmode={mode}"),
            )
        self.assertIn(
            "certificate present, but not private key file",
            self.refused(f"sslmode=require sslcert={self.certificate()}"),
        )

    def certificate(self) -> str:
        return Files(self.mktemp()).write("client.crt", localhost().pem())

    def test_no_home_and_nothing_needed(self) -> None:
        """Without a home directory there is just nothing to show and nothing to verify."""
        conninfo = replace(ConnInfo.parse("host=db sslmode=require", {}), home=None)
        self.assertFalse(ClientTLS(conninfo).has_certificate)


class CertificateRequests(ClientCase):
    """sslcertmode=require where the application authenticates."""

    async def test_before_an_application_begins(self) -> None:
        """Without a StartupMessage it shows when TLS is up."""
        server = FakeServer(self, tls)
        error = await self.refusal(
            NegotiationRefused, server.conninfo(sslmode="require", sslcertmode="require")
        )
        self.assertEqual(error.reason, "server did not request an SSL certificate")

    async def test_before_a_password_is_sent(self) -> None:
        """With one, at the latest when the server wants a password."""

        async def asks_for_a_password(peer: Peer) -> None:
            await tls(peer)
            await peer.packet()
            peer.send(SASL)

        server = FakeServer(self, asks_for_a_password)
        error = await self.refusal(
            NegotiationRefused,
            server.conninfo(sslmode="require", sslcertmode="require"),
            startup=STARTUP,
        )
        self.assertEqual(error.reason, "server did not request an SSL certificate")
        self.assertEqual(self.events[-1], Event.AUTHREQUEST)

    async def test_in_plaintext(self) -> None:
        """A server without TLS asks for no certificate; prefer does not help."""

        async def refuses_tls(peer: Peer) -> None:
            await peer.packet()
            peer.send(b"N")
            await let_in(peer)

        server = FakeServer(self, refuses_tls)
        error = await self.refusal(
            NegotiationRefused, server.conninfo(sslcertmode="require"), startup=STARTUP
        )
        self.assertEqual(error.reason, "server did not request an SSL certificate")


@implementer(IOpenSSLServerConnectionCreator)
class _Creator:
    def __init__(self, context: SSL.Context) -> None:
        self._context = context

    def serverConnectionForTLS(self, tlsProtocol: object) -> SSL.Connection:
        return SSL.Connection(self._context, None)


class OldServers(ClientCase):
    """A server that knows nothing after TLS 1.1."""

    def server(self) -> FakeServer:
        context = server_context(authority().issue(["localhost"], key="rsa"))
        context.set_min_proto_version(SSL.TLS1_VERSION)
        context.set_max_proto_version(SSL.TLS1_1_VERSION)
        context.set_cipher_list(b"ALL:@SECLEVEL=0")

        async def old(peer: Peer) -> None:
            await peer.packet()
            peer.send(b"S")
            peer.transport.startTLS(_Creator(context))
            await peer.packet()
            peer.send(AUTHENTICATION_OK + READY_FOR_QUERY)

        return FakeServer(self, old)

    async def test_by_default(self) -> None:
        """It is refused, with libpq's hint."""
        error = await self.refusal(NegotiationRefused, self.server().conninfo(sslmode="require"))
        self.assertIn(
            "This may indicate that the server does not support any SSL protocol version between "
            "TLSv1.2 and TLSv1.3.",
            error.reason,
        )

    async def test_asked_for(self) -> None:
        """Who asks for it gets it, forward-secret; and verification is as always."""
        root = Files(self.home).write("root.crt", authority().pem())
        for oldest in ("TLSv1", "TLSv1.1"):
            application = await self.connect(
                self.server().conninfo(
                    host="localhost",
                    hostaddr="127.0.0.1",
                    sslmode="verify-full",
                    sslrootcert=root,
                    ssl_min_protocol_version=oldest,
                ),
                startup=STARTUP,
            )
            negotiated = negotiated_tls(cast(Any, application.transport))
            assert negotiated is not None
            self.assertEqual((negotiated.version, negotiated.forward_secret), ("TLSv1.1", True))

    async def test_an_empty_minimum(self) -> None:
        """No bound is not a request for what is old."""
        conninfo = self.server().conninfo(sslmode="require", ssl_min_protocol_version="''")
        await self.refusal(NegotiationRefused, conninfo)


class ServerName(ClientCase):
    """Server Name Indication."""

    async def sent(self, **parameters: str | int) -> bytes | None:
        """What the server gets to see."""
        seen: Deferred[bytes | None] = Deferred()

        async def looks(peer: Peer) -> None:
            await tls(peer)
            seen.callback(peer.transport.getHandle().get_servername())

        every = {"hostaddr": "127.0.0.1", "sslmode": "require", **parameters}
        await self.connect(FakeServer(self, looks).conninfo(**every))
        return await seen

    async def test_a_name(self) -> None:
        self.assertEqual(await self.sent(host="db.example.com"), b"db.example.com")

    async def test_an_address(self) -> None:
        for address in ("192.0.2.1", "2001:db8::1"):
            self.assertIsNone(await self.sent(host=address))

    async def test_off(self) -> None:
        self.assertIsNone(await self.sent(host="db.example.com", sslsni=0))


class Secrets(ClientCase):
    """Passwords and keys stay where they are."""

    SECRETS = ("hunter2", "correct-horse", "BEGIN PRIVATE KEY")

    async def test_a_failing_connection(self) -> None:
        """In no log event, error or repr(): password, sslpassword, a key in memory."""
        events: list[LogEvent] = []
        globalLogPublisher.addObserver(events.append)
        self.addCleanup(globalLogPublisher.removeObserver, events.append)
        own = localhost()
        server = FakeServer(self, tls_and_let_in)
        text = server.conninfo(password="hunter2", sslpassword="correct-horse")
        shown = [repr(self.conninfo(text))]
        for key in (own.key.pem("another-one"), own.key.pem()):
            endpoint = PgTLSClientEndpoint(
                reactor, self.conninfo(text), roots=own.pem(), certificate=own.pem(), key=key
            )
            with contextlib.suppress(PgTLSError):
                shown.append(repr(endpoint.tls()))
            with self.assertRaises(PgTLSError) as caught:
                await self.connect(
                    f"{text} sslmode=require",
                    roots=own.pem(),
                    certificate=own.pem(),
                    key=key,
                    startup=STARTUP,
                )
            shown += [repr(endpoint), str(caught.exception), repr(caught.exception)]
        with contextlib.suppress(PgTLSError):
            await self.connect(text, roots=Authority("another").pem(), startup=STARTUP)
        shown += [f"{formatEvent(event)} {event!r}" for event in events]
        self.assertGreater(len(events), 0)
        for secret in self.SECRETS:
            self.assertNotIn(secret, "\n".join(shown))
