"""``ssl_sni``, ``hosts_file``: a listener's certificates by host name; what a reload keeps."""

from __future__ import annotations

import os
from pathlib import Path

import attrs
from OpenSSL import SSL
from twisted.internet.protocol import Factory
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import LogEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from pgtls.errors import ConfigurationError
from pgtls.policy.client_identity import ClientCert
from pgtls.protocols.admission import Admission
from pgtls.protocols.server_settings import ListenerSettings
from pgtls.protocols.server_tls import ServerTLS
from pgtls.protocols.stages import Client, Refuse
from pgtls.protocols.strings import ServerStringParser
from pgtls.tls.certificate import Certificate
from pgtls.tls.server_context import ServerTLSSettings
from pgtls.wire.messages import StartupMessage
from tests.support.certificates import Authority, Files, Issued, days
from tests.support.in_memory import Pair, client_context, handshake

VERSIONS = (SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION)
PASSWORD = "secret1"
CANNOT = "cannot be reloaded because it requires a passphrase"


class HostsCase(SynchronousTestCase):
    """A directory with a hosts_file and what it names."""

    def setUp(self) -> None:
        self.files = Files(Path(self.mktemp()).absolute())
        self.path = str(self.files.directory / "pg_hosts.conf")
        self.root = Authority("root")
        self.clients = Authority("clients")
        self.issued: dict[str, Issued] = {}
        for name in ("own", "a", "b"):
            self.issue(name)
        self.files.write("clients.crt", self.clients.pem())

    def issue(self, name: str, password: str | None = None) -> None:
        self.issued[name] = self.root.issue([f"{name}.example"], cn=name)
        self.files.pair(name, self.issued[name], password)

    def hosts(self, text: str) -> None:
        Path(self.path).write_text(text, "utf-8")

    def file(self, name: str) -> str:
        return str(self.files.directory / name)

    def settings(self, **more: str | bool) -> ServerTLSSettings:
        usual = {"ssl_sni": True, "hosts_file": self.path}
        return ServerTLSSettings(**(usual | more))  # type: ignore[arg-type]

    def tls(self, text: str, **more: str | bool) -> ServerTLS:
        self.hosts(text)
        return ServerTLS(self.settings(**more))

    def mistakes(self, text: str, **more: str | bool) -> list[str]:
        error = self.assertRaises(ConfigurationError, self.tls, text, **more)
        assert isinstance(error, ConfigurationError)
        return [
            each.replace(f'of configuration file "{self.path}"', "of FILE").replace(
                f"{self.files.directory}/", ""
            )
            for each in error.mistakes
        ]

    def connect(
        self,
        tls: ServerTLS,
        name: str | None,
        client: Issued | None = None,
        version: int = SSL.TLS1_3_VERSION,
        alpn: bytes = b"postgresql",
    ) -> Pair:
        context = client_context(version=version, alpn=[alpn])
        if client is not None:
            context.use_certificate(client.certificate)
            context.use_privatekey(client.key.private)
        return handshake(
            tls.context, context, server_name=name.encode() if name is not None else None
        )

    def assertShown(self, tls: ServerTLS, name: str | None, issued: str) -> None:
        for version in VERSIONS:
            pair = self.connect(tls, name, version=version)
            self.assertEqual((pair.server_error, pair.client_error), (None, None))
            shown = pair.client.get_peer_certificate()
            assert shown is not None
            self.assertEqual(
                Certificate.of_openssl(shown), Certificate.of(self.issued[issued].certificate)
            )


