"""docs/certificates_by_name.rst and conf/pg_hosts.conf: what they show works."""

from __future__ import annotations

import re
import textwrap

from pgtls.policy.hosts_file import load_hosts_file
from tests.support.how_to import TOP, HowToCase, section
from tests.support.servers import postgres

SECTION = section("certificates_by_name.rst", "Two tenants", "The file")


class HowTo(HowToCase):
    """Two tenants."""

    async def test_its_commands(self) -> None:
        first, second, twistd, acme, globex, unknown = self.commands(SECTION)
        for command in (first, second):
            await self.succeeds(command)
        (hosts,) = re.findall(r"text\n\n((?:    .*\n)+)", SECTION)
        (self.home / "pg_hosts.conf").write_text(textwrap.dedent(hosts))
        server = postgres(18)
        ours = {
            "tcp:6432": "tcp:0:interface=127.0.0.1",
            "host=/var/run/postgresql": f"host={server.socket_dir} port={server.port}",
        }
        gateway = await self.gateway(twistd, ours)
        port = f"port={gateway.ready[1]}"
        for command in (acme, globex):
            await self.succeeds(command.replace("port=6432", port))
        done = await self.pgtls(unknown.replace("port=6432", port))
        self.assertEqual(done.code, 1)
        for quoted in re.findall(r"``([^`]*unrecognized name)``", SECTION):
            self.assertIn(quoted, done.err)
        (logged,) = re.findall(r"``(hosts_file has .*?)``", SECTION)
        await gateway.line(re.escape(logged))

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
