"""TLS for the status: a gateway's certificate, as it is now, for what speaks HTTP."""

from __future__ import annotations

from collections.abc import Callable

from OpenSSL import SSL
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from zope.interface import implementer

from pgtls.protocols.server_tls import ServerTLS
from pgtls.tls.openssl import use_key_pair
from pgtls.tls.sources import KeyPair

_HTTP = b"http/1.1"


@implementer(IOpenSSLServerConnectionCreator)
class StatusTLS:
    """Makes the connections: with ALPN for HTTP, and without asking for client certificates.

    :param source: gives the gateway's TLS, which another one replaces at a reload.
    """

    def __init__(self, source: Callable[[], ServerTLS | None]) -> None:
        self._source = source
        self._made_of: ServerTLS | None = None
        self._context = _context_of(None)

    def serverConnectionForTLS(self, tlsProtocol: object) -> SSL.Connection:
        """A connection that waits for a ClientHello."""
        source = self._source()
        if source is not self._made_of:
            self._context, self._made_of = _context_of(source), source
        return SSL.Connection(self._context, None)


def _context_of(source: ServerTLS | None) -> SSL.Context:
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    context.set_min_proto_version(SSL.TLS1_2_VERSION)
    context.set_options(SSL.OP_NO_COMPRESSION | SSL.OP_NO_RENEGOTIATION | SSL.OP_NO_TICKET)
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    context.set_alpn_select_callback(
        lambda _, offered: _HTTP if _HTTP in offered else SSL.NO_OVERLAPPING_PROTOCOLS
    )
    for pair in _pairs(source):
        use_key_pair(context, pair.chain.pem, pair.key)
    return context


def _pairs(source: ServerTLS | None) -> list[KeyPair]:
    """One for each kind of key; of certificates by host name the first."""
    if source is None:
        return []
    return source.pairs[:1] if source.by_name else source.pairs
