"""README.rst, and the commands in docs/: what they show works."""

from __future__ import annotations

import configparser
import os
import re
import shlex
import signal
import sys
import textwrap
from pathlib import Path

from twisted.internet.endpoints import clientFromString, serverFromString
from twisted.internet.protocol import Factory
from twisted.internet.threads import deferToThread
from twisted.python import usage
from twisted.trial.unittest import SynchronousTestCase, TestCase

from pgtls.commands.probe import run_probe
from pgtls.conninfo.connection_string import ConnInfo
from pgtls.daemon.options import Options
from tests.support.certificates import Files, authority, localhost
from tests.support.command_line import PGTLS
from tests.support.how_to import HowToCase
from tests.support.processes import TWISTD, Daemon, Finished, reactor, run
from tests.support.raw_client import answer, startup_message
from tests.support.servers import HOST, Server, postgres, psql

TOP = Path(__file__).parent.parent.parent
README = (TOP / "README.rst").read_text()


def recipe(title: str) -> list[str]:
    """The commands and endpoint strings of one of README's recipes."""
    text = README.partition(f"\n{title}\n-")[2].partition("\n---")[0].partition("\n===")[0]
    commands = re.findall(r"^    (\S.*)$", text, re.MULTILINE)
    assert commands, title
    return commands


