"""``hosts_file``: a certificate for each host name that clients ask for, PostgreSQL 19's
``pg_hosts.conf``.

A line is ``hostnames certificate key [CA [passphrase_command [reload]]]``. ``*`` stands for any
other client, ``/no_sni/`` for one that names no host. Ours beyond PostgreSQL: ``*.example.com``
stands for one label in front of ``.example.com``; names without a wildcard come first.

Source: ``parse_hosts_line`` and ``load_hosts`` in ``src/backend/libpq/be-secure-common.c``,
``init_host_context`` in ``be-secure-openssl.c``.
"""

from __future__ import annotations

import os
import re

from pgtls.errors import ConfigurationError
from pgtls.policy.tokenizer import AuthFileError, AuthToken, TokenizedAuthLine, tokenize_auth_file
from pgtls.tls.host_contexts import DEFAULT, NO_SNI, HostEntry

#: A host name, as it comes in a ClientHello; a wildcard for its first label.
_HOST_NAME = re.compile(r"(\*\.)?[a-z0-9_-]+(\.[a-z0-9_-]+)*\.?", re.ASCII)

_TRUE = ("t", "tr", "tru", "true", "y", "ye", "yes", "on", "1")
_FALSE = ("f", "fa", "fal", "fals", "false", "n", "no", "of", "off", "0")


def load_hosts_file(path: str) -> tuple[HostEntry, ...]:
    """Read a ``hosts_file``.

    :param path: the file. Names of files in it that are not absolute count from its directory.
    :returns: its entries; none where the file is missing or empty: then the listener's own
        certificate is in force.
    :raises ConfigurationError: with every line that is wrong.
    """
    mistakes: list[str] = []
    entries = read_hosts_file(path, mistakes)
    if mistakes:
        raise ConfigurationError(*mistakes)
    return entries


def read_hosts_file(path: str, mistakes: list[str]) -> tuple[HostEntry, ...]:
    """As :func:`load_hosts_file`, and where a line is wrong go on: other things may be wrong with
    the files that the others name.

    :param path: the file.
    :param mistakes: gets one sentence for each line that is wrong.
    :returns: the entries that are right.
    """
    try:
        lines = tokenize_auth_file(path, mistakes)
    except AuthFileError as error:
        if not isinstance(error.__cause__, FileNotFoundError):
            mistakes.append(str(error))
        return ()
    directory = os.path.dirname(os.path.abspath(path))
    entries: list[HostEntry] = []
    seen: set[str] = set()
    for line in lines:
        try:
            entry = _entry(line, directory)
            _refuse_duplicates(entry, seen)
            entries.append(entry)
        except ValueError as error:
            mistakes.append(f"{line.place}: {error}")
    return tuple(entries)


def _entry(line: TokenizedAuthLine, directory: str) -> HostEntry:
    """:raises ValueError: what is wrong with the line, in PostgreSQL's words where it has them."""
    hosts, *rest = line.fields
    names = _names(hosts)
    if len(rest) < 2:
        raise ValueError("missing entry at end of line")
    if len(rest) > 5:
        raise ValueError("extra fields at end of line")
    what = ("SSL certificate", "SSL key", "SSL CA", "SSL passphrase command")
    for field, name in zip(rest, what, strict=False):
        if len(field) > 1:
            raise ValueError(f"multiple values specified for {name}")
    values = [os.fsdecode(field[0].string) for field in rest[:4]]
    files = [os.path.join(directory, name) if name else "" for name in values[:3]]
    command = values[3] if len(values) > 3 else ""
    reload = len(rest) == 5 and _boolean(rest[4])
    return HostEntry(line.place, names, files[0], files[1], "".join(files[2:]), command, reload)


def _names(hosts: list[AuthToken]) -> tuple[str, ...]:
    names = tuple(os.fsdecode(token.string).lower() for token in hosts)
    if len(names) > 1 and {DEFAULT, NO_SNI} & set(names):
        raise ValueError("default and non-SNI entries cannot be mixed with other entries")
    for name in names:
        if name not in (DEFAULT, NO_SNI) and not _HOST_NAME.fullmatch(name):
            raise ValueError(f"{name!a} is not a host name")
    return names


def _boolean(field: list[AuthToken]) -> bool:
    """PostgreSQL's ``parse_bool``."""
    text = os.fsdecode(field[0].string).lower()
    if len(field) > 1 or text not in (*_TRUE, *_FALSE):
        raise ValueError("incorrect syntax for boolean value SSL_passphrase_cmd_reload")
    return text in _TRUE


def _refuse_duplicates(entry: HostEntry, seen: set[str]) -> None:
    """:raises ValueError: one of the names stands elsewhere too, or twice in the list."""
    for name in entry.names:
        if name in seen:
            raise ValueError(f'multiple entries for host "{name}"')
        seen.add(name)
