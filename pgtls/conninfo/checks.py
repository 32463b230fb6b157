"""What is wrong with the values of a connection string, the hosts apart.

Source: ``pqConnectOptions2`` in ``src/interfaces/libpq/fe-connect.c``; the sentences are libpq's.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator, Mapping

from pgtls.conninfo.hosts import Host, parse_integer
from pgtls.conninfo.keywords import CHOICES, INTEGERS, PROTOCOL_VERSIONS, TLS_VERSIONS
from pgtls.wire.attempts import SSLMode, SSLNegotiation, combination_error
from pgtls.wire.required_authentication import METHODS

_SCRAM_KEY_LENGTH = 32


def find_mistakes(values: Mapping[str, str], hosts: Iterable[Host]) -> Iterator[str]:
    """Every mistake, one sentence each, in the order of libpq's checks.

    :param values: values by keyword, defaults included.
    :param hosts: the hosts, as far as they are known.
    :returns: the sentences.
    """
    yield from _require_auth(values)
    for keyword, allowed in CHOICES.items():
        if keyword in values and values[keyword] not in allowed:
            yield f'invalid {keyword} value: "{values[keyword]}"'
    yield from _sslmode_combinations(values)
    yield from _tls_versions(values)
    yield from _check_address(values, hosts)
    yield from _unsupported(values)
    yield from _scram_keys(values)
    yield from _protocol_versions(values)
    for keyword in INTEGERS:
        if keyword in values and parse_integer(values[keyword]) is None:
            yield f'invalid integer value "{values[keyword]}" for connection option "{keyword}"'


def tls_version(text: str) -> str | None:
    """The name of a TLS version as PostgreSQL writes it.

    :param text: the value of ``ssl_min_protocol_version`` or ``ssl_max_protocol_version``.
    :returns: the name; None where no bound is meant.
    :raises ValueError: there is no such version.
    """
    if not text:
        return None
    return TLS_VERSIONS[[version.lower() for version in TLS_VERSIONS].index(text.lower())]


def oldest_protocol(values: Mapping[str, str]) -> tuple[int, int]:
    """The oldest version of the protocol that is acceptable: ``min_protocol_version``.

    :param values: values by keyword.
    :returns: major and minor number.
    """
    return PROTOCOL_VERSIONS[values.get("min_protocol_version", "3.0")]


def newest_protocol(values: Mapping[str, str]) -> tuple[int, int]:
    """The version of the protocol to ask for: ``max_protocol_version``.

    Older servers and poolers close the connection at one that they do not know. So it is 3.0 where
    nothing else is asked for, and where 3.0 is not too old.

    :param values: values by keyword.
    :returns: major and minor number.
    """
    default = "latest" if oldest_protocol(values) > PROTOCOL_VERSIONS["3.0"] else "3.0"
    return PROTOCOL_VERSIONS[values.get("max_protocol_version", default)]


def scram_key(values: Mapping[str, str], keyword: str) -> bytes | None:
    """A key of SCRAM.

    :param values: values by keyword.
    :param keyword: ``scram_client_key`` or ``scram_server_key``.
    :returns: the key; None where it is not given.
    :raises ValueError: it is not in base64.
    """
    text = values.get(keyword)
    if text is None:
        return None
    return base64.b64decode("".join(text.split()), validate=True)


def _is_choice(values: Mapping[str, str], keyword: str) -> bool:
    return keyword not in values or values[keyword] in CHOICES[keyword]


def _sslmode_combinations(values: Mapping[str, str]) -> Iterator[str]:
    if not (_is_choice(values, "sslmode") and _is_choice(values, "sslnegotiation")):
        return
    sslmode = SSLMode(values["sslmode"])
    weak = combination_error(sslmode, SSLNegotiation(values["sslnegotiation"]))
    if weak:
        yield weak
    if values.get("sslrootcert") == "system" and sslmode is not SSLMode.VERIFY_FULL:
        yield (
            f'weak sslmode "{sslmode}" may not be used with sslrootcert=system (use "verify-full")'
        )


def _check_address(values: Mapping[str, str], hosts: Iterable[Host]) -> Iterator[str]:
    if values["check_address"] != "1":
        return
    if _is_choice(values, "sslmode") and values["sslmode"] != SSLMode.VERIFY_FULL:
        yield (
            "check_address=1 needs sslmode=verify-full: it looks up the name that the certificate "
            f'was verified for, and sslmode "{values["sslmode"]}" verifies none'
        )
    for host in hosts:
        if host.unix_path is None and not host.has_name:
            yield f'check_address=1 needs a host name to look up, and "{host.name}" is an address'


def _tls_versions(values: Mapping[str, str]) -> Iterator[str]:
    bounds = []
    for keyword in ("ssl_min_protocol_version", "ssl_max_protocol_version"):
        try:
            bounds.append(tls_version(values.get(keyword, "")))
        except ValueError:
            yield f'invalid "{keyword}" value: "{values[keyword]}"'
    if len(bounds) == 2:
        oldest, newest = bounds
        if oldest and newest and TLS_VERSIONS.index(oldest) > TLS_VERSIONS.index(newest):
            yield "invalid SSL protocol version range"


def _unsupported(values: Mapping[str, str]) -> Iterator[str]:
    """What libpq may do and pgtls does not."""
    if values["gssencmode"] == "require":
        yield 'gssencmode value "require" invalid when GSSAPI support is not compiled in'


def _protocol_versions(values: Mapping[str, str]) -> Iterator[str]:
    known = _is_choice(values, "min_protocol_version") and _is_choice(
        values, "max_protocol_version"
    )
    if known and oldest_protocol(values) > newest_protocol(values):
        yield '"min_protocol_version" is greater than "max_protocol_version"'


def _scram_keys(values: Mapping[str, str]) -> Iterator[str]:
    for side in ("client", "server"):
        try:
            key = scram_key(values, f"scram_{side}_key")
        except ValueError:
            yield f"invalid SCRAM {side} key"
            continue
        if key is not None and len(key) != _SCRAM_KEY_LENGTH:
            yield f"invalid SCRAM {side} key length: {len(key)}"


def _require_auth(values: Mapping[str, str]) -> Iterator[str]:
    """Methods, all of them with a ``!`` or none, each once."""
    text = values.get("require_auth", "")
    if not text:
        return
    parts = text.split(",")
    negative = parts[0].startswith("!")
    for place, part in enumerate(parts):
        if part.startswith("!") and not negative:
            yield (
                f'negative require_auth method "{part}" cannot be mixed with non-negative methods'
            )
        elif negative and not part.startswith("!"):
            yield f'require_auth method "{part}" cannot be mixed with negative methods'
        elif part.removeprefix("!") not in METHODS:
            yield f'invalid require_auth value: "{part.removeprefix("!")}"'
        elif part in parts[:place]:
            yield f'require_auth method "{part}" is specified more than once'
