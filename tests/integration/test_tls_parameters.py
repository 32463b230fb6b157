"""``tls_parameters``: what the server gets to know of the client's TLS, as settings of the session.

In front of every PostgreSQL that is at hand: 17 and 18, and the distribution's.
"""

from __future__ import annotations

import atexit
import contextlib
import socket
import ssl
import tempfile
from functools import cache
from pathlib import Path

import pg8000.native
import psycopg
from cryptography import x509
from cryptography.x509.oid import NameOID
from twisted.trial.unittest import SynchronousTestCase

from tests.support.certificates import Authority, Files, Issued
from tests.support.gateway_daemon import Gateway
from tests.support.servers import HOST, Server, available

VERSIONS = [version for version in (15, 17, 18) if available(version)]
NAMES = (
    *("version", "cipher", "group", "client_dn", "client_serial", "issuer_dn", "client_addr"),
    *("sni", "auth_method"),
)
#: Each setting, NULL where there is none.
EVERY = "SELECT " + ", ".join(f"current_setting('pgtls.{name}', true)" for name in NAMES)

TEXT = (Path(__file__).parent.parent.parent / "docs" / "tls_parameters.rst").read_text()
#: The statements that the text shows.
LOGIN_TRIGGER = TEXT.partition(".. code-block:: sql\n")[2].partition("\nA client chooses")[0]


@cache
def clients() -> Authority:
    """Who signs clients' certificates."""
    return Authority("clients")


@cache
def alice() -> Issued:
    """A client, with a name that has to be escaped."""
    subject = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Müller, Söhne"),
            x509.NameAttribute(NameOID.COMMON_NAME, "alice"),
        ]
    )
    return clients().issue(subject=subject, client=True)


ALICE = r"CN=alice,O=M\C3\BCller\, S\C3\B6hne"


@cache
def files() -> Files:
    """Her certificate and key, and the authority's certificate."""
    directory = tempfile.TemporaryDirectory(prefix="pgtls-tls-parameters-")
    atexit.register(directory.cleanup)
    made = Files(directory.name)
    made.pair("alice", alice())
    made.write("root.crt", clients().pem())
    return made


@cache
def server(version: int) -> Server:
    """A server; from 17 on it notes every login, by an event trigger."""
    started = Server(version)
    started.psql("CREATE USER alice")
    if version >= 17:
        started.psql(LOGIN_TRIGGER)
    return started


@cache
def daemon() -> Gateway:
    """A gateway for each version; one without ``tls_parameters``; one behind a proxy."""
    last = VERSIONS[-1]
    tables = [
        *(_table(version, "tls_parameters = true") for version in VERSIONS),
        _table(last, "tls_parameters = false"),
        _table(last, "tls_parameters = true", "haproxy:"),
    ]
    gateway = Gateway(config='state_dir = "{state}"\n' + "".join(tables))
    atexit.register(gateway.remove)
    return gateway


def _table(version: int, told: str, listen: str = "") -> str:
    upstream = server(version).conninfo(user=None, dbname=None)
    root = files().directory / "root.crt"
    return (
        f'[[gateway]]\nlisten = "{listen}tcp:0:interface={HOST}"\nssl = "on"\n'
        f'upstream = "{upstream}"\n{told}\nssl_ca_file = "{root}"\n'
    )


#: The gateways behind those of the versions.
NOT_TOLD, PROXIED = -2, -1


def conninfo(place: int, **parameters: str) -> str:
    """To one of the gateways, as alice with her certificate."""
    every = {
        "host": HOST,
        "port": daemon().places[place][1],
        "user": "alice",
        "dbname": "postgres",
        "sslmode": "require",
        "sslcert": f"{files().directory}/alice.crt",
        "sslkey": f"{files().directory}/alice.key",
        **parameters,
    }
    return " ".join(f"{key}='{value}'" for key, value in every.items())


def told(string: str) -> dict[str, str | None]:
    """The settings that a session of psycopg's has."""
    with psycopg.connect(string) as connection:
        row = connection.execute(EVERY).fetchone()  # type: ignore[call-overload]
    assert row is not None
    return dict(zip(NAMES, row, strict=True))


