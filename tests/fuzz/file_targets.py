"""Targets: files and strings that users write, or get from others. Each takes the bytes of an
input, and raises where one of our parsers does what it must not: anything else than to read it, or
to refuse it by a ConfigurationError.
"""

from __future__ import annotations

import atexit
import shutil
import tempfile
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from ipaddress import ip_address, ip_interface
from pathlib import Path

from pgtls.certs.client_conf import read_client_conf
from pgtls.certs.request import read_request
from pgtls.conninfo.connection_string import ConnInfo
from pgtls.conninfo.grammar import format_text, parse_text
from pgtls.errors import ConfigurationError
from pgtls.policy.auth_file import AuthFile
from pgtls.policy.hba_file import load_hba_file
from pgtls.policy.hba_rules import ConnectionRequest, HbaUndecided, HostNameNeeded
from pgtls.policy.hosts_file import load_hosts_file
from pgtls.policy.ident_map import IdentMap
from pgtls.policy.regular_expression import RegularExpression, TooMuchWork, WorkAllowance
from pgtls.tls.certificate import Certificate
from tests.support.certificates import authority


@cache
def _directory() -> Path:
    directory = Path(tempfile.mkdtemp(prefix="pgtls-fuzz-"))
    atexit.register(shutil.rmtree, directory)
    return directory


def _file(data: bytes) -> Path:
    path = _directory() / "input"
    path.write_bytes(data)
    return path


def _loaded(load: Callable[[Path], object], data: bytes) -> object:
    """What is read; None where it is refused: with mistakes that can be shown."""
    try:
        return load(_file(data))
    except ConfigurationError as error:
        _check_mistakes(error)
        return None


def _check_mistakes(error: ConfigurationError) -> None:
    """What cannot be printed is escaped where mistakes are shown."""
    assert error.mistakes
    assert all(error.mistakes)


_REQUESTS = [
    ConnectionRequest(
        address=ip_address(address) if address else None,
        tls=tls,
        database=database,
        user=user,
        replication=False,
    )
    for address, tls, database, user in (
        (None, False, b"postgres", b"postgres"),
        ("192.0.2.7", True, b"app", b"alice"),
        ("2001:db8::7", False, b"alice", b"alice"),
    )
]


def hba(data: bytes) -> None:
    """``hba_file``."""
    rules = _loaded(lambda path: load_hba_file(path, lambda: [ip_interface("192.0.2.1/24")]), data)
    for request in _REQUESTS if rules is not None else ():
        with suppress(HbaUndecided, HostNameNeeded):
            rules.find(request)  # type: ignore[attr-defined]


def ident(data: bytes) -> None:
    """``ident_file``."""
    found = _loaded(IdentMap.load, data)
    if isinstance(found, IdentMap):
        maps = dict.fromkeys(line.usermap for line in found.lines)
        for name in [each.decode("utf-8", "surrogateescape") for each in maps][:5]:
            found.refusal(name, "alice@example.com", "alice")


def hosts(data: bytes) -> None:
    """``hosts_file``."""
    _loaded(lambda path: load_hosts_file(str(path)), data)


def auth_file(data: bytes) -> None:
    """``auth_file``."""
    _loaded(lambda path: AuthFile.load(str(path)), data)


def client_conf(data: bytes) -> None:
    """``client.conf``, which a user gets from somebody."""
    _loaded(read_client_conf, data)


def request(data: bytes) -> None:
    """A certificate request, which a DBA gets from anybody. The first byte says whether
    certificates are renewed.
    """
    root = Certificate.of(authority().issued.certificate)
    _loaded(lambda path: read_request(path, root, renew=data[:1] == b"\1"), data[1:])


def certificate(data: bytes) -> None:
    """A peer's certificate: each part can be read or is refused."""
    shown = Certificate(data)
    for part in (
        *(lambda: shown.serial, lambda: shown.not_before, lambda: shown.not_after),
        *(lambda: shown.subject, lambda: shown.issuer),
        *(lambda: shown.alternative_names, lambda: shown.is_authority, lambda: shown.purposes),
        *(lambda: list(shown.extensions()), lambda: shown.subject_key_identifier),
        lambda: shown.public_key_algorithm,
    ):
        with suppress(ValueError):
            part()
    assert shown.subject_line.isprintable()
    assert shown.issuer_line.isprintable()
    assert shown.serial_text.isprintable()


def conninfo(data: bytes) -> None:
    """A connection string: libpq's own parser says the same."""
    text = data.decode("utf-8", "surrogateescape")
    ours = _conninfo(text)
    theirs = _libpq(data)
    assert ours == theirs, (ours, theirs)
    if ours is None:
        return
    assert parse_text(format_text(ours)) == ours
    ours.pop("service", None)  # which is looked for on this machine
    try:
        ConnInfo.from_parameters(ours, {"HOME": "/nonexistent"}, Path("/nonexistent"))
    except ConfigurationError as error:
        _check_mistakes(error)


def _conninfo(text: str) -> dict[str, str] | None:
    try:
        return parse_text(text)
    except ConfigurationError as error:
        _check_mistakes(error)
        return None


def _libpq(data: bytes) -> dict[str, str] | None:
    """None where libpq refuses it; a NUL would end it there."""
    import psycopg  # noqa: PLC0415 - it takes a while
    from psycopg import pq  # noqa: PLC0415

    if b"\0" in data:
        return None
    try:
        options = pq.Conninfo.parse(data)
    except psycopg.Error:
        return None
    return {
        option.keyword.decode(): option.val.decode("utf-8", "surrogateescape")
        for option in options
        if option.val is not None
    }


def regular_expression(data: bytes) -> None:
    """A regular expression and, behind a NUL, a text."""
    pattern, _, text = data.partition(b"\0")
    try:
        expression = RegularExpression(pattern, WorkAllowance(most=20_000, least=20_000))
        found = expression.match(text)
    except (ValueError, TooMuchWork):
        return
    assert found is None or len(found.groups) == expression.groups