class HostsTests(HostsCase):
    """What a client meets."""

    def own(self) -> dict[str, str]:
        return {"ssl_cert_file": self.file("own.crt"), "ssl_key_file": self.file("own.key")}

    def test_without_entries_the_settings_are_in_force(self) -> None:
        for text in ("", "# nothing\n"):
            tls = self.tls(text, **self.own())
            self.assertShown(tls, "a.example", "own")
            self.assertShown(tls, None, "own")
            self.assertFalse(tls.by_name)
        os.unlink(self.path)
        self.assertShown(ServerTLS(self.settings(**self.own())), "a.example", "own")

    def test_without_ssl_sni_the_file_is_not_looked_at(self) -> None:
        tls = self.tls("a.example nothing nothing TRAILING", ssl_sni=False, **self.own())
        self.assertShown(tls, "a.example", "own")

    def test_with_entries_the_settings_certificate_is_not_used(self) -> None:
        self.files.write("own.crt", b"not read")
        tls = self.tls("a.example a.crt a.key\n* b.crt b.key\n", **self.own())
        self.assertShown(tls, "A.Example", "a")
        self.assertShown(tls, "other.example", "b")
        self.assertShown(tls, None, "b")
        self.assertEqual(len(tls.certificates), 2)

    def test_the_rules_of_the_handshake_are_those_of_every_context(self) -> None:
        tls = self.tls("a.example a.crt a.key\n", ssl_groups="secp384r1")
        for version in VERSIONS:
            pair = self.connect(tls, "a.example", version=version)
            self.assertEqual(pair.client.get_alpn_proto_negotiated(), b"postgresql")
            self.assertEqual(pair.client.get_group_name(), "secp384r1")
            refused = self.connect(tls, "a.example", version=version, alpn=b"h2")
            self.assertEqual(refused.client_error, "tlsv1 alert no application protocol")
            session = pair.client.get_session()
            again = handshake(
                tls.context, pair.client.get_context(), session, server_name=b"a.example"
            )
            self.assertEqual((again.server_error, again.client_error), (None, None))
            self.assertFalse(SSL._lib.SSL_session_reused(again.server._ssl))
        tls = self.tls("a.example a.crt a.key\n", ssl_max_protocol_version="TLSv1.2")
        refused = self.connect(tls, "a.example", version=SSL.TLS1_3_VERSION)
        self.assertEqual(refused.client_error, "tlsv1 alert protocol version")

    def test_revocation(self) -> None:
        good, bad = (self.clients.issue(cn="alice", client=True) for _ in range(2))
        crl = self.clients.crl([bad])
        hosts = "a.example a.crt a.key clients.crt\nb.example b.crt b.key\n"
        for setting in (
            {"ssl_crl_file": self.files.write("crl", crl)},
            {"ssl_crl_dir": self.files.crl_dir("crls", [(self.clients, crl)])},
        ):
            tls = self.tls(hosts, **setting)
            self.assertIsNone(self.connect(tls, "a.example", good).client_error)
            refused = self.connect(tls, "a.example", bad)
            self.assertRegex(str(refused.client_error), "alert certificate revoked$")
            self.assertIsNone(self.connect(tls, "b.example", bad).client_error)
            self.assertEqual(
                self.mistakes("a.example a.crt a.key", **setting),
                ["ssl_crl_file and ssl_crl_dir need a host with a CA in hosts_file"],
            )

    def test_whom_it_asks_for_a_certificate(self) -> None:
        tls = self.tls(
            "a.example a.crt a.key clients.crt\nb.example b.crt b.key\n* b.crt b.key clients.crt",
            ssl_ca_file=self.file("clients.crt"),
        )
        self.assertTrue(tls.verifies_clients("A.example"))
        self.assertFalse(tls.verifies_clients("b.example"))
        self.assertTrue(tls.verifies_clients("other"))
        self.assertTrue(tls.verifies_clients(None))
        tls = self.tls("a.example a.crt a.key clients.crt")
        self.assertFalse(tls.verifies_clients("other"))
        self.assertFalse(tls.verifies_clients(None))

    def test_the_key_log_is_one_file_for_all(self) -> None:
        log = self.file("keylog")
        before = len(os.listdir("/proc/self/fd"))
        tls = self.tls("a.example a.crt a.key\nb.example b.crt b.key\n", ssl_keylog_file=log)
        self.assertEqual(len(os.listdir("/proc/self/fd")), before + 1)
        for name in ("a.example", "b.example"):
            self.connect(tls, name)
        self.assertEqual(Path(log).read_text().count("CLIENT_HANDSHAKE_TRAFFIC_SECRET"), 2)


