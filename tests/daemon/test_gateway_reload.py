"""SIGHUP: files are read again, for connections from then on, and only if all of them are good."""

from __future__ import annotations

import signal
import ssl
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from tests.support import certificates
from tests.support.certificates import Authority, Files, Issued
from tests.support.gateway_daemon import Gateway, GatewayCase
from tests.support.processes import TWISTD
from tests.support.raw_client import SSL_REQUEST, connect
from tests.support.servers import HOST, postgres

RELOADED = "reloaded: new connections get what is in the files now"


def shown(gateway: Gateway, *, direct: bool = False) -> bytes:
    """The certificate that a new connection is shown, in DER."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["postgresql"])
    with connect(gateway.address) as connection:
        if not direct:
            connection.sendall(SSL_REQUEST)
            assert connection.recv(1) == b"S"
        with context.wrap_socket(connection) as tls:
            certificate = tls.getpeercert(binary_form=True)
    assert certificate is not None
    return certificate


def der(issued: Issued) -> bytes:
    return issued.certificate.public_bytes(Encoding.DER)


def client_files(files: Files, name: str, issued: Issued) -> dict[str, str]:
    """What a connection string needs for that certificate."""
    certificate, key = files.pair(name, issued)
    return {"sslcert": certificate, "sslkey": key}


class Reload(GatewayCase):
    """One process."""

    workers = 1

    #: Connections of which each of several workers has some.
    enough = 1

    def setUp(self) -> None:
        self.files = Files(Path(self.mktemp()).absolute())
        self.root = Authority("reload")
        self.server = self.root.issue(["localhost"], cn="localhost", ips=[HOST])
        self.files.pair("server", self.server)
        self.root_crt = self.files.write("root.crt", self.root.pem())
        self.upstream = postgres(17).conninfo(user=None, dbname=None, sslmode="disable")

    def started(self, *tables: str, upstream: str | None = None) -> Gateway:
        """A gateway with what ``tables`` say beside the usual."""
        self.usual = f"""
            [[gateway]]
            listen = "tcp:0:interface={HOST}"
            upstream = "{upstream or self.upstream}"
            ssl_cert_file = "{self.files.directory}/server.crt"
            ssl_key_file = "{self.files.directory}/server.key"
        """
        top = f'state_dir = "{{state}}"\n{self.number_of_workers()}'
        return self.gateway(config=top + "".join(self.usual + table for table in tables))

    def number_of_workers(self) -> str:
        workers = "" if self.workers == 1 else f"workers = {self.workers}\n"
        return f"reload_interval = 0\n{workers}"

    def reload(self, gateway: Gateway, said: str = RELOADED) -> None:
        before = gateway.log().count(said)
        gateway.signal(signal.SIGHUP)
        gateway.wait_for_log(said, before + 1)

    def session(self, gateway: Gateway, **parameters: str) -> psycopg.Connection:
        conninfo = gateway.conninfo(sslrootcert=self.root_crt, **parameters)
        session = psycopg.connect(conninfo, autocommit=True)
        self.addCleanup(session.close)
        return session

    def sessions(self, gateway: Gateway, **parameters: str) -> None:
        """They all work."""
        for _ in range(self.enough):
            self.session(gateway, **parameters)

    def refused(self, gateway: Gateway, **parameters: str) -> str:
        """None of them works.

        :returns: why the last one does not.
        """
        for _ in range(self.enough):
            with self.assertRaises(psycopg.OperationalError) as caught:
                self.session(gateway, **parameters)
        return str(caught.exception)

    def all_shown(self, gateway: Gateway) -> set[bytes]:
        """What new connections are shown, negotiated and direct ones."""
        return {
            shown(gateway, direct=direct) for _ in range(self.enough) for direct in (False, True)
        }

    def test_a_new_certificate(self) -> None:
        gateway = self.started("")
        with closing(self.session(gateway)) as old:
            self.assertEqual(self.all_shown(gateway), {der(self.server)})
            new = self.root.issue(["localhost"], cn="localhost")
            self.files.pair("server", new)
            self.reload(gateway)
            self.assertEqual(self.all_shown(gateway), {der(new)})
            self.sessions(gateway)
            self.assertEqual(old.execute("SELECT 'goes on'").fetchone(), ("goes on",))
        self.assertEqual(gateway.log().count(RELOADED), 1)

    def test_a_broken_file_changes_nothing(self) -> None:
        gateway = self.started("", "")
        self.files.write("server.crt", b"no certificate")
        self.reload(gateway, r"not reloaded: .*gateway 2: .*server\.crt")
        self.assertIn("pgtls.toml: gateway 1: ", gateway.log())
        self.assertEqual(self.all_shown(gateway), {der(self.server)})
        self.assertNotIn(RELOADED, gateway.log())
        self.files.pair("server", self.server)
        self.reload(gateway)

    def test_one_mistake_keeps_everything_as_it_was(self) -> None:
        ident = self.files.write("ident", b"people alice postgres\n")
        gateway = self.started(
            "",
            f"""
            ssl_ca_file = "{self.root_crt}"
            clientcert = "verify-full"
            map = "people"
            ident_file = "{ident}"
            """,
        )
        self.files.write("ident", b'people "alice postgres\n')
        self.files.pair("server", self.root.issue(["localhost"], cn="localhost"))
        self.reload(gateway, "not reloaded: .*gateway 2: .*ident")
        self.assertEqual(self.all_shown(gateway), {der(self.server)})

    def test_a_new_crl_revokes_from_the_next_connection_on(self) -> None:
        crl = self.files.write("root.crl", self.root.crl())
        gateway = self.started(
            f'ssl_ca_file = "{self.root_crt}"\nclientcert = "verify-ca"\nssl_crl_file = "{crl}"\n'
        )
        issued = self.root.issue(cn="postgres", client=True)
        client = client_files(self.files, "client", issued)
        with closing(self.session(gateway, **client)) as old:
            self.files.write("root.crl", self.root.crl([issued]))
            self.sessions(gateway, **client)
            self.reload(gateway)
            self.assertIn("revoked", self.refused(gateway, **client))
            self.assertEqual(old.execute("SELECT 1").fetchone(), (1,))

    def test_another_ca_for_clients(self) -> None:
        ca = self.files.write("clients.crt", self.root.pem())
        gateway = self.started(f'ssl_ca_file = "{ca}"\nclientcert = "verify-ca"\n')
        other = Authority("others")
        client = client_files(self.files, "client", other.issue(cn="postgres", client=True))
        self.refused(gateway, **client)
        self.files.write("clients.crt", other.pem())
        self.reload(gateway)
        self.sessions(gateway, **client)

    def test_the_ident_map(self) -> None:
        ident = self.files.write("ident", b"people alice nobody\n")
        gateway = self.started(
            f"""
            ssl_ca_file = "{self.root_crt}"
            clientcert = "verify-full"
            map = "people"
            ident_file = "{ident}"
            """
        )
        alice = client_files(self.files, "alice", self.root.issue(cn="alice", client=True))
        self.refused(gateway, **alice)
        self.files.write("ident", b"people alice postgres\n")
        self.refused(gateway, **alice)
        self.reload(gateway)
        self.sessions(gateway, **alice)

    def test_the_upstreams_root(self) -> None:
        server = postgres(17, ssl=True)
        wrong = Authority("somebody else")
        roots = self.files.write("upstream.crt", wrong.pem())
        upstream = server.conninfo(
            user=None, dbname=None, host="localhost", sslmode="verify-ca", sslrootcert=roots
        )
        gateway = self.started("", upstream=upstream)
        self.refused(gateway)
        self.files.write("upstream.crt", certificates.authority().pem())
        self.refused(gateway)
        self.reload(gateway)
        self.sessions(gateway)

    def test_what_has_expired_is_named_at_start_and_at_reload(self) -> None:
        yesterday = datetime.now(UTC) - timedelta(days=1)
        before = {"not_before": yesterday - timedelta(days=30), "not_after": yesterday}
        clients, server = Authority("clients", **before), Authority("servers", **before)
        ca = self.files.write("clients.crt", self.root.pem() + clients.pem())
        crl = self.files.write("clients.crl", self.root.crl(expired=True))
        roots = self.files.write("upstream.crt", server.pem())
        self.files.pair("server", self.root.issue(["localhost"], cn="localhost", **before))
        gateway = self.started(
            f'ssl_ca_file = "{ca}"\nssl_crl_file = "{crl}"\n',
            upstream=f"host={HOST} sslmode=verify-ca sslrootcert={roots}",
        )
        patterns = [
            r'certificate "CN=localhost" has expired at .* UTC \(in ".*server\.crt"\): '
            "clients that verify it refuse to connect",
            r'certificate "CN=clients" has expired at .* \(in ".*clients\.crt"\): no client cert',
            r'the CRL of CN=reload has expired at .* \(in ".*clients\.crl"\): ',
            rf'gateway 1: upstream {HOST}:5432: certificate "CN=servers" has expired at .* '
            r'\(in ".*upstream\.crt"\): no server certificate',
        ]
        for pattern in patterns:
            self.assertEqual(len(gateway.wait_for_log(pattern)), 1, pattern)
        self.reload(gateway)
        for pattern in patterns:
            self.assertEqual(len(gateway.wait_for_log(pattern, 2)), 2, pattern)

    def test_the_self_made_certificate(self) -> None:
        gateway = self.gateway(
            config=f"""
            state_dir = "{{state}}"
            {self.number_of_workers()}
            [[gateway]]
            listen = "tcp:0:interface={HOST}"
            upstream = "{self.upstream}"
            """
        )
        before = self.all_shown(gateway)
        (gateway.state / "server.crt").unlink()
        self.reload(gateway)
        after = self.all_shown(gateway)
        self.assertEqual(len(after), 1)
        self.assertNotEqual(after, before)
        made = x509.load_pem_x509_certificate((gateway.state / "server.crt").read_bytes())
        self.assertEqual(after, {made.public_bytes(Encoding.DER)})
        self.root_crt = gateway.root_crt
        self.sessions(gateway)

    def test_the_names_of_files_count_from_where_twistd_was_started(self) -> None:
        directory = Files(Path(self.mktemp()).absolute()).directory
        gateway = self.gateway(
            config=f"""
            state_dir = "here"
            {self.number_of_workers()}
            [[gateway]]
            listen = "tcp:0:interface={HOST}"
            upstream = "{self.upstream}"
            """,
            program=(*TWISTD, "-n", "--pidfile=", "--rundir", str(directory)),
        )
        made = gateway.directory / "here" / "server.crt"
        made.unlink()
        self.reload(gateway)
        now = x509.load_pem_x509_certificate(made.read_bytes())
        self.assertEqual(self.all_shown(gateway), {now.public_bytes(Encoding.DER)})

    def test_many_at_once(self) -> None:
        gateway = self.started("")
        for _ in range(20):
            gateway.signal(signal.SIGHUP)
        self.reload(gateway)
        self.sessions(gateway)


class ReloadWithWorkers(Reload):
    """Two processes that serve, and the daemon."""

    workers = 2
    enough = 8
