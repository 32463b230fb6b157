"""``hba_file`` without a server: host names, ranges, interfaces, and what a client reads.

(``tests.integration.test_hba_postgresql`` has the same files for PostgreSQL.)
"""

from __future__ import annotations

from ipaddress import ip_address, ip_interface

from twisted.trial.unittest import SynchronousTestCase

from pgtls.errors import ConfigurationError
from pgtls.policy.hba_file import load_hba_file
from pgtls.policy.hba_rules import (
    ConnectionRequest,
    HbaLine,
    HbaRules,
    HbaUndecided,
    HostNameNeeded,
    RemoteHost,
    refusal,
)

INTERFACES = [
    ip_interface("127.0.0.1/8"),
    ip_interface("10.1.2.3/16"),
    ip_interface("fd00::5/64"),
]


class HbaTests(SynchronousTestCase):
    """Which line decides."""

    def rules(self, text: str) -> HbaRules:
        path = self.mktemp()  # type: ignore[no-untyped-call]
        with open(path, "w") as file:
            file.write(text)
        return load_hba_file(path, lambda: INTERFACES)

    def request(self, address: str | None, **more: object) -> ConnectionRequest:
        wanted: dict[str, object] = {"tls": True, "database": b"app", "user": b"alice", **more}
        return ConnectionRequest(
            address=None if address is None else ip_address(address),
            **wanted,  # type: ignore[arg-type]
        )

    def line(self, text: str, address: str | None, **more: object) -> int:
        """The number of the line that decides; 0 for none."""
        found = self.rules(text).find(self.request(address, **more))
        return number(found)

    def test_ranges(self) -> None:
        for pattern, address, matches in (
            ("10.0.0.0/8", "10.255.0.1", True),
            ("10.0.0.0/8", "11.0.0.1", False),
            ("10.9.9.9/8", "10.0.0.1", True),
            ("0.0.0.0/0", "1.2.3.4", True),
            ("0.0.0.0/0", "::1", False),
            ("::/0", "1.2.3.4", False),
            ("::/0", "::ffff:1.2.3.4", True),
            ("fe80::%lo/10", "fe80::1", True),
            ("10.0.0.1 0.0.0.255", "99.9.9.1", True),
            ("10.0.0.1 0.0.0.255", "10.0.0.2", False),
            ("all", "::1", True),
        ):
            self.assertEqual(
                self.line(f"host all all {pattern} trust", address),
                int(matches),
                (pattern, address),
            )

    def test_a_file_that_cannot_be_read(self) -> None:
        error = self.assertRaises(ConfigurationError, load_hba_file, "/gone", lambda: INTERFACES)
        self.assertEqual(
            str(error),
            'hba_file: could not open file "/gone": No such file or directory; '
            "write it, or name the one that is meant",
        )
        error = self.assertRaises(ConfigurationError, load_hba_file, "/", lambda: INTERFACES)
        self.assertIn('hba_file: could not open file "/": ', str(error))

    def test_this_machines_addresses(self) -> None:
        for pattern, address, matches in (
            ("samehost", "10.1.2.3", True),
            ("samehost", "10.1.9.9", False),
            ("samenet", "10.1.9.9", True),
            ("samenet", "10.2.0.1", False),
            ("samenet", "fd00::77", True),
            ("samenet", "fd00:0:0:1::77", False),
        ):
            self.assertEqual(
                self.line(f"host all all {pattern} trust", address),
                int(matches),
                (pattern, address),
            )

    def test_host_names_are_asked_for_when_they_are_needed(self) -> None:
        text = (
            "host other all db.example.org trust\n"
            "host all bob 10.0.0.1/32 trust\n"
            "hostssl all all DB.example.org trust\n"
            "host all all .example.org trust\n"
        )
        rules = self.rules(text)
        # PostgreSQL looks at the address before the database: so it asks in the first line.
        self.assertRaises(HostNameNeeded, rules.find, self.request("10.0.0.1"))
        for name, confirmed, expected in (
            ("db.Example.org", True, 3),
            ("x.db.example.org", True, 4),
            ("example.org", True, 0),
            ("badexample.org", True, 0),
            ("db.example.org", False, 0),
            (None, False, 0),
        ):
            remote = RemoteHost(name, confirmed)
            found = rules.find(self.request("10.0.0.1", remote_host=remote))
            self.assertEqual(number(found), expected, name)

    def test_a_host_name_behind_the_line_that_decides_is_not_asked_for(self) -> None:
        text = "host all all 10.0.0.0/8 trust\nhost all all db.example.org trust\n"
        self.assertEqual(self.line(text, "10.0.0.1"), 1)
        self.assertEqual(self.line("host all all db.example.org trust\n", None), 0)

    def test_replication(self) -> None:
        text = "host all all all reject\nhost replication all all trust\n"
        self.assertEqual(self.line(text, "10.0.0.1", replication=True), 2)
        self.assertEqual(self.line(text, "10.0.0.1", database=b"replication"), 1)
        self.assertEqual(self.line('host "replication" all all trust', "::1", replication=True), 0)

    def test_an_expression_that_takes_too_long_refuses(self) -> None:
        rules = self.rules(
            r"host all /^(x+)(x+)(x+)\1\2\3y$ all reject" + "\nhost all all all trust\n"
        )
        error = self.assertRaises(
            HbaUndecided, rules.find, self.request("10.0.0.1", user=b"x" * 301 + b"y")
        )
        self.assertEqual(number(error.line), 1)

    def test_what_a_refused_client_reads(self) -> None:
        rules = self.rules("host all mallory all reject\n")
        for request, message in (
            (
                self.request("::1", user=b"mallory", tls=False),
                'pg_hba.conf rejects connection for host "::1", user "mallory", database "app", '
                "no encryption",
            ),
            (
                self.request("10.0.0.1"),
                'no pg_hba.conf entry for host "10.0.0.1", user "alice", database "app", '
                "SSL encryption",
            ),
            (
                self.request(None, tls=False, replication=True),
                'no pg_hba.conf entry for replication connection from host "[local]", '
                'user "alice", '
                "no encryption",
            ),
        ):
            error = refusal(request, rules.find(request))
            assert error is not None
            self.assertEqual((error.sqlstate, error.message), ("28000", message))


def number(line: HbaLine | None) -> int:
    """Where a line stands; 0 for none."""
    return int(line.place.split()[1]) if line is not None else 0
