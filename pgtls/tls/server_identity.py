"""Whether a certificate is the certificate of the host that was asked for: verify-full.

libpq's rules: ``pgtls_verify_peer_name_matches_certificate_guts`` in ``fe-secure-openssl.c``, and
``fe-secure-common.c``, both in ``src/interfaces/libpq``.

service-identity is asked first, and its yes stands. On iPAddress entries its no stands too: there
the two agree, given an address instead of one of its spellings. On text libpq takes more, and
:func:`_same_text` is that difference:

* a certificate without an entry of the host's type (dNSName for a name, iPAddress for an address)
  is matched by its first CN; service-identity, after RFC 6125, has given up the CN,
* an address that stands as text in a dNSName or in the CN, spelled as the host is,
* ``*.example``, a wildcard under one label only, ``*.example.com.``, and a wildcard for a label
  in IDNA's ``xn--`` form,
* names with characters that DNS does not know.

In the other direction, service-identity takes the white space off both ends of a name, and lets a
wildcard stand for the nothing before the dot of ``.example``. libpq does neither, so such names
are kept from service-identity.

A trailing dot is a character like any other, as in libpq: ``db.example.com.`` is not
``db.example.com``.

Where this is stricter than libpq: an embedded NUL, a malformed address or anything else unreadable
refuses the certificate even when an entry before it matches, and so does a subjectAltName that
cannot be read (libpq goes on to the CN). A wildcard never stands for an empty label.

Where it is more convenient: a host in letters beyond ASCII also matches its own A-label, as IDNA
2008 without any mapping gives it (libpq would need the host in that form). That cannot accept
another host: what is compared is the one DNS name that those letters stand for.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address, ip_address

from service_identity import CertificateError, VerificationError
from service_identity.hazmat import (
    DNS_ID,
    DNSPattern,
    IPAddress_ID,
    IPAddressPattern,
    verify_service_identity,
)

from pgtls.errors import CertificateNotVerified
from pgtls.text import printable
from pgtls.tls.certificate import AlternativeName, Certificate, NameType
from pgtls.tls.distinguished_name import COMMON_NAME

Address = IPv4Address | IPv6Address

#: Characters of a DNS name, at most; what is longer is cut where it is shown.
_LONGEST_NAME = 253


def verify_server_name(certificate: Certificate, host: str) -> None:
    """Check that ``certificate`` is for ``host``. Its signature is not looked at.

    :param certificate: the server's.
    :param host: the host as the connection string has it, a name or an address.
    :raises CertificateNotVerified: it is not, or its names cannot be read; in libpq's words.
    """
    if not host:
        raise CertificateNotVerified("host name must be specified for a verified SSL connection")
    address = host_address(host)
    names = _presented_names(certificate, host_is_address=address is not None)
    if not (_service_identity_accepts(names, host, address) or _same_text(names, host)):
        raise CertificateNotVerified(_mismatch(names, host))


def host_address(host: str) -> Address | None:
    """The address that ``host`` spells.

    The same two calls of the C library as in libpq: inet_aton() for every old spelling of IPv4
    (``192.000.002.001``, ``0xc0000201``, ``127.1``), inet_pton() for IPv6.

    :param host: the host, as the connection string has it.
    :returns: the address; None for a name.
    """
    for convert in (socket.inet_aton, lambda text: socket.inet_pton(socket.AF_INET6, text)):
        try:
            return ip_address(convert(host))
        except (OSError, ValueError):  # ValueError: NUL or a surrogate in the host
            continue
    return None


def _presented_names(certificate: Certificate, *, host_is_address: bool) -> list[bytes | Address]:
    """What the certificate says that counts for this host, in its order: text and addresses.

    :raises CertificateNotVerified: something in it cannot be read.
    """
    try:
        alternatives = [
            name
            for name in certificate.alternative_names
            if name.type in (NameType.DNS, NameType.ADDRESS)
        ]
        names = [_readable(name) for name in alternatives]
        host_type = NameType.ADDRESS if host_is_address else NameType.DNS
        if not any(name.type is host_type for name in alternatives):
            common_name = certificate.subject.first(COMMON_NAME)
            names += [] if common_name is None else [_without_nul(common_name)]
    except ValueError as error:
        raise CertificateNotVerified(f"server certificate could not be read: {error}") from error
    return names


def _readable(name: AlternativeName) -> bytes | Address:
    """The value of a name.

    :raises CertificateNotVerified: it is not what it should be.
    """
    if name.type is not NameType.ADDRESS:
        return _without_nul(name.value)
    try:
        return ip_address(name.value)
    except ValueError:
        raise CertificateNotVerified(
            f"certificate contains IP address with invalid length {len(name.value)}"
        ) from None


def _without_nul(text: bytes) -> bytes:
    """:raises CertificateNotVerified: there is a NUL in it (CVE-2009-4034)."""
    if b"\0" in text:
        raise CertificateNotVerified("SSL certificate's name contains embedded null")
    return text


def _service_identity_accepts(
    names: Sequence[bytes | Address], host: str, address: Address | None
) -> bool:
    """Whether service-identity finds the host among ``names``."""
    texts = [name for name in names if isinstance(name, bytes)]
    try:
        if address is not None:
            addresses = [IPAddressPattern(name) for name in names if not isinstance(name, bytes)]
            verify_service_identity(addresses, [IPAddress_ID(address)], [])
        elif host.startswith(".") or host != host.strip() or any(map(_padded, texts)):
            return False
        else:
            patterns = [DNSPattern.from_bytes(text) for text in texts]
            verify_service_identity(patterns, [DNS_ID(host)], [])
    except (CertificateError, VerificationError, ValueError):
        # The first is no VerificationError: a name that service-identity does not take, or none
        # at all. ValueError: a host that it does not take, or text beyond Unicode.
        return False
    return True


def _padded(text: bytes) -> bool:
    shown = text.decode("utf-8", "replace")
    return shown != shown.strip()


def _same_text(names: Sequence[bytes | Address], host: str) -> bool:
    """Whether a name, as text, is the host's: pq_verify_peer_name_matches_certificate_name()."""
    spellings = _spellings(host)
    for name in names:
        if isinstance(name, bytes):
            presented = name.lower()
            if presented in spellings or any(
                _wildcard_matches(presented, spelling) for spelling in spellings
            ):
                return True
    return False


