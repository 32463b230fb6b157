"""``hosts_file``: the files of PostgreSQL 19's ``src/test/ssl/t/004_sni.pl``, and others."""

from __future__ import annotations

import os
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from pgtls.errors import ConfigurationError
from pgtls.policy.hosts_file import load_hosts_file
from pgtls.tls.host_contexts import HostEntry


class HostsFileTests(SynchronousTestCase):
    """Files."""

    def setUp(self) -> None:
        self.directory = Path(self.mktemp()).absolute()  # type: ignore[no-untyped-call]
        self.directory.mkdir()
        self.path = str(self.directory / "pg_hosts.conf")

    def load(self, text: str) -> tuple[HostEntry, ...]:
        Path(self.path).write_text(text, "utf-8")
        return load_hosts_file(self.path)

    def mistakes(self, text: str) -> list[str]:
        error = self.assertRaises(ConfigurationError, self.load, text)
        return [
            each.replace(f'of configuration file "{self.path}"', "of FILE")
            for each in error.mistakes
        ]

    def file(self, name: str) -> str:
        return os.path.join(self.directory, name)

    def test_all_fields(self) -> None:
        (entry,) = self.load('Example.org s.crt /etc/s.key ca.crt "echo secret1" on # comment\n')
        self.assertEqual(
            entry,
            HostEntry(
                f'line 1 of configuration file "{self.path}"',
                ("example.org",),
                self.file("s.crt"),
                "/etc/s.key",
                self.file("ca.crt"),
                "echo secret1",
                True,
            ),
        )

    def test_what_may_be_left_out(self) -> None:
        (entry,) = self.load("* s.crt s.key")
        self.assertEqual((entry.names, entry.ssl_ca_file), (("*",), ""))
        self.assertEqual((entry.ssl_passphrase_command, entry.passphrase_reload), ("", False))
        (entry,) = self.load('/no_sni/ s.crt s.key "" cmd off')
        self.assertEqual((entry.names, entry.ssl_ca_file), (("/no_sni/",), ""))
        self.assertEqual((entry.ssl_passphrase_command, entry.passphrase_reload), ("cmd", False))

    def test_lists_and_files_of_names(self) -> None:
        Path(self.file("hostnames.txt")).write_text("\nexample.com\nexample.net\n")
        (entry,) = self.load("example.org,@hostnames.txt,*.example.org s.crt s.key")
        self.assertEqual(
            entry.names, ("example.org", "example.com", "example.net", "*.example.org")
        )

    def test_none(self) -> None:
        self.assertEqual(self.load("# nothing\n\n"), ())
        self.assertEqual(load_hosts_file(self.file("missing")), ())
        error = self.assertRaises(ConfigurationError, load_hosts_file, str(self.directory))
        self.assertIn("could not open file", str(error))

    def test_every_line_that_is_wrong(self) -> None:
        for line, mistake in (
            (
                "example.org,*,example.net s.crt s.key",
                "default and non-SNI entries cannot be mixed with other entries",
            ),
            (
                "/no_sni/,example.net s.crt s.key",
                "default and non-SNI entries cannot be mixed with other entries",
            ),
            ("example.org", "missing entry at end of line"),
            ("example.org s.crt", "missing entry at end of line"),
            ("example.org s.crt,t.crt s.key", "multiple values specified for SSL certificate"),
            ("example.org s.crt s.key,t.key", "multiple values specified for SSL key"),
            ("example.org s.crt s.key c,d", "multiple values specified for SSL CA"),
            (
                "example.org s.crt s.key c d,e",
                "multiple values specified for SSL passphrase command",
            ),
            (
                "example.org s.crt s.key c cmd on TRAILING_TEXT MORE_TEXT",
                "extra fields at end of line",
            ),
            (
                "example.org s.crt s.key c cmd notabooleanvalue",
                "incorrect syntax for boolean value SSL_passphrase_cmd_reload",
            ),
            ("exa*mple.org s.crt s.key", "'exa*mple.org' is not a host name"),
            ("*.*.org s.crt s.key", "'*.*.org' is not a host name"),
            ("*. s.crt s.key", "'*.' is not a host name"),
        ):
            self.assertEqual(
                self.mistakes(f"good.example s.crt s.key\n{line}\n{line}\n")[0],
                f"line 2 of FILE: {mistake}",
            )
            self.assertEqual(len(self.mistakes(f"{line}\n{line}\n")), 2)

    def test_duplicates(self) -> None:
        for text, name in (
            ("\n* s.crt s.key\n* s.crt s.key\n", "*"),
            ("\n/no_sni/ s.crt s.key\n/no_sni/ s.crt s.key\n", "/no_sni/"),
            ("example.org s.crt s.key\nb.org s.crt s.key\nexample.org s.crt s.key", "example.org"),
            ("example.org s.crt s.key\nb.org,Example.org s.crt s.key\n", "example.org"),
            ("b.org,B.org s.crt s.key\n", "b.org"),
            ("*.b.org s.crt s.key\n*.B.org s.crt s.key\n", "*.b.org"),
        ):
            (mistake,) = self.mistakes(text)
            self.assertIn(f'multiple entries for host "{name}"', mistake)
