"""How the lines of a ``pg_hba.conf`` are read.

Source: ``parse_hba_line`` and ``parse_hba_auth_opt`` in ``src/backend/libpq/hba.c`` of PostgreSQL
17 and 18, messages included. What a gateway cannot know (which roles are members of a role) or do
(the other authentication methods) is a mistake, too; ``clientname=SAN`` is ours.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_address

from pgtls.errors import ConfigurationError
from pgtls.policy.client_identity import ClientCert, ClientName
from pgtls.policy.hba_rules import (
    AddressPattern,
    AuthMethod,
    ConnectionType,
    HbaLine,
    HbaRules,
    HostName,
    Interfaces,
    IPAddress,
    IPRange,
    Keyword,
    NamePattern,
)
from pgtls.policy.regular_expression import RegularExpression
from pgtls.policy.tokenizer import (
    AuthFileError,
    AuthToken,
    TokenizedAuthLine,
    tokenize_auth_file,
    unusable,
)
from pgtls.text import log_name, log_text

#: PostgreSQL's methods that are the server's business.
_OTHER_METHODS = (
    "ident",
    "peer",
    "password",
    "gss",
    "sspi",
    "md5",
    "pam",
    "bsd",
    "ldap",
    "radius",
    "oauth",
)

#: PostgreSQL's options of those methods, with the methods as it names them.
_OTHER_OPTIONS = {
    "pamservice": "pam",
    "pam_use_hostname": "pam",
    **dict.fromkeys(
        (
            "ldapurl",
            "ldaptls",
            "ldapscheme",
            "ldapserver",
            "ldapport",
            "ldapbinddn",
            "ldapbindpasswd",
            "ldapsearchattribute",
            "ldapsearchfilter",
            "ldapbasedn",
            "ldapprefix",
            "ldapsuffix",
        ),
        "ldap",
    ),
    "krb_realm": "gssapi and sspi",
    "include_realm": "gssapi and sspi",
    "compat_realm": "sspi",
    "upn_username": "sspi",
    **dict.fromkeys(
        ("radiusservers", "radiusports", "radiussecrets", "radiusidentifiers"), "radius"
    ),
    **dict.fromkeys(("issuer", "scope", "validator", "delegate_ident_mapping"), "oauth"),
}

# strtol(), with blanks and a sign before the digits
_BITS = re.compile(r"[ \t\n\r\v\f]*[+-]?[0-9]{1,9}")


class _InvalidLine(ValueError):
    """A record cannot be used; ``str()`` is what PostgreSQL says of it."""


def load_hba_file(path: str | os.PathLike[str], interfaces: Interfaces) -> HbaRules:
    """Read a file and those that it includes.

    :param path: the file.
    :param interfaces: for ``samehost`` and ``samenet``.
    :returns: its lines.
    :raises ConfigurationError: with every mistake, its file and line; or the file has no line at
        all, which would let no client in.
    """
    mistakes: list[str] = []
    lines = []
    try:
        records = tokenize_auth_file(os.path.abspath(path), mistakes)
    except AuthFileError as error:
        raise unusable("hba_file", error) from error
    for record in records:
        try:
            lines.append(parse_hba_line(record))
        except _InvalidLine as error:
            mistakes.append(f"{record.place}: {error}")
    if not records and not mistakes:
        mistakes.append(f'configuration file "{os.path.abspath(path)}" contains no entries')
    if mistakes:
        raise ConfigurationError(*mistakes)
    return HbaRules(lines, interfaces)


class _Fields:
    """The fields of a record, taken one after the other."""

    def __init__(self, fields: Sequence[list[AuthToken]]) -> None:
        self._left = list(fields)

    def take(self, before: str) -> list[AuthToken]:
        """:raises _InvalidLine: there is none."""
        if not self._left:
            raise _InvalidLine(f"end-of-line before {before}")
        return self._left.pop(0)

    def take_one(self, before: str, multiple: str) -> AuthToken:
        """:raises _InvalidLine: there is none, or a list."""
        field = self.take(before)
        if len(field) > 1:
            raise _InvalidLine(f"multiple values specified for {multiple}")
        return field[0]

    def rest(self) -> list[AuthToken]:
        """All that is left, lists taken apart."""
        return [token for field in self._left for token in field]


def parse_hba_line(record: TokenizedAuthLine) -> HbaLine:
    """Read one record.

    :param record: its fields.
    :returns: the line.
    :raises ValueError: it cannot be used.
    """
    fields = _Fields(record.fields)
    kind = _connection_type(fields.take_one("connection type", "connection type"))
    databases = tuple(_database(token) for token in fields.take("database specification"))
    roles = tuple(_role(token) for token in fields.take("role specification"))
    address: AddressPattern = Keyword.ALL
    if kind is not ConnectionType.LOCAL:
        address = _address(fields)
    method = _method(fields.take_one("authentication method", "authentication type"), kind)
    options = _Options(kind, method)
    for token in fields.rest():
        options.read(_text(token))
    if method is AuthMethod.CERT:
        options.clientcert = ClientCert.VERIFY_FULL
    return HbaLine(
        record.file_name,
        record.line_number,
        log_text(record.raw_line),
        kind,
        databases,
        roles,
        address,
        method,
        options.clientcert,
        options.clientname,
        options.map,
    )


def _text(token: AuthToken) -> str:
    return token.string.decode("utf-8", "surrogateescape")


def _shown(token: AuthToken) -> str:
    return log_name(token.string)


def _connection_type(token: AuthToken) -> ConnectionType:
    try:
        return ConnectionType(_text(token))
    except ValueError:
        raise _InvalidLine(f'invalid connection type "{_shown(token)}"') from None


def _keyword(token: AuthToken, *keywords: Keyword) -> Keyword | None:
    if token.quoted:
        return None
    return next((each for each in keywords if token.string == each.encode()), None)


def _database(token: AuthToken) -> NamePattern:
    if not token.quoted and token.string in (b"samerole", b"samegroup"):
        raise _InvalidLine(
            f'"{_shown(token)}" cannot be checked here, since only the server knows the '
            "members of roles: name the databases, or give a regular expression"
        )
    keyword = _keyword(token, Keyword.ALL, Keyword.SAMEUSER, Keyword.REPLICATION)
    return keyword or _name(token)


def _role(token: AuthToken) -> NamePattern:
    if not token.quoted and token.string[:1] == b"+":
        raise _InvalidLine(
            f'membership in role "{log_name(token.string[1:])}" cannot be checked here, since '
            "only the server knows it: name the roles, or give a regular expression"
        )
    return _keyword(token, Keyword.ALL) or _name(token)


def _name(token: AuthToken) -> NamePattern:
    if token.string[:1] != b"/":
        return token.string
    pattern = token.string[1:]
    try:
        return RegularExpression(pattern, captures=False)
    except ValueError as error:
        raise _InvalidLine(f'invalid regular expression "{log_name(pattern)}": {error}') from error


def _address(fields: _Fields) -> AddressPattern:
    token = fields.take_one("IP address specification", "host address")
    keyword = _keyword(token, Keyword.ALL, Keyword.SAMEHOST, Keyword.SAMENET)
    if keyword is not None:
        return keyword
    text, slash, bits = _text(token).partition("/")
    address = _ip_address(text, "address")
    if slash:
        if address is None:
            raise _InvalidLine(
                f'specifying both host name and CIDR mask is invalid: "{_shown(token)}"'
            )
        return _cidr(address, bits, token)
    if address is None:
        return HostName(text.lower())
    mask_token = fields.take_one("netmask specification", "netmask")
    mask = _ip_address(_text(mask_token), "mask")
    if mask is None:
        raise _InvalidLine(
            f'invalid IP mask "{_shown(mask_token)}": '
            f"{socket.gaierror(socket.EAI_NONAME, 'Name or service not known').strerror}"
        )
    if mask.version != address.version:
        raise _InvalidLine("IP address and mask do not match")
    return IPRange(address.version, int(address), int(mask))


def _cidr(address: IPAddress, bits: str, token: AuthToken) -> IPRange:
    width = address.max_prefixlen
    if not _BITS.fullmatch(bits) or not 0 <= int(bits) <= width:
        raise _InvalidLine(f'invalid CIDR mask in address "{_shown(token)}"')
    mask = (1 << width) - (1 << (width - int(bits)))
    return IPRange(address.version, int(address), mask)


def _ip_address(text: str, what: str) -> IPAddress | None:
    """As ``getaddrinfo`` with AI_NUMERICHOST reads it; None for a name.

    :raises _InvalidLine: it is neither.
    """
    if not text:
        return None
    numeric = text.encode("utf-8", "surrogateescape")
    try:
        found = socket.getaddrinfo(numeric, None, flags=socket.AI_NUMERICHOST)
    except socket.gaierror as error:
        if error.errno == socket.EAI_NONAME:
            return None
        raise _InvalidLine(f'invalid IP {what} "{log_name(numeric)}": {error.strerror}') from error
    return ip_address(str(found[0][4][0]).partition("%")[0])


def _method(token: AuthToken, kind: ConnectionType) -> AuthMethod:
    text = _text(token)
    if text in _OTHER_METHODS:
        raise _InvalidLine(
            f'authentication method "{text}" is the server\'s: write "trust", and the server asks '
            'for what it likes; or "scram-sha-256" or "cert", and the gateway authenticates'
        )
    try:
        method = AuthMethod(text)
    except ValueError:
        raise _InvalidLine(f'invalid authentication method "{_shown(token)}"') from None
    if method is AuthMethod.CERT and kind is not ConnectionType.HOSTSSL:
        raise _InvalidLine("cert authentication is only supported on hostssl connections")
    return method


@dataclass
class _Options:
    """The options behind the method, ``name=value``."""

    kind: ConnectionType
    method: AuthMethod
    clientcert: ClientCert = ClientCert.NO
    clientname: ClientName = ClientName.CN
    map: str = ""

    def read(self, text: str) -> None:
        """:raises _InvalidLine: as ``parse_hba_auth_opt`` says it."""
        name, equals, value = text.partition("=")
        if not equals:
            raise _InvalidLine(f"authentication option not in name=value format: {log_name(text)}")
        if name == "map":
            if self.method is not AuthMethod.CERT:
                raise self._only_for(name, "ident, peer, gssapi, sspi, and cert")
            self.map = value
        elif name == "clientcert":
            self._read_clientcert(value)
        elif name == "clientname":
            self._require_hostssl(name)
            if value not in list(ClientName):
                raise _InvalidLine(f'invalid value for clientname: "{log_name(value)}"')
            self.clientname = ClientName(value)
        elif name in _OTHER_OPTIONS:
            raise self._only_for(name, _OTHER_OPTIONS[name])
        else:
            raise _InvalidLine(f'unrecognized authentication option name: "{log_name(name)}"')

    def _read_clientcert(self, value: str) -> None:
        self._require_hostssl("clientcert")
        if value == ClientCert.VERIFY_CA and self.method is AuthMethod.CERT:
            raise _InvalidLine(
                'clientcert can only be set to "verify-full" when using "cert" authentication'
            )
        if value not in (ClientCert.VERIFY_CA, ClientCert.VERIFY_FULL):
            raise _InvalidLine(f'invalid value for clientcert: "{log_name(value)}"')
        self.clientcert = ClientCert(value)

    def _require_hostssl(self, name: str) -> None:
        if self.kind is not ConnectionType.HOSTSSL:
            raise _InvalidLine(f'{name} can only be configured for "hostssl" rows')

    def _only_for(self, name: str, methods: str) -> _InvalidLine:
        return _InvalidLine(
            f'authentication option "{name}" is only valid for authentication methods {methods}'
        )