def told_pg8000(place: int, **startup: str) -> dict[str, str | None]:
    """The same of pg8000's, whose StartupMessage may have any parameters."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.load_cert_chain(files().directory / "alice.crt", files().directory / "alice.key")
    connection = pg8000.native.Connection(
        "alice",
        HOST,
        "postgres",
        int(daemon().places[place][1]),
        ssl_context=context,
        startup_params=startup,
    )
    with contextlib.closing(connection):
        (row,) = connection.run(EVERY)
    return dict(zip(NAMES, row, strict=True))


class Told(SynchronousTestCase):
    """What arrives, in every version."""

    def test_of_a_client_with_a_certificate(self) -> None:
        serial = alice().certificate.serial_number.to_bytes(20).lstrip(b"\0").hex().upper()
        for place in range(len(VERSIONS)):
            found = told(conninfo(place))
            self.assertIn(found.pop("group"), ("X25519MLKEM768", "x25519"))
            expected = {
                "version": "TLSv1.3",
                "cipher": "TLS_AES_256_GCM_SHA384",
                "client_dn": ALICE,
                "client_serial": serial,
                "issuer_dn": "CN=clients",
                "client_addr": HOST,
                "sni": "",
                "auth_method": "trust",
            }
            self.assertEqual(found, expected)

    def test_the_host_name_that_a_client_asks_for(self) -> None:
        for place in range(len(VERSIONS)):
            found = told(conninfo(place, host="Db.Example.com", hostaddr=HOST))
            self.assertEqual(found["sni"], "Db.Example.com")

    def test_of_a_client_without_one(self) -> None:
        for place in range(len(VERSIONS)):
            found = told(conninfo(place, sslcert="/nonexistent"))
            self.assertEqual(found["version"], "TLSv1.3")
            for name in ("client_dn", "client_serial", "issuer_dn"):
                self.assertEqual(found[name], "")

    def test_of_a_client_in_plaintext(self) -> None:
        for place in range(len(VERSIONS)):
            found = told(conninfo(place, sslmode="disable"))
            self.assertEqual(found.pop("client_addr"), HOST)
            self.assertEqual(found.pop("auth_method"), "trust")
            self.assertEqual(set(found.values()), {""})

    def test_in_a_login_event_trigger(self) -> None:
        for version in (each for each in VERSIONS if each >= 17):
            server(version).psql("TRUNCATE login_audit.logins")
            told(conninfo(VERSIONS.index(version)))
            noted = server(version).psql(
                "SELECT who, client_dn, client_addr FROM login_audit.logins WHERE who = 'alice'"
            )
            self.assertEqual(noted, f"alice|{ALICE}|{HOST}")

    def test_a_login_event_trigger_cannot_be_got_round(self) -> None:
        """By a search_path of the client's own, with a table and functions of the same names."""
        for version in (each for each in VERSIONS if each >= 17):
            place = VERSIONS.index(version)
            server(version).psql(
                "DROP SCHEMA IF EXISTS evil CASCADE; CREATE SCHEMA evil AUTHORIZATION alice; "
                "TRUNCATE login_audit.logins; SET ROLE alice; "
                "CREATE TABLE evil.logins "
                "(at timestamptz DEFAULT now(), who text, client_dn text, client_addr text); "
                "CREATE FUNCTION evil.current_setting(text, boolean) RETURNS text "
                "LANGUAGE sql AS $$ SELECT 'CN=bob'::text $$; "
                "CREATE FUNCTION evil.now() RETURNS timestamptz "
                "LANGUAGE sql AS $$ SELECT 'epoch'::timestamptz $$"
            )
            for path in ("evil,pg_catalog", "evil,login_audit,pg_catalog", "pg_temp,evil"):
                told(conninfo(place, options=f"-csearch_path={path}"))
            noted = server(version).psql(
                "SELECT who, client_dn, client_addr, at > now() - interval '1 hour' "
                "FROM login_audit.logins WHERE who = 'alice'"
            )
            self.assertEqual(noted.split("\n"), [f"alice|{ALICE}|{HOST}|t"] * 3)
            self.assertEqual(server(version).psql("SELECT count(*) FROM evil.logins"), "0")

    def test_nobody_forges_a_row_of_the_login_event_trigger(self) -> None:
        for version in (each for each in VERSIONS if each >= 17):
            with psycopg.connect(conninfo(VERSIONS.index(version)), autocommit=True) as session:
                for statement in (
                    "INSERT INTO login_audit.logins (who) VALUES ('bob')",
                    "DELETE FROM login_audit.logins",
                    "SELECT * FROM login_audit.logins",
                    "SELECT login_audit.note_login()",
                    "CREATE TABLE login_audit.mine ()",
                ):
                    self.assertRaises(
                        psycopg.errors.InsufficientPrivilege, session.execute, statement
                    )

    def test_nothing_where_it_is_off(self) -> None:
        self.assertEqual(set(told(conninfo(NOT_TOLD)).values()), {None})

    def test_behind_a_proxy_the_address_is_the_clients(self) -> None:
        header = b"PROXY TCP4 192.0.2.7 198.51.100.1 56324 5432\r\n"
        port = int(daemon().places[PROXIED][1])
        with contextlib.closing(socket.create_connection((HOST, port))) as sock:
            sock.sendall(header)
            connection = pg8000.native.Connection("alice", database="postgres", sock=sock)
            (row,) = connection.run(EVERY)
            connection.close()
        self.assertEqual(row[NAMES.index("client_addr")], "192.0.2.7")


