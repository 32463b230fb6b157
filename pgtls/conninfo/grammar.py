"""The grammar of a connection string: keyword/value pairs or a ``postgresql://`` URI.

Source: PostgreSQL's documentation, "Connection Strings"; ``conninfo_parse``,
``conninfo_uri_parse_options``, ``conninfo_uri_parse_params`` and ``conninfo_uri_decode`` in
``src/interfaces/libpq/fe-connect.c``.

The errors are libpq's, but for this: libpq repeats the text it stumbled over, and that may be a
piece of a password that lacks its quotes or its percent-encoding. Such text is shown as ``***``,
and a URI is never repeated as a whole.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from pgtls.conninfo.keywords import OPTIONS
from pgtls.errors import ConfigurationError

_URI_PREFIX = re.compile("postgres(?:ql)?://")

# libpq's blanks are those of isspace() in the C locale: "\s" would take Unicode's as well.
_BLANKS = " \t\n\r\v\f"
_NAME = re.compile(rf"([^={_BLANKS}]*)[{_BLANKS}]*=[{_BLANKS}]*")
_QUOTED_VALUE = re.compile(rf"'((?:\\.|[^\\'])*)'[{_BLANKS}]*", re.DOTALL)
# A backslash that ends the text is dropped.
_PLAIN_VALUE = re.compile(rf"((?:\\.|[^\\{_BLANKS}])*)\\?[{_BLANKS}]*", re.DOTALL)
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)

_CREDENTIALS_OR_PATH = re.compile("[@/]")
_URI_HOST = re.compile("[^:/?,]+")
_URI_PORT = re.compile(":([^/?,]*)")
_PERCENT = re.compile(b"%([0-9A-Fa-f]{2})?")

#: What a keyword looks like: a name of this form may be shown wherever it stands.
_KEYWORD = re.compile("[a-z_]+")


def parse_text(text: str) -> dict[str, str]:
    """Read a connection string, as PQconninfoParse() does.

    :param text: the connection string, in either form.
    :returns: the parameters that the text names, each once; the last mention counts.
    :raises ConfigurationError: at the first mistake.
    """
    require_c_string("connection info string", text)
    uri = _URI_PREFIX.match(text)
    return _parse_uri(text, uri.end()) if uri else _parse_pairs(text)


def format_text(options: Mapping[str, str]) -> str:
    """Write a connection string in keyword/value form: what :func:`parse_text` reads back.

    :param options: values by keyword.
    :returns: the connection string.
    """
    return " ".join(f"{keyword}={_quote(value)}" for keyword, value in options.items())


def excerpt(text: str, *, secret: bool = False) -> str:
    """``text`` for an error message, hidden where it may be, or hold, a piece of a password.

    An ``@`` in it says that it came from before the host of a URI.

    :param text: a part of a connection string.
    :param secret: whether it is a password.
    :returns: the part, or what stands for it.
    """
    return "***" if secret or "@" in text else text


def require_c_string(name: str, text: str) -> None:
    """Check that a value can be a C string, as libpq's values are.

    :param name: the keyword, for the error message.
    :param text: the value.
    :raises ConfigurationError: ``text`` has a NUL, or a surrogate that stands for no byte.
    """
    if "\0" in text:
        raise ConfigurationError(f"{name} must not contain a NUL character")
    try:
        text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise ConfigurationError(f"{name} must not contain a lone surrogate") from None


def _quote(value: str) -> str:
    if re.fullmatch(r"[\w./:@%+,-]+", value, re.ASCII):
        return value
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _store(options: dict[str, str], keyword: str, value: str) -> bool:
    """Set a parameter; False where there is none of that name."""
    if keyword == "requiressl":  # libpq's old name for two of the modes
        keyword, value = "sslmode", "require" if value.startswith("1") else "prefer"
    if keyword not in OPTIONS:
        return False
    options[keyword] = value
    return True


def _is_secret(keyword: str) -> bool:
    return keyword in OPTIONS and OPTIONS[keyword].secret


def _unknown_name(name: str, *, doubtful: bool) -> str:
    """A name that is no keyword, for an error; a doubtful one only where it looks like one."""
    return excerpt(name, secret=doubtful and not _KEYWORD.fullmatch(name))


# Keyword/value pairs


def _parse_pairs(text: str) -> dict[str, str]:
    options: dict[str, str] = {}
    behind_secret = False
    at = len(text) - len(text.lstrip(_BLANKS))
    while at < len(text):
        name, at = _pair_name(text, at, behind_secret=behind_secret)
        value, at = _pair_value(text, at)
        if not _store(options, name, value):
            shown = _unknown_name(name, doubtful=behind_secret)
            raise ConfigurationError(f'invalid connection option "{shown}"')
        behind_secret = _is_secret(name)
    return options


def _pair_name(text: str, at: int, *, behind_secret: bool) -> tuple[str, int]:
    found = _NAME.match(text, at)
    if found is None:
        word = re.split(f"[{_BLANKS}]", text[at:], maxsplit=1)[0]
        # Behind a password, this is most likely the rest of one that has a space and no quotes.
        shown = excerpt(word, secret=behind_secret)
        raise ConfigurationError(f'missing "=" after "{shown}" in connection info string')
    return found[1], found.end()


def _pair_value(text: str, at: int) -> tuple[str, int]:
    quoted = text.startswith("'", at)
    found = (_QUOTED_VALUE if quoted else _PLAIN_VALUE).match(text, at)
    if found is None:
        raise ConfigurationError("unterminated quoted string in connection info string")
    # Bytes: a backslash may stand within a character of UTF-8, which is whole without it.
    value = _ESCAPE.sub(r"\1", found[1]).encode("utf-8", "surrogateescape")
    return value.decode("utf-8", "surrogateescape"), found.end()


# URI


def _parse_uri(uri: str, at: int) -> dict[str, str]:
    options: dict[str, str] = {}
    mark = _CREDENTIALS_OR_PATH.search(uri, at)
    if mark and mark[0] == "@":
        user, _, password = uri[at : mark.start()].partition(":")
        _store_part(options, "user", user)
        _store_part(options, "password", password)
        at = mark.end()
    # One more "@": the password has a "/" or a "@" as it is, and where it ends is not known.
    doubtful = "@" in uri[at:]
    host, port, at = _uri_hosts(uri, at)
    _store_part(options, "host", host, doubtful=doubtful)
    _store_part(options, "port", port, doubtful=doubtful)
    path, _, query = uri[at:].partition("?")
    _store_part(options, "dbname", path.removeprefix("/"), doubtful=doubtful)
    _parse_query(options, query, doubtful=doubtful)
    return options


def _store_part(
    options: dict[str, str], keyword: str, part: str, *, doubtful: bool = False
) -> None:
    """Set a parameter that has a place of its own in the URI; an empty part sets nothing."""
    if part:
        options[keyword] = _decode(part, secret=doubtful or _is_secret(keyword))


def _uri_hosts(uri: str, at: int) -> tuple[str, str, int]:
    """The hosts and the ports, each with commas between, and where they end."""
    hosts, ports = [], []
    while True:
        host, at = _uri_host(uri, at)
        hosts.append(host)
        port = _URI_PORT.match(uri, at)
        ports.append(port[1] if port else "")
        at = port.end() if port else at
        if not uri.startswith(",", at):
            return ",".join(hosts), ",".join(ports), at
        at += 1


def _uri_host(uri: str, at: int) -> tuple[str, int]:
    if not uri.startswith("[", at):
        host = _URI_HOST.match(uri, at)
        return (host[0], host.end()) if host else ("", at)
    end = uri.find("]", at)
    if end < 0:
        raise ConfigurationError(
            'end of string reached when looking for matching "]" in IPv6 host address in URI'
        )
    if end == at + 1:
        raise ConfigurationError("IPv6 host address may not be empty in URI")
    follower = uri[end + 1 : end + 2]
    if follower and follower not in ":/?,":
        position = len(uri[: end + 1].encode("utf-8", "surrogateescape")) + 1
        raise ConfigurationError(
            f'unexpected character "{follower}" at position {position} in URI (expected ":" or "/")'
        )
    return uri[at + 1 : end], end + 1


def _parse_query(options: dict[str, str], query: str, *, doubtful: bool) -> None:
    pieces = query.split("&")
    if not pieces[-1]:
        pieces.pop()
    for piece in pieces:
        keyword, value = _query_parameter(piece, doubtful=doubtful)
        if not _store(options, keyword, value):
            shown = _unknown_name(keyword, doubtful=doubtful)
            raise ConfigurationError(f'invalid URI query parameter: "{shown}"')
        # Behind a password, the next piece may be the rest of one that has a "&".
        doubtful = doubtful or _is_secret(keyword)


def _query_parameter(piece: str, *, doubtful: bool) -> tuple[str, str]:
    keyword, *values = piece.split("=")
    if not values:
        shown = excerpt(keyword, secret=doubtful)
        raise ConfigurationError(
            f'missing key/value separator "=" in URI query parameter: "{shown}"'
        )
    if len(values) > 1:
        shown = _unknown_name(keyword, doubtful=doubtful)
        raise ConfigurationError(f'extra key/value separator "=" in URI query parameter: "{shown}"')
    keyword = _decode(keyword, secret=doubtful)
    value = _decode(values[0], secret=doubtful or _is_secret(keyword))
    if (keyword, value) == ("ssl", "true"):  # JDBC's
        return "sslmode", "require"
    return keyword, value


def _decode(text: str, *, secret: bool) -> str:
    """Percent-decode a part of a URI.

    Bytes that are not UTF-8 are kept, as the surrogates of PEP 383.
    """
    word, _, behind = text.strip(" ").partition(" ")
    shown = excerpt(text, secret=secret)

    def byte(token: re.Match[bytes]) -> bytes:
        if token[1] is None:
            raise ConfigurationError(f'invalid percent-encoded token: "{shown}"')
        if token[1] == b"00":
            raise ConfigurationError(f'forbidden value %00 in percent-encoded value: "{shown}"')
        return bytes.fromhex(token[1].decode("ascii"))

    decoded = _PERCENT.sub(byte, word.encode("utf-8", "surrogateescape"))
    if behind:
        raise ConfigurationError(
            f'unexpected spaces found in "{shown}", use percent-encoded spaces (%20) instead'
        )
    return decoded.decode("utf-8", "surrogateescape")
