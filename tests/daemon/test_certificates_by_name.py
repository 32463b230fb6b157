"""``ssl_sni`` and ``hosts_file``: PostgreSQL 19's ``src/test/ssl/t/004_sni.pl``, by libpq.

Each connection is made twice: negotiated and direct.
"""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

import psycopg

from tests.support.certificates import Authority, Files, localhost
from tests.support.gateway_daemon import Gateway, GatewayCase, GatewayFailed
from tests.support.servers import HOST, SCRAM_HBA, SCRAM_USER, Server, postgres
from tests.support.transports import OnTwistedsTransports

RELOADED = "reloaded: new connections get what is in the files now"
CANNOT_RELOAD = "cannot be reloaded because it requires a passphrase"
PASSWORD = "secret1"

UNRECOGNIZED = "tlsv1 unrecognized name"
HANDSHAKE_FAILURE = "alert handshake failure"
UNVERIFIED = "certificate verify failed"


class TableCase(GatewayCase):
    """Files named as in PostgreSQL's tests, a hosts_file, a gateway."""

    workers = 1

    def setUp(self) -> None:
        self.files = Files(Path(self.mktemp()).absolute())
        self.root = root = Authority("root")
        server_ca, client_ca = root.intermediate("server CA"), root.intermediate("client CA")
        server = server_ca.issue(cn="common-name.pg-ssltest.test")
        self.files.write("server-cn-only.crt", server.pem())
        self.files.write("server-cn-only+server_ca.crt", server.chain())
        self.files.write("server-cn-only.key", server.key.pem())
        self.files.write("server-password.key", server.key.pem(PASSWORD))
        self.files.write("root_ca.crt", root.pem())
        for name, ca in (("server", server_ca), ("client", client_ca)):
            self.files.write(f"root+{name}_ca.crt", root.pem(), ca.pem())
        client, revoked = (client_ca.issue(cn="postgres", client=True) for _ in range(2))
        for name, issued in (("client", client), ("client-revoked", revoked)):
            self.files.write(f"{name}.crt", issued.pem())  # without the authority above it
            self.files.write(f"{name}.key", issued.key.pem())
        self.files.crl_dir(
            "client-crldir", [(root, root.crl()), (client_ca, client_ca.crl([revoked]))]
        )
        self.path = self.files.directory / "pg_hosts.conf"
        self.upstream = postgres(17).conninfo(user=None, dbname=None, sslmode="disable")

    def file(self, name: str) -> str:
        return str(self.files.directory / name)

    def started(self, hosts: str | None, *more: str, sni: str = "on") -> Gateway:
        """A gateway with that hosts_file; None: it is not there."""
        self.hosts(hosts)
        lines = (
            f'state_dir = "{{state}}"\nreload_interval = 0\nworkers = {self.workers}',
            "[[gateway]]",
            f'listen = "tcp:0:interface={HOST}"',
            f'upstream = "{self.upstream}"',
            f'ssl_cert_file = "{self.file("server-cn-only.crt")}"',
            f'ssl_key_file = "{self.file("server-cn-only.key")}"',
            f'ssl_sni = "{sni}"',
            f'hosts_file = "{self.path}"',
            *more,
        )
        return self.gateway(config="\n".join(lines) + "\n")

    def fails_to_start(self, hosts: str, mistake: str) -> None:
        error = self.assertRaises(GatewayFailed, self.started, hosts)
        self.assertRegex(str(error), mistake)

    def hosts(self, text: str | None) -> None:
        if text is not None:
            self.path.write_text(text)
        elif self.path.exists():
            self.path.unlink()

    def reload(self, gateway: Gateway, hosts: str | None, said: str = RELOADED) -> None:
        self.hosts(hosts)
        before = len(re.findall(said, gateway.log()))
        gateway.signal(signal.SIGHUP)
        gateway.wait_for_log(said, before + 1)

    def says(self, gateway: Gateway, conninfo: str, negotiation: str = "postgres") -> str:
        """What libpq says of a connection; empty where it is good."""
        given = psycopg.conninfo.conninfo_to_dict(conninfo)
        if "sslrootcert" in given and given["sslrootcert"] != "invalid":
            given["sslrootcert"] = self.file(str(given["sslrootcert"]))
        for name in ("sslcert", "sslkey"):
            if name in given:
                given[name] = self.file(str(given[name]))
        usual = {
            "hostaddr": HOST,
            "port": gateway.port,
            "user": "postgres",
            "dbname": "postgres",
            "sslsni": "1",
            "sslnegotiation": negotiation,
            "gssencmode": "disable",
        }
        try:
            with psycopg.connect(**{**usual, **given}) as session:  # type: ignore[arg-type]
                session.execute("SELECT 1")
        except psycopg.OperationalError as error:
            return str(error)
        return ""

    def connects(self, gateway: Gateway, conninfo: str) -> None:
        for negotiation in ("postgres", "direct"):
            self.assertEqual(self.says(gateway, conninfo, negotiation), "", conninfo)

    def fails(self, gateway: Gateway, conninfo: str, error: str) -> None:
        for negotiation in ("postgres", "direct"):
            self.assertIn(error, self.says(gateway, conninfo, negotiation), conninfo)