class NotForged(SynchronousTestCase):
    """What the client sends under these names does not arrive."""

    def check(self, found: dict[str, str | None]) -> None:
        self.assertEqual(found["client_dn"], ALICE)

    def test_in_options(self) -> None:
        for options in (
            "-c pgtls.client_dn=CN=root",
            "-cpgtls.client_dn=CN=root",
            "--pgtls.client_dn=CN=root",
            "-c PGTLS.Client_DN=CN=root -c work_mem=7MB",
            "-E -cpgtls.client_dn=CN=root",
        ):
            for place in range(len(VERSIONS)):
                self.check(told(conninfo(place, options=options)))

    def test_as_startup_parameters(self) -> None:
        for place in range(len(VERSIONS)):
            self.check(told_pg8000(place, **{"pgtls.client_dn": "CN=root"}))
            self.check(told_pg8000(place, **{"PgTLS.CLIENT_DN": "CN=root", "pgtls.x": "y"}))

    def test_a_name_that_we_do_not_send_is_removed_too(self) -> None:
        for place in range(len(VERSIONS)):
            string = conninfo(place, options="-c pgtls.superuser=on -c other.name=kept")
            sql = "SELECT current_setting('pgtls.superuser', true), current_setting('other.name')"
            with psycopg.connect(string) as connection:
                self.assertEqual(connection.execute(sql).fetchone(), (None, "kept"))

    def test_the_clients_other_options_arrive(self) -> None:
        options = "-c pgtls.client_dn=x -c work_mem=7MB"
        with psycopg.connect(conninfo(0, options=options)) as connection:
            self.assertEqual(connection.execute("SHOW work_mem").fetchone(), ("7MB",))

    def test_a_session_can_change_them_later(self) -> None:
        """Which is why they prove nothing to what runs later in it; see the documentation."""
        with psycopg.connect(conninfo(0)) as connection:
            connection.execute("SET pgtls.client_dn = 'CN=root'")
            shown = connection.execute("SELECT current_setting('pgtls.client_dn')").fetchone()
        self.assertEqual(shown, ("CN=root",))

    def test_a_packet_without_room_for_them_is_refused_in_words(self) -> None:
        error = self.assertRaises(
            psycopg.OperationalError, psycopg.connect, conninfo(0, options=f"-c x.y={'z' * 9890}")
        )
        self.assertIn("FATAL:  the startup packet leaves no room", str(error))
