"""``target_session_attrs``: a primary and its hot standby, and libpq in front of the same two."""

from __future__ import annotations

import atexit
import re
import struct
import tempfile
import textwrap
from functools import cache
from itertools import permutations
from pathlib import Path
from typing import Any, cast

import psycopg
from psycopg.pq import ConnStatus, PGconn
from twisted.internet import reactor as _reactor
from twisted.internet.protocol import Factory, Protocol
from twisted.trial.unittest import SynchronousTestCase, TestCase

from pgtls.conninfo.connection_string import ConnInfo
from pgtls.conninfo.startup_packet import startup_message
from pgtls.errors import ConfigurationError, PgTLSError, SessionAttributesNotMet
from pgtls.policy.auth_file import format_auth_file
from pgtls.probe.connection_probe import run_probe
from pgtls.protocols.endpoint import PgTLSClientEndpoint
from pgtls.wire.messages import ErrorResponse
from pgtls.wire.session_attributes import TargetSessionAttrs
from tests.integration.test_scram_two_legs import secret_of
from tests.support import libpq
from tests.support.command_line import pgtls
from tests.support.fake_servers import (
    AUTHENTICATION_OK,
    READY_FOR_QUERY,
    FakeServer,
    Peer,
    Script,
)
from tests.support.gateway_daemon import Gateway, GatewayCase, GatewayFailed, wait_until
from tests.support.servers import HOST, Server, Standby, free_port

reactor = cast(Any, _reactor)

TOP = Path(__file__).parent.parent.parent
EXAMPLE = (TOP / "conf" / "follow-the-primary.toml").read_text("utf-8")
HOW_TO = (TOP / "docs" / "follow_the_primary.rst").read_text("utf-8")

HBA = """
local  all          all                trust
local  replication  all                trust
host   replication  all           all  trust
host   all          postgres      all  trust
host   all          reader        all  trust
host   all          all           all  scram-sha-256
"""
ROLES = """
CREATE ROLE monitor LOGIN PASSWORD 'm:o\\n';
CREATE ROLE alice LOGIN PASSWORD 'secret';
CREATE ROLE reader LOGIN;
ALTER ROLE reader SET default_transaction_read_only = on;
"""


def started() -> tuple[Server, Standby]:
    """A primary and its standby."""
    primary = Server(17, hba=HBA)
    primary.psql(ROLES)
    return primary, Standby(primary)


@cache
def pair() -> tuple[Server, Standby]:
    """Those that all tests share: nobody promotes this standby."""
    return started()


def where(*servers: Server | int) -> str:
    """The hosts of a connection string; a number is a port at which nobody listens."""
    ports = [str(each if isinstance(each, int) else each.port) for each in servers]
    return f"host={','.join([HOST] * len(ports))} port={','.join(ports)} sslmode=disable"


