"""README.rst: what it shows is what is there."""

from __future__ import annotations

import re
import shlex
import sys
import textwrap
from pathlib import Path

from twisted.python import usage
from twisted.trial.unittest import SynchronousTestCase, TestCase

from pgtls import settings
from pgtls.commands.probe import run_probe
from pgtls.conninfo.connection_string import ConnInfo
from pgtls.daemon.configuration import DaemonSettings
from pgtls.daemon.options import Options
from pgtls.gateway.gateway_configuration import GatewaySettings
from tests.support.certificates import Files, localhost
from tests.support.processes import Daemon, reactor

README = (Path(__file__).parent.parent.parent / "README.rst").read_text()


def table() -> str:
    """The settings as README shows them."""
    lines = [".. list-table::", "   :header-rows: 1", "   :widths: 24 16 60", ""]
    rows = [("setting", "default", "what it is")]
    for field in (*settings.fields(GatewaySettings), *settings.fields(DaemonSettings)):
        default = field.default
        if isinstance(default, bool):
            default = "on" if default else "off"
        shown = f"``{default}``" if default != "" else ""
        help_text = field.metadata["help"]
        rows.append((f"``{field.name}``", shown, help_text[0].upper() + help_text[1:] + "."))
    for first, *rest in rows:
        lines.append(f"   * - {first}")
        lines += [f"     - {cell}".rstrip() for cell in rest]
    return "\n".join(lines) + "\n"


class SettingsTests(SynchronousTestCase):
    """The table of settings."""

    def test_it_is_the_one_in_the_code(self) -> None:
        shown = README.partition(".. settings\n\n")[2].partition("\n.. end of settings")[0]
        self.assertEqual(shown, table())


class DebuggingTests(SynchronousTestCase):
    """The recipe for tshark: the one in docs/debugging.rst, which is run by test_debugging."""

    def test_it_is_the_tested_one(self) -> None:
        recipe = README.partition("Looking inside a session\n")[2].partition("\n\n\n")[0]
        commands = re.findall(r"^    (.*)$", recipe, re.MULTILINE)
        self.assertEqual(len(commands), 3)
        tested = (
            (Path(__file__).parent.parent.parent / "docs" / "debugging.rst")
            .read_text()
            .splitlines()
        )
        for command in commands:
            self.assertIn(f"    {command}", tested)


class CommandTests(SynchronousTestCase):
    """The twistd commands that are not run elsewhere."""

    def test_their_options_are_there(self) -> None:
        joined = README.replace("\\\n", "")
        commands = re.findall(r"^    twistd -n pgtls (--.*)$", joined, re.MULTILINE)
        self.assertEqual(len(commands), 4)
        for command in commands:
            words = shlex.split(command)
            options = Options()
            try:
                options.parseOptions(words)
            except usage.UsageError as error:
                self.fail(f"{command}: {error}")
            options.configuration()


class TwistedTests(TestCase):
    """The ten lines for Twisted."""

    async def test_the_server_runs(self) -> None:
        code = textwrap.dedent(README.partition(".. code-block:: python\n")[2].split("\n\nThe ")[0])
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
