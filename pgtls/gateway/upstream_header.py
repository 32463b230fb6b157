"""The PROXY header that goes in front of everything to an upstream: ``upstream_proxy_protocol``."""

from __future__ import annotations

import os
from itertools import count
from time import time

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.interfaces import ITransport

from pgtls.protocols.connection_info import own_certificate
from pgtls.tls.algorithm_names import key_name, signature_name
from pgtls.tls.certificate import Certificate
from pgtls.tls.distinguished_name import COMMON_NAME
from pgtls.tls.tls_info import NegotiatedTLS
from pgtls.wire.proxy_header import (
    CLIENT_CERT_CONN,
    CLIENT_CERT_SESS,
    CLIENT_SSL,
    TLV,
    ProxiedTLS,
    ProxyAddress,
    ProxyHeader,
)
from pgtls.wire.proxy_header_writer import encode, encode_tls

#: X509_V_ERR_UNSPECIFIED: what stands for "not verified" where there was no certificate.
_NOT_VERIFIED = 1

_connections = count(1)


def upstream_header(
    client: ITransport,
    tls: NegotiatedTLS | None,
    sni: str | None,
    received: ProxyHeader | None = None,
) -> bytes:
    """Make the header of one connection.

    :param client: the connection from the client; its addresses are the client's own, behind
        another proxy too.
    :param tls: what was negotiated with the client; None in plaintext.
    :param sni: the host name that the client asks for.
    :param received: the header that the client's connection began with; None where there was none.
    :returns: a header of version 2.
    """
    source, destination = _address(client.getPeer()), _address(client.getHost())
    if sni is None and received is not None:
        sni = received.authority
    unique_id = received.value(TLV.UNIQUE_ID) if received is not None else None
    fields = [(TLV.UNIQUE_ID, unique_id or _unique_id(source, destination))]
    if sni is not None:
        fields.append((TLV.AUTHORITY, sni.encode("utf-8", "surrogateescape")))
    if tls is not None:
        if tls.alpn is not None:
            fields.append((TLV.ALPN, tls.alpn.encode()))
        fields.append((TLV.SSL, encode_tls(_proxied_tls(tls, own_certificate(client)))))
    return encode(ProxyHeader(2, source=source, destination=destination, tlvs=tuple(fields)))


def _unique_id(source: ProxyAddress | None, destination: ProxyAddress | None) -> bytes:
    """With the addresses and the time, so that one can find the connection in the log by it."""
    ends = "_".join(
        each.host if each.port is None else f"{each.host}:{each.port}"
        for each in (source, destination)
        if each is not None
    )
    number = f"{time():.3f}_{os.getpid():x}_{next(_connections):x}"
    return f"{ends}_{number}".encode("utf-8", "surrogateescape")[-128:]


def _proxied_tls(tls: NegotiatedTLS, own: Certificate | None) -> ProxiedTLS:
    """Where there is a client certificate, it has been verified: the handshake fails otherwise."""
    shown = tls.certificate
    return ProxiedTLS(
        CLIENT_SSL | (CLIENT_CERT_CONN | CLIENT_CERT_SESS if shown is not None else 0),
        0 if shown is not None else _NOT_VERIFIED,
        version=tls.version,
        common_name=_common_name(shown) if shown is not None else None,
        cipher=tls.cipher,
        signature=signature_name(own) if own is not None else None,
        key=key_name(own) if own is not None else None,
    )


def _common_name(certificate: Certificate) -> str | None:
    try:
        for rdn in certificate.subject.rdns:
            for attribute in rdn:
                if attribute.oid == COMMON_NAME:
                    return attribute.text()
    except ValueError:
        pass
    return None


def _address(address: object) -> ProxyAddress | None:
    if isinstance(address, IPv4Address | IPv6Address):
        return ProxyAddress(address.host, address.port)
    if isinstance(address, UNIXAddress):
        return ProxyAddress(os.fsdecode(address.name or b""), None)
    return None
