"""``pgtls probe``: the command line, what it says, and whether libpq would say the same."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

from twisted.internet import reactor as _reactor
from twisted.internet.defer import CancelledError
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase, TestCase

from pgtls.commands.probe import ProbeResult, run_probe
from pgtls.conninfo.connection_string import ConnInfo
from pgtls.errors import ConfigurationError, ConnectFailed
from pgtls.protocols.endpoint import PgTLSClientEndpoint
from pgtls.tls.tls_info import certificate_facts
from tests.support import libpq
from tests.support.certificates import Authority, Files, authority, days, localhost
from tests.support.processes import Finished, environment, run
from tests.support.servers import HOST, Server, free_port, postgres, psql, scram_server

reactor = cast(Any, _reactor)

PROBE = (sys.executable, "-c", "from pgtls.commands.main import main; main()", "probe")


async def probed(conninfo: str, **environ: str) -> ProbeResult:
    """What the probe says to a connection string, in an environment of its own."""
    return await run_probe(reactor, ConnInfo.parse(conninfo, {"HOME": "/nonexistent"} | environ))


async def command(*args: str, **env: str) -> Finished:
    """The command as a process."""
    return await run([*PROBE, *args], env=env)


class ExitStatusTests(TestCase):
    async def test_0_for_a_usable_connection(self) -> None:
        done = await command(postgres(17).conninfo(), "--json")
        self.assertEqual((done.code, done.err), (0, ""))

    async def test_1_for_none_with_the_reason_on_one_line(self) -> None:
        server = postgres(17)
        done = await command(server.conninfo(sslmode="require"), "--json")
        reason = (
            f'connection to server at "{HOST}", port {server.port} failed: '
            "server does not support SSL, but SSL was required"
        )
        self.assertEqual((done.code, done.err), (1, f"pgtls probe: {reason}\n"))
        self.assertEqual(json.loads(done.out)["error"], reason)

    async def test_2_for_a_conninfo_that_cannot_be_used(self) -> None:
        for conninfo, reason in {
            "sslmode=always": 'invalid sslmode value: "always"',
            "colour=red": 'invalid connection option "colour"',
            "host=a,b port=1,2,3": "could not match 3 port numbers to 2 hosts",
        }.items():
            done = await command(conninfo, "--json")
            self.assertEqual((done.code, done.err), (2, f"pgtls probe: {reason}\n"))
            self.assertEqual(
                json.loads(done.out),
                {
                    "events": [],
                    "outcome": "fail",
                    "error": reason,
                    "tls": None,
                    "certificate": None,
                },
            )

    async def test_2_for_an_unknown_option(self) -> None:
        self.assertEqual((await command("--colour", "red")).code, 2)

    async def test_0_where_a_password_is_asked_for(self) -> None:
        done = await command(scram_server().conninfo(user="scramuser"), "--json")
        result = json.loads(done.out)
        self.assertEqual(result["events"], ["connect", "sslreject", "authrequest"])
        self.assertEqual((done.code, result["outcome"]), (0, "plain"))


class OutputTests(TestCase):
    async def test_the_keys_of_the_json(self) -> None:
        done = await command(postgres(17, ssl=True).conninfo(), "--json")
        result = json.loads(done.out)
        self.assertEqual(result["events"], ["connect", "sslaccept", "authok"])
        self.assertEqual((result["outcome"], result["error"]), ("ssl", None))
        self.assertEqual(result["certificate"], certificate_facts(localhost().shown))
        tls = result["tls"]
        self.assertEqual(
            {name: tls[name] for name in ("version", "alpn", "forward_secret", "bits")},
            {"version": "TLSv1.3", "alpn": "postgresql", "forward_secret": True, "bits": 256},
        )
        self.assertEqual(
            set(tls) - {"version", "alpn", "forward_secret", "bits"}, {"cipher", "group"}
        )

    async def test_plaintext_has_neither_tls_nor_a_certificate(self) -> None:
        done = await command(postgres(17).conninfo(), "--json")
        result = json.loads(done.out)
        self.assertEqual((result["tls"], result["certificate"]), (None, None))

    async def test_json_in_a_pipe_without_being_told(self) -> None:
        done = await command(postgres(17).conninfo())
        self.assertEqual(json.loads(done.out)["outcome"], "plain")


class TerminalTests(SynchronousTestCase):
    def at_a_terminal(self, *args: str) -> str:
        """What the command shows there."""
        ours, theirs = pty.openpty()
        env = environment({"TERM": "dumb", "COLUMNS": "200"})
        child = subprocess.Popen([*PROBE, *args], stdout=theirs, stderr=theirs, env=env)
        os.close(theirs)
        shown = b""
        try:
            while piece := os.read(ours, 65536):
                shown += piece
        except OSError:  # EIO: the child has closed the terminal
            pass
        os.close(ours)
        child.wait()
        return re.sub(r"\x1b\[[0-9;]*m", "", shown.decode().replace("\r\n", "\n"))

    def test_a_table(self) -> None:
        shown = self.at_a_terminal(postgres(17, ssl=True).conninfo())
        self.assertRegex(shown, r"(?m)^ *events +connect → sslaccept → authok *$")
        self.assertRegex(shown, r"(?m)^ *outcome +ssl *$")
        self.assertRegex(shown, r"(?m)^ *TLS version +TLSv1\.3 *$")
        self.assertRegex(shown, r"(?m)^ *certificate names +localhost, 127\.0\.0\.1, ::1 *$")

    def test_json_when_told(self) -> None:
        shown = self.at_a_terminal(postgres(17).conninfo(), "--json")
        self.assertEqual(json.loads(shown)["outcome"], "plain")

    def test_the_reason_of_a_failure(self) -> None:
        shown = self.at_a_terminal(postgres(17).conninfo(sslmode="require"))
        self.assertRegex(shown, r"(?m)^ *outcome +fail *$")
        self.assertRegex(shown, r"(?m)^pgtls probe: .*server does not support SSL")

    def test_markup_and_controls_in_a_certificate_are_shown_as_they_are(self) -> None:
        name = "[red]\x1b[2J[/nothing]"
        leaf = authority().issue(["localhost"], cn=name)
        server = Server(
            17, ssl=True, files={"server.crt": leaf.chain(), "server.key": leaf.key.pem()}
        )
        self.addCleanup(server.stop)
        self.assertIn("CN=[red]\\x1b[2J[/nothing]", self.at_a_terminal(server.conninfo()))


class WhereFromTests(TestCase):
    """The connection string is not the only place that counts."""

    async def test_a_uri(self) -> None:
        server = postgres(17)
        result = await probed(
            f"postgresql://postgres@{HOST}:{server.port}/postgres?sslmode=disable"
        )
        self.assertEqual((result.events, result.outcome), (["connect", "authok"], "plain"))

    async def test_the_environment_alone(self) -> None:
        server = postgres(17, ssl=True)
        variables = {"PGHOST": HOST, "PGPORT": str(server.port), "PGUSER": "postgres"}
        done = await command("--json", **variables, PGSSLMODE="require")
        self.assertEqual(json.loads(done.out)["events"], ["connect", "sslaccept", "authok"])

    async def test_the_string_wins_over_the_environment(self) -> None:
        conninfo = postgres(17, ssl=True).conninfo(sslmode="disable")
        result = await probed(conninfo, PGSSLMODE="require", PGUSER="nobody", PGPORT="1")
        self.assertEqual((result.events, result.outcome), (["connect", "authok"], "plain"))

    async def test_the_root_in_the_home_directory(self) -> None:
        home = Path(self.mktemp()).absolute()
        conninfo = postgres(17, ssl=True).conninfo(host="localhost", sslmode="verify-full")
        Files(home / ".postgresql").write("root.crt", authority().pem())
        result = await probed(conninfo, HOME=str(home))
        self.assertEqual((result.outcome, result.error), ("ssl", None))

    async def test_another_root_in_the_home_directory_counts_with_require_too(self) -> None:
        home = Path(self.mktemp()).absolute()
        Files(home / ".postgresql").write("root.crt", Authority("another root").pem())
        conninfo = postgres(17, ssl=True).conninfo(sslmode="require")
        result = await probed(conninfo, HOME=str(home))
        self.assertEqual((result.events, result.outcome), (["connect", "sslaccept"], "fail"))

    async def test_a_user_in_another_encoding(self) -> None:
        # As a command line hands over a byte that is no UTF-8.
        result = await probed(postgres(17).conninfo(user="jos\udce9", sslmode="disable"))
        self.assertEqual(result.outcome, "fail")
        self.assertIn("does not exist", result.error or "")


class NoUserTests(TestCase):
    """Nobody named: only the transport is looked at."""

    async def test_with_ssl(self) -> None:
        server = postgres(17, ssl=True)
        result = await probed(server.conninfo(user=None, dbname=None))
        self.assertEqual((result.events, result.outcome), (["connect", "sslaccept"], "ssl"))

    async def test_with_direct_ssl(self) -> None:
        server = postgres(17, ssl=True)
        result = await probed(
            server.conninfo(user=None, sslmode="require", sslnegotiation="direct")
        )
        self.assertEqual((result.events, result.outcome), (["connect", "directsslaccept"], "ssl"))

    async def test_without_ssl(self) -> None:
        result = await probed(postgres(17).conninfo(user=None))
        self.assertEqual((result.events, result.outcome), (["connect", "sslreject"], "plain"))


class PlaceTests(TestCase):
    """Hosts that are not there, and several of them. The words are libpq's."""

    async def assert_fails(self, conninfo: str, error: str) -> None:
        result = await probed(conninfo)
        self.assertEqual((result.events, result.outcome, result.error), ([], "fail", error))

    async def test_nobody_listens(self) -> None:
        port = free_port()
        await self.assert_fails(
            f"host={HOST} port={port}",
            f'connection to server at "{HOST}", port {port} failed: Connection refused',
        )

    async def test_no_socket(self) -> None:
        await self.assert_fails(
            "host=/nonexistent port=5432",
            'connection to server on socket "/nonexistent/.s.PGSQL.5432" failed: '
            "No such file or directory",
        )

    async def test_no_such_name(self) -> None:
        for name in ("name.invalid", "two..dots", "x" * 64, "with space"):
            await self.assert_fails(
                f"host='{name}'", f'could not translate host name "{name}" to address'
            )

    async def test_the_next_host_where_the_first_cannot_be_reached(self) -> None:
        server = postgres(17)
        for first in (HOST, "name.invalid", "/nonexistent"):
            conninfo = server.conninfo(host=f"{first},{HOST}", port=f"{free_port()},{server.port}")
            result = await probed(conninfo)
            self.assertEqual(result.events, ["connect", "sslreject", "authok"])
            self.assertEqual((result.outcome, result.error), ("plain", None))

    async def test_each_host_is_named_where_none_can_be_reached(self) -> None:
        first, second = free_port(), free_port()
        where = f'connection to server at "{HOST}", port'
        await self.assert_fails(
            f"host={HOST},{HOST} port={first},{second}",
            f"{where} {second} failed: Connection refused; "
            f"before that: {where} {first} failed: Connection refused",
        )

    async def test_a_name_with_its_address(self) -> None:
        server = postgres(17)
        result = await probed(server.conninfo(host="localhost", hostaddr=HOST, sslmode="require"))
        where = f'connection to server at "localhost" ({HOST}), port {server.port} failed: '
        self.assertEqual(result.error, f"{where}server does not support SSL, but SSL was required")

    async def test_ipv6(self) -> None:
        server = Server(17, ssl=True, conf={"listen_addresses": "127.0.0.1,::1"})
        self.addCleanup(server.stop)
        root = server.root_crt
        conninfo = server.conninfo(host="::1", sslmode="verify-full", sslrootcert=root)
        complaint = await libpq.connects(conninfo)  # "" unless this machine has no IPv6
        self.assertEqual((await probed(conninfo)).outcome, "fail" if complaint else "ssl")


