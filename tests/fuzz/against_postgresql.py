"""``python -m tests.fuzz.against_postgresql [SECONDS]``: lines of ``hba_file`` and ``ident_file``,
made at random, for a real PostgreSQL 17 and for us: which are wrong, and why.
"""

from __future__ import annotations

import json
import random
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path

from pgtls.errors import ConfigurationError
from pgtls.policy.hba_file import load_hba_file
from pgtls.policy.ident_map import IdentMap
from tests.integration.test_hba_postgresql import short
from tests.support.servers import Server

#: Lines in a file; PostgreSQL is asked once for each file.
LINES = 400

WORDS = [
    *("all", "postgres", "sameuser", "replication", "samehost", "samenet", "a b", "", "x,y"),
    *("ALL", "alice", "/^a(b|c)+$", "/[", "/(a)\\1", "/a{2,1}", "/[[:alpha:]]", "/", "/\\", "/a|*"),
    *("/(?=a)b", "/(?i)a", "/a{256}", "/[b-a]", "/\\x41", "/\\q", "/a**", "/()", "/^*"),
]
ADDRESSES = [
    *("127.0.0.1/32", "0.0.0.0/0", "::/0", "::1/128", "::1", "127.0.0.1", "255.255.255.0"),
    *("127.0.0.1/33", "::1/129", "fe80::1%lo/64", "1.2.3/24", "host.example.com", ".example.com"),
    *("::ffff:1.2.3.4/96", "1.2.3.4/ 8", "1.2.3.4/08", "1.2.3.4/0x8", "ffff::", "a/b", "0x7f.1/8"),
    *("127.1/8", "1.2.3.4/32/1", "samenet", "samehost", "all", "ALL", "[::1]/128", "::1%/128"),
]
OPTIONS = [
    *("clientcert=verify-full", "clientcert=verify-ca", "clientcert=1", "clientname=DN"),
    *("clientname=CN", "clientname=x", "map=m", "map=", "=m", "map", "x=y", "clientcert="),
]
TYPES = ["local", "host", "hostssl", "hostnossl", "HOST", "hosts", "host,local", "hostgssenc"]
METHODS = ["trust", "reject", "cert", "scram-sha-256", "Trust", "none", "trust,reject"]

#: In PostgreSQL a warning, which leaves the line in force; what it refuses elsewhere; and what only
#: a server knows, for which we refuse a line that it may have something else against.
_NOT_COMPARED = re.compile("cannot match because|invalid value for client")
_OURS_ALONE = "cannot be checked here"


def _quoted(chance: random.Random, word: str) -> str:
    kind = chance.random()
    if kind < 0.15:
        return '"' + word.replace('"', '""') + '"'
    if kind < 0.2:
        at = chance.randrange(len(word) + 1)
        return word[:at] + chance.choice(['"', '""', ",", "\\", "\t", "#", "+"]) + word[at:]
    if " " in word or not word:
        return f'"{word}"'
    return word


def hba_line(chance: random.Random) -> str:
    """A line that may be one of pg_hba.conf."""
    fields = [
        chance.choice(TYPES),
        chance.choice(WORDS),
        chance.choice(WORDS),
        *[chance.choice(ADDRESSES) for _ in range(chance.choice([0, 1, 1, 1, 2]))],
        chance.choice(METHODS),
        *[chance.choice(OPTIONS) for _ in range(chance.choice([0, 0, 0, 1, 2]))],
    ]
    return _line(chance, fields)


def ident_line(chance: random.Random) -> str:
    """A line that may be one of pg_ident.conf."""
    fields = [chance.choice(["m", "n", "all"]), chance.choice(WORDS), chance.choice(WORDS)]
    return _line(chance, fields)


def _line(chance: random.Random, fields: list[str]) -> str:
    if chance.random() < 0.1:
        del fields[chance.randrange(len(fields))]
    blanks = chance.choice([" ", "  ", "\t", " ,"]) if chance.random() < 0.1 else " "
    text = blanks.join(_quoted(chance, field) for field in fields)
    text = text.replace("include", "x")  # of other files
    return text.rstrip("\\").replace("@", "") if chance.random() < 0.97 else text.rstrip("\\")


def _ours(load: Callable[[Path], object], path: Path) -> dict[int, str]:
    """Line and mistake."""
    try:
        load(path)
    except ConfigurationError as error:
        found = {}
        for mistake in error.mistakes:
            place, _, text = mistake.partition(f' of configuration file "{path}": ')
            if place.startswith("line ") and not _NOT_COMPARED.search(text):
                found[int(place.removeprefix("line "))] = _shape(text)
        return found
    return {}


def _theirs(server: Server, view: str) -> dict[int, str]:
    answer = server.psql(
        f"SELECT json_object_agg(line_number, error) FROM {view} WHERE error <> ''"
    )
    errors = json.loads(answer) if answer.strip() else {}
    return {int(n): _shape(e) for n, e in (errors or {}).items() if not _NOT_COMPARED.search(e)}


def _shape(mistake: str) -> str:
    """Without what is quoted, of which we show less where it is long or cannot be printed."""
    return re.sub('".*"', '""', short(mistake))


def compare(server: Server, chance: random.Random) -> int:
    """One file of each kind; prints each line that the two do not agree about.

    :returns: how many those are.
    """
    differences = 0
    for name, line, load, view in (
        ("pg_hba.conf", hba_line, lambda path: load_hba_file(path, list), "pg_hba_file_rules"),
        ("pg_ident.conf", ident_line, IdentMap.load, "pg_ident_file_mappings"),
    ):
        path = server.data / name
        first = "local all all trust" if name == "pg_hba.conf" else "m a b"
        lines = [first, *(line(chance) for _ in range(LINES))]
        path.write_text("\n".join(lines) + "\n")
        ours, theirs = _ours(load, path), _theirs(server, view)
        for number in sorted(ours.keys() | theirs.keys()):
            mine = ours.get(number, "")
            if mine != theirs.get(number, "") and _OURS_ALONE not in mine:
                differences += 1
                print(f"{name}: {lines[number - 1]!r}")
                print(f"    ours:       {mine}\n    PostgreSQL: {theirs.get(number)}")
    return differences


def main() -> int:
    """The command."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 60
    server = Server(17, ssl=True, hba="local all all trust\n")
    seed = int(time.time())
    print(f"seed {seed}")
    chance = random.Random(seed)
    end, files, differences = time.monotonic() + seconds, 0, 0
    try:
        while time.monotonic() < end and differences < 100:
            differences += compare(server, chance)
            files += 1
    finally:
        server.stop()
    print(f"{files * 2 * LINES} lines, {differences} differences")
    return bool(differences)


if __name__ == "__main__":
    sys.exit(main())