class ListenerTests(HostsCase):
    """Where the settings may be given."""

    def test_in_an_endpoint_string(self) -> None:
        self.hosts("a.example a.crt a.key clients.crt\n")
        parser, reactor = ServerStringParser(), MemoryReactorClock()
        settings = {"ssl_sni": "on", "hosts_file": self.path}
        endpoint = parser.parseStreamServer(reactor, "tcp", "0", **settings)
        self.successResultOf(endpoint.listen(Factory()))
        _, _, factory = reactor.adoptedPorts[0]
        self.assertShown(factory.tls, "a.example", "a")
        self.hosts("a.example a.crt\n")
        error = self.assertRaises(
            ConfigurationError, parser.parseStreamServer, reactor, "tcp", "0", **settings
        )
        self.assertIn("missing entry at end of line", str(error))

    def test_clientcert_with_a_ca_of_a_host(self) -> None:
        tls = self.settings()
        listener = ListenerSettings(tls=tls, clientcert=ClientCert.VERIFY_CA)
        self.hosts("a.example a.crt a.key clients.crt\nb.example b.crt b.key\n")
        policy = Admission(listener, ServerTLS(tls))
        startup = StartupMessage.build({b"user": b"alice"})
        for name, message in (
            ("a.example", "connection requires a valid client certificate"),
            (
                "b.example",
                "client certificates can only be checked if a root certificate store is available",
            ),
            (
                None,
                "client certificates can only be checked if a root certificate store is available",
            ),
        ):
            decision = policy.decide(Client(startup, sni=name))
            assert isinstance(decision, Refuse)
            self.assertEqual(decision.response.message, message)
        self.hosts("b.example b.crt b.key\n")
        error = self.assertRaises(ConfigurationError, Admission, listener, ServerTLS(tls))
        self.assertEqual(str(error), "clientcert = verify-ca needs a CA in hosts_file")


class MistakeTests(HostsCase):
    maxDiff = None
    """All that is wrong is found at once."""

    def test_everything_is_named_with_its_line(self) -> None:
        self.issue("locked", PASSWORD)
        self.files.write("open.key", self.issued["a"].key.pem(), mode=0o644)
        self.assertEqual(
            self.mistakes(
                "a.example a.crt b.key\n"
                "b.example b.crt nothing.key\n"
                "c.example nothing.crt a.key\n"
                "d.example a.crt a.key nothing.crt\n"
                "e.example a.crt open.key\n"
                "f.example locked.crt locked.key\n"
                'g.example locked.crt locked.key "" "echo wrong"\n'
                'h.example locked.crt locked.key "" "false %p"\n'
                "i.example\n",
                ssl_ciphers="NOTHING",
            ),
            [
                "line 9 of FILE: missing entry at end of line",
                "ssl_ciphers: could not set the TLSv1.2 cipher list (no valid ciphers available)",
                'line 1 of FILE: certificate does not match private key file "b.key"',
                'line 2 of FILE: certificate present, but not private key file "nothing.key"',
                'line 3 of FILE: could not open certificate file "nothing.crt": No such file or '
                "directory",
                'line 4 of FILE: could not open root certificate file "nothing.crt": No such file '
                "or directory",
                'line 5 of FILE: private key file "open.key" has group or world access; file must '
                "have permissions u=rw (0600) or less if owned by the current user, or "
                "permissions u=rw,g=r (0640) or less if owned by root",
                'line 6 of FILE: private key file "locked.key" is encrypted: write a command that '
                'prints its passphrase behind the certificate, the key and the CA ("" for none)',
                'line 7 of FILE: could not load private key file "locked.key": bad decrypt; the '
                "password is not the one that it was encrypted with",
                "line 8 of FILE: ssl_passphrase_command failed: Command 'false 'Enter PEM pass "
                f"phrase for {self.file('locked.key')}:'' returned non-zero exit status 1.".replace(
                    f"{self.files.directory}/", ""
                ),
            ],
        )

    def test_no_file_named(self) -> None:
        error = self.assertRaises(ConfigurationError, ServerTLS, ServerTLSSettings(ssl_sni=True))
        self.assertEqual(str(error), "ssl_sni needs hosts_file: a file in pg_hosts.conf's format")

    def test_a_crl_that_cannot_be_used_is_named_once(self) -> None:
        for setting in ("ssl_crl_file", "ssl_crl_dir"):
            (mistake,) = self.mistakes(
                "a.example a.crt a.key clients.crt\nb.example b.crt b.key clients.crt",
                **{setting: self.file("nothing")},
            )
            self.assertRegex(mistake, f'^{setting}: could not load CRLs from "nothing"')

    def test_what_ends_soon(self) -> None:
        short = self.root.issue(cn="short", not_after=days(1))
        self.files.pair("short", short)
        warned: list[str] = []

        def observe(event: dict[str, object]) -> None:
            warned.append(str(event.get("text")))

        globalLogPublisher.addObserver(observe)
        self.addCleanup(globalLogPublisher.removeObserver, observe)
        self.tls("a.example,b.example short.crt short.key\nc.example short.crt short.key\n")
        self.assertEqual(len(warned), 1)
        self.assertIn('certificate "CN=short" expires', warned[0])


