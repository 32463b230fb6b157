"""Names in certificates: host names, addresses and roles as subject and alternative names."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Sequence

import idna
from cryptography import x509
from cryptography.x509.oid import NameOID

from pgtls.errors import ConfigurationError
from pgtls.text import printable

#: The longest common name that RFC 5280 has room for (ub-common-name).
_MAX_COMMON_NAME = 64

#: The longest name of a role: NAMEDATALEN of PostgreSQL, less one.
_MAX_ROLE = 63

#: What the subject of a client certificate may consist of, and how long each may be (RFC 5280).
SUBJECT_FIELDS = {
    "countryName": (NameOID.COUNTRY_NAME, 2),
    "stateOrProvinceName": (NameOID.STATE_OR_PROVINCE_NAME, 128),
    "localityName": (NameOID.LOCALITY_NAME, 128),
    "organizationName": (NameOID.ORGANIZATION_NAME, 64),
    "organizationalUnitName": (NameOID.ORGANIZATIONAL_UNIT_NAME, 64),
    "commonName": (NameOID.COMMON_NAME, _MAX_COMMON_NAME),
}
#: As people write them.
SHORT_NAMES = {
    "C": "countryName",
    "ST": "stateOrProvinceName",
    "L": "localityName",
    "O": "organizationName",
    "OU": "organizationalUnitName",
    "CN": "commonName",
}

_LABEL = "[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?"
_HOST_NAME = re.compile(rf"(\*\.)?({_LABEL}\.)*{_LABEL}")


def general_names(names: Iterable[str]) -> list[x509.GeneralName]:
    """Host names and addresses as subject alternative names, each once, in the order given.

    :param names: host names, international ones and those that begin with ``*.`` included, and
        addresses.
    :returns: the alternative names.
    :raises ConfigurationError: some are neither (all of those are named), or there are none.
    """
    found: dict[x509.GeneralName, None] = {}
    mistakes = []
    for name in names:
        try:
            found[_general_name(name)] = None
        except ValueError:
            mistakes.append(f'"{name}" is neither a host name nor an IP address')
    if not found and not mistakes:
        mistakes.append("a server certificate needs a host name or an IP address")
    if mistakes:
        raise ConfigurationError(*mistakes)
    return list(found)


def _general_name(name: str) -> x509.GeneralName:
    """:raises ValueError: it is neither a host name nor an IP address."""
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return _host_name(name.removesuffix(".").lower())
    if "%" in name:  # a scope means something on one machine only
        raise ValueError(name)
    return x509.IPAddress(address)


def _host_name(host: str) -> x509.DNSName:
    """:raises ValueError: it is none."""
    if not host.isascii():
        wildcard = "*." if host.startswith("*.") else ""
        host = wildcard + idna.encode(host.removeprefix(wildcard), uts46=True).decode("ascii")
    # A last label of digits alone: a mistyped address (RFC 3696, section 2).
    if not _HOST_NAME.fullmatch(host) or len(host) > 253 or host.rpartition(".")[2].isdigit():
        raise ValueError(host)
    return x509.DNSName(host)


def common_name(alternatives: Sequence[x509.GeneralName]) -> x509.Name:
    """The first name that fits a common name, as a subject.

    :param alternatives: the alternative names.
    :returns: the subject; empty where none fits.
    """
    texts = [str(name.value) for name in alternatives]
    return distinguished_name(next((text for text in texts if len(text) <= _MAX_COMMON_NAME), None))


def distinguished_name(common_name: str | None) -> x509.Name:
    """A subject that is just a common name.

    :param common_name: cut to the 64 characters that it may have; None for an empty subject.
    :returns: the subject.
    """
    if common_name is None:
        return x509.Name([])
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name[:_MAX_COMMON_NAME])])


def subject_field(name: str, value: str) -> x509.NameAttribute[str]:
    """One field of a subject.

    :param name: as in :data:`SUBJECT_FIELDS` or :data:`SHORT_NAMES`.
    :param value: its value.
    :returns: the field.
    :raises ConfigurationError: the name is not one of them; or the value is too long, empty, or not
        printable.
    """
    long_name = SHORT_NAMES.get(name, name)
    if long_name not in SUBJECT_FIELDS:
        known = ", ".join(SUBJECT_FIELDS)
        raise ConfigurationError(f'"{printable(name)}" is not a field of a subject ({known})')
    oid, most = SUBJECT_FIELDS[long_name]
    if value != value.strip() or not value or not value.isprintable():
        raise ConfigurationError(
            f"{long_name} is empty, begins or ends with a space, or has characters that "
            f'cannot be printed: "{printable(value)}"'
        )
    if len(value) > most:
        raise ConfigurationError(f"{long_name} is longer than {most} characters")
    try:
        return x509.NameAttribute(oid, value)
    except ValueError as error:
        raise ConfigurationError(f'{long_name} cannot be "{value}": {error}') from error


def role_field(role: str) -> x509.NameAttribute[str]:
    """The common name of a client certificate.

    :param role: the role, at most 63 bytes in UTF-8.
    :returns: the field.
    :raises ConfigurationError: PostgreSQL can have no role of that name.
    """
    if len(role.encode("utf-8", "replace")) > _MAX_ROLE:
        raise ConfigurationError(f"the name of a role has at most {_MAX_ROLE} bytes")
    return subject_field("commonName", role)
