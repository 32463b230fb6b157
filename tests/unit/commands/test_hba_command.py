"""``pgtls hba``: the line that decides, the lines before it, the exit status."""

from __future__ import annotations

import json
from pathlib import Path

from click.testing import CliRunner, Result
from twisted.trial.unittest import SynchronousTestCase

from pgtls.commands.main import main

HBA = """
local all postgres trust
hostnossl all all all reject
hostssl app alice 10.0.0.0/8 cert map=m
hostssl all all localhost trust clientcert=verify-ca
host app /^svc_ all trust
"""


class HbaCommandTests(SynchronousTestCase):
    """Questions and answers."""

    def setUp(self) -> None:
        self.directory = Path(self.mktemp()).absolute()  # type: ignore[no-untyped-call]
        self.directory.mkdir()
        self.hba = self.directory / "pg_hba.conf"
        self.hba.write_text(
            HBA.replace("hostssl all all localhost trust clientcert=verify-ca\n", "")
        )
        self.config = self.directory / "pgtls.toml"
        self.config.write_text(f'[[gateway]]\nhba_file = "{self.hba}"\nident_file = "x"\n')

    def ask(self, *options: str) -> Result:
        return CliRunner().invoke(main, ["hba", str(self.config), *options])

    def test_the_line_that_decides(self) -> None:
        for options, status, line, method in (
            (("--user", "alice", "--database", "app", "--address", "10.1.2.3"), 0, 4, "cert"),
            (("--user", "postgres", "--address", "local"), 0, 2, "trust"),
            (("--user", "svc_1", "--database", "app", "--address", "::1"), 0, 5, "trust"),
            (("--user", "alice", "--address", "10.1.2.3", "--no-ssl"), 1, 3, "reject"),
            (("--user", "alice", "--database", "app", "--address", "11.1.2.3"), 1, None, None),
        ):
            answer = self.ask(*options, "--json")
            facts = json.loads(answer.output)
            self.assertEqual(answer.exit_code, status, answer.output)
            self.assertEqual((facts["line"], facts["method"]), (line, method), options)

    def test_in_words(self) -> None:
        answer = self.ask("--user", "alice", "--database", "app", "--address", "10.1.2.3")
        self.assertEqual(
            answer.output.splitlines(),
            [
                f"{self.hba}:2: the connection type does not match: local all postgres trust",
                f"{self.hba}:3: the connection type does not match: hostnossl all all all reject",
                f"{self.hba}:4 decides: hostssl app alice 10.0.0.0/8 cert map=m",
                "cert: the client certificate must name the role",
            ],
        )
        answer = self.ask("--user", "eve", "--address", "10.1.2.3")
        self.assertEqual(
            answer.output.splitlines()[-2:],
            [
                "No line matches.",
                'FATAL:  no pg_hba.conf entry for host "10.1.2.3", user "eve", database "eve", '
                "SSL encryption",
            ],
        )

    def test_a_host_name_is_looked_up(self) -> None:
        self.hba.write_text(HBA)
        answer = self.ask("--user", "bob", "--address", "127.0.0.1")
        self.assertEqual(answer.exit_code, 0, answer.output)
        self.assertIn("127.0.0.1 has the host name localhost, which resolves to it.", answer.output)
        self.assertIn("a valid client certificate is required", answer.output)

    def test_what_cannot_be_used(self) -> None:
        self.hba.write_text("host all +admins all trust\nhost all all all md5\n")
        answer = self.ask("--user", "alice", "--address", "::1")
        self.assertEqual(answer.exit_code, 2)
        self.assertIn("line 1", answer.output)
        self.assertIn("line 2", answer.output)
        self.assertEqual(self.ask("--user", "alice", "--address", "nowhere").exit_code, 2)
        self.config.write_text("[[gateway]]\n")
        self.assertEqual(self.ask("--user", "alice", "--address", "::1").exit_code, 2)
        self.config.write_text(
            f'[[gateway]]\nhba_file = "{self.hba}"\n[[gateway]]\nhba_file = "other"\n'
        )
        answer = self.ask("--user", "alice", "--address", "::1")
        self.assertIn("say --gateway N", answer.output)


class ExampleTests(SynchronousTestCase):
    """conf/pg_hba.conf, and the commands of docs/who_may_connect.rst."""

    def test_it_says_what_its_comments_say(self) -> None:
        conf = Path(__file__).parents[3] / "conf" / "pg_hba.conf"
        text = (Path(__file__).parents[3] / "docs" / "who_may_connect.rst").read_text()
        config = Path(self.mktemp())  # type: ignore[no-untyped-call]
        config.write_text(f'[[gateway]]\nhba_file = "{conf}"\n')
        commands = [line.split()[3:] for line in text.splitlines() if "    pgtls hba " in line]
        self.assertEqual(len(commands), 2)
        for options, status in (
            *((tuple(command), 0) for command in commands),
            (("--user", "postgres", "--address", "10.1.7.20"), 1),
            (("--user", "postgres", "--address", "local"), 0),
            (("--user", "report_7", "--database", "reports", "--address", "10.1.7.20"), 0),
            (("--user", "alice", "--address", "10.1.7.20", "--no-ssl"), 1),
            (("--user", "replicator", "--replication", "--address", "10.9.9.9"), 0),
            (("--user", "alice", "--replication", "--address", "10.9.9.9"), 1),
        ):
            answer = CliRunner().invoke(main, ["hba", str(config), *options])
            self.assertEqual(answer.exit_code, status, (options, answer.output))
