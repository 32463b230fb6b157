"""docs/certificates_by_name.rst and conf/pg_hosts.conf: what they show works."""

from __future__ import annotations

import re
import shlex
import textwrap
from pathlib import Path

from twisted.trial.unittest import TestCase

from pgtls.policy.hosts_file import load_hosts_file
from tests.support.command_line import PGTLS
from tests.support.processes import TWISTD, Daemon, Finished, run
from tests.support.servers import postgres

TOP = Path(__file__).parent.parent.parent
TEXT = (TOP / "docs" / "certificates_by_name.rst").read_text("utf-8")
SECTION = TEXT.partition("Two tenants\n=")[2].partition("The file\n=")[0]


class HowTo(TestCase):
    """Two tenants: the commands as they stand, but for ports and the upstream."""

    def setUp(self) -> None:
        self.home = Path(self.mktemp()).absolute()
        self.home.mkdir(mode=0o700)
        self.env = {"HOME": str(self.home), "XDG_STATE_HOME": ""}

    async def pgtls(self, command: str) -> Finished:
        _, *arguments = shlex.split(command)
        return await run([*PGTLS, *arguments], env=self.env, cwd=str(self.home))

    async def test_its_commands(self) -> None:
        commands = re.findall(r"^    ((?:pgtls|twistd) .*)$", SECTION, re.MULTILINE)
        first, second, twistd, acme, globex, unknown = commands
        for command in (first, second):
            done = await self.pgtls(command)
            self.assertEqual(done.code, 0, done.err)
        (hosts,) = re.findall(r"text\n\n((?:    .*\n)+)", SECTION)
        (self.home / "pg_hosts.conf").write_text(textwrap.dedent(hosts))
        gateway = await self.gateway(twistd)
        port = f"port={gateway.ready[1]}"
        for command in (acme, globex):
            done = await self.pgtls(command.replace("port=6432", port))
            self.assertEqual(done.code, 0, done.err)
        done = await self.pgtls(unknown.replace("port=6432", port))
        self.assertEqual(done.code, 1)
        for quoted in re.findall(r"``([^`]*unrecognized name)``", SECTION):
            self.assertIn(quoted, done.err)
        (logged,) = re.findall(r"``(hosts_file has .*?)``", SECTION)
        await gateway.line(re.escape(logged))

    async def gateway(self, command: str) -> Daemon:
        server = postgres(18)
        ours = {
            "tcp:6432": "tcp:0:interface=127.0.0.1",
            "host=/var/run/postgresql": f"host={server.socket_dir} port={server.port}",
        }
        _, *arguments = shlex.split(command)
        return await Daemon.start(
            self,
            [*TWISTD, "--pidfile=", *(ours.get(word, word) for word in arguments)],
            r"listening on .*:(\d+)",
            env=self.env,
            cwd=str(self.home),
        )

    def test_the_example_and_each_line_in_its_comments_can_be_used(self) -> None:
        example = (TOP / "conf" / "pg_hosts.conf").read_text("utf-8")
        entries = load_hosts_file(str(TOP / "conf" / "pg_hosts.conf"))
        self.assertEqual(
            [entry.names for entry in entries],
            [("acme.example.com",), ("globex.example.com", "db.globex.example")],
        )
        every = self.home / "pg_hosts.conf"
        every.write_text(re.sub(r"^#(?=[^ \n])", "", example, flags=re.MULTILINE))
        names = [name for entry in load_hosts_file(str(every)) for name in entry.names]
        self.assertEqual(names[3:], ["*.apps.example.com", "vault.example.com", "*", "/no_sni/"])

    def test_its_settings_are_those_that_there_are(self) -> None:
        for name in ("ssl_sni", "hosts_file"):
            self.assertIn(f"#     {name} = ", (TOP / "conf" / "pg_hosts.conf").read_text())
