"""docs/tenants_by_name.rst: what it shows works."""

from __future__ import annotations

import re
import textwrap

from tests.support.how_to import HowToCase, section
from tests.support.servers import postgres

SECTION = section("tenants_by_name.rst", "Two servers", "The tables")


class HowTo(HowToCase):
    """Two servers."""

    async def test_its_commands(self) -> None:
        mkcert, route, twistd, acme, globex, unknown = self.commands(SECTION)
        await self.succeeds(mkcert)
        (toml,) = re.findall(r"toml\n\n((?:(?:    .*)?\n)+?)(?=\S)", SECTION)
        (shown,) = re.findall(r"text\n\n((?:    .*\n)+)", SECTION)
        config = self.home / "pgtls.toml"
        config.write_text(textwrap.dedent(toml))
        self.assertEqual(await self.succeeds(route), textwrap.dedent(shown))
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
            await self.succeeds(command.replace("port=6432", port))
        await gateway.line(r"sni=acme\.example\.com route=1$")
        await gateway.line(r"sni=globex\.example\.com route=2$")
        done = await self.pgtls(unknown.replace("port=6432", port))
        self.assertEqual(done.code, 1)
        for quoted in re.findall(r"``(no route for [^`]*)``", SECTION):
            self.assertIn(quoted, done.err)
