"""User name maps: what PostgreSQL makes of pg_ident.conf, file format and comparison."""

from __future__ import annotations

import os
import time

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from pgtls.errors import ConfigurationError
from pgtls.policy.ident_map import MAX_NAME_LENGTH, IdentMap

# src/test/authentication/t/003_peer.pl: fields of the record, role, whether it gets in. The
# system user is "postgres"; rows with +group are refused here, see below.
PEER_TABLE = [
    ("postgres testmapuser", "testmapuser", True),
    ("postgres all", "testmapuser", True),
    ('postgres "all"', "testmapuser", False),
    ("postgres /^testm.*$", "testmapuser", True),
    ("postgres /^doesnotmatch.*$", "testmapuser", False),
    ("/^.*res$ testmapuser", "testmapuser", True),
    ("/^.*res$ /^testm.*$", "testmapuser", True),
    ("/^.*res$ all", "testmapuser", True),
    (r"/^postgres(.*)$ test\1mapuser", "testmapuser", True),
    (r'/^postgres(.*)$ "test\1mapuser"', "testmapuser", True),
    (r"/^postgres$ \1testmapuser", "testmapuser", False),
    ("/^.*postgrespostgres$ testmapuser", "testmapuser", False),
    ('postgres "+testmapgroup"', "testmapuser", False),
    (r'/^.*res(.*)$ "/^testmapgroupliteral\\1$"', r"testmapgroupliteral\1", True),
]


