"""The password file, ``~/.pgpass``.

Source: PostgreSQL's documentation, "The Password File"; ``passwordFromFile`` in
``src/interfaces/libpq/fe-connect.c``. A file that others can read is an error here, since nobody
would see libpq's warning.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from pgtls.conninfo.hosts import Host, default_host
from pgtls.errors import ConfigurationError
from pgtls.reading import read_file


def password_from_file(path: Path, host: Host, database: str, user: str) -> bytes | None:
    """Look a password up.

    :param path: the file.
    :param host: the server.
    :param database: the database.
    :param user: the role.
    :returns: the password of the first line that matches, which may be empty; None where none
        does, and where there is no such file.
    :raises ConfigurationError: others than its owner can read the file, or it is none.
    """
    try:
        lines = read_file(path, check=partial(_check_private, path)).split(b"\n")
    except OSError:
        return None
    local = host.unix_path is not None and host.host == default_host()
    name = "localhost" if local else host.name
    wanted = [_bytes(each) for each in (name, str(host.port), database, user)]
    for line in lines:
        password = _match(line.removesuffix(b"\r"), wanted)
        if password is not None:
            return password
    return None


def _check_private(path: Path, status: os.stat_result) -> None:
    """:raises ConfigurationError: it is none, or others than its owner can read it."""
    if not stat.S_ISREG(status.st_mode):
        raise ConfigurationError(f'password file "{path}" is not a plain file')
    if status.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise ConfigurationError(
            f'password file "{path}" has group or world access; '
            "permissions should be u=rw (0600) or less"
        )


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _match(line: bytes, wanted: list[bytes]) -> bytes | None:
    """The password of a line; None where it is for something else."""
    fields = list(_fields(line))
    if line.startswith(b"#") or len(fields) <= len(wanted):
        return None
    for field, value in zip(fields, wanted, strict=False):
        if field != b"*" and _unescaped(field) != value:
            return None
    return _unescaped(fields[len(wanted)])


def _fields(line: bytes) -> Iterator[bytes]:
    """What stands between colons that have no backslash before them."""
    begin = at = 0
    while at < len(line):
        if line[at] == ord("\\"):
            at += 1
        elif line[at] == ord(":"):
            yield line[begin:at]
            begin = at + 1
        at += 1
    yield line[begin:]


def _unescaped(field: bytes) -> bytes:
    return re.sub(rb"\\(.)", rb"\1", field, flags=re.DOTALL)