CERTIFICATE = "server-cn-only.crt server-cn-only.key"
WITH_CHAIN = "server-cn-only+server_ca.crt server-cn-only.key"
DEFAULT = "sslrootcert=root+server_ca.crt sslmode=require"


class Table(TableCase):
    """Its rows, in its order."""

    def test_the_settings_certificate(self) -> None:
        gateway = self.started("# comments alone\n", sni="off")
        self.connects(gateway, DEFAULT)
        self.fails(gateway, "sslrootcert=root_ca.crt sslmode=verify-ca", UNVERIFIED)
        self.reload(gateway, f"example.org {CERTIFICATE}\n")
        self.connects(gateway, DEFAULT)

    def test_a_missing_file(self) -> None:
        self.connects(self.started(None), DEFAULT)

    def test_a_default_and_a_host(self) -> None:
        gateway = self.started(None)
        self.reload(gateway, f"* {CERTIFICATE}\n")
        self.connects(gateway, DEFAULT)
        self.fails(gateway, "sslrootcert=root_ca.crt sslmode=verify-ca", UNVERIFIED)
        self.reload(gateway, f"* {CERTIFICATE}\nexample.org {WITH_CHAIN} root_ca.crt\n")
        for host in ("example.org", "Example.ORG"):
            self.connects(gateway, f"host={host} sslrootcert=root_ca.crt sslmode=verify-ca")
        self.fails(
            gateway,
            "host=example.org sslrootcert=invalid sslmode=verify-ca",
            'root certificate file "invalid" does not exist',
        )
        self.fails(gateway, "sslrootcert=root_ca.crt sslmode=verify-ca", UNVERIFIED)
        self.connects(gateway, DEFAULT)
        self.reload(gateway, None)
        self.connects(gateway, f"host=example.org {DEFAULT}")

    def test_several_names(self) -> None:
        Path(self.file("hostnames.txt")).write_text("\nexample.com\nexample.net\n")
        for names in ("example.org,example.com,example.net", "example.org,@hostnames.txt"):
            gateway = self.started(f"{names} {WITH_CHAIN} root_ca.crt\n")
            for host in ("example.org", "example.com", "example.net"):
                self.connects(gateway, f"host={host} sslrootcert=root_ca.crt sslmode=verify-ca")
            self.fails(gateway, f"host=example.se {DEFAULT}", UNRECOGNIZED)
            gateway.wait_for_log('hosts_file has no host "example.se"')

    def test_mistakes(self) -> None:
        for hosts, mistake in (
            (
                f"example.org,*,example.net {WITH_CHAIN} root_ca.crt",
                "default and non-SNI entries cannot be mixed with other entries",
            ),
            (f"\n* {CERTIFICATE}\n* {CERTIFICATE}\n", "multiple entries"),
            (f"\n/no_sni/ {CERTIFICATE}\n/no_sni/ {CERTIFICATE}\n", "multiple entries"),
            (
                f"example.org {CERTIFICATE}\nexample.net {CERTIFICATE}\nexample.org {CERTIFICATE}",
                'multiple entries for host "example.org"',
            ),
            (
                f"example.org {CERTIFICATE}\nexample.net,example.com,Example.org {CERTIFICATE}",
                'multiple entries for host "example.org"',
            ),
            (
                "localhost server-cn-only.crt server-password.key root+client_ca.crt "
                '"echo wrongpassword" on',
                r'could not load private key file ".*server-password\.key"',
            ),
            (
                f'example.org {CERTIFICATE} root+client_ca.crt "cmd" on TRAILING_TEXT MORE_TEXT',
                "extra fields at end of line",
            ),
            (
                f'example.org {CERTIFICATE} root+client_ca.crt "cmd" notabooleanvalue',
                "incorrect syntax for boolean value SSL_passphrase_cmd_reload",
            ),
        ):
            self.fails_to_start(hosts, mistake)

    def test_without_a_default(self) -> None:
        gateway = self.started(f"example.org {WITH_CHAIN} root_ca.crt\n")
        self.fails(gateway, f"{DEFAULT} sslsni=0", HANDSHAKE_FAILURE)
        gateway.wait_for_log("hosts_file has nothing for a client that names no host")
        self.fails(gateway, f"host=example.org {DEFAULT} sslsni=0", HANDSHAKE_FAILURE)
        for host in ("example.com", "example"):
            self.fails(gateway, f"host={host} {DEFAULT}", UNRECOGNIZED)
        self.assertNotRegex(gateway.log(), r"user=\S+ database=")  # nothing got behind TLS

    def test_only_clients_without_a_name(self) -> None:
        gateway = self.started(f"/no_sni/ {CERTIFICATE}\n")
        self.connects(gateway, f"{DEFAULT} sslsni=0")
        self.fails(gateway, f"host=example.org {DEFAULT}", UNRECOGNIZED)

    def test_client_certificates(self) -> None:
        hosts = (
            f"* {CERTIFICATE} root+client_ca.crt\n"
            f"example.org {CERTIFICATE}\n"
            f"example.com {CERTIFICATE} root+client_ca.crt\n"
            f"example.net {CERTIFICATE} root+server_ca.crt\n"
        )
        ca = f'ssl_ca_file = "{self.file("root+client_ca.crt")}"'
        gateway = self.started(hosts, ca, 'clientcert = "verify-full"')
        usual = "sslmode=require"
        client = "sslcertmode=require sslcert=client.crt sslkey=client.key"
        self.fails(
            gateway,
            f"host=example.org {usual} {client}",
            "client certificates can only be checked if a root certificate store is available",
        )
        self.fails(
            gateway,
            f"host=example.com {usual} sslcertmode=disable",
            "connection requires a valid client certificate",
        )
        self.connects(gateway, f"host=example.com {usual} {client}")
        self.fails(
            gateway,
            f"host=example.net {usual} sslcertmode=disable",
            "connection requires a valid client certificate",
        )
        self.fails(gateway, f"host=example.net {usual} {client}", "unknown ca")

    def test_the_crl_directory_is_for_all_hosts(self) -> None:
        gateway = self.started(
            f"example.com {CERTIFICATE} root+client_ca.crt\n",
            f'ssl_crl_dir = "{self.file("client-crldir")}"',
            'clientcert = "verify-full"',
        )
        usual = "host=example.com sslmode=require sslcertmode=require"
        self.connects(gateway, f"{usual} sslcert=client.crt sslkey=client.key")
        self.fails(
            gateway,
            f"{usual} sslcert=client-revoked.crt sslkey=client-revoked.key",
            "certificate revoked",
        )


