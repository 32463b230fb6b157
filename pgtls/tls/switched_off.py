"""What TLS offers and PostgreSQL does without: resumption, renegotiation, compression.

Session tickets are sent nevertheless: neither pyOpenSSL nor its ``lib`` has
``SSL_CTX_set_num_tickets``, so a server sends each TLS 1.3 client two of them, some 500 bytes,
which resume nothing. ``NumTickets = 0`` in the ``system_default`` section of the file that the
environment variable ``OPENSSL_CONF`` names keeps them from being sent; a library must not do that
to its process.
"""

from __future__ import annotations

from OpenSSL import SSL


def forbid_resumption(context: SSL.Context) -> None:
    """No session tickets, no session cache, as PostgreSQL has it.

    Both are needed: with either alone, OpenSSL resumes TLS 1.3 sessions.

    :param context: the server's.
    """
    context.set_options(SSL.OP_NO_TICKET)
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)


def forbid_renegotiation_and_compression(context: SSL.Context) -> None:
    """Switch renegotiation (TLS 1.2) and compression (CRIME) off.

    :param context: the context.
    """
    context.set_options(SSL.OP_NO_RENEGOTIATION | SSL.OP_NO_COMPRESSION)