class LikeLibpq(TestCase):
    """The endpoint, and libpq with the same connection string."""

    async def ours(self, conninfo: str) -> int | str:
        """The port that was reached, or the complaint."""
        parsed = ConnInfo.parse(conninfo, {"HOME": "/nonexistent"})
        endpoint = PgTLSClientEndpoint(reactor, parsed, startup=startup_message(parsed))
        try:
            protocol = await endpoint.connect(Factory.forProtocol(Protocol))
        except PgTLSError as error:
            return str(error)
        cast(Any, protocol).transport.abortConnection()
        assert endpoint.reached is not None
        return endpoint.reached.port

    def theirs(self, conninfo: str) -> int | str:
        """The same of libpq's, of complaints the last one."""
        connection = PGconn.connect(f"{conninfo} gssencmode=disable passfile=/none".encode())
        try:
            if connection.status == ConnStatus.OK:
                return int(connection.port)
            return connection.error_message.decode().strip().split("\n")[-1]
        finally:
            connection.finish()

    async def test_each_value_and_order(self) -> None:
        primary, standby = pair()
        nobody = free_port()
        reached = set()
        for servers in (
            *permutations((primary, standby)),
            *((primary,), (standby,), (nobody, primary), (nobody, standby)),
        ):
            for user in ("postgres", "reader"):
                for value in TargetSessionAttrs:
                    conninfo = f"{where(*servers)} user={user} dbname=postgres "
                    conninfo += f"target_session_attrs={value}"
                    expected = self.theirs(conninfo)
                    self.assertEqual(await self.ours(conninfo), expected, conninfo)
                    reached.add(expected if isinstance(expected, int) else expected.split(": ")[-1])
        complaints = {each for each in reached if isinstance(each, str)}
        self.assertEqual(
            complaints,
            {
                "session is read-only",
                "session is not read-only",
                "server is in hot standby mode",
                "server is not in hot standby mode",
            },
        )
        self.assertEqual(reached - complaints, {primary.port, standby.port})

    async def test_the_password_and_where_it_is(self) -> None:
        primary, standby = pair()
        passfile = Path(self.mktemp())  # type: ignore[no-untyped-call]
        passfile.write_text(f"# of the gateway\n{HOST}:*:postgres:monitor:m\\:o\\\\n:rest\n")
        passfile.chmod(0o600)
        base = f"{where(standby, primary)} user=monitor dbname=postgres target_session_attrs="
        for given in (r"password='m:o\\n'", f"passfile={passfile}"):
            self.assertEqual(await self.ours(f"{base}primary {given}"), primary.port)
        refused = await self.ours(f"{base}primary password=wrong")
        self.assertEqual(refused, self.theirs(f"{base}primary password=wrong"))
        self.assertIn('password authentication failed for user "monitor"', str(refused))
        self.assertIn("asks for a password", str(await self.ours(f"{base}primary")))
        passfile.chmod(0o644)
        refused = await self.ours(f"{base}primary passfile={passfile}")
        self.assertIn("has group or world access", str(refused))

    async def test_without_a_user(self) -> None:
        parsed = ConnInfo.parse(f"{where(*pair())} target_session_attrs=primary", {})
        endpoint = PgTLSClientEndpoint(reactor, parsed)
        with self.assertRaisesRegex(ConfigurationError, "target_session_attrs needs a user"):
            await endpoint.connect(Factory.forProtocol(Protocol))

    async def test_an_application_that_logs_in_by_itself(self) -> None:
        primary, standby = pair()
        string = f"{where(standby, primary)} user=postgres target_session_attrs=read-write"
        endpoint = PgTLSClientEndpoint(reactor, ConnInfo.parse(string, {}))
        protocol = await endpoint.connect(Factory.forProtocol(Protocol))
        cast(Any, protocol).transport.abortConnection()
        assert endpoint.reached is not None
        self.assertEqual(endpoint.reached.port, primary.port)
        (error,) = endpoint.errors
        self.assertIsInstance(error, SessionAttributesNotMet)


def old_server(answer: bytes | None, version: str = "13.4") -> Script:
    """A server that reports nothing of its sessions; to a query it answers with one value, or with
    an error."""

    async def script(peer: Peer) -> None:
        await peer.packet()
        body = f"server_version\0{version}\0".encode()
        status = b"S" + struct.pack("!I", 4 + len(body)) + body
        peer.send_byte_by_byte(AUTHENTICATION_OK + status + READY_FOR_QUERY)
        if await peer.take(1) != b"Q":
            return
        (length,) = struct.unpack("!I", await peer.take(4))
        await peer.take(length - 4)
        if answer is None:
            refused = ErrorResponse({"S": "ERROR", "C": "42704", "M": "no such parameter"}).encode()
        else:
            name = b"x\0" + struct.pack("!IHIhIH", 0, 0, 25, -1, 0, 0)
            value = struct.pack("!HI", 1, len(answer)) + answer
            refused = b"T" + struct.pack("!IH", 6 + len(name), 1) + name
            refused += b"D" + struct.pack("!I", 4 + len(value)) + value
            refused += b"C\0\0\0\x09SHOW\0"
        peer.send(refused + READY_FOR_QUERY)

    return script


class OldServers(TestCase):
    """Before PostgreSQL 14, and look-alikes: they are asked."""

    async def test_like_libpq(self) -> None:
        for value in TargetSessionAttrs:
            for answer in (b"on", b"off", b"t", b"f", None):
                server = FakeServer(self, old_server(answer))
                conninfo = server.conninfo(sslmode="disable", target_session_attrs=value)
                theirs = await libpq.connects(conninfo)
                ours = await run_probe(reactor, ConnInfo.parse(conninfo, {"HOME": "/nonexistent"}))
                expected = "; ".join(theirs.strip().split("\n"))
                expected = expected.replace("ERROR:  ", "ERROR: ")  # the probe's blanks
                self.assertEqual(ours.error or "", expected, (value, answer))

    async def test_before_9_there_were_no_standbys(self) -> None:
        server = FakeServer(self, old_server(None, "8.4.22"))
        for value in ("primary", "standby"):
            conninfo = server.conninfo(sslmode="disable", target_session_attrs=value)
            theirs = await libpq.connects(conninfo)
            ours = await run_probe(reactor, ConnInfo.parse(conninfo, {"HOME": "/nonexistent"}))
            self.assertEqual(ours.error or "", theirs.strip())

    async def test_another_host_is_tried_where_the_query_fails(self) -> None:
        first, second = FakeServer(self, old_server(None)), FakeServer(self, old_server(b"off"))
        conninfo = first.conninfo(
            host=f"{HOST},{HOST}",
            port=f"{first.port},{second.port}",
            sslmode="disable",
            target_session_attrs="read-write",
        )
        ours = await run_probe(reactor, ConnInfo.parse(conninfo, {"HOME": "/nonexistent"}))
        self.assertIsNone(ours.error)
        self.assertEqual(await libpq.connects(conninfo), "")