class TableOnTwistedsTransports(OnTwistedsTransports, Table):
    """The same."""


class Passphrases(TableCase):
    """Keys with a passphrase, at reloads."""

    HOST = f"host=localhost {DEFAULT}"

    def locked(self, reload: str) -> str:
        return (
            "localhost server-cn-only.crt server-password.key root+client_ca.crt "
            f'"echo {PASSWORD}" {reload}\n'
        )

    def test_the_command_may_run_again(self) -> None:
        gateway = self.started(self.locked("on"))
        self.connects(gateway, self.HOST)
        for _ in range(2):
            self.reload(gateway, self.locked("on"))
            self.reload(gateway, self.locked("on"))
            self.connects(gateway, self.HOST)
        self.assertNotIn(CANNOT_RELOAD, gateway.log())

    def test_it_may_not(self) -> None:
        gateway = self.started(self.locked("off"))
        self.assertNotIn(CANNOT_RELOAD, gateway.log())
        self.connects(gateway, self.HOST)
        self.reload(gateway, self.locked("off"))
        self.assertIn(CANNOT_RELOAD, gateway.log())
        self.connects(gateway, self.HOST)

    def test_what_cannot_be_loaded_keeps_all_as_it_was(self) -> None:
        gateway = self.started(f"example.org {CERTIFICATE}\n")
        self.reload(gateway, self.locked("off"), f"not reloaded: .*{CANNOT_RELOAD}")
        self.connects(gateway, f"host=example.org {DEFAULT}")
        self.fails(gateway, self.HOST, UNRECOGNIZED)


