"""The examples in conf/: what an operator copies has to work as it is."""

from __future__ import annotations

import os
import re
import shlex
import sys
import tomllib
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase, TestCase

from pgtls import settings
from pgtls.daemon.configuration import Configuration, DaemonSettings
from pgtls.gateway.gateway_configuration import GatewaySettings
from tests.support import servers
from tests.support.processes import TWISTD, Daemon, run

CONF = Path(__file__).parent.parent.parent / "conf"
COMMENTED = re.compile(r"^#(?=\w+ = )", re.MULTILINE)

FIELDS = [*settings.fields(DaemonSettings), *settings.fields(GatewaySettings)]


class ExampleConfigurationTests(SynchronousTestCase):
    """conf/pgtls.toml"""

    def setUp(self) -> None:
        text = (CONF / "pgtls.toml").read_text()
        self.text = text.partition("# A second gateway")[0]

    def test_it_can_be_used_as_it_is(self) -> None:
        (gateway,) = Configuration.from_toml(CONF / "pgtls.toml").gateways
        self.assertEqual(gateway.settings.listen, "tcp:6432:interface=127.0.0.1")

    def test_it_shows_every_setting_with_its_default(self) -> None:
        document = tomllib.loads(COMMENTED.sub("", self.text))
        shown = {**document, **document.pop("gateway")[0]}
        shown.pop("gateway", None)
        shown["upstream"] = ""  # the example says what it is
        defaults = {field.name: field.default for field in FIELDS}
        empty = {name: [] for name, default in defaults.items() if default == ()}  # in TOML
        self.assertEqual(shown, {**defaults, **empty})

    def test_its_second_gateway_can_be_used(self) -> None:
        second = self.text + (CONF / "pgtls.toml").read_text().partition("wants it:\n#\n")[
            2
        ].replace("#", "")
        path = Path(self.mktemp())
        path.write_text(second)
        self.assertEqual(len(Configuration.from_toml(path).gateways), 2)


class UnitTests(TestCase):
    """conf/pgtls.service and conf/openssl.cnf"""

    async def test_what_it_runs_is_a_gateway_that_sends_no_tickets(self) -> None:
        unit = (CONF / "pgtls.service").read_text()
        settings_of_unit = dict(re.findall(r"^(\w+)=(.*)$", unit, re.MULTILINE))
        directory = Path(self.mktemp()).absolute()
        (directory / "state").mkdir(parents=True, mode=0o700)
        server = servers.postgres(18)
        (directory / "pgtls.toml").write_text(
            f'[[gateway]]\nlisten = "tcp:0:interface=127.0.0.1"\nupstream = "{server.conninfo()}"\n'
        )
        (directory / "openssl.cnf").write_bytes((CONF / "openssl.cnf").read_bytes())
        program, *arguments = shlex.split(
            settings_of_unit["ExecStart"].replace("/etc/pgtls", str(directory))
        )
        self.assertEqual(program, "/opt/pgtls/bin/twistd")
        environment = re.findall(r"^Environment=(\w+)=(.*)$", unit, re.MULTILINE)
        daemon = await Daemon.start(
            self,
            [*TWISTD, *arguments],
            r"listening on 127\.0\.0\.1:(\d+)",
            env={
                "STATE_DIRECTORY": str(directory / "state"),
                **{
                    name: value.replace("/etc/pgtls", str(directory)) for name, value in environment
                },
            },
        )
        client = await run(
            [
                *("openssl", "s_client", "-starttls", "postgres", "-msg", "-verify_return_error"),
                *(
                    "-CAfile",
                    str(directory / "state" / "root.crt"),
                    "-verify_hostname",
                    "localhost",
                ),
                *("-tls1_3", "-connect", f"127.0.0.1:{daemon.ready[1]}"),
            ]
        )
        self.assertIn("Finished", client.out)
        self.assertNotIn("NewSessionTicket", client.out)

    async def test_systemd_takes_both_units(self) -> None:
        program = "/usr/bin/systemd-analyze"
        if not os.access(program, os.X_OK):
            return
        directory = Path(self.mktemp()).absolute()
        directory.mkdir()
        for name in ("pgtls.service", "pgtls.socket"):
            text = (CONF / name).read_text()
            (directory / name).write_text(text.replace("/opt/pgtls/bin/twistd", sys.executable))
        units = [str(directory / "pgtls.service"), str(directory / "pgtls.socket")]
        verified = await run([program, "verify", "--man=no", *units])
        # systemd before 253, which then keeps Type=notify.
        wrong = [each for each in verified.err.splitlines() if "notify-reload" not in each]
        self.assertEqual(wrong, [])
