"""The ``auth_file``: SCRAM secrets of roles, in the format of pgbouncer's ``userlist.txt``.

One role a line, ``"role" "SCRAM-SHA-256$4096:...$...:..."``; a double quote inside is written twice
and what follows on the line is ignored (pgbouncer's documentation, "Authentication File Format").
Unlike there, the secret must be a SCRAM secret: a password or its MD5 hash would let any
reader of the file log in, and is not needed here.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from pgtls.errors import ConfigurationError
from pgtls.reading import read_file
from pgtls.wire.scram_secret import ScramSecret

#: Bytes of a file at most: some 100,000 roles.
MAX_SIZE = 16 * 1024 * 1024

_FIELD = rb'"((?:[^"]|"")*)"'
_LINE = re.compile(rb"\s*" + _FIELD + rb"\s+" + _FIELD)


@dataclass(frozen=True, slots=True)
class AuthFile:
    """What an ``auth_file`` says.

    :ivar secrets: of each role.
    :ivar mock_nonce: see :meth:`~pgtls.wire.scram_secret.ScramSecret.mock`: the same in all
        processes that have read the file, and from one start to the next. It comes from the secret
        of the first role by name, so that it changes when that role's password does.
    """

    secrets: Mapping[bytes, ScramSecret] = field(repr=False)
    mock_nonce: bytes = field(repr=False)

    @classmethod
    def load(cls, path: str) -> AuthFile:
        """Read one.

        :param path: the file.
        :returns: what it says.
        :raises ConfigurationError: as :func:`load_auth_file`; or no role is in it.
        """
        secrets = load_auth_file(path)
        if not secrets:
            raise ConfigurationError(f'auth_file "{path}" has no role in it')
        secret = secrets[min(secrets)]
        return cls(secrets, hmac.digest(secret.server_key, b"mock " + secret.stored_key, "sha256"))


def load_auth_file(path: str) -> Mapping[bytes, ScramSecret]:
    """Read an ``auth_file``.

    :param path: the file.
    :returns: the secret of each role, by the role's name as a StartupMessage has it.
    :raises ConfigurationError: the file cannot be read; or, with every line that is wrong.
    """
    try:
        content = read_file(path, MAX_SIZE + 1)
    except OSError as error:
        missing = isinstance(error, FileNotFoundError)
        step = '; write it with "pgtls auth-file", or name the one that is meant' if missing else ""
        raise ConfigurationError(
            f'could not open auth_file "{path}": {error.strerror}{step}'
        ) from error
    if len(content) > MAX_SIZE:
        raise ConfigurationError(f'auth_file "{path}" has more than {MAX_SIZE} bytes')
    return _read(path, content)


def _read(path: str, content: bytes) -> Mapping[bytes, ScramSecret]:
    secrets: dict[bytes, ScramSecret] = {}
    mistakes: list[str] = []
    for number, line in enumerate(content.split(b"\n"), 1):
        if not line.strip():
            continue
        try:
            role, secret = _entry(line)
            if role in secrets:
                raise ValueError("this role has a line already")
            secrets[role] = secret
        except ValueError as error:
            mistakes.append(f'line {number} of auth_file "{path}": {error}')
    if mistakes:
        raise ConfigurationError(*mistakes)
    return MappingProxyType(secrets)


def _entry(line: bytes) -> tuple[bytes, ScramSecret]:
    """:raises ValueError: what is wrong with the line. It never repeats the secret."""
    fields = _LINE.match(line)
    if fields is None:
        raise ValueError('expected "role" "SCRAM secret", each in double quotes')
    role, secret = (field.replace(b'""', b'"') for field in fields.groups())
    if not role:
        raise ValueError("the role's name is empty")
    if b"\0" in role:
        raise ValueError("the role's name has a zero byte in it")
    return role, _secret(secret)


def _secret(text: bytes) -> ScramSecret:
    if not text:
        raise ValueError("the role has no secret")
    if re.fullmatch(rb"md5[0-9a-f]{32}", text):
        raise ValueError(
            "an MD5 hash is not accepted: set the password again with "
            "password_encryption = scram-sha-256"
        )
    if not text.startswith(b"SCRAM-SHA-256$"):
        raise ValueError(
            'a plain password is not accepted: write the secret that "pgtls auth-file" or '
            "pg_authid.rolpassword has"
        )
    return ScramSecret.parse(text.decode("latin-1"))


def format_auth_file(secrets: Iterable[tuple[bytes, ScramSecret]]) -> bytes:
    """The content of an ``auth_file``.

    :param secrets: roles and their secrets, in the order that they are to have.
    :returns: one line for each.
    :raises ValueError: a role's name has a line feed in it, which the format cannot hold.
    """
    lines = []
    for role, secret in secrets:
        if b"\n" in role:
            raise ValueError("a role's name with a line feed cannot be in an auth_file")
        lines.append(b'"' + role.replace(b'"', b'""') + b'" "' + str(secret).encode() + b'"\n')
    return b"".join(lines)
