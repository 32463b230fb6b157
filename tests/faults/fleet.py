"""HAProxy, three gateways, a primary and a standby, clients: each on a machine of its own.

``nox -s faults`` runs it; its figures are those of ``docs/fleet.rst``.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.faults import load, network
from tests.support import certificates, servers
from tests.support.gateway_daemon import Gateway, wait_until
from tests.support.processes import TWISTD, environment

BALANCER = "10.77.0.7"
GATEWAYS = ("10.77.0.21", "10.77.0.22", "10.77.0.23")
CLIENTS = "10.77.0.100"

SHORT, LONG = 4, 30
HBA = """
local    all          all                          trust
local    replication  all                          trust
hostssl  all          pgtls_monitor  10.77.0.0/24  scram-sha-256
hostssl  all          all            10.77.0.0/24  trust
"""
TOP = Path(__file__).parents[2]
HAPROXY_CFG = (TOP / "conf" / "haproxy.cfg").read_text("utf-8")
(PGTLS_TOML,) = re.findall(
    r"^\.\. code-block:: toml\n\n((?: {4}.*\n|\n)+)",
    (TOP / "docs" / "fleet.rst").read_text("utf-8"),
    re.MULTILINE,
)


def say(what: str, report: dict[str, Any]) -> None:
    """A line for the documentation."""
    print(f"\n{what}: {json.dumps(report)}", file=sys.__stdout__, flush=True)


class FleetTests(SynchronousTestCase):
    """What is lost when one of them fails: what it held, and nothing else."""

    timeout = 300

    def setUp(self) -> None:
        network.make_switch()
        self.addCleanup(network.remove_switch)
        conf = {"listen_addresses": network.GATE}
        leaf = certificates.authority().issue(["db1.internal", "db2.internal"])
        files = {"server.crt": leaf.chain(), "server.key": leaf.key.pem()}
        self.primary = servers.Server(17, ssl=True, hba=HBA, conf=conf, files=files)
        self.addCleanup(self.primary.stop)
        self.primary.psql("CREATE ROLE pgtls_monitor LOGIN PASSWORD 'its-password'")
        self.standby = servers.Standby(self.primary, conf=conf)
        self.addCleanup(self.standby.stop)
        self.directory = Path(tempfile.mkdtemp(prefix="pgtls-fleet-", dir="/tmp"))
        self.addCleanup(shutil.rmtree, self.directory)
        files = certificates.Files(self.directory)
        self.root_crt = files.write("root.crt", certificates.authority().pem())
        files.write("db-root.crt", certificates.authority().pem())
        files.write("pgpass", b"*:*:postgres:pgtls_monitor:its-password\n", mode=0o600)
        self.install_certificate()
        self.machines = {address: self.machine(address) for address in (*GATEWAYS, CLIENTS)}
        self.gateways = {address: self.gateway(address) for address in GATEWAYS}
        self.balancer()

    def install_certificate(self) -> None:
        """Write a new one where all gateways look for it."""
        leaf = certificates.authority().issue(["db.example.com"], ips=GATEWAYS)
        for name, content in (("server.key", leaf.key.pem()), ("server.crt", leaf.chain())):
            path = self.directory / f"{name}.new"
            path.write_bytes(content)
            path.chmod(0o600)
            path.rename(self.directory / name)

    def machine(self, address: str) -> network.Machine:
        machine = network.Machine(address.rpartition(".")[2], address)
        self.addCleanup(machine.remove)
        return machine

    def here(self, text: str) -> str:
        """A file of the documentation, with the addresses and directories of this network."""
        ports = f"{self.primary.port},{self.standby.port}"
        hosts = f"hostaddr={network.GATE},{network.GATE} port={ports} host=db1.internal"
        for theirs, ours in (
            ("10.0.0.", "10.77.0."),
            ("host=db1.internal", hosts),
            ("/etc/pgtls", str(self.directory)),
            ("/run/haproxy", str(self.directory)),
        ):
            self.assertIn(theirs, PGTLS_TOML + HAPROXY_CFG)
            text = text.replace(theirs, ours)
        return text

    def gateway(self, address: str) -> Gateway:
        config = f"reload_interval = 1\n{self.here(textwrap.dedent(PGTLS_TOML))}"
        enter = self.machines[address].enter
        gateway = Gateway(config=config, program=(*enter, *TWISTD, "-n"))
        self.addCleanup(gateway.remove)
        return gateway

    def balancer(self) -> None:
        machine = self.machine(BALANCER)
        config = self.directory / "haproxy.cfg"
        config.write_text(self.here(HAPROXY_CFG))
        haproxy = subprocess.Popen([*machine.enter, "haproxy", "-db", "-f", str(config)])
        self.addCleanup(haproxy.wait)
        self.addCleanup(haproxy.kill)
        self.conninfo = (
            f"host=db.example.com hostaddr={BALANCER} port=5432 user=postgres dbname=postgres "
            f"sslmode=verify-full sslrootcert={self.root_crt} connect_timeout=5"
        )
        wait_until(
            lambda: all(self.readyz(each).startswith("200") for each in GATEWAYS),
            lambda: "\n".join(map(self.readyz, GATEWAYS)),
        )

    def readyz(self, address: str) -> str:
        """A gateway's status and answer."""
        command = ["curl", "-s", "--cacert", self.root_crt, "-w", "%{http_code}"]
        done = subprocess.run(
            [*self.machines[CLIENTS].enter, *command, f"https://{address}:9187/readyz"],
            capture_output=True,
            text=True,
            check=False,
        )
        return f"{done.stdout[-3:]} {done.stdout[:-3]}"

    def tell_haproxy(self, command: str) -> None:
        """A command to HAProxy."""
        program = ["socat", "stdio", str(self.directory / "admin.sock")]
        done = subprocess.run(
            program, input=f"{command}\n", capture_output=True, text=True, check=True
        )
        self.assertEqual(done.stdout.strip(), "")

    def ask(self, sql: str) -> str:
        """A short session of the clients' machine: its error."""
        done = subprocess.run(
            [*self.machines[CLIENTS].enter, servers.psql(17), "-XAtq", self.conninfo, "-c", sql],
            capture_output=True,
            env=environment(),
            text=True,
            check=False,
        )
        return done.stderr

    def load(self) -> subprocess.Popen[str]:
        """Clients, all of which go on."""
        program = [*self.machines[CLIENTS].enter, sys.executable, load.__file__]
        process = subprocess.Popen(
            [*program, self.conninfo, str(SHORT), str(LONG)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment(),
            text=True,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        self.addCleanup(process.stdout.close)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        self.assertEqual(process.stdout.readline(), "ready\n")
        return process

    def report(self, process: subprocess.Popen[str]) -> dict[str, Any]:
        """What the clients have seen until now."""
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write("\n")
        process.stdin.flush()
        report: dict[str, Any] = json.loads(process.stdout.readline())
        return report

    def sessions(self, address: str) -> int:
        """How many long sessions a gateway has: those whose queries have come more than once."""
        found = self.primary.psql(
            "SELECT count(*) FROM pg_stat_activity WHERE state = 'idle' "
            f"AND client_addr = '{address}' AND backend_start < now() - interval '1 second'"
        )
        return int(found)

    def watch(self, process: subprocess.Popen[str], seconds: float) -> dict[str, Any]:
        """What the clients see in some seconds."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            report = self.report(process)
            time.sleep(0.2)
        return report

    def assert_all_go_on(self, process: subprocess.Popen[str]) -> None:
        """Sessions that wait get their answers: TCP tries again after half a minute at most."""
        self.assertGreater(self.report(process)["stuck"], 0)
        wait_until(lambda: not self.report(process)["stuck"], lambda: str(self.report(process)))
        self.assertEqual(self.report(process)["lost"], 0)

    def test_a_gateway_is_killed(self) -> None:
        clients = self.load()
        self.watch(clients, 3)
        held = self.sessions(GATEWAYS[0])
        self.gateways[GATEWAYS[0]].signal(signal.SIGKILL)
        report = self.watch(clients, 10)
        say(f"killed, with {held} of {LONG} sessions", report)
        self.assertLessEqual(report["lost"], held)
        # What was being connected in that moment.
        self.assertLessEqual(report["failures"], SHORT)
        self.assertGreater(report["connections"], 100)

    def test_a_gateway_is_stopped(self) -> None:
        clients = self.load()
        self.watch(clients, 3)
        self.gateways[GATEWAYS[0]].signal(signal.SIGSTOP)
        self.addCleanup(self.gateways[GATEWAYS[0]].signal, signal.SIGCONT)
        report = self.watch(clients, 15)
        say("stopped (SIGSTOP)", report)
        # Its sessions wait; connections that it was given before HAProxy noticed time out.
        self.assertEqual(report["lost"], 0)
        self.assertLessEqual(report["failing_seconds"], 8)
        before = report["failures"]
        self.assertEqual(self.watch(clients, 5)["failures"], before)
        self.gateways[GATEWAYS[0]].signal(signal.SIGCONT)
        self.assert_all_go_on(clients)

    def test_a_gateway_is_cut_off(self) -> None:
        clients = self.load()
        self.watch(clients, 3)
        self.machines[GATEWAYS[0]].plug(False)
        report = self.watch(clients, 15)
        say("cut off", report)
        self.assertEqual(report["lost"], 0)
        before = report["failures"]
        self.assertEqual(self.watch(clients, 5)["failures"], before)
        self.machines[GATEWAYS[0]].plug(True)
        self.assert_all_go_on(clients)

    def test_a_gateway_is_upgraded(self) -> None:
        clients = self.load()
        self.watch(clients, 3)
        gateway = self.gateways[GATEWAYS[0]]
        gateway.signal(signal.SIGUSR2)
        report = self.watch(clients, 10)
        (new,) = gateway.wait_for_log(r"(?<=process )\d+(?= serves from now on)")
        self.addCleanup(os.kill, int(new), signal.SIGKILL)
        say("upgraded (SIGUSR2)", report)
        self.assertEqual((report["lost"], report["failures"]), (0, 0))

    def test_a_gateway_is_shut_down(self) -> None:
        clients = self.load()
        self.watch(clients, 3)
        self.gateways[GATEWAYS[0]].signal(signal.SIGTERM)
        report = self.watch(clients, 10)
        say("shut down (SIGTERM), still draining", report)
        self.assertEqual(report["lost"], 0)
        # Until HAProxy has been told twice by /readyz, which it asks every second.
        self.assertLessEqual(report["failing_seconds"], 3)

    def test_a_gateway_is_taken_out_and_shut_down(self) -> None:
        clients = self.load()
        self.watch(clients, 3)
        self.tell_haproxy("set server postgresql/gateway1 state drain")
        self.watch(clients, 1)
        self.gateways[GATEWAYS[0]].signal(signal.SIGTERM)
        report = self.watch(clients, 10)
        say("taken out of HAProxy, shut down, still draining", report)
        self.assertEqual((report["lost"], report["failures"]), (0, 0))

    def test_the_log_has_the_clients_address(self) -> None:
        self.assertEqual(self.ask("SELECT 1"), "")
        logs = "".join(gateway.log() for gateway in self.gateways.values())
        client, balancer = (rf"{re.escape(each)}\(\d+\)" for each in (CLIENTS, BALANCER))
        self.assertRegex(logs, rf"{client}: user=postgres .* sni=db.example.com proxy={balancer}")

    def test_the_certificate_is_rotated(self) -> None:
        clients = self.load()
        self.watch(clients, 3)
        for _ in range(5):
            self.install_certificate()
            self.watch(clients, 2)
        report = self.report(clients)
        say("certificate rotated 5 times", report)
        self.assertEqual((report["lost"], report["failures"]), (0, 0))

    def test_the_standby_becomes_the_primary(self) -> None:
        clients = self.load()
        self.watch(clients, 3)
        self.primary.stop()
        self.standby.promote()
        promoted = time.monotonic()
        wait_until(lambda: not self.ask("SELECT 1"), lambda: self.ask("SELECT 1"))
        seconds = round(time.monotonic() - promoted, 1)
        report = self.watch(clients, 5)
        say(f"primary stopped and standby promoted, {seconds} s later", report)
        self.assertEqual(report["lost"], LONG)
        before = report["failures"]
        self.assertEqual(self.watch(clients, 3)["failures"], before)
        self.primary.start()  # for the clean-up

    def test_a_cancel_request_comes_to_another_gateway(self) -> None:
        program = [
            *self.machines[CLIENTS].enter,
            sys.executable,
            "-c",
            "import sys, threading, time, psycopg\n"
            "errors = []\n"
            "for _ in range(6):\n"
            "    connection = psycopg.connect(sys.argv[1])\n"
            "    threading.Timer(0.5, connection.cancel_safe).start()\n"
            "    try: connection.execute('SELECT pg_sleep(20)')\n"
            "    except psycopg.errors.QueryCanceled: errors.append('canceled')\n"
            "print(*errors)",
            self.conninfo,
        ]
        done = subprocess.run(
            program, capture_output=True, env=environment(), text=True, check=True, timeout=100
        )
        self.assertEqual(done.stdout.split(), ["canceled"] * 6)
