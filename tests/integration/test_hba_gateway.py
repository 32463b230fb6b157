"""``hba_file`` in a gateway: who gets in and who does not, host names, certificates, reload."""

from __future__ import annotations

import signal
from pathlib import Path

import psycopg
from twisted.trial.unittest import SynchronousTestCase

from tests.integration.test_hba_postgresql import ADDRESSES, POLICY, verdict
from tests.integration.test_hba_postgresql import server as postgresql
from tests.support.certificates import Authority, Files
from tests.support.gateway_daemon import Gateway, GatewayFailed
from tests.support.servers import HOST, Server, postgres

#: Combinations that reach every line of POLICY, and the end.
ASKED = [
    ("alice", "mallory"),
    ("alice", "alice"),
    ("secrets", "bob"),
    ("public", "svc_1"),
    ("all", "svc_1"),
    ("app_x", "svc_1"),
    ("app_x", "alice"),
    ("replication", "bob"),
    ("postgres", "all"),
    ("postgres", "carol"),
    ("secrets", "dave"),
]


class HbaCase(SynchronousTestCase):
    """A gateway with a file of its own."""

    def files(self) -> Files:
        directory = Path(self.mktemp()).absolute()  # type: ignore[no-untyped-call]
        directory.mkdir()
        return Files(directory)

    def gateway(self, upstream: Server, hba: str, *options: str) -> Gateway:
        self.hba = Path(self.files().write("pg_hba.conf", hba.encode()))
        started = Gateway(
            "--upstream",
            f"host={HOST} port={upstream.port} sslmode=disable",
            "--hba-file",
            str(self.hba),
            *options,
        )
        self.addCleanup(started.remove)
        return started

    def refused(self, conninfo: str) -> str:
        """What a client reads that does not get in."""
        with self.assertRaises(psycopg.OperationalError) as raised:
            psycopg.connect(conninfo).close()
        return str(raised.exception)


class SameVerdictTests(HbaCase):
    """The gateway in front of a server that trusts everyone, and PostgreSQL with the same file."""

    def test_each(self) -> None:
        server = postgresql()
        server.reload(hba=f"local all postgres trust\n{POLICY}")
        wanted = {}
        asked = [
            (address, tls, database, user, replication)
            for address in ADDRESSES
            if address is not None
            for tls in (False, True)
            for database, user in ASKED
            for replication in (False, True)
        ]
        for each in asked:
            wanted[each] = self.verdict((HOST, server.port), *each)
        server.reload(
            hba="local all all trust\nhost all all all trust\nhost replication all all trust\n"
        )
        gateway = self.gateway(server, f"local all postgres trust\n{POLICY}")
        for each in asked:
            self.assertEqual(self.verdict(gateway.address, *each), wanted[each], each)

    def verdict(
        self, place: tuple[str, int], address: str, tls: bool, database: str, user: str, repl: bool
    ) -> tuple[str, str] | None:
        return verdict(place, address, tls=tls, database=database, user=user, replication=repl)


