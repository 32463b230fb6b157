"""Clients that go on while something fails beside them, and what a gateway holds at rest."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import psycopg

from tests.faults import load, network
from tests.support.gateway_daemon import Gateway, GatewayCase, wait_until
from tests.support.processes import TIMEOUT, environment
from tests.support.servers import HOST, Server, postgres

MEGABYTE = 1 << 20

SHORT, LONG = 2, 4
"""Clients that connect, ask and close over and over; sessions that ask every 50 ms."""

LONGEST = 5.0
"""Seconds that a neighbour's query or connection may take. A client that noticed the fault would
wait longer than that: every timeout of a fault is."""

SOON = 0.5
"""Seconds after which a session has asked once more, by far."""

GROWTH = 4 * MEGABYTE
"""How much more memory a gateway may have after the same fault once more."""


def say(what: str, report: dict[str, Any]) -> None:
    """A line for the documentation."""
    print(f"\n{what}: {json.dumps(report)}", file=sys.__stdout__, flush=True)


class Clients:
    """The clients of :mod:`tests.faults.load`, which go on until they are stopped.

    :param conninfo: where they connect to.
    :param enter: in front of their command: on which machine they are.
    """

    def __init__(
        self,
        conninfo: str,
        short: int = SHORT,
        long: int = LONG,
        enter: Sequence[str] = (),
    ) -> None:
        self._process = subprocess.Popen(
            [*enter, sys.executable, load.__file__, conninfo, str(short), str(long)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment(),
            text=True,
        )
        self._line()  # they all go on

    def _line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise AssertionError("the clients did not start")
        return line

    def report(self) -> dict[str, Any]:
        """What they have seen until now."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        report: dict[str, Any] = json.loads(self._line())
        return report

    def go_on(self, queries: int = 20, connections: int = 2) -> None:
        """Wait until they have asked, and connected, that much more, and each session has had an
        answer."""
        before, began = self.report(), time.monotonic()

        def gone_on() -> bool:
            now = self.report()
            return (
                now["queries"] - before["queries"] >= queries
                and now["connections"] - before["connections"] >= connections
                and now["oldest"] < time.monotonic() - began - SOON
            )

        wait_until(gone_on, lambda: f"the clients do not go on: {self.report()}")

    def close(self) -> None:
        """End them."""
        self._process.kill()
        self._process.communicate()


class AtRest(NamedTuple):
    """What a gateway holds when no client is there.

    :ivar memory: resident, in MB.
    :ivar files: open file descriptors.
    """

    memory: float
    files: int


class FaultCase(GatewayCase):
    """A gateway with two listeners: one for what fails, and one for the neighbours."""

    timeout = 900

    def setUp(self) -> None:
        network.run("ip", "link", "set", "lo", "up")

    def server(self) -> Server:
        """The neighbours' PostgreSQL."""
        return postgres(17)

    def beside(
        self,
        upstream: str,
        *settings: str,
        interface: str = HOST,
        top: str = "",
        state: str = "{state}",
        neighbours_host: str = HOST,
        **parameters: object,
    ) -> Gateway:
        """A gateway whose first listener is for what fails, and whose second is the neighbours'.

        :param upstream: the first listener's.
        :param settings: lines of ``pgtls.toml`` for the first listener.
        :param interface: where the first listener is.
        :param top: lines for the daemon.
        :param state: the state directory.
        :param neighbours_host: what the neighbours' server is called.
        """
        own = self.server().conninfo(
            host=neighbours_host, user=None, dbname=None, sslmode="disable"
        )
        lines = "\n".join(settings)
        self.relay = self.gateway(
            config=f"""
                state_dir = "{state}"
                {top}
                [[gateway]]
                listen = "tcp:0:interface={interface}"
                upstream = "{upstream}"
                log_disconnections = true
                {lines}
                [[gateway]]
                listen = "tcp:0:interface={HOST}"
                upstream = "{own}"
            """,
            **parameters,
        )
        if state != "{state}":
            self.relay.root_crt = f"{state}/root.crt"
        return self.relay

    def neighbours_conninfo(self, **parameters: str | int | None) -> str:
        """A connection string for the neighbours' listener."""
        return self.relay.conninfo(port=int(self.relay.places[1][1]), **parameters)

    def survives(
        self,
        what: str,
        fault: Callable[[Clients], dict[str, Any] | None],
        short: int = SHORT,
    ) -> None:
        """Have it happen twice beside the neighbours. They must not notice, and the second time
        must leave nothing behind in the gateway.

        :param what: its name in the report.
        :param fault: what happens; its figures are reported too.
        :param short: how many of the neighbours connect over and over.
        """
        psycopg.connect(self.neighbours_conninfo()).close()
        rest = [self.at_rest(None)]
        for _ in range(2):
            clients = Clients(self.neighbours_conninfo(), short)
            with contextlib.closing(clients):
                clients.go_on(connections=short)
                began = time.monotonic()
                figures = fault(clients) or {}
                figures["seconds"] = round(time.monotonic() - began, 1)
                clients.go_on(connections=short)
                seen = clients.report()
            self.not_noticed(seen)
            rest.append(self.at_rest(rest[0].files))
        start, first, second = rest
        say(
            what,
            {
                **figures,
                "neighbours": {name: seen[name] for name in SHOWN},
                "memory": [start.memory, first.memory, second.memory],
                "files": [each.files for each in rest],
            },
        )
        self.assertLessEqual((second.memory - first.memory) * MEGABYTE, GROWTH)

    def not_noticed(self, seen: dict[str, Any]) -> None:
        """No neighbour has seen an error, or has waited.

        :param seen: their report.
        """
        self.assertEqual((seen["failures"], seen["lost"]), (0, 0), seen)
        self.assertLess(max(seen["longest"], seen["longest_query"]), LONGEST, seen)

    def at_rest(self, files: int | None) -> AtRest:
        """Wait until no client is served any more.

        :param files: how many files may be open then; None: whatever is open.
        """
        self.relay.wait_until_still()
        if files is not None:
            self.relay.wait_for_open_files(files)
            self.relay.wait_until_still()
        return AtRest(round(self.relay.memory() / MEGABYTE, 1), self.relay.open_files())

    def refusal(self, seconds: float = TIMEOUT, **parameters: str | int | None) -> str:
        """How the first listener refuses a session.

        :param seconds: how long that may take.
        """
        began = time.monotonic()
        with self.assertRaises(psycopg.OperationalError) as caught:
            psycopg.connect(self.relay.conninfo(**parameters))
        self.assertLess(time.monotonic() - began, seconds)
        return str(caught.exception)


SHOWN = ("queries", "longest_query", "connections", "longest", "failures", "lost")
"""What the report says of the neighbours."""
