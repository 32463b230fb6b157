"""pgtls check."""

from __future__ import annotations

import json
import os
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

from click.testing import CliRunner, Result
from twisted.trial.unittest import SynchronousTestCase

from pgtls.commands.check import check
from tests.support.certificates import Authority, Files


class CheckTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.files = Files(Path(self.mktemp()).absolute())
        self.config = self.files.directory / "pgtls.toml"

    def check(self, text: str, *options: str) -> Result:
        self.config.write_text(text)
        return CliRunner().invoke(check, [str(self.config), *options])

    def test_no_upstream(self) -> None:
        self.patch(os, "environ", {**os.environ, "PGHOST": "/missing"})
        done = self.check("[[gateway]]\nssl = 'off'\nlisten = 'tcp:0:interface=127.0.0.1'")
        self.assertIn(
            "gateway 1: upstream: no PostgreSQL is at /missing/.s.PGSQL.5432: name a server, as in "
            'upstream = "host=db.example.com", or have one started by embedded = "DIR"',
            done.output,
        )

    def test_names_that_are_unknown_where_they_stand(self) -> None:
        done = self.check(
            """
            listen = "tcp:6432"
            shutdown_timout = 3
            [[gateway]]
            upstream = "host=db"
            ssl-cert-file = "server.crt"
            workers = 2
            colour = "red"
            [[gateway.routes]]
            [[gateway.route]]
            upstream = "host=db"
            users = "a"
            [[gatway]]
            """
        )
        at = f"error: {self.config}"
        self.assertEqual(
            done.stderr.splitlines()[:-1],
            [
                f'{at}: unknown setting "listen" here: it belongs to a gateway, below [[gateway]]',
                f'{at}: unknown setting "shutdown_timout": did you mean "shutdown_timeout"?',
                f'{at}: unknown setting "gatway": did you mean [[gateway]]?',
                f'{at}: gateway 1: unknown setting "ssl-cert-file": did you mean "ssl_cert_file"?',
                f'{at}: gateway 1: unknown setting "workers" here: it belongs to the daemon, above '
                "the first [[gateway]]",
                f'{at}: gateway 1: unknown setting "colour"',
                f'{at}: gateway 1: unknown setting "routes": did you mean [[gateway.route]]?',
                f'{at}: gateway 1: route 1: unknown setting "users": did you mean "user"?',
            ],
        )

    def test_a_mistake_in_an_upstreams_file_says_that_it_is_the_upstreams(self) -> None:
        done = self.check(
            """
            [[gateway]]
            ssl = "off"
            upstream = "host=db sslmode=verify-full sslrootcert=/gone"
            """
        )
        self.assertIn('gateway 1: upstream: root certificate file "/gone" does', done.stderr)

    def test_an_address_that_this_machine_does_not_have(self) -> None:
        done = self.check(
            "[[gateway]]\nlisten = 'tcp:5432:interface=192.0.2.1'\nupstream = 'host=db'"
        )
        self.assertIn("gateway 1: tcp:5432:interface=192.0.2.1: Cannot assign", done.stderr)

    def test_everything_that_is_wrong_is_named(self) -> None:
        done = self.check(
            """
            workers = 99
            colour = "red"
            [[gateway]]
            listen = "tcp:6432"
            upstream = "host=db colour=red sslmode=maybe sslrootcert=/missing/ca"
            max_connections = "many"
            ssl_cert_file = "/missing/server.crt"
            ssl_key_file = "/missing/server.key"
            hba_file = "/missing/hba"
            auth_file = "/missing/auth"
            [[gateway]]
            listen = "tcp:6432:interface=127.0.0.1"
            upstream = "host=db sslmode=verify-full sslrootcert=/missing/root"
            clientcert = "perhaps"
            ident_file = "/missing/ident"
            map = "m"
            ssl_cert_file = 5
            ssl_key_file = "/missing/other.key"
            ssl_keylog_file = "/missing/keylog"
            [[gateway]]
            listen = "unix:/missing/socket"
            [[gateway.route]]
            database = "a"
            [[gateway.route]]
            sni = "*.example.com"
            upstream = 'host=\\1 sslmode=verify-ca sslrootcert=/missing/roots'
            """
        )
        patterns = [
            r'unknown setting "colour"',
            r"workers must be .* not 99",
            r"gateway 1: max_connections must be .*'many'",
            r"gateway 1: .*/missing/server\.crt",
            r"gateway 1: .*/missing/server\.key",
            r"gateway 1: .*/missing/hba",
            r"gateway 1: .*/missing/auth",
            r'gateway 1: upstream: .*"maybe"',
            r'gateway 1: upstream: .*"colour"',
            r"gateway 1: upstream: .*/missing/ca",
            r"gateway 2: clientcert must be .*'perhaps'",
            r'gateway 2: listen: "tcp:6432:.*" is where gateway 1 listens already',
            r"gateway 2: .*/missing/ident",
            r"gateway 2: .*/missing/root",
            r"gateway 2: .*/missing/keylog",
            r"gateway 2: ssl_cert_file must be a string",
            r"gateway 2: .*/missing/other\.key",
            r"gateway 3: route 1: upstream is missing",
            r"gateway 3: route 2: .*/missing/roots",
            r"gateway 3: unix:/missing/socket: No such file or directory",
        ]
        lines = done.stderr.splitlines()
        for pattern in patterns:
            found = [line for line in lines if re.search(pattern, line)]
            self.assertEqual(len(found), 1, f"{pattern}\n{done.stderr}")
        self.assertEqual(lines[-1], f"{self.config}: {len(patterns)} mistakes")
        self.assertEqual((done.exit_code, done.stdout), (1, ""))

    def test_nothing_is_made(self) -> None:
        done = self.check(
            f"""
            state_dir = "{self.files.directory}/state"
            [[gateway]]
            listen = "tcp:6432"
            upstream = "host=db password=secret sslmode=disable"
            ssl_keylog_file = "{self.files.directory}/keylog"
            [[gateway]]
            listen = "systemd:domain=INET:index=0"
            upstream = "host=db sslmode=disable"
            """
        )
        self.assertEqual((done.exit_code, done.stderr), (0, ""))
        self.assertIn("tcp:6432", done.stdout)
        self.assertIn("no mistakes", done.stdout)
        self.assertNotIn("secret", done.stdout)
        self.assertEqual(os.listdir(self.files.directory), ["pgtls.toml"])

    def test_an_upstream_that_is_reached_through_SSH(self) -> None:
        known_hosts = self.files.write("known_hosts", b"")
        config = f"""
            [[gateway]]
            upstream = "host=db port=5433 sslmode=disable"
            upstream_via = "ssh://alice@bastion"
            ssh_known_hosts_file = "{known_hosts}"
            """
        self.assertIn("db:5433 through ssh://alice@bastion", self.check(config).stdout)
        (gateway,) = json.loads(self.check(config, "--json").stdout)["gateways"]
        self.assertEqual(gateway["upstream_via"], "ssh://alice@bastion")

    def test_what_expires_is_a_warning(self) -> None:
        yesterday = datetime.now(UTC) - timedelta(days=1)
        issued = Authority("check").issue(
            ["db"], not_before=yesterday - timedelta(days=9), not_after=yesterday
        )
        certificate, key = self.files.pair("server", issued)
        done = self.check(
            f"""
            [[gateway]]
            upstream = "host=db port=5433 sslmode=disable"
            ssl_cert_file = "{certificate}"
            ssl_key_file = "{key}"
            """,
            "--json",
        )
        said = json.loads(done.stdout)
        self.assertEqual((done.exit_code, said["ok"], said["mistakes"]), (0, True, []))
        self.assertRegex(said["warnings"][0], "has expired")
        self.assertEqual(said["gateways"][0]["upstream"], "db:5433")

    def test_a_missing_file(self) -> None:
        done = CliRunner().invoke(check, [str(self.config)])
        self.assertEqual(done.exit_code, 1)
        self.assertIn("pgtls.toml: No such file or directory", done.stderr)

    def test_a_key_that_others_may_read(self) -> None:
        certificate, key = self.files.pair("server", Authority("check").issue(["db"]))
        os.chmod(key, 0o644)
        done = self.check(
            f"""
            [[gateway]]
            upstream = "host=db sslmode=disable"
            ssl_cert_file = "{certificate}"
            ssl_key_file = "{key}"
            """,
            "--json",
        )
        self.assertEqual(done.exit_code, 1)
        self.assertIn("has group or world access", json.loads(done.stdout)["mistakes"][0])
