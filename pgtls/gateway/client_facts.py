"""What is known of a client, for the log and for the backend."""

from __future__ import annotations

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IAddress

from pgtls.tls.distinguished_name import (
    issuer_line,
    issuer_of,
    serial_hex,
    subject_line,
    subject_of,
)
from pgtls.tls.facts import NegotiatedTLS


def log_text(tls: NegotiatedTLS | None) -> str:
    """One line: the TLS, and the certificate if one was used."""
    if tls is None:
        return "SSL=off"
    text = f"SSL={tls.version} cipher={tls.cipher} group={tls.group}"
    if tls.peer_certificate is None:
        return text
    return (
        f'{text} client_dn="{subject_line(tls.peer_certificate)}" '
        f"client_serial={serial_hex(tls.peer_certificate)} "
        f'issuer_dn="{issuer_line(tls.peer_certificate)}"'
    )


def tls_parameters(tls: NegotiatedTLS | None, address: IAddress | None) -> dict[str, str]:
    """The startup parameters that ``tls_parameters`` adds. All of them always, empty where there
    is nothing to say: a client could define those that were left out."""
    certificate = tls.peer_certificate if tls is not None else None
    return {
        "pgtls.version": tls.version if tls is not None else "",
        "pgtls.cipher": tls.cipher if tls is not None else "",
        "pgtls.group": (tls.group or "") if tls is not None else "",
        "pgtls.client_dn": subject_of(certificate).rfc2253() if certificate is not None else "",
        "pgtls.client_serial": serial_hex(certificate) if certificate is not None else "",
        "pgtls.issuer_dn": issuer_of(certificate).rfc2253() if certificate is not None else "",
        "pgtls.client_addr": (
            address.host if isinstance(address, IPv4Address | IPv6Address) else ""
        ),
    }
