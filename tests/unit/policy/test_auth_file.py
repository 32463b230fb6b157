"""The auth_file: pgbouncer's format, SCRAM secrets only."""

from __future__ import annotations

import os

from twisted.trial.unittest import SynchronousTestCase

from pgtls.errors import ConfigurationError
from pgtls.policy.auth_file import MAX_SIZE, format_auth_file, load_auth_file
from pgtls.wire.scram_secret import ScramSecret

SECRET = ScramSecret.build("pencil", b"salt", 4096)


class AuthFileTests(SynchronousTestCase):
    """Files."""

    def write(self, content: bytes) -> str:
        path: str = self.mktemp()  # type: ignore[no-untyped-call]
        with open(path, "wb") as file:
            file.write(content)
        return path

    def mistakes(self, content: bytes) -> list[str]:
        path = self.write(content)
        error = self.assertRaises(ConfigurationError, load_auth_file, path)
        self.assertNotIn("pencil", str(error))
        return [mistake.replace(path, "FILE") for mistake in error.mistakes]

    def test_what_is_written_is_read(self) -> None:
        roles = [b"alice", b'says "hello"', "zo\u00eb".encode(), b"a b", b"\xff"]
        path = self.write(format_auth_file((role, SECRET) for role in roles))
        self.assertEqual(dict(load_auth_file(path)), dict.fromkeys(roles, SECRET))

    def test_the_rest_of_a_line_and_white_space_do_not_count(self) -> None:
        entry = f'"alice" "{SECRET}"'.encode()
        for content in (entry, b"\n\n  " + entry + b' "more" things\r\n\n', entry + b"\r\n"):
            self.assertEqual(dict(load_auth_file(self.write(content))), {b"alice": SECRET})

    def test_passwords_are_refused_by_line(self) -> None:
        good = f'"good" "{SECRET}"\n'.encode()
        self.assertEqual(
            self.mistakes(
                good + b'"a" "pencil"\n' + b'"b" "md5' + b"0" * 32 + b'"\n' + b'"c" ""\n' + good
            ),
            [
                'line 2 of auth_file "FILE": a plain password is not accepted: write the secret '
                'that "pgtls auth-file" or pg_authid.rolpassword has',
                'line 3 of auth_file "FILE": an MD5 hash is not accepted: set the password again '
                "with password_encryption = scram-sha-256",
                'line 4 of auth_file "FILE": the role has no secret',
                'line 5 of auth_file "FILE": this role has a line already',
            ],
        )

    def test_what_is_no_entry(self) -> None:
        expected = (
            'line 1 of auth_file "FILE": expected "role" "SCRAM secret", each in double quotes'
        )
        for content in (b"alice pencil", b'"alice"', b'"alice" "pencil', b'"alice""pencil"'):
            self.assertEqual(self.mistakes(content), [expected])
        self.assertEqual(
            self.mistakes(f'"" "{SECRET}"'.encode()),
            ['line 1 of auth_file "FILE": the role\'s name is empty'],
        )
        self.assertEqual(
            self.mistakes(b'"a" "SCRAM-SHA-256$4096:pencil"'),
            ['line 1 of auth_file "FILE": not a SCRAM secret'],
        )

    def test_a_file_that_cannot_be_read(self) -> None:
        error = self.assertRaises(ConfigurationError, load_auth_file, "/no/such/file")
        self.assertEqual(
            str(error),
            'could not open auth_file "/no/such/file": No such file or directory; '
            'write it with "pgtls auth-file", or name the one that is meant',
        )
        pipe: str = self.mktemp()  # type: ignore[no-untyped-call]
        os.mkfifo(pipe)  # nobody writes into it, and a reload must not wait
        error = self.assertRaises(ConfigurationError, load_auth_file, pipe)
        self.assertIn("it is no regular file", str(error))
        path = self.write(b"")
        os.truncate(path, MAX_SIZE + 1)
        self.assertRaises(ConfigurationError, load_auth_file, path)

    def test_a_name_that_the_format_cannot_hold(self) -> None:
        self.assertRaises(ValueError, format_auth_file, [(b"a\nb", SECRET)])
