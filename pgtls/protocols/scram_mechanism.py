"""Which SCRAM mechanism a login to a server uses: ``pg_SASL_init`` in
``src/interfaces/libpq/fe-auth.c``."""

from __future__ import annotations

from pgtls.errors import NegotiationRefused
from pgtls.protocols.connection_info import negotiated_tls
from pgtls.tls.channel_binding_hash import channel_binding_hash
from pgtls.transport.relay_transport import IStreamTransport
from pgtls.wire.scram import SCRAM_SHA_256, SCRAM_SHA_256_PLUS, KeySource, ScramClient


def scram_client(
    offered: tuple[str, ...], keys: KeySource, transport: IStreamTransport, *, binds: bool = True
) -> ScramClient:
    """Choose the mechanism of a login to a server, as libpq's ``pg_SASL_init`` does.

    :param offered: the mechanisms in the server's AuthenticationSASL.
    :param keys: gives the keys for the server's salt and iteration count.
    :param transport: the connection to the server.
    :param binds: whether channel binding may be used (libpq's ``channel_binding``).
    :returns: the client's role: bound to the channel, where both sides can.
    :raises NegotiationRefused: no mechanism is one that we have.
    """
    tls = negotiated_tls(transport)
    certificate = tls.certificate if tls is not None and binds else None
    binding = None if certificate is None else channel_binding_hash(certificate)
    if SCRAM_SHA_256_PLUS in offered and binding is not None:
        return ScramClient(keys, certificate_hash=binding)
    if SCRAM_SHA_256 not in offered:
        raise NegotiationRefused(
            "none of the server's SASL authentication mechanisms are supported"
        )
    # The flag "y" where the channel could be bound, and the server did not offer it.
    return ScramClient(keys, could_bind=binding is not None)