class ReloadTests(HostsCase):
    """Keys with passphrases: whether the command may run again."""

    def setUp(self) -> None:
        super().setUp()
        self.issue("locked", PASSWORD)
        self.asked = self.file("asked")

    def start(self, reload: str) -> ServerTLS:
        self.reload_allowed = reload
        command = f"echo asked >> {self.asked}; echo {PASSWORD}"
        return self.tls(f'locked.example locked.crt locked.key "" "{command}" {reload}\n')

    def reload(self, before: ServerTLS) -> ServerTLS:
        return ServerTLS(self.settings(), loaded_keys=before.keys)

    def times_asked(self) -> int:
        return Path(self.asked).read_text().count("asked")

    def test_it_may(self) -> None:
        tls = self.start("on")
        for times in (2, 3):
            tls = self.reload(tls)
            self.assertEqual(self.times_asked(), times)
            self.assertShown(tls, "locked.example", "locked")
        self.issue("locked", PASSWORD)
        self.assertShown(self.reload(tls), "locked.example", "locked")

    def test_it_may_not_so_the_key_stays(self) -> None:
        tls = self.start("off")
        for _ in range(2):
            tls = self.reload(tls)
            self.assertEqual(self.times_asked(), 1)
            self.assertShown(tls, "locked.example", "locked")

    def said_at_reload(self, tls: ServerTLS) -> tuple[ServerTLS, list[str]]:
        said: list[str] = []

        def observe(event: LogEvent) -> None:
            said.extend(text for text in [str(event.get("text"))] if CANNOT in text)

        globalLogPublisher.addObserver(observe)
        try:
            return self.reload(tls), said
        finally:
            globalLogPublisher.removeObserver(observe)

    def test_a_key_that_has_changed_and_cannot_be_read_is_said_once(self) -> None:
        tls = self.start("off")
        key = self.issued["locked"].key
        for changed, expected in ((0, 1), (0, 0), (1, 1), (0, 0)):
            if changed:  # the same key, encrypted once more
                self.files.write("locked.key", key.pem(PASSWORD))
            tls, said = self.said_at_reload(tls)
            self.assertEqual(len(said), expected)
            self.assertShown(tls, "locked.example", "locked")
        self.assertEqual(self.times_asked(), 1)

    def test_the_certificate_may_be_a_new_one_for_the_same_key(self) -> None:
        tls = self.start("off")
        renewed = self.root.issue(cn="renewed", key=self.issued["locked"].key)
        self.files.write("locked.crt", renewed.pem())
        self.issued["locked"] = renewed
        self.assertShown(self.reload(tls), "locked.example", "locked")

    def test_a_new_key_that_needs_a_passphrase_cannot_be_loaded(self) -> None:
        tls = self.start("off")
        self.issue("locked", PASSWORD)
        error = self.assertRaises(ConfigurationError, self.reload, tls)
        self.assertIn("certificate does not match private key file", str(error))
        self.assertIn(CANNOT, str(error))
        self.assertEqual(self.times_asked(), 1)

    def test_a_new_host_whose_key_needs_a_passphrase(self) -> None:
        before = self.tls("a.example a.crt a.key\n")
        self.hosts(f'locked.example locked.crt locked.key "" "echo {PASSWORD}"\n')
        error = self.assertRaises(ConfigurationError, self.reload, before)
        self.assertTrue(str(error).endswith(f'locked.key" {CANNOT}'), str(error))

    def test_a_key_that_needs_none_any_more(self) -> None:
        tls = self.start("off")
        self.issue("locked")
        self.assertShown(self.reload(tls), "locked.example", "locked")


class ListenerReloadTests(ReloadTests):
    """The same for the listener's own certificate."""

    def start(self, reload: str) -> ServerTLS:
        command = f"echo asked >> {self.asked}; echo {PASSWORD}"
        self.own = ServerTLSSettings(
            ssl_cert_file=self.file("locked.crt"),
            ssl_key_file=self.file("locked.key"),
            ssl_passphrase_command=command,
            ssl_passphrase_command_supports_reload=reload == "on",
        )
        return ServerTLS(self.own)

    def reload(self, before: ServerTLS) -> ServerTLS:
        return ServerTLS(self.own, loaded_keys=before.keys)

    def test_a_new_host_whose_key_needs_a_passphrase(self) -> None:
        """Hosts are none of it."""

    def test_another_key_file(self) -> None:
        tls = self.start("off")
        self.issue("other", PASSWORD)
        self.own = attrs.evolve(
            self.own, ssl_cert_file=self.file("other.crt"), ssl_key_file=self.file("other.key")
        )
        error = self.assertRaises(ConfigurationError, self.reload, tls)
        self.assertIn(f'private key file "{self.file("other.key")}" {CANNOT}', str(error))
