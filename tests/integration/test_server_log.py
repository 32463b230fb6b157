"""What a server says of its clients in the log, for people and for programs.

The server is an endpoint from a string, with an application of its own behind it: no gateway.
"""

from __future__ import annotations

from typing import Any, cast

from cryptography import x509
from twisted.internet import reactor as _reactor
from twisted.internet.endpoints import quoteStringArgument, serverFromString
from twisted.internet.protocol import Factory, Protocol
from twisted.logger import LogEvent, capturedLogs, formatEvent
from twisted.trial.unittest import TestCase

from tests.support.certificates import Authority, Files, Issued, localhost
from tests.support.processes import run
from tests.support.servers import HOST, psql

reactor = cast(Any, _reactor)


class Application(Protocol):
    """Hears the StartupMessage, and has nothing to say."""

    def dataReceived(self, data: bytes) -> None:
        assert self.transport
        self.transport.loseConnection()


class ServerLog(TestCase):
    """One connection each, and its line."""

    def setUp(self) -> None:
        self.files = Files(self.mktemp())
        self.clients = Authority("clients")
        self.bob = self.clients.issue(cn="bob", client=True)

    async def line(
        self, certificate: Issued | None, user: str, *, host: str = HOST, **settings: str
    ) -> LogEvent:
        """Connect with psql, which asks for a host if it is named; the one line that the server
        logs.
        """
        crt, key = self.files.pair("server", localhost())
        root = self.files.write("root.crt", self.clients.pem())
        every = {"ssl_cert_file": crt, "ssl_key_file": key, "ssl_ca_file": root, **settings}
        arguments = "".join(f":{name}={quoteStringArgument(every[name])}" for name in every)
        endpoint = serverFromString(reactor, f"pgtls:tcp:0:interface={HOST}{arguments}")
        port = await endpoint.listen(Factory.forProtocol(Application))
        sslcert, sslkey = self.files.pair("client", certificate or self.bob)
        conninfo = (
            f"host={host} hostaddr={HOST} port={port.getHost().port} sslmode=require user={user} "
            "dbname=shop "
            f"sslcertmode={'allow' if certificate else 'disable'} "
            f"sslcert={sslcert} sslkey={sslkey}"
        )
        with capturedLogs() as events:
            await run([psql(17), "-Xc", "SELECT", "-d", conninfo])
            await port.stopListening()
        (event,) = (each for each in events if each.get("log_namespace") == "pgtls.server")
        return event

    def check(self, event: LogEvent, pattern: str, **fields: object) -> None:
        text = formatEvent(event)
        self.assertRegex(text, rf"^{HOST}\(\d+\): {pattern}$")
        self.assertEqual({name: event[name] for name in fields}, fields)

    async def test_a_session_without_a_certificate(self) -> None:
        self.check(
            await self.line(None, "alice"),
            r"user=alice database=shop SSL=TLSv1\.3 cipher=\w+ group=\w+",
            user="alice",
            database="shop",
            tls_version="TLSv1.3",
            sni=None,
            client_dn=None,
            client_serial=None,
            issuer_dn=None,
        )

    async def test_the_host_name_that_a_client_asks_for(self) -> None:
        self.check(
            await self.line(None, "alice", host="Db.Example.com"),
            r"user=alice database=shop SSL=TLSv1\.3 cipher=\w+ group=\w+ sni=Db\.Example\.com",
            sni="Db.Example.com",
        )

    async def test_nor_by_a_host_name(self) -> None:
        event = await self.line(None, "alice", host="'a\n{log_level}'")
        self.assertTrue(formatEvent(event).endswith(r" sni=a\x0a{log_level}"), formatEvent(event))

    async def test_a_certificate_that_was_used(self) -> None:
        serial = f"{self.bob.certificate.serial_number:040X}"
        self.check(
            await self.line(self.bob, "bob", clientcert="verify-full"),
            r"user=bob database=shop SSL=TLSv1\.3 .* "
            rf'client_dn="/CN=bob" client_serial={serial} issuer_dn="/CN=clients"',
            user="bob",
            client_dn="/CN=bob",
            client_serial=serial,
            issuer_dn="/CN=clients",
        )

    async def test_an_alternative_name_that_is_the_role(self) -> None:
        for kind, name in (
            (x509.RFC822Name, "bob@example.com"),
            (x509.UniformResourceIdentifier, "urn:bob"),
            (x509.DNSName, "bob.example.com"),
        ):
            certificate = self.clients.issue(cn="x", san=[kind(name)], client=True)
            settings = {"clientcert": "verify-full", "clientname": "SAN"}
            event = await self.line(certificate, name, **settings)
            self.check(event, rf"user={name} .*", client_dn="/CN=x")
            event = await self.line(certificate, "x", **settings)
            self.check(event, r"certificate validation .* failed for user \"x\": SAN mismatch.*")

    async def test_a_certificate_for_another_role(self) -> None:
        self.check(
            await self.line(self.bob, "alice", clientcert="verify-full"),
            r"certificate validation \(clientcert=verify-full\) failed for user \"alice\": CN "
            r"mismatch: .*: user=alice database=shop .*client_dn=\"/CN=bob\" .*",
            user="alice",
            client_dn="/CN=bob",
        )

    async def test_a_certificate_that_does_not_verify(self) -> None:
        stranger = Authority("strangers").issue(cn="bob", client=True)
        self.check(
            await self.line(stranger, "bob"),
            "could not accept SSL connection: SSL error: certificate verify failed. "
            "Client certificate verification failed at depth 0: unable to get local issuer "
            r"certificate. Failed certificate data \(unverified\): .*",
            depth=0,
            verify_error="unable to get local issuer certificate",
            client_dn="/CN=bob",
            client_serial=f"{stranger.certificate.serial_number:040X}",
            issuer_dn="/CN=strangers",
        )

    async def test_nobody_writes_lines_of_his_own(self) -> None:
        event = await self.line(None, "'x\n2026-01-01 [forged] {log_level}'")
        self.assertIn(r"user=x\x0a2026-01-01 [forged] {log_level} database", formatEvent(event))