class ProbeTests(SynchronousTestCase):
    """``pgtls probe``."""

    def test_it_connects_as_libpq_does(self) -> None:
        primary, standby = pair()
        base = f"user=postgres dbname=postgres {where(standby, primary)} target_session_attrs="
        done = pgtls("probe", f"{base}primary", "--json")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn('"events": ["connect", "authok", "connect", "authok"]', done.stdout)
        only = f"user=postgres {where(standby)} target_session_attrs=read-write"
        done = pgtls("probe", only, "--json")
        self.assertEqual(done.returncode, 1)
        self.assertIn("session is read-only", done.stderr)


@cache
def gateway() -> Gateway:
    """Gateways in front of the shared pair, by their names in UPSTREAMS."""
    primary, standby = pair()
    directory = Path(tempfile.mkdtemp(prefix="pgtls-attrs-"))
    passfile = directory / "pgpass"
    passfile.write_text("*:*:*:monitor:m\\:o\\\\n\n")
    passfile.chmod(0o600)
    auth_file = directory / "userlist.txt"
    auth_file.write_bytes(format_auth_file([(b"alice", secret_of(primary, "alice"))]))
    auth_file.chmod(0o600)
    monitor = f"user=monitor dbname=postgres passfile={passfile}"
    both, other = where(standby, primary), where(primary, standby)
    upstreams = {
        "read-write": f"{both} {monitor} target_session_attrs=read-write",
        "prefer-standby": f"{other} {monitor} target_session_attrs=prefer-standby",
        "none": f"{where(standby)} {monitor} target_session_attrs=primary",
        "no user": f"{both} target_session_attrs=read-write",
        "wrong": f"{both} user=monitor password=wrong target_session_attrs=read-write",
        "scram": f"{both} target_session_attrs=read-write",
    }
    assert tuple(upstreams) == UPSTREAMS
    tables = [
        f'[[gateway]]\nlisten = "tcp:0:interface={HOST}"\nssl = "on"\nupstream = "{upstream}"\n'
        for upstream in upstreams.values()
    ]
    tables[-1] += f'auth_type = "scram-sha-256"\nauth_file = "{auth_file}"\n'
    running = Gateway(config='state_dir = "{state}"\n' + "".join(tables))
    atexit.register(running.remove)
    return running


UPSTREAMS = ("read-write", "prefer-standby", "none", "no user", "wrong", "scram")


class GatewayTests(SynchronousTestCase):
    """Sessions through a gateway go to the right server."""

    def port(self, upstream: str, **parameters: str) -> int | str:
        """The port of the server that a session is on, or the complaint."""
        string = gateway().conninfo(
            port=gateway().places[UPSTREAMS.index(upstream)][1], **parameters
        )
        try:
            with psycopg.connect(string) as connection:
                row = connection.execute("SELECT current_setting('port')::int").fetchone()
        except psycopg.OperationalError as error:
            return str(error)
        assert row is not None
        return int(row[0])

    def test_the_client_authenticates_itself(self) -> None:
        primary, standby = pair()
        alice = {"user": "alice", "password": "secret"}
        self.assertEqual(self.port("read-write", **alice), primary.port)
        self.assertEqual(self.port("prefer-standby", **alice), standby.port)
        wrong = self.port("read-write", user="alice", password="x")
        self.assertIn('password authentication failed for user "alice"', str(wrong))

    def test_no_server_is_as_wanted(self) -> None:
        said = str(self.port("none"))
        self.assertIn(
            "FATAL:  could not connect to the upstream server: server is in hot standby mode", said
        )
        gateway().wait_for_log("user=postgres database=postgres upstream: connection to server at")

    def test_a_session_that_turns_out_to_be_another_one(self) -> None:
        """The server that can write has a role that cannot."""
        said = str(self.port("read-write", user="reader"))
        self.assertIn(
            "FATAL:  could not connect to the upstream server: session is read-only", said
        )
        self.assertEqual(self.port("read-write"), pair()[0].port)

    def test_without_a_user_the_gateway_logs_in_as_the_client(self) -> None:
        primary, _ = pair()
        self.assertEqual(self.port("no user"), primary.port)
        self.assertIn("session is read-only", str(self.port("no user", user="reader")))
        said = str(self.port("no user", user="alice", password="secret"))
        self.assertIn("for target_session_attrs the gateway needs a user", said)
        gateway().wait_for_log("target_session_attrs without user")

    def test_a_role_of_the_auth_file(self) -> None:
        bound = {"channel_binding": "require", "password": "secret"}
        self.assertEqual(self.port("scram", user="alice", **bound), pair()[0].port)

    def test_a_login_of_the_gateways_that_fails(self) -> None:
        said = str(self.port("wrong"))
        self.assertIn("the gateway's own login failed", said)
        self.assertNotIn("monitor", said)
        gateway().wait_for_log('password authentication failed for user "monitor"')

    def test_what_has_an_effect_is_not_warned_of(self) -> None:
        log = gateway().log()
        self.assertNotIn('"user" has no effect', log)
        self.assertNotIn('"passfile" has no effect', log)
        gateway().wait_for_log("upstream: connection to server .*: server is in hot standby mode")


