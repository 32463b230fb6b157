"""What the backend gets to know of a client: the settings that ``tls_parameters`` adds."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IAddress

from pgtls.tls.certificate import Certificate
from pgtls.tls.distinguished_name import DistinguishedName
from pgtls.tls.tls_info import NegotiatedTLS


def tls_parameters(
    tls: NegotiatedTLS | None, address: IAddress | None, sni: str | None
) -> dict[str, str]:
    """The startup parameters about a client. All of them always, empty where there is nothing to
    say: a client could define those that were left out.

    :param tls: the client's TLS; None in plaintext.
    :param address: the client's address.
    :param sni: the host name that it asks for; None for none.
    :returns: values by name, such as ``pgtls.client_dn``.
    """
    certificate = tls.certificate if tls is not None else None
    return {
        "pgtls.version": tls.version if tls is not None else "",
        "pgtls.cipher": tls.cipher if tls is not None else "",
        "pgtls.group": (tls.group or "") if tls is not None else "",
        "pgtls.client_dn": _name(certificate, lambda shown: shown.subject),
        "pgtls.client_serial": certificate.serial_text if certificate is not None else "",
        "pgtls.issuer_dn": _name(certificate, lambda shown: shown.issuer),
        "pgtls.client_addr": (
            address.host if isinstance(address, IPv4Address | IPv6Address) else ""
        ),
        "pgtls.sni": sni or "",
    }


def _name(certificate: Certificate | None, read: Callable[[Certificate], DistinguishedName]) -> str:
    """A distinguished name by RFC 2253; empty where it breaks the rules for its own strings."""
    if certificate is None:
        return ""
    try:
        return read(certificate).rfc2253()
    except ValueError:
        return ""