class GatewayTests(HbaCase):
    """What only a gateway has."""

    def test_plaintext_is_allowed_by_the_lines_unless_ssl_says_require(self) -> None:
        hba = f"hostssl all all all trust\nhostnossl all postgres {HOST}/32 trust\n"
        gateway = self.gateway(postgres(17), hba)
        psycopg.connect(gateway.conninfo(sslmode="disable", sslrootcert=None)).close()
        psycopg.connect(gateway.conninfo()).close()
        gateway.wait_for_log(rf"method=trust \({self.hba}:1\): user=postgres.* SSL=TLSv1.3")
        gateway.wait_for_log(rf"method=trust \({self.hba}:2\): user=postgres.* SSL=off")
        self.assertIn(
            f'no pg_hba.conf entry for host "{HOST}", user "alice", database "postgres", '
            "no encryption",
            self.refused(gateway.conninfo(user="alice", sslmode="disable", sslrootcert=None)),
        )
        strict = self.gateway(postgres(17), hba, "--ssl", "require")
        self.assertIn(
            "this server requires SSL",
            self.refused(strict.conninfo(sslmode="disable", sslrootcert=None)),
        )

    def test_the_example(self) -> None:
        """conf/moving-to-tls.toml with conf/pg_hba.conf"""
        conf = Path(__file__).parents[2] / "conf"
        lines = (conf / "pg_hba.conf").read_bytes().splitlines(keepends=True)
        # Clients of this test are on loopback: for them the lines of the network.
        network = [line for line in lines if not line.startswith((b"local ", b"host       all"))]
        hba = b"".join(network).replace(b"10.1.7.20", HOST.encode())
        path = self.files().write("pg_hba.conf", hba.replace(b"10.0.0.0/8", b"127.0.0.0/8"))
        server = postgres(17)
        text = (conf / "moving-to-tls.toml").read_text("utf-8")
        for old, new in {
            "/etc/pgtls/pg_hba.conf": path,
            "/etc/pgtls/root.crt": self.files().write("root.crt", Authority("root").pem()),
            "tcp:6432": f"tcp:0:interface={HOST}",
            "host=/var/run/postgresql": f"host={server.socket_dir} port={server.port}",
        }.items():
            self.assertIn(old, text)
            text = text.replace(old, new)
        gateway = Gateway(config='state_dir = "{state}"\n' + text)
        self.addCleanup(gateway.remove)
        plain = {"sslmode": "disable", "sslrootcert": None}
        psycopg.connect(gateway.conninfo()).close()
        self.assertIn("no pg_hba.conf entry", self.refused(gateway.conninfo(**plain)))
        report = gateway.conninfo(user="report_7", dbname="reports", **plain)
        self.assertIn('role "report_7" does not exist', self.refused(report))  # PostgreSQL's
        gateway.wait_for_log("user=report_7 database=reports SSL=off")

    def test_host_names_are_looked_up_both_ways(self) -> None:
        hba = "host all all localhost trust\n"
        gateway = self.gateway(postgres(17), hba)
        psycopg.connect(gateway.conninfo()).close()
        other = self.gateway(postgres(17), "host all all db.invalid trust\n")
        self.assertIn("no pg_hba.conf entry", self.refused(other.conninfo()))

    def test_certificates(self) -> None:
        files, root = self.files(), Authority("root")
        for name in ("alice", "postgres"):
            files.pair(name, root.issue(cn=name, client=True))
        ca = files.write("root.crt", root.pem())
        ident = files.write("pg_ident.conf", b"m /^(.*)$ \\1\nm alice postgres\n")
        gateway = self.gateway(
            postgres(17),
            "hostssl template1 all all cert map=m\n"
            "hostssl postgres all all trust clientcert=verify-full\n"
            "hostssl all all all trust clientcert=verify-ca\n",
            "--ssl-ca-file",
            ca,
            "--ident-file",
            ident,
            "--tls-parameters",
            "on",
        )

        def shows(name: str, **more: str) -> str:
            path = str(files.directory / name)
            return gateway.conninfo(sslcert=f"{path}.crt", sslkey=f"{path}.key", **more)

        for conninfo, method in (
            (shows("postgres"), "trust"),
            (shows("alice", dbname="template1"), "cert"),
        ):
            with psycopg.connect(conninfo) as connection:
                told = connection.execute("SELECT current_setting('pgtls.auth_method')").fetchone()
            self.assertEqual(told, (method,))
        self.assertIn(
            '"trust" authentication failed for user "postgres"', self.refused(shows("alice"))
        )
        self.assertIn(
            "connection requires a valid client certificate",
            self.refused(gateway.conninfo(sslcertmode="disable")),
        )
        gateway.wait_for_log(rf"CN mismatch.*\({self.hba}:2\)")

    def test_a_reload_reads_it_and_keeps_the_last_good(self) -> None:
        gateway = self.gateway(postgres(17), "host all all all trust\n")
        psycopg.connect(gateway.conninfo()).close()
        self.hba.write_text("host all all all nonsense\n")
        gateway.signal(signal.SIGHUP)
        gateway.wait_for_log('not reloaded: .*invalid authentication method "nonsense"')
        psycopg.connect(gateway.conninfo()).close()
        self.hba.write_text("host all all all reject\n")
        gateway.signal(signal.SIGHUP)
        gateway.wait_for_log("reloaded: new connections")
        self.assertIn(
            f'pg_hba.conf rejects connection for host "{HOST}", user "postgres", '
            'database "postgres", SSL encryption',
            self.refused(gateway.conninfo()),
        )

    def test_with_workers(self) -> None:
        gateway = self.gateway(
            postgres(17), "hostssl all postgres samehost trust\n", "--workers", "2"
        )
        for _ in range(4):
            psycopg.connect(gateway.conninfo()).close()
            self.assertIn("no pg_hba.conf entry", self.refused(gateway.conninfo(user="alice")))

    def test_every_mistake_at_the_start(self) -> None:
        with self.assertRaises(GatewayFailed) as raised:
            self.gateway(
                postgres(17),
                "hostssl all all all cert map=m\n"
                "host all +admins all trust\n"
                "host all all all md5\n",
                "--clientcert",
                "verify-ca",
            )
        log = str(raised.exception)
        for mistake in (
            "clientcert is said by the lines of hba_file",
            f'line 2 of configuration file "{self.hba}": membership in role "admins"',
            f'line 3 of configuration file "{self.hba}": authentication method "md5"',
        ):
            self.assertIn(mistake, log)
        with self.assertRaises(GatewayFailed) as raised:
            self.gateway(postgres(17), "hostssl all all all cert map=m\n")
        log = str(raised.exception)
        self.assertIn("client certificates can only be checked with ssl_ca_file", log)
        self.assertIn("map=m needs ident_file", log)
