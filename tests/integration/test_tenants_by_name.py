"""docs/tenants_by_name.rst: what it shows works."""

from __future__ import annotations

import re
import shlex
import textwrap
from pathlib import Path

from twisted.trial.unittest import TestCase

from tests.support.command_line import PGTLS
from tests.support.processes import TWISTD, Daemon, Finished, run
from tests.support.servers import postgres

TOP = Path(__file__).parent.parent.parent
TEXT = (TOP / "docs" / "tenants_by_name.rst").read_text("utf-8")
SECTION = TEXT.partition("Two servers\n=")[2].partition("The tables\n=")[0]


class HowTo(TestCase):
    """Two servers: the commands as they stand, but for ports and the servers."""

    def setUp(self) -> None:
        self.home = Path(self.mktemp()).absolute()
        self.home.mkdir(mode=0o700)
        self.env = {"HOME": str(self.home), "XDG_STATE_HOME": ""}

    async def pgtls(self, command: str) -> Finished:
        _, *arguments = shlex.split(command)
        return await run([*PGTLS, *arguments], env=self.env, cwd=str(self.home))

    async def test_its_commands(self) -> None:
        commands = re.findall(r"^    ((?:pgtls|twistd) .*)$", SECTION, re.MULTILINE)
        mkcert, route, twistd, acme, globex, unknown = commands
        done = await self.pgtls(mkcert)
        self.assertEqual(done.code, 0, done.err)
        (toml,) = re.findall(r"toml\n\n((?:(?:    .*)?\n)+?)(?=\S)", SECTION)
        (shown,) = re.findall(r"text\n\n((?:    .*\n)+)", SECTION)
        config = self.home / "pgtls.toml"
        config.write_text(textwrap.dedent(toml))
        done = await self.pgtls(route)
        self.assertEqual((done.code, done.out), (0, textwrap.dedent(shown)))
        text = config.read_text().replace('"tcp:6432"', '"tcp:0:interface=127.0.0.1"')
        for version, port in ((17, 5433), (18, 5434)):
            server = postgres(version)
            text = text.replace(
                f"host=/var/run/postgresql port={port}",
                f"host={server.socket_dir} port={server.port}",
            )
        config.write_text(text)
        gateway = await self.gateway(twistd)
        port = f"port={gateway.ready[1]}"
        for command in (acme, globex):
            done = await self.pgtls(command.replace("port=6432", port))
            self.assertEqual(done.code, 0, done.err)
        await gateway.line(r"sni=acme\.example\.com route=1$")
        await gateway.line(r"sni=globex\.example\.com route=2$")
        done = await self.pgtls(unknown.replace("port=6432", port))
        self.assertEqual(done.code, 1)
        for quoted in re.findall(r"``(no route for [^`]*)``", SECTION):
            self.assertIn(quoted, done.err)

    async def gateway(self, command: str) -> Daemon:
        _, *arguments = shlex.split(command)
        return await Daemon.start(
            self,
            [*TWISTD, "--pidfile=", *arguments],
            r"listening on .*:(\d+)",
            env=self.env,
            cwd=str(self.home),
        )