class StartTests(SynchronousTestCase):
    """Mistakes that are found before a port is opened."""

    def test_a_password_file_that_others_can_read(self) -> None:
        passfile = Path(self.mktemp()).absolute()  # type: ignore[no-untyped-call]
        passfile.write_text("*:*:*:*:x\n")
        passfile.chmod(0o604)
        upstream = f"host={HOST} user=monitor passfile={passfile} target_session_attrs=primary"
        with self.assertRaises(GatewayFailed) as raised:
            Gateway("--upstream", upstream)
        self.assertIn("has group or world access", str(raised.exception))

    def test_a_value_that_there_is_not(self) -> None:
        with self.assertRaises(GatewayFailed) as raised:
            Gateway("--upstream", f"host={HOST} target_session_attrs=master")
        self.assertIn('invalid target_session_attrs value: "master"', str(raised.exception))


class FailoverTests(GatewayCase):
    """docs/follow_the_primary.rst and conf/follow-the-primary.toml: the primary goes, and its
    standby is promoted."""

    def config(self, *servers: Server) -> str:
        """The example, its hosts and paths aside."""
        (line,) = re.findall(r"^#     (\*:.*)$", EXAMPLE, re.MULTILINE)
        self.assertIn(f"    {line}\n", HOW_TO)
        passfile = Path(self.mktemp()).absolute()  # type: ignore[no-untyped-call]
        passfile.write_text(f"{line}\n")
        passfile.chmod(0o600)
        text = EXAMPLE
        for old, new in {
            "tcp:6432": f"tcp:0:interface={HOST}",
            "tcp:6433": f"tcp:0:interface={HOST}",
            "host=db1.example.com,db2.example.com": where(*servers),
            "/etc/pgtls/pgpass": str(passfile),
            "sslmode=verify-full sslrootcert=system": "",
        }.items():
            self.assertIn(old, text)
            text = text.replace(old, new)
        return f'state_dir = "{{state}}"\n{text}'

    def test_sessions_follow_the_primary(self) -> None:
        primary, standby = started()
        (sql,) = re.findall(r"^    (CREATE ROLE.*)$", HOW_TO, re.MULTILINE)
        primary.psql(sql)
        (toml,) = re.findall(r"toml\n\n((?:    .*\n)+)", HOW_TO)
        self.assertIn(textwrap.dedent(toml), EXAMPLE)
        gateway = self.gateway(config=self.config(primary, standby))

        def session(place: int) -> int | str:
            """The port of the server, to which it has written."""
            try:
                with psycopg.connect(gateway.conninfo(port=gateway.places[place][1])) as connection:
                    row = connection.execute("SELECT current_setting('port')::int").fetchone()
                    if place == WRITERS:
                        connection.execute("CREATE TABLE IF NOT EXISTS written ()")
            except psycopg.OperationalError as error:
                return str(error)
            assert row is not None
            return int(row[0])

        wait_until(lambda: session(READERS) == standby.port, gateway.log)
        self.assertEqual(session(WRITERS), primary.port)
        primary.stop()
        self.assertIn("session is read-only", str(session(WRITERS)))
        standby.promote()
        self.addCleanup(standby.stop)
        wait_until(lambda: session(WRITERS) == standby.port, gateway.log)
        self.assertEqual(session(READERS), standby.port)


WRITERS, READERS = 0, 1