def _spellings(host: str) -> list[bytes]:
    """The host as it was given, and its A-label where it is in letters beyond ASCII."""
    spellings = [_folded(host)]
    if not host.isascii() and host == host.strip():
        with suppress(ValueError):  # no DNS name
            spellings.append(DNS_ID(host).hostname)
    return spellings


def _folded(text: str) -> bytes:
    """Text in one case. Of ASCII only: the Kelvin sign's lower case is an ordinary k."""
    return text.encode("utf-8", "surrogatepass").lower()


def _wildcard_matches(pattern: bytes, host: bytes) -> bool:
    """wildcard_certificate_match(): a leading ``*.`` stands for exactly one label."""
    suffix = pattern[1:]
    if not pattern.startswith(b"*.") or len(pattern) < 3 or not host.endswith(suffix):
        return False
    label = host.removesuffix(suffix)
    return label != b"" and b"." not in label


def _mismatch(names: Sequence[bytes | Address], host: str) -> str:
    """libpq's complaint: the first name, the number of the others, the host."""
    if not names:
        return "could not get server's host name from server certificate"
    others = ""
    if len(names) > 1:
        others = f" (and {len(names) - 1} other name{'s' if len(names) > 2 else ''})"
    return f'server certificate for "{_shown(names[0])}"{others} does not match host name "{host}"'


def _shown(name: bytes | Address) -> str:
    """A name as libpq prints it: IPv4 inside IPv6 with dots, which ``str()`` does not always.

    Unlike libpq's it cannot break the line or steer the terminal that it is shown on.
    """
    if isinstance(name, IPv6Address):
        return socket.inet_ntop(socket.AF_INET6, name.packed)
    text = name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name)
    return printable(text, _LONGEST_NAME)