class PassphrasesOfWorkers(Passphrases):
    """The same with several processes."""

    workers = 2


class Beside(GatewayCase):
    """What goes with it."""

    def setUp(self) -> None:
        self.files = Files(Path(self.mktemp()).absolute())
        self.root = Authority("root")
        self.root_crt = self.files.write("root.crt", self.root.pem())
        for name in ("a", "b"):
            self.files.pair(name, self.root.issue([f"{name}.example"]))

    def started(self, upstream: Server, hosts: str, *options: str) -> Gateway:
        return self.gateway(
            *("--upstream", upstream.conninfo(user=None, dbname=None, sslmode="disable")),
            *("--ssl-sni", "on", "--hosts-file", self.files.write("hosts", hosts.encode())),
            *options,
        )

    def says(self, gateway: Gateway, host: str, **more: str | None) -> str:
        """What libpq says of a connection; empty where it is good."""
        conninfo = gateway.conninfo(host=host, **{"sslrootcert": self.root_crt, **more})
        try:
            with psycopg.connect(conninfo) as session:
                session.execute("SELECT 1")
        except psycopg.OperationalError as error:
            return str(error)
        return ""

    def test_no_certificate_is_made_where_the_file_names_some(self) -> None:
        gateway = self.started(postgres(17), "a.example a.crt a.key\n")
        self.assertEqual(self.says(gateway, "a.example"), "")
        self.assertEqual(os.listdir(gateway.state) if gateway.state.exists() else [], [])
        self.assertNotIn("connect with", gateway.log())

    def test_one_is_made_where_it_is_empty(self) -> None:
        gateway = self.started(postgres(17), "")
        gateway.wait_for_log("connect with")
        with psycopg.connect(gateway.conninfo()) as session:
            session.execute("SELECT 1")

    def test_lines_of_an_hba_file_that_ask_for_a_certificate(self) -> None:
        client = self.root.issue(cn="postgres", client=True)
        sslcert, sslkey = self.files.pair("client", client)
        gateway = self.started(
            postgres(17),
            "a.example a.crt a.key root.crt\nb.example b.crt b.key\n",
            *("--hba-file", self.files.write("hba", b"hostssl all all all cert\n")),
        )
        shown = {"sslcert": sslcert, "sslkey": sslkey}
        self.assertEqual(self.says(gateway, "a.example", **shown), "")
        self.assertIn(
            "client certificates can only be checked if a root certificate store is available",
            self.says(gateway, "b.example", **shown),
        )

    def test_no_host_has_a_ca(self) -> None:
        hosts = "a.example a.crt a.key\n"
        hba = self.files.write("hba", b"hostssl all all all cert\n")
        for options, mistake in (
            (("--clientcert", "verify-ca"), "clientcert = verify-ca needs a CA in hosts_file"),
            (("--hba-file", hba), "can only be checked with a CA in hosts_file"),
        ):
            error = self.assertRaises(GatewayFailed, self.started, postgres(17), hosts, *options)
            self.assertIn(mistake, str(error))

    def test_channel_binding_is_to_the_certificate_that_was_shown(self) -> None:
        server = Server(17, ssl=True, hba=SCRAM_HBA)
        server.psql(SCRAM_USER)
        self.files.write("server.crt", (server.data / "server.crt").read_bytes())
        self.files.write("server.key", localhost().key.pem())
        hosts = self.files.write(
            "hosts", b"same.example server.crt server.key\nother.example a.crt a.key\n"
        )
        gateway = self.gateway(
            "--upstream",
            f"host=localhost hostaddr={HOST} port={server.port} sslmode=verify-full "
            f"sslrootcert={server.root_crt}",
            *("--ssl-sni", "on", "--hosts-file", hosts),
        )
        parameters = {
            "user": "scramuser",
            "password": "secret",
            "sslmode": "require",
            "sslrootcert": None,
            "channel_binding": "require",
        }
        self.assertEqual(self.says(gateway, "same.example", **parameters), "")
        self.assertNotIn("SCRAM channel binding will fail", gateway.log())
        self.assertIn(
            "SCRAM channel binding check failed",
            self.says(gateway, "other.example", **parameters),
        )
        gateway.wait_for_log("SCRAM channel binding will fail")
