"""Authentication files, taken apart by a real PostgreSQL and by us."""

from __future__ import annotations

import json
import random
import re
from functools import cache

from twisted.trial.unittest import SynchronousTestCase

from pgtls.errors import ConfigurationError
from pgtls.policy.ident_map import IdentMap
from tests.support.servers import Server

QUERY = """
SELECT json_build_array(file_name, line_number, map_name, sys_name, pg_username, error)
FROM pg_ident_file_mappings
"""

OPEN_DIRECTORY = "could not open configuration directory"

#: Files beside the one that is read, which it may name.
BESIDE = {
    "names": 'a, b # comment\n\n"c d"\n',
    "one": "one\n",
    "nested": "@names @one\n",
    "missing_inside": "x @gone\n",
    "loop": "@loop\n",
    "more.conf": "m a b\nm c\n",
    "dir/2.conf": "m d2 e\n",
    "dir/1.conf": "m d1 e\n",
    "dir/.hidden.conf": "broken\n",
    "dir/other.txt": "broken\n",
    "looping.conf": "include looping.conf\n",
    "empty": "",
}

CASES = [
    "m a b",
    "m a b\n",
    "m a b\r\nm c d\r\n",
    "\ufeffm a b\n",
    "m\ta\tb\n",
    "m a\x0bb c\n",
    "m,a b c\n",
    "m a, b\n",
    "m a,b c\n",
    "m a ,b c\n",
    ",m a b\n",
    "m a b,\n",
    "m a ,,b\n",
    'm "a b" c\n',
    'm "a""b" c\n',
    'm a"b c"d e\n',
    'm "a b\nm c d\n',
    'm "" b\n',
    'm a """\n',
    'm a "b#c"#d\n',
    "m a b#c\n",
    "m a #b\n",
    "m a \\\nb\n",
    "m a \\\n\\\nb\nm c d\n",
    "m a b\\",
    "m a b\\\\\n\nm c d\n",
    "m a \\ b\n",
    'm "a \\\n b" c\n',
    "# c \\\nm a b\nm c d\n",
    "m a \\\r\nb\n",
    "m @names b\n",
    "m a @nested\n",
    "m @one b\n",
    'm "@one" b\n',
    "m @gone b\n",
    "m @missing_inside b\n",
    "m @loop b\n",
    "m @empty b\n",
    "m @ b\n",
    "include more.conf\nm x y\n",
    'include "more.conf"\n',
    '"include" more.conf\n',
    "include gone.conf\nm a b\n",
    "include_if_exists gone.conf\nm a b\n",
    "include_if_exists more.conf\n",
    "include_dir dir\nm a b\n",
    "include_dir gone\nm a b\n",
    'include_dir ""\n',
    "include looping.conf\n",
    "include more.conf extra\n",
    "include\n",
    "include more.conf,names\n",
    "include,x more.conf\n",
    "Include more.conf\n",
]

PIECES = ["m", "a", "b", '"', '"', ",", " ", " ", "\t", "#", "\\\n", "\\", "\n", "\r\n", "é"]
PIECES += ["@one", "@names", '"@one"', "include more.conf", "\ninclude_dir dir\n", "\nm a b\n"]


@cache
def server() -> Server:
    """A server of its own, whose pg_ident.conf the tests write."""
    started = Server(17, conf={"max_connections": "20"})
    for name, contents in BESIDE.items():
        path = started.data / name
        path.parent.mkdir(exist_ok=True)
        path.parent.chmod(0o755)
        path.write_text(contents)
        path.chmod(0o644)
    return started


class TokenizerTests(SynchronousTestCase):
    """The same records, and the same mistakes at the same lines."""

    def theirs(self, contents: str) -> list[object]:
        path = server().data / "pg_ident.conf"
        path.write_text(contents, newline="")
        path.chmod(0o644)
        rows = server().psql(QUERY).splitlines()
        found: list[object] = []
        for file, line, map_name, system_user, role, error in map(json.loads, rows):
            place = f'line {line} of configuration file "{file}"'
            if error:
                # PostgreSQL's log has the reason too.
                reason = re.sub("^could not open directory", OPEN_DIRECTORY, error)
                found.append(f"{place}: {reason}")
            else:
                found.append((place, map_name, system_user, role))
        return found

    def ours(self) -> list[object]:
        path = server().data / "pg_ident.conf"
        try:
            records = IdentMap.load(path).lines
        except ConfigurationError as error:
            return [re.sub(f"({OPEN_DIRECTORY} .*?): .*", r"\1", each) for each in error.mistakes]
        return [
            (
                each.place,
                *(
                    name.decode()
                    for name in (each.usermap, each.system_user.string, each.pg_user.string)
                ),
            )
            for each in records
        ]

    def check(self, contents: str) -> None:
        theirs, ours = self.theirs(contents), self.ours()
        if any(isinstance(each, str) for each in theirs):  # we refuse the file for its mistakes
            theirs = [each for each in theirs if isinstance(each, str)]
        self.assertEqual(sorted(map(str, ours)), sorted(map(str, theirs)), repr(contents))

    def test_cases(self) -> None:
        for contents in CASES:
            self.check(contents)

    def test_files_at_random(self) -> None:
        seed = random.randrange(1_000_000)
        source = random.Random(seed)
        for _ in range(150):
            contents = "".join(source.choices(PIECES, k=source.randrange(20)))
            try:
                self.check(contents)
            except AssertionError as error:
                raise AssertionError(f"seed {seed}: {error}") from None