class RecipeTests(HowToCase):
    """The recipes: with a port and a directory of the test's, otherwise as they stand."""

    async def recipe_gateway(self, command: str, server: Server) -> Daemon:
        """Run a recipe's ``twistd``, on any free port and in front of the server."""
        self.assertEqual(shlex.split(command)[0], "twistd")
        upstream = f"host={server.socket_dir} port={server.port}"
        return await self.gateway(
            command, {"tcp:6432": "tcp:0", "host=/var/run/postgresql": upstream}
        )

    async def do(self, command: str, **changes: str) -> Finished:
        """Run another command, with words changed."""
        name, *arguments = shlex.split(command)
        program = list(PGTLS) if name == "pgtls" else [psql(17)]
        expanded = [argument.replace("~", str(self.home)) for argument in arguments]
        for old, new in changes.items():
            expanded = [argument.replace(old, new) for argument in expanded]
        return await run([*program, *expanded], env=self.env, cwd=str(self.home))

    async def test_a_local_server(self) -> None:
        (command,) = recipe("A local PostgreSQL, for the network")
        gateway = await self.recipe_gateway(command, postgres(18))
        shown = await gateway.line(r"(psql .*)$")
        done = await self.do(f"{shown[1].strip()} -XAtc 'SELECT 42' -U postgres")
        self.assertEqual((done.code, done.out, done.err), (0, "42\n", ""))

    async def test_a_server_without_tls_on_a_tcp_port(self) -> None:
        _, command = recipe("A look-alike without TLS")
        server = postgres(18)
        gateway = await self.recipe_gateway(
            command.replace("host=127.0.0.1 port=5433", f"host={HOST} port={server.port}"), server
        )
        shown = await gateway.line(r"(psql .*)$")
        done = await self.do(f"{shown[1].strip()} -XAtc 'SELECT 42' -U postgres")
        self.assertEqual((done.code, done.out, done.err), (0, "42\n", ""))

    async def test_a_client_that_cannot_verify(self) -> None:
        (command,) = recipe("A client that cannot verify")
        root = Files(self.home).write("root.crt", authority().pem())
        server = postgres(17, ssl=True)
        name, *arguments = shlex.split(command)
        self.assertEqual(name, "twistd")
        socket = f"{server.socket_dir}/.s.PGSQL.5"
        changed = [
            word.replace("/run/pgtls/.s.PGSQL.5432", socket)
            .replace("host=db.example.com", f"host=localhost hostaddr={HOST} port={server.port}")
            .replace("sslrootcert=system", f"sslrootcert={root}")
            for word in arguments
        ]
        await Daemon.start(self, [*TWISTD, "--pidfile=", *changed], r"listening on", env=self.env)
        conninfo = f"host={server.socket_dir} port=5 user=postgres dbname=postgres"
        query = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
        done = await self.do(f"psql -XAt -c '{query}' '{conninfo}'")
        self.assertEqual((done.code, done.out, done.err), (0, "t\n", ""))

    async def test_login_by_certificate(self) -> None:
        *certificates, gateway_command, session = recipe("Login by certificate")
        server = postgres(18)
        server.psql("DROP ROLE IF EXISTS alice; CREATE ROLE alice LOGIN")
        self.addCleanup(server.psql, "DROP ROLE alice")
        for command in certificates:
            done = await self.do(command)
            self.assertEqual(done.code, 0, f"{command}: {done.err}")
        gateway = await self.recipe_gateway(gateway_command, server)
        whole = f"{session} -XAtc 'SELECT session_user'"
        done = await self.do(whole, **{"port=6432": f"port={gateway.ready[1]}"})
        self.assertEqual((done.code, done.out, done.err), (0, "alice\n", ""))
        mallory = {"port=6432": f"port={gateway.ready[1]}", "user=alice": "user=postgres"}
        done = await self.do(whole, **mallory)
        self.assertIn('certificate authentication failed for user "postgres"', done.err)

    async def test_scram_with_channel_binding(self) -> None:
        auth_file, mkcert, command, session = recipe("SCRAM with channel binding through a gateway")
        server = Server(17, ssl=True, hba="local all all trust\nhost all all all scram-sha-256\n")
        server.psql("CREATE ROLE alice LOGIN PASSWORD 'secret'")
        local = {"host=/var/run/postgresql": f"host={server.socket_dir} port={server.port}"}
        for each in (auth_file, mkcert):
            done = await self.do(each, **local)
            self.assertEqual(done.code, 0, done.err)
        gateway = await self.recipe_gateway(
            command.replace(
                "host=db.example.com", f"host=localhost hostaddr={HOST} port={server.port}"
            ).replace("sslrootcert=system", f"sslrootcert={server.root_crt}"),
            server,
        )
        self.env["PGPASSWORD"] = "secret"
        sql = "SELECT session_user, ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
        port = {"port=6432": f"port={gateway.ready[1]}"}
        done = await self.do(f"{session} -XAtc '{sql}'", **port)
        self.assertEqual((done.code, done.out, done.err), (0, "alice|t\n", ""))
        await gateway.line("method=scram-sha-256: user=alice")

    async def test_a_policy_while_you_move_to_tls(self) -> None:
        *lines, command = recipe("A policy while you move to TLS")
        (self.home / "pg_hba.conf").write_text("\n".join(lines).replace("10.1.7.20", HOST))
        server = Server(18)
        server.psql("CREATE DATABASE reports")
        gateway = await self.recipe_gateway(command, server)
        base = f"host={HOST} port={gateway.ready[1]} user=postgres"
        for database, sslmode, code in (
            ("reports", "disable", 0),
            ("postgres", "disable", 2),
            ("postgres", "require", 0),
        ):
            conninfo = f"{base} dbname={database} sslmode={sslmode}"
            done = await self.do(f"psql '{conninfo}' -XAtc 'SELECT current_database()'")
            self.assertEqual((done.code, done.out), (code, "" if code else f"{database}\n"))
            self.assertIn("no pg_hba.conf entry" if code else "", done.err)
        await gateway.line("database=reports SSL=off")

    async def test_tenants_by_name(self) -> None:
        *lines, route, command = recipe("Tenants by name")
        config = self.home / "pgtls.toml"
        config.write_text("\n".join(lines))
        done = await self.do(route)
        self.assertIn("route 2 decides: host=shared.db.internal", done.out)
        text = config.read_text().replace("tcp:6432", "tcp:0")
        for name, version in (("acme", 17), ("shared", 18)):
            server = postgres(version)
            text = text.replace(
                f"host={name}.db.internal sslmode=verify-full sslrootcert=system",
                f"host={server.socket_dir} port={server.port}",
            )
        config.write_text(text)
        gateway = await self.recipe_gateway(command, server)
        for name, version in (("acme", "17."), ("globex", "18.")):
            conninfo = f"host={name}.example.com hostaddr={HOST} port={gateway.ready[1]}"
            sql = "SHOW server_version"
            done = await self.do(f"psql '{conninfo} user=postgres sslmode=require' -XAtc '{sql}'")
            self.assertTrue(done.out.startswith(version), done)

    async def test_behind_a_load_balancer(self) -> None:
        (command,) = recipe("Behind a load balancer")
        gateway = await self.recipe_gateway(command.replace("10.0.0.7", HOST), postgres(17))
        header = b"PROXY TCP4 192.0.2.7 198.51.100.1 56324 5432\r\n"
        address = HOST, int(gateway.ready[1])
        refused = await deferToThread(answer, address, header + startup_message())
        self.assertIn(b"this server requires SSL", refused)
        await gateway.line(r"192\.0\.2\.7\(56324\): connection without SSL encryption refused")

    async def test_see_what_it_does(self) -> None:
        command, top = recipe("See what it does")
        command = command.replace("tcp:9187", "tcp:0")
        gateway = await self.recipe_gateway(command, postgres(17))
        url = (await gateway.line(r"pgtls: status at (\S+)"))[1]
        done = await self.do(top.replace("http://127.0.0.1:9187/", url))
        self.assertEqual((done.code, done.err), (0, ""))
        self.assertRegex(done.out, "pgtls (not )?ready")

    async def test_an_upgrade(self) -> None:
        start, upgrade = recipe("Upgrade without a refused connection")
        gateway = await self.recipe_gateway(start, postgres(18))
        shown = await gateway.line(r"(psql .*)$")
        before = (self.home / "pgtls.pid").read_text()
        done = await run(["sh", "-c", upgrade], cwd=str(self.home))
        self.assertEqual((done.code, done.err), (0, ""))
        process = int((await gateway.line(r"process (\d+) serves from now on"))[1])
        self.addCleanup(os.kill, process, signal.SIGTERM)
        await gateway.line(f"in place of process {before} from now on")
        self.assertEqual((self.home / "pgtls.pid").read_text(), str(process))
        done = await self.do(f"{shown[1].strip()} -XAtc 'SELECT 42' -U postgres")
        self.assertEqual((done.code, done.out, done.err), (0, "42\n", ""))

    async def test_certificates_that_rotate(self) -> None:
        make, start, renew, connect = recipe("Certificates that rotate")
        await self.do(make)
        gateway = await self.recipe_gateway(start, postgres(18))
        self.assertEqual((await self.do(renew)).code, 0)
        await gateway.line(r"reloaded: .*server\.crt")
        done = await self.do(
            f"{connect} -XAtc 'SELECT 42' -U postgres", **{"6432": gateway.ready[1]}
        )
        self.assertEqual((done.code, done.out, done.err), (0, "42\n", ""))

    async def test_endpoint_strings(self) -> None:
        client, server = recipe("A Twisted application")
        files = Files(self.home)
        files.pair("server", localhost())
        clientFromString(reactor, client)
        here = Path.cwd()
        os.chdir(self.home)
        self.addCleanup(os.chdir, here)
        listening = await serverFromString(reactor, server.replace("5432", "0")).listen(Factory())
        await listening.stopListening()


