"""What the backend gets to know of a client: the settings that ``tls_parameters`` adds."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.address import IPv4Address, IPv6Address

from pgtls.protocols.stages import Client
from pgtls.tls.certificate import Certificate
from pgtls.tls.distinguished_name import DistinguishedName


def tls_parameters(client: Client) -> dict[str, str]:
    """The startup parameters about a client. All of them always, empty where there is nothing to
    say: a client could define those that were left out.

    :param client: all that is known of it.
    :returns: values by name, such as ``pgtls.client_dn``.
    """
    tls, address = client.tls, client.address
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
        "pgtls.sni": client.sni or "",
        "pgtls.auth_method": client.auth_method,
    }


def _name(certificate: Certificate | None, read: Callable[[Certificate], DistinguishedName]) -> str:
    """A distinguished name by RFC 2253; empty where it breaks the rules for its own strings."""
    if certificate is None:
        return ""
    try:
        return read(certificate).rfc2253()
    except ValueError:
        return ""