class ConnectingTests(SynchronousTestCase):
    """TCP that does not come up: nobody answers at all."""

    def setUp(self) -> None:
        self.clock = MemoryReactorClock()
        conninfo = ConnInfo.parse("host=192.0.2.1,192.0.2.2 connect_timeout=5", {})
        endpoint = PgTLSClientEndpoint(self.clock, conninfo)
        self.connecting = endpoint.connect(Factory.forProtocol(Protocol))

    def test_the_next_host_after_connect_timeout(self) -> None:
        self.clock.advance(5)
        self.assertEqual(
            [client[0] for client in self.clock.tcpClients], ["192.0.2.1", "192.0.2.2"]
        )
        self.assertNoResult(self.connecting)

    def test_an_error_after_the_last_one(self) -> None:
        self.clock.advance(5)
        self.clock.advance(5)
        error = self.failureResultOf(self.connecting, ConnectFailed).value
        self.assertEqual(
            str(error), 'connection to server at "192.0.2.2", port 5432 failed: timeout expired'
        )

    def test_cancelling_ends_it(self) -> None:
        self.connecting.cancel()
        self.failureResultOf(self.connecting, CancelledError)
        self.assertEqual(len(self.clock.tcpClients), 1)
        self.assertEqual(self.clock.getDelayedCalls(), [])