class CommandTests(SynchronousTestCase):
    """The twistd commands that the documentation shows."""

    def test_their_options_exist(self) -> None:
        texts = [README, *(path.read_text() for path in sorted((TOP / "docs").glob("*.rst")))]
        joined = "\n".join(texts).replace("\\\n", "")
        commands = re.findall(r"^    (?:.venv/bin/)?twistd -n pgtls (--.*)$", joined, re.MULTILINE)
        self.assertGreater(len(commands), 7)
        example = str(TOP / "conf" / "pgtls.toml")
        for command in commands:
            options = Options()
            try:
                options.parseOptions(shlex.split(command.replace("pgtls.toml", example)))
            except usage.UsageError as error:
                self.fail(f"{command}: {error}")
            options.configuration()

    def test_every_dependency_has_its_reason(self) -> None:
        parser = configparser.ConfigParser()
        parser.read(TOP / "setup.cfg")
        extras = parser["options.extras_require"]
        lists = [parser["options"]["install_requires"], *extras.values()]
        names = re.findall(r"^([\w-]+)", "\n".join(lists), re.MULTILINE)
        reasons = README.partition("\nFor developers\n")[2]
        self.assertEqual([name for name in names if name not in reasons], [])


class TwistedTests(TestCase):
    """The short server in docs/twisted_applications.rst."""

    async def test_the_server_runs(self) -> None:
        text = (TOP / "docs" / "twisted_applications.rst").read_text()
        code = textwrap.dedent(text.partition(".. code-block:: python\n")[2].split("\n\n\n")[0])
        files = Files(Path(self.mktemp()))
        certificate, key = files.pair("server", localhost())
        string = f"pgtls:tcp:0:interface=127.0.0.1:ssl_cert_file={certificate}:ssl_key_file={key}"
        daemon = await Daemon.start(
            self, [sys.executable, "-c", code, string], r"listening on (\d+)"
        )
        conninfo = f"host=127.0.0.1 port={daemon.ready[1]} user=me sslmode=require"
        result = await run_probe(reactor, ConnInfo.parse(conninfo, {}, Path(self.mktemp())))
        self.assertEqual(result.events, ["connect", "sslaccept", "authok"])
        self.assertEqual(result.outcome, "ssl")
