"""TLS for anything that speaks PostgreSQL: the public names, nothing else.

They are loaded when first used: ``import pgtls.wire`` brings in neither Twisted nor OpenSSL.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pgtls.wire.errors import CertificateNotVerified as CertificateNotVerified
    from pgtls.wire.errors import ConfigurationError as ConfigurationError
    from pgtls.wire.errors import ConnectFailed as ConnectFailed
    from pgtls.wire.errors import NegotiationRefused as NegotiationRefused
    from pgtls.wire.errors import PgTLSError as PgTLSError
    from pgtls.wire.errors import ProtocolViolation as ProtocolViolation
    from pgtls.wire.errors import ServerRejected as ServerRejected

_HOMES = {
    "CertificateNotVerified": "pgtls.wire.errors",
    "ConfigurationError": "pgtls.wire.errors",
    "ConnectFailed": "pgtls.wire.errors",
    "NegotiationRefused": "pgtls.wire.errors",
    "PgTLSError": "pgtls.wire.errors",
    "ProtocolViolation": "pgtls.wire.errors",
    "ServerRejected": "pgtls.wire.errors",
}

__all__ = sorted(_HOMES)  # noqa: PLE0605 - the table is the one place to add a name


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
