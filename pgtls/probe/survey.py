"""What a server does, as the answers to what it was asked."""

from __future__ import annotations

import attrs

from pgtls.probe.connection_probe import ProbeResult
from pgtls.tls.tls_info import CertificateFacts


@attrs.define
class KeyExchange:
    """How keys are agreed on with a client that knows everything; as in ``tls``."""

    version: str
    cipher: str
    group: str | None
    forward_secret: bool
    post_quantum: bool


@attrs.define
class ClientCertificate:
    """Whether a client certificate is asked for, and of which authorities."""

    requested: bool
    authorities: list[str]


@attrs.define
class Authentication:
    """What the user in the connection string is asked for.

    :ivar encrypted: whether that was inside TLS.
    :ivar method: pg_hba.conf's name of it, or ``sasl``; None where the server refused.
    """

    encrypted: bool
    method: str | None = None
    mechanisms: list[str] = attrs.field(factory=list)
    error: str | None = None


@attrs.define
class Tried:
    """Whether something can be had, and why not."""

    accepted: bool
    reason: str | None


@attrs.define
class Survey:
    """The answers; the JSON has these keys. What was not asked, or not answered, is None.

    :ivar ssl_request, gssenc_request: the byte that came back; empty where the server closed.
    :ivar static_rsa: whether a client that wants no forward secrecy gets none.
    :ivar protocol: the newest version of the protocol that it takes, up to 3.2.
    :ivar chain: the certificates that it sent, as in ``certificate``.
    :ivar root_sent: whether the chain goes up to a self-signed certificate.
    :ivar sslmodes: for each sslmode what a client meets.
    :ivar concurrent: how many connections at a time it answers, as far as that was tried, where
        questions asked at the same time got in each other's way; else None.
    """

    host: str
    port: int
    address: str
    unix_socket: bool
    ssl_request: str | None = None
    gssenc_request: str | None = None
    direct_tls: Tried | None = None
    tls_versions: dict[str, Tried] = attrs.field(factory=dict)
    key_exchange: KeyExchange | None = None
    static_rsa: bool | None = None
    client_certificate: ClientCertificate | None = None
    authentication: Authentication | None = None
    protocol: str | None = None
    chain: list[CertificateFacts] = attrs.field(factory=list)
    root_sent: bool | None = None
    sslmodes: dict[str, ProbeResult] = attrs.field(factory=dict)
    concurrent: int | None = None
