"""SCRAM through the gateway: channel binding works where it can, and says why where it cannot."""

from __future__ import annotations

import atexit
import re
import struct
import subprocess
from functools import cache

import psycopg
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from pgtls.tls.sources import read_chain
from pgtls.wire.channel_binding import PlusWithheld, RefusalExplained
from pgtls.wire.messages import ErrorResponse
from tests.support.certificates import localhost
from tests.support.gateway_daemon import Gateway, GatewayCase
from tests.support.processes import environment
from tests.support.servers import HOST, SCRAM_HBA, SCRAM_USER, Server, psql, scram_server

CHECK_FAILED = "SCRAM channel binding check failed"


@cache
def server() -> Server:
    """With TLS, and a role that may not log in beside the one that may."""
    started = Server(17, ssl=True, hba=SCRAM_HBA.replace(" scramuser ", " scramuser,nologin "))
    started.psql(SCRAM_USER)
    started.psql("CREATE ROLE nologin PASSWORD 'secret'")
    return started


def upstream(to: Server) -> str:
    """Verified TLS to that server."""
    return (
        f"host=localhost hostaddr={HOST} port={to.port} sslmode=verify-full "
        f"sslrootcert={to.root_crt}"
    )


#: The gateways: what a client has to each, and each to its server.
PLAIN_TO_TLS, SAME_LEAF, OTHER_LEAF, TLS_TO_PLAIN, TLS_TO_SOCKET, REQUIRED = range(6)


@cache
def daemon() -> Gateway:
    """All of the gateways."""
    crt, key = (str(server().data / name) for name in ("server.crt", "server.key"))
    plain = scram_server(17)
    gateways = {
        PLAIN_TO_TLS: f'ssl = "off"\nupstream = "{upstream(server())}"',
        SAME_LEAF: f'ssl_cert_file = "{crt}"\nssl_key_file = "{key}.copy"\n'
        f'upstream = "{upstream(server())}"',
        OTHER_LEAF: f'upstream = "{upstream(server())}"',
        TLS_TO_PLAIN: f'upstream = "host={HOST} port={plain.port} sslmode=disable"',
        TLS_TO_SOCKET: f'upstream = "host={plain.socket_dir} port={plain.port}"',
        REQUIRED: f'ssl_cert_file = "{crt}"\nssl_key_file = "{key}.copy"\n'
        f'upstream = "{upstream(server())} require_auth=scram-sha-256 channel_binding=require"',
    }
    (server().data / "server.key.copy").touch(mode=0o600)  # ours, as a key file must be
    (server().data / "server.key.copy").write_bytes(localhost().key.pem())
    tables = (
        f'[[gateway]]\nlisten = "tcp:0:interface={HOST}"\n{gateway}\n'
        for _, gateway in sorted(gateways.items())
    )
    gateway = Gateway(config='state_dir = "{state}"\n' + "".join(tables))
    atexit.register(gateway.remove)
    return gateway


def string(place: int, **parameters: str) -> str:
    """A connection string for one of the gateways."""
    every = {
        "host": HOST,
        "port": daemon().places[place][1],
        "user": "scramuser",
        "password": "secret",
        "dbname": "postgres",
        "sslmode": "disable" if place == PLAIN_TO_TLS else "require",
        **parameters,
    }
    return " ".join(f"{name}={value}" for name, value in every.items())