class VerificationTests(TestCase):
    """Certificates that are not as they should be."""

    async def assert_refused(self, conninfo: str, cause: str) -> None:
        result = await probed(conninfo)
        self.assertEqual((result.events, result.outcome), (["connect", "sslaccept"], "fail"))
        self.assertIn(cause, result.error or "")
        self.assertNotEqual(await libpq.connects(conninfo), "")

    async def test_another_host(self) -> None:
        server = postgres(17, ssl=True)
        await self.assert_refused(
            server.conninfo(
                host="db.example.com",
                hostaddr=HOST,
                sslmode="verify-full",
                sslrootcert=server.root_crt,
            ),
            'server certificate for "localhost" (and 2 other names) does not match '
            'host name "db.example.com"',
        )

    async def test_another_authority(self) -> None:
        files = Files(self.mktemp())
        root = files.write("root.crt", Authority("another root").pem())
        for sslmode in ("require", "verify-ca", "verify-full"):
            await self.assert_refused(
                postgres(17, ssl=True).conninfo(
                    host="localhost", hostaddr=HOST, sslmode=sslmode, sslrootcert=root
                ),
                "certificate verify failed",
            )

    async def test_an_expired_certificate(self) -> None:
        leaf = authority().issue(["localhost"], not_before=days(-30), not_after=days(-1))
        files = {"server.crt": leaf.chain(), "server.key": leaf.key.pem()}
        server = Server(17, ssl=True, files=files)
        self.addCleanup(server.stop)
        await self.assert_refused(
            server.conninfo(
                host="localhost", hostaddr=HOST, sslmode="verify-ca", sslrootcert=server.root_crt
            ),
            "certificate has expired",
        )

    async def test_no_root_to_verify_against(self) -> None:
        missing = str(Path(self.mktemp()).absolute())
        for sslmode in ("verify-ca", "verify-full"):
            await self.assert_refused(
                postgres(17, ssl=True).conninfo(sslmode=sslmode, sslrootcert=missing),
                f'root certificate file "{missing}" does not exist',
            )

    async def test_prefer_goes_on_in_plaintext_as_libpq_does(self) -> None:
        root = Files(self.mktemp()).write("root.crt", Authority("another root").pem())
        conninfo = postgres(17, ssl=True).conninfo(sslmode="prefer", sslrootcert=root)
        result = await probed(conninfo)
        self.assertEqual(result.events, ["connect", "sslaccept", "reconnect", "authok"])
        self.assertEqual(result.outcome, "plain")
        self.assertEqual(await libpq.connects(conninfo), "")