class IdentMapCase(SynchronousTestCase):
    """Maps from files in a directory of their own."""

    def setUp(self) -> None:
        self.directory = os.path.abspath(self.mktemp())
        os.mkdir(self.directory)

    def write(self, contents: str | bytes, name: str = "pg_ident.conf") -> str:
        path = os.path.join(self.directory, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(contents if isinstance(contents, bytes) else contents.encode())
        return path

    def load(self, contents: str | bytes) -> IdentMap:
        return IdentMap.load(self.write(contents))

    def mistakes(self, contents: str | bytes) -> tuple[str, ...]:
        error = self.assertRaises(ConfigurationError, self.load, contents)
        assert isinstance(error, ConfigurationError)
        return error.mistakes

    def place(self, line: int, name: str = "pg_ident.conf") -> str:
        return f'line {line} of configuration file "{os.path.join(self.directory, name)}"'


class NoMapTests(SynchronousTestCase):
    def test_equal_names(self) -> None:
        self.assertTrue(IdentMap().allows(None, "alice", "alice"))

    def test_empty_map_name_is_no_map(self) -> None:
        self.assertTrue(IdentMap().allows("", "alice", "alice"))

    def test_letter_case_counts(self) -> None:
        self.assertFalse(IdentMap().allows(None, "Alice", "alice"))

    def test_refusal_in_postgresqls_words(self) -> None:
        self.assertEqual(
            IdentMap().refusal(None, "bob", "alice"),
            "provided user name (alice) and authenticated user name (bob) do not match",
        )

    def test_names_in_the_log_cannot_break_its_line(self) -> None:
        refusal = IdentMap().refusal(None, "bob\n\x1b[2J\u00fc", "alice")
        self.assertIn(r"(bob\x0a\x1b[2J\xc3\xbc)", str(refusal))

    def test_a_map_that_is_not_there_lets_nobody_in(self) -> None:
        self.assertFalse(IdentMap().allows("cnmap", "alice", "alice"))

    @given(st.binary(max_size=20), st.binary(max_size=20))
    @settings(deadline=None)
    def test_equality_is_that_of_the_bytes(self, system_user: bytes, role: bytes) -> None:
        names = (name.decode("utf-8", "surrogateescape") for name in (system_user, role))
        self.assertEqual(IdentMap().allows(None, *names), system_user == role)


class PeerTableTests(IdentMapCase):
    """PostgreSQL's own rows."""

    def test_rows(self) -> None:
        for fields, role, allowed in PEER_TABLE:
            ident_map = self.load(f"mypeermap {fields}")
            self.assertEqual(ident_map.allows("mypeermap", "postgres", role), allowed, fields)

    def test_no_subexpression(self) -> None:
        ident_map = self.load(r"mypeermap /^postgres$ \1testmapuser")
        self.assertEqual(
            ident_map.refusal("mypeermap", "postgres", "testmapuser"),
            'regular expression "^postgres$" has no subexpressions as requested by backreference '
            r'in "\1testmapuser"',
        )

    def test_no_match(self) -> None:
        ident_map = self.load("mypeermap postgres other")
        self.assertEqual(
            ident_map.refusal("mypeermap", "postgres", "testmapuser"),
            'no match in usermap "mypeermap" for user "testmapuser" authenticated as "postgres"',
        )

    def test_group_membership_is_refused_at_load(self) -> None:
        (mistake,) = self.mistakes("\nmypeermap postgres +testmapgroup")
        self.assertIn(self.place(2), mistake)
        self.assertIn('membership in role "testmapgroup" cannot be checked here', mistake)


class MatchTests(IdentMapCase):
    def test_several_records_of_a_map(self) -> None:
        ident_map = self.load("m alice a\nm alice b\nn alice c\n")
        roles = [role for role in "abc" if ident_map.allows("m", "alice", role)]
        self.assertEqual(roles, ["a", "b"])

    def test_only_the_first_backreference_is_replaced(self) -> None:
        ident_map = self.load(r"m /^(.*)@example\.com$ \1\1")
        self.assertTrue(ident_map.allows("m", "bob@example.com", r"bob\1"))

    def test_what_is_captured_is_only_a_name(self) -> None:
        ident_map = self.load(r"m /^(.*)@example\.com$ \1")
        self.assertFalse(ident_map.allows("m", "all@example.com", "postgres"))
        self.assertTrue(ident_map.allows("m", "all@example.com", "all"))

    def test_group_that_took_no_part_ends_the_search(self) -> None:
        ident_map = self.load("m /^(x)?alice$ \\1\nm alice alice\n")
        self.assertFalse(ident_map.allows("m", "alice", "alice"))

    def test_backreference_needs_a_regular_expression(self) -> None:
        ident_map = self.load(r"m alice \1")
        self.assertTrue(ident_map.allows("m", "alice", r"\1"))

    def test_regular_expression_matches_anywhere(self) -> None:
        self.assertTrue(self.load("m /lic bob").allows("m", "alice", "bob"))

    def test_dollar_does_not_match_before_a_newline(self) -> None:
        self.assertFalse(self.load("m /^alice$ bob").allows("m", "alice\n", "bob"))

    def test_dot_matches_a_newline(self) -> None:
        self.assertTrue(self.load("m /^a.b$ bob").allows("m", "a\nb", "bob"))

    def test_dot_is_one_byte(self) -> None:
        ident_map = self.load("m /^.{2}$ bob")
        self.assertTrue(ident_map.allows("m", "\u00fc", "bob"))

    def test_the_first_group_is_as_long_as_may_be(self) -> None:
        ident_map = self.load("m /^(a|ab)(b*)$ \\1")
        self.assertTrue(ident_map.allows("m", "ab", "ab"))
        self.assertFalse(ident_map.allows("m", "ab", "a"))

    def test_no_name_takes_long(self) -> None:
        ident_map = self.load("m alice /^(([a-z]+)[0-9]*)+$\nm alice /^(a|aa)+(b|c)$")
        for length in (28, 51, 63):
            start = time.process_time()
            self.assertFalse(ident_map.allows("m", "alice", "a" * (length - 1) + "!"))
            self.assertLess(time.process_time() - start, 0.5)

    def test_a_record_that_takes_too_long_does_not_match_and_is_named(self) -> None:
        ident_map = self.load("m alice /^(a*)(a*)(a*)(a*)(a*)\\1\\2\\3\\4\\5b$\nm alice zz")
        name = "a" * 61 + "b"
        self.assertIn(
            f"the regular expression in {self.place(1)} takes too long over it",
            str(ident_map.refusal("m", "alice", name)),
        )
        self.assertTrue(ident_map.allows("m", "alice", "zz"))

    def test_posix_classes(self) -> None:
        ident_map = self.load("m /^([[:alpha:]_]+)[^[:alpha:]]$ \\1")
        self.assertTrue(ident_map.allows("m", "a_b1", "a_b"))
        self.assertFalse(ident_map.allows("m", "a_b:1", "a_b"))

    def test_word_boundaries(self) -> None:
        ident_map = self.load(r"m /\mOU=x\M bob")
        self.assertTrue(ident_map.allows("m", "CN=a,OU=x,O=y", "bob"))
        self.assertFalse(ident_map.allows("m", "CN=a,OU=xy", "bob"))

    def test_leading_option(self) -> None:
        self.assertTrue(self.load("m /(?i)^ALICE$ bob").allows("m", "alice", "bob"))

    def test_bytes_that_are_not_utf8(self) -> None:
        ident_map = self.load(b"m m\xfcller /^m\xfc\n")
        name = b"m\xfcller".decode("utf-8", "surrogateescape")
        self.assertTrue(ident_map.allows("m", name, name))

    def test_name_too_long_for_an_expression(self) -> None:
        ident_map = self.load("m /^a*$ bob")
        self.assertTrue(ident_map.allows("m", "a" * MAX_NAME_LENGTH, "bob"))
        self.assertFalse(ident_map.allows("m", "a" * (MAX_NAME_LENGTH + 1), "bob"))


class FormatTests(IdentMapCase):
    def users(self, contents: str) -> list[str]:
        """Whom the map ``m`` holds, written as: system user, database user."""
        return [
            f"{line.system_user.string.decode()}|{line.pg_user.string.decode()}"
            for line in self.load(contents).lines
        ]

    def test_comments_and_blank_lines(self) -> None:
        self.assertEqual(self.users("# all\n\n  \t\nm a b#c\r\n# m x y"), ["a|b"])

    def test_quotes_hold_blanks_commas_and_hashes(self) -> None:
        self.assertEqual(self.users('m "CN=a b,OU=#c" "say ""x"""'), ['CN=a b,OU=#c|say "x"'])

    def test_quote_that_is_not_closed(self) -> None:
        self.assertEqual(self.users('m a "b c\nm d e'), ["a|b c", "d|e"])

    def test_empty_name_in_quotes(self) -> None:
        self.assertEqual(self.users('m "" b'), ["|b"])

    def test_continuation_lines(self) -> None:
        self.assertEqual(self.users("m \\\n  a \\\r\n b\nm c d"), ["a|b", "c|d"])

    def test_continuation_within_a_comment(self) -> None:
        self.assertEqual(self.users("# m x y \\\nm a b\nm c d"), ["c|d"])

    def test_only_a_new_backslash_continues(self) -> None:
        self.assertEqual(self.users("m a b\\\\\n\nm c d"), ["a|b\\", "c|d"])

    def test_fields_beyond_the_third_are_ignored(self) -> None:
        self.assertEqual(self.users("m a b c d"), ["a|b"])

    def test_name_from_another_file(self) -> None:
        self.write("# the admin\nalice\n", "admins")
        self.assertEqual(self.users("m @admins b"), ["alice|b"])

    def test_quoted_at_sign_is_a_name(self) -> None:
        self.assertEqual(self.users('m "@admins" b'), ["@admins|b"])

    def test_include(self) -> None:
        self.write("m a b", "sub/one.conf")
        self.assertEqual(self.users("include sub/one.conf\nm c d"), ["a|b", "c|d"])

    def test_include_is_relative_to_its_own_file(self) -> None:
        self.write("include two.conf", "sub/one.conf")
        self.write("m a b", "sub/two.conf")
        self.assertEqual(self.users('include "sub/one.conf"'), ["a|b"])

    def test_include_if_exists(self) -> None:
        self.assertEqual(self.users("include_if_exists gone.conf\nm a b"), ["a|b"])

    def test_include_dir(self) -> None:
        self.write("m c d", "maps/2.conf")
        self.write("m a b", "maps/1.conf")
        for ignored in ("maps/.hidden.conf", "maps/3.conf~", "maps/dir.conf/x"):
            self.write("broken", ignored)
        self.assertEqual(self.users("include_dir maps"), ["a|b", "c|d"])

    def test_three_fields_are_no_include(self) -> None:
        self.assertTrue(self.load("include a b").allows("include", "a", "b"))


class MistakeTests(IdentMapCase):
    def test_all_are_collected(self) -> None:
        self.write("m\n", "inner.conf")
        found = self.mistakes("m a\n\nm a,b c\ninclude inner.conf\nm /( b\nm fine fine\n")
        self.assertEqual(
            found[:3],
            (
                f"{self.place(1)}: missing entry at end of line",
                f"{self.place(3)}: multiple values in ident field",
                f"{self.place(1, 'inner.conf')}: missing entry at end of line",
            ),
        )
        self.assertIn(f'{self.place(5)}: invalid regular expression "(": ', found[3])
        self.assertEqual(len(found), 4)

    def test_line_number_behind_a_continuation(self) -> None:
        (mistake,) = self.mistakes("m a \\\n b\nm c")
        self.assertIn(self.place(3), mistake)

    def test_distinguished_name_without_quotes(self) -> None:
        (mistake,) = self.mistakes("dnmap CN=a,OU=b alice")
        self.assertIn("multiple values in ident field", mistake)

    def test_file_that_is_not_there(self) -> None:
        path = os.path.join(self.directory, "gone")
        error = self.assertRaises(ConfigurationError, IdentMap.load, path)
        self.assertEqual(
            str(error),
            f'ident_file: could not open file "{path}": No such file or directory; '
            "write it, or name the one that is meant",
        )

    def test_included_file_that_is_not_there(self) -> None:
        (mistake,) = self.mistakes("m a b\ninclude gone.conf")
        gone = os.path.join(self.directory, "gone.conf")
        self.assertEqual(
            mistake,
            f'{self.place(2)}: could not open file "{gone}": No such file or directory',
        )

    def test_file_that_includes_itself(self) -> None:
        (mistake,) = self.mistakes("include pg_ident.conf")
        self.assertIn("maximum nesting depth exceeded", mistake)

    def test_the_first_mistake_of_a_file_that_is_named_is_the_lines(self) -> None:
        self.write("a\nb @gone\nc @lost\n", "names")
        (mistake,) = self.mistakes("m @names b\n")
        gone = os.path.join(self.directory, "gone")
        self.assertEqual(
            mistake, f'{self.place(1)}: could not open file "{gone}": No such file or directory'
        )

    def test_what_is_no_regular_file(self) -> None:
        os.mkfifo(os.path.join(self.directory, "pipe"))
        os.mkdir(os.path.join(self.directory, "directory"))
        for name in ("pipe", "directory", "/dev/zero"):
            (mistake,) = self.mistakes(f"include {name}\n")
            self.assertIn(f'{self.place(1)}: could not open file "', mistake)

    def test_files_without_end(self) -> None:
        self.write("include one.conf\n" * 11, "many.conf")
        self.write("m a b\n", "one.conf")
        mistakes = self.mistakes("include many.conf\n" * 100)
        self.assertIn("more than 1000 files", mistakes[-1])

    def test_directory_that_is_not_there(self) -> None:
        (mistake,) = self.mistakes("include_dir gone")
        self.assertIn("could not open configuration directory", mistake)

    def test_empty_directory_name(self) -> None:
        (mistake,) = self.mistakes('include_dir ""')
        self.assertIn("empty configuration directory name", mistake)

    def test_null_byte(self) -> None:
        (mistake,) = self.mistakes(b"m a b\0c\n")
        self.assertIn("null byte", mistake)

    def test_regular_expressions_that_postgresql_refuses_or_we_do(self) -> None:
        for pattern, reason in (
            ("***=a", "directors (***) are not supported"),
            ("(?n)a", "embedded options other than i, c, s and t are not supported"),
            ("[[.hyphen.]]", "invalid collating element"),
            ("a\\", "invalid escape \\ sequence"),
            ("a++", "quantifier operand invalid"),
            ("[[:foo:]]", "invalid character class"),
            ("[a", "brackets [] not balanced"),
            ("a{9,1}", "invalid repetition count(s)"),
            ("(?P<x>a)", "invalid embedded option"),
            ("(a{1,255}){255}", "regular expression is too complex"),
        ):
            (mistake,) = self.mistakes(f'm "/{pattern}" b')
            self.assertEqual(
                mistake, f'{self.place(1)}: invalid regular expression "{pattern}": {reason}'
            )

    @given(st.binary(max_size=200))
    @settings(deadline=None)
    def test_any_bytes_give_a_map_or_mistakes(self, contents: bytes) -> None:
        path = self.write(contents, "fuzz.conf")
        try:
            ident_map = IdentMap.load(path)
        except ConfigurationError as error:
            self.assertTrue(error.mistakes)
        else:
            self.assertIsInstance(ident_map.allows("m", "alice", "alice"), bool)
