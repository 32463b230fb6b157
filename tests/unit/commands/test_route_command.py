"""``pgtls route``: the route that decides, those before it, the exit status."""

from __future__ import annotations

import json
from pathlib import Path

from click.testing import CliRunner, Result
from twisted.trial.unittest import SynchronousTestCase

from pgtls.commands.main import main

CONFIG = r"""
[[gateway]]
[[gateway.route]]
sni = "old.example.com"
upstream = "host=legacy.internal password=opensesame"
[[gateway.route]]
sni = "*.example.com"
database = ["app", "web"]
upstream = 'host=\1.internal port=6000 dbname=db_\1 sslpassword=opensesame'
[[gateway.route]]
user = "alice"
upstream = "postgresql://alice.internal/?sslmode=require"
"""


class RouteCommandTests(SynchronousTestCase):
    """Questions and answers."""

    def setUp(self) -> None:
        self.config = Path(self.mktemp())  # type: ignore[no-untyped-call]
        self.config.write_text(CONFIG)

    def ask(self, *options: str) -> Result:
        return CliRunner().invoke(main, ["route", str(self.config), *options])

    def test_the_route_that_decides(self) -> None:
        for options, status, route, hosts, database in (
            (
                ("--sni", "OLD.example.com", "--user", "bob"),
                0,
                "1",
                ["legacy.internal:5432"],
                "bob",
            ),
            (
                ("--sni", "Acme.example.com", "--user", "bob", "--database", "web"),
                *(0, "2", ["acme.internal:6000"], "db_acme"),
            ),
            (("--user", "alice"), 0, "3", ["alice.internal:5432"], "alice"),
            (("--sni", "acme.example.com", "--user", "bob"), 1, None, [], None),
        ):
            answer = self.ask(*options, "--json")
            facts = json.loads(answer.output)
            self.assertEqual(answer.exit_code, status, answer.output)
            self.assertEqual(
                (facts["route"], facts["hosts"], facts["database"]), (route, hosts, database)
            )
            self.assertNotIn("opensesame", answer.output)

    def test_in_words(self) -> None:
        answer = self.ask("--sni", "acme.example.com", "--user", "bob", "--database", "app")
        self.assertEqual(
            answer.output.splitlines(),
            [
                "route 1: sni does not match",
                "route 2 decides: host=acme.internal port=6000 dbname=db_acme "
                "sslpassword='********' (acme.internal:6000)",
                'The database asked for there: "db_acme"',
            ],
        )
        answer = self.ask("--sni", "acme.example.com", "--user", "bob")
        self.assertEqual(
            answer.output.splitlines(),
            [
                "route 1: sni does not match",
                "route 2: database does not match",
                "route 3: user does not match",
                "No route matches.",
                'FATAL:  no route for host name "acme.example.com", database "bob", user "bob"',
            ],
        )

    def test_the_gateways_own_upstream(self) -> None:
        self.config.write_text(
            CONFIG.replace("[[gateway]]", '[[gateway]]\nupstream = "host=own password=opensesame"')
        )
        answer = self.ask("--user", "bob")
        self.assertEqual(answer.exit_code, 0)
        self.assertIn(
            "No route matches; the gateway's own upstream is for all others: "
            "host=own password='********' (own:5432)",
            answer.output,
        )

    def test_what_cannot_be_used(self) -> None:
        self.config.write_text(CONFIG.replace("6000", "x").replace("user = ", "role = "))
        answer = self.ask("--user", "alice")
        self.assertEqual(answer.exit_code, 2)
        self.assertIn('route 3: unknown setting "role"', answer.output)
        self.config.write_text(CONFIG.replace("6000", "x"))
        self.assertIn(
            'route 2: upstream: invalid integer value "x"', self.ask("--user", "a").output
        )
        self.config.write_text(CONFIG + CONFIG)
        answer = self.ask("--user", "alice")
        self.assertEqual((answer.exit_code, answer.output.count("say --gateway")), (2, 0))
        self.assertIn("which of the gateways 1, 2? Say --gateway N", answer.output)
        self.assertEqual(self.ask("--user", "alice", "--gateway", "2").exit_code, 0)
        self.assertEqual(self.ask("--user", "alice", "--gateway", "3").exit_code, 2)


class ExampleTests(SynchronousTestCase):
    """conf/tenants.toml"""

    def test_it_says_what_its_comments_say(self) -> None:
        config = Path(__file__).parents[3] / "conf" / "tenants.toml"
        for sni, database, route, host in (
            ("acme.example.com", "app", "1", "acme.db.internal:5432"),
            ("globex.example.com", "reports", "2", "reports.db.internal:5432"),
            ("globex.example.com", "app", "3", "globex.db.internal:5432"),
            ("db.example.org", "app", "default", "shared.db.internal:5432"),
        ):
            options = ["--sni", sni, "--database", database, "--user", "alice", "--json"]
            answer = CliRunner().invoke(main, ["route", str(config), *options])
            facts = json.loads(answer.output)
            self.assertEqual((facts["route"], facts["hosts"]), (route, [host]), answer.output)