class LibpqTests(TestCase):
    """The same connection string to the probe and to libpq: both connect, or neither does."""

    maxDiff = None

    def conninfos(self) -> list[str]:
        """Connection strings of every kind, good and bad."""
        server = postgres(17, ssl=True)
        root = server.root_crt
        others: list[dict[str, str | int | None]] = [
            {},
            {"user": "nobody"},
            {"dbname": "none"},
            {"host": "localhost", "sslmode": "verify-full", "sslrootcert": root},
            {"host": "localhost.", "hostaddr": HOST, "sslmode": "verify-full", "sslrootcert": root},
            {"host": HOST, "sslmode": "verify-full", "sslrootcert": root},
            {"host": None, "hostaddr": HOST, "sslmode": "verify-full", "sslrootcert": root},
            {"host": "elsewhere", "hostaddr": HOST, "sslmode": "verify-ca", "sslrootcert": root},
            {"host": "elsewhere", "hostaddr": HOST, "sslmode": "verify-full", "sslrootcert": root},
            {"sslmode": "verify-full", "sslrootcert": "system"},
            {"sslmode": "verify-ca", "sslrootcert": "system"},
            {"sslmode": "require", "sslcertmode": "require"},
            {"sslmode": "require", "sslcertmode": "disable"},
            {"sslmode": "require", "sslsni": "0"},
            {"sslmode": "require", "ssl_min_protocol_version": "TLSv1.3"},
            {"sslmode": "require", "ssl_max_protocol_version": "TLSv1.2"},
            {"ssl_min_protocol_version": "TLSv1.3", "ssl_max_protocol_version": "TLSv1.2"},
            {"sslmode": "prefer", "sslnegotiation": "direct"},
            {"max_protocol_version": "3.2"},
            {"min_protocol_version": "3.2"},
            {"port": f"{free_port()},{server.port}", "host": f"{HOST},{HOST}"},
            {"port": f"{server.port},{server.port}"},
            {"port": "0"},
            {"hostaddr": "not an address"},
            {"host": "name.invalid"},
            {"options": "-c work_mem=64MB"},
            {"options": "-c work_mem=much"},
            {"client_encoding": "LATIN1"},
            {"client_encoding": "nonsense"},
            {"application_name": "o'clock \\ é"},
            {"host": server.socket_dir, "sslmode": "verify-full", "sslrootcert": root},
            {"host": server.socket_dir, "requirepeer": "nobody-of-this-name"},
            {"connect_timeout": "-1"},
        ]
        return [
            *(server.conninfo(**each) for each in others),
            postgres(17).conninfo(sslmode="require"),
            postgres(18).conninfo(min_protocol_version="3.2"),
            scram_server().conninfo(user="scramuser", password="secret"),
        ]

    async def outcome(self, conninfo: str) -> bool:
        try:
            return (await probed(conninfo)).outcome != "fail"
        except ConfigurationError:
            return False

    async def test_psycopg(self) -> None:
        conninfos = self.conninfos()
        ours = {text: await self.outcome(text) for text in conninfos}
        theirs = {text: not await libpq.connects(text) for text in conninfos}
        self.assertEqual(ours, theirs)
        self.assertEqual(set(ours.values()), {True, False})

    async def test_psql_17(self) -> None:
        server = postgres(17, ssl=True)
        for conninfo in (
            server.conninfo(host="localhost", sslmode="verify-full", sslrootcert=server.root_crt),
            server.conninfo(sslmode="require", sslnegotiation="direct"),
            server.conninfo(sslmode="verify-full", sslrootcert="system"),
            server.conninfo(host=server.socket_dir, sslmode="require"),
            postgres(17).conninfo(sslmode="require"),
        ):
            done = await run([psql(17), "-XAtw", "-c", "SELECT 1", conninfo])
            self.assertEqual(await self.outcome(conninfo), done.code == 0, done.err)


class DifferenceTests(TestCase):
    """Where we differ from libpq, and say so."""

    async def test_no_password_is_sent_so_a_wrong_one_is_no_failure(self) -> None:
        conninfo = scram_server().conninfo(user="scramuser", password="wrong")
        self.assertIn("authentication failed", await libpq.connects(conninfo))
        self.assertEqual((await probed(conninfo)).outcome, "plain")

    async def test_a_crl_that_is_named_must_be_there(self) -> None:
        server = postgres(17, ssl=True)
        conninfo = server.conninfo(
            host="localhost",
            sslmode="verify-full",
            sslrootcert=server.root_crt,
            sslcrl="/nonexistent/root.crl",
        )
        self.assertEqual(await libpq.connects(conninfo), "")
        self.assertEqual((await probed(conninfo)).outcome, "fail")