def by_psql(version: int, conninfo: str) -> str:
    """What psql of that version prints: the role, or what it complains of."""
    done = subprocess.run(
        [psql(version), "-XAtc", "SELECT current_user", "-d", conninfo],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    return (done.stdout + done.stderr).strip()


def by_psycopg(conninfo: str) -> str:
    """The same by psycopg, whose libpq is 18 and has OpenSSL."""
    try:
        with psycopg.connect(conninfo) as connection:
            row = connection.execute("SELECT current_user").fetchone()
    except psycopg.OperationalError as error:
        return str(error)
    return str(row and row[0])


class PlainToTLS(SynchronousTestCase):
    """Clients without TLS, a server with it: no -PLUS mechanism may be offered to them."""

    def test_they_get_in(self) -> None:
        for channel_binding in ("prefer", "disable"):
            conninfo = string(PLAIN_TO_TLS, channel_binding=channel_binding)
            self.assertEqual(by_psql(17, conninfo), "scramuser")
            self.assertEqual(by_psql(18, conninfo), "scramuser")
            self.assertEqual(by_psycopg(conninfo), "scramuser")

    def test_a_wrong_password(self) -> None:
        said = by_psycopg(string(PLAIN_TO_TLS, password="wrong"))
        self.assertIn('FATAL:  password authentication failed for user "scramuser"', said)

    def test_a_required_binding_is_refused_by_the_client(self) -> None:
        conninfo = string(PLAIN_TO_TLS, channel_binding="require")
        for said in (by_psql(17, conninfo), by_psycopg(conninfo)):
            self.assertIn("channel binding", said)


class SameLeaf(SynchronousTestCase):
    """The same certificate on both legs."""

    def test_the_binding_holds_end_to_end(self) -> None:
        for channel_binding in ("require", "prefer", "disable"):
            conninfo = string(SAME_LEAF, channel_binding=channel_binding)
            self.assertEqual(by_psql(17, conninfo), "scramuser")
            self.assertEqual(by_psycopg(conninfo), "scramuser")


class Required(SynchronousTestCase):
    """The upstream's connection string requires SCRAM and channel binding, and it can be had."""

    def test_who_binds_the_channel_gets_in(self) -> None:
        for channel_binding in ("prefer", "require"):
            conninfo = string(REQUIRED, channel_binding=channel_binding)
            self.assertEqual(by_psql(17, conninfo), "scramuser")
            self.assertEqual(by_psycopg(conninfo), "scramuser")

    def test_a_wrong_password_is_the_servers_to_refuse(self) -> None:
        said = by_psycopg(string(REQUIRED, password="wrong"))
        self.assertIn('password authentication failed for user "scramuser"', said)

    def test_who_does_not_is_told(self) -> None:
        said = by_psycopg(string(REQUIRED, channel_binding="disable"))
        self.assertIn("none of the server's SASL authentication mechanisms are supported", said)


class OtherLeaf(SynchronousTestCase):
    """Different certificates."""

    def fingerprints(self) -> tuple[str, str]:
        shown = read_chain(daemon().state / "server.crt").certificates[0]
        return shown.fingerprint, localhost().shown.fingerprint

    def test_a_failed_login_reads_the_cause_and_the_ways_out(self) -> None:
        shown, servers = self.fingerprints()
        for said in (by_psql(17, string(OTHER_LEAF)), by_psycopg(string(OTHER_LEAF))):
            self.assertRegex(
                said,
                f"FATAL:  {CHECK_FAILED}\n"
                rf"DETAIL:  The gateway shows clients another certificate .*{shown}.*{servers}.*\n"
                "HINT:  Let gateway and server show the same certificate, .*Unix socket or in "
                "plaintext on loopback, or set channel_binding=disable in the client",
            )

    def test_without_binding_clients_get_in(self) -> None:
        conninfo = string(OTHER_LEAF, channel_binding="disable")
        self.assertEqual(by_psql(17, conninfo), "scramuser")
        self.assertEqual(by_psycopg(conninfo), "scramuser")

    def test_other_failures_are_not_blamed_on_it(self) -> None:
        for user, password, why in (
            ("scramuser", "wrong", 'password authentication failed for user "scramuser"'),
            ("nologin", "secret", 'role "nologin" is not permitted to log in'),
        ):
            conninfo = string(OTHER_LEAF, user=user, password=password, channel_binding="disable")
            said = by_psycopg(conninfo)
            self.assertIn(why, said)
            self.assertNotIn("DETAIL", said)

    def test_one_warning_at_the_start(self) -> None:
        shown, servers = self.fingerprints()
        pattern = rf"#warn\] SCRAM channel binding will fail: .*{shown}.*{servers}.*disable"
        daemon().wait_for_log(pattern)
        by_psycopg(string(OTHER_LEAF))
        self.assertEqual(len(re.findall(pattern, daemon().log())), 1)


class ToPlain(SynchronousTestCase):
    """Clients with TLS, a server without."""

    def test_they_get_in(self) -> None:
        for place in (TLS_TO_PLAIN, TLS_TO_SOCKET):
            for channel_binding in ("prefer", "disable"):
                conninfo = string(place, channel_binding=channel_binding)
                self.assertEqual(by_psql(17, conninfo), "scramuser")
                self.assertEqual(by_psycopg(conninfo), "scramuser")

    def test_a_required_binding_is_refused_by_the_client(self) -> None:
        said = by_psycopg(string(TLS_TO_PLAIN, channel_binding="require"))
        self.assertIn("channel binding", said)


class Later(GatewayCase):
    """A server that was not there when the gateway started."""

    def test_the_first_handshake_warns(self) -> None:
        late = Server(17, ssl=True, hba=SCRAM_HBA)
        self.addCleanup(late.stop)
        late.psql(SCRAM_USER)
        late.stop()
        gateway = self.gateway("--upstream", upstream(late))
        gateway.wait_for_log(r"#warn\] upstream: .*Connection refused")
        self.assertNotIn("SCRAM", gateway.log())
        late.start()
        conninfo = gateway.conninfo(user="scramuser", password="secret")
        self.assertIn(CHECK_FAILED, by_psycopg(conninfo))
        gateway.wait_for_log(r"#warn\] SCRAM channel binding will fail")


def sasl(*names: bytes) -> bytes:
    """AuthenticationSASL."""
    body = b"\0\0\0\x0a" + b"".join(name + b"\0" for name in names) + b"\0"
    return b"R" + struct.pack("!I", 4 + len(body)) + body


OK = b"R" + struct.pack("!II", 8, 0)
SASL_FINAL = b"R" + struct.pack("!II", 11, 12) + b"v=x"
REFUSED = ErrorResponse.fatal("28000", CHECK_FAILED).encode()


class Messages(SynchronousTestCase):
    """What is done to the messages of authentication, and to no others."""

    def test_plus_is_removed_and_the_rest_stays(self) -> None:
        edit = PlusWithheld()
        offered = sasl(b"SCRAM-SHA-256-PLUS", b"SCRAM-SHA-256", b"SCRAM-SHA-512-PLUS", b"X")
        self.assertEqual(edit(offered), sasl(b"SCRAM-SHA-256", b"X"))

    def test_only_in_the_first_offer(self) -> None:
        edit = PlusWithheld()
        edit(sasl(b"SCRAM-SHA-256"))
        self.assertEqual(edit(sasl(b"A-PLUS", b"A")), sasl(b"A-PLUS", b"A"))

    def test_an_offer_of_nothing_else_stays(self) -> None:
        """The client then says what is the matter in its own words."""
        self.assertEqual(PlusWithheld()(sasl(b"A-PLUS")), sasl(b"A-PLUS"))

    @settings(deadline=None)
    @given(st.binary(max_size=60))
    def test_no_other_message_is_touched(self, body: bytes) -> None:
        message = b"R" + struct.pack("!I", 4 + len(body)) + body
        if b"-PLUS" not in body:
            self.assertEqual(PlusWithheld()(message), message)
            self.assertEqual(RefusalExplained("cause")(message), message)

    def test_the_cause_is_told_where_binding_was_offered_and_refused(self) -> None:
        edit = RefusalExplained("cause")
        self.assertEqual(edit(sasl(b"A-PLUS", b"A")), sasl(b"A-PLUS", b"A"))
        told = edit(REFUSED)
        self.assertIn(b"Dcause\0", told)
        self.assertIn(f"M{CHECK_FAILED}\0".encode(), told)

    def test_not_where_it_was_not_offered(self) -> None:
        edit = RefusalExplained("cause")
        edit(sasl(b"A"))
        self.assertEqual(edit(REFUSED), REFUSED)

    def test_not_of_another_error(self) -> None:
        edit = RefusalExplained("cause")
        edit(sasl(b"A-PLUS"))
        wrong_password = ErrorResponse.fatal("28P01", "password authentication failed").encode()
        self.assertEqual(edit(wrong_password), wrong_password)

    def test_not_once_authentication_has_succeeded(self) -> None:
        edit = RefusalExplained("cause")
        for message in (sasl(b"A-PLUS"), SASL_FINAL, OK):
            edit(message)
        self.assertEqual(edit(REFUSED), REFUSED)
