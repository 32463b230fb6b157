"""Connections that talk to each other without a network: pyOpenSSL's, or Python's own client."""

from __future__ import annotations

import ssl
from contextlib import suppress
from typing import NamedTuple

from OpenSSL import SSL

from tests.support.certificates import Issued, localhost


def server_context(issued: Issued | None = None) -> SSL.Context:
    """A context with a certificate and nothing else: what OpenSSL does by itself."""
    issued = issued or localhost()
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    context.use_certificate(issued.certificate)
    context.use_privatekey(issued.key.private)
    return context


def client_context(
    *, version: int | None = None, ciphers: str | None = None, alpn: list[bytes] | None = None
) -> SSL.Context:
    """A client that verifies nothing.

    :param version: the only protocol version that it knows.
    :param ciphers: its TLS 1.2 cipher suites.
    """
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    if version is not None:
        context.set_min_proto_version(version)
        context.set_max_proto_version(version)
    if ciphers is not None:
        context.set_cipher_list(ciphers.encode())
    if alpn:
        context.set_alpn_protos(alpn)
    return context


#: More than any handshake has, a HelloRetryRequest and an alert included.
_FLIGHTS = 6


class Pair(NamedTuple):
    """Both ends after the handshake, and what each end's handshake raised."""

    server: SSL.Connection
    client: SSL.Connection
    server_error: str | None
    client_error: str | None


def handshake(
    server: SSL.Context,
    client: SSL.Context | None = None,
    session: SSL.Session | None = None,
    server_name: bytes | None = None,
) -> Pair:
    """Let a client of one context connect to a server of the other.

    :param session: what the client offers to resume.
    :param server_name: the host that it asks for.
    """
    return finish(SSL.Connection(server), client, session, server_name)


def finish(
    accepting: SSL.Connection,
    client: SSL.Context | None = None,
    session: SSL.Session | None = None,
    server_name: bytes | None = None,
) -> Pair:
    """As :func:`handshake`, to a server's end that has been made."""
    accepting.set_accept_state()
    connecting = SSL.Connection(client or client_context())
    connecting.set_connect_state()
    if session is not None:
        connecting.set_session(session)
    if server_name is not None:
        connecting.set_tlsext_host_name(server_name)
    errors: dict[SSL.Connection, str | None] = {}
    for _ in range(_FLIGHTS):
        for connection, other in ((connecting, accepting), (accepting, connecting)):
            if connection not in errors:
                _step(connection, errors)
            transfer(connection, other)
    return Pair(accepting, connecting, errors.get(accepting), errors.get(connecting))


def _step(connection: SSL.Connection, errors: dict[SSL.Connection, str | None]) -> None:
    """Go on with a handshake; after it, read what else came: an alert, a ticket."""
    try:
        connection.do_handshake()
        connection.recv(1)
    except SSL.WantReadError:
        pass
    except SSL.Error as error:
        errors[connection] = reason(error)


def transfer(source: SSL.Connection, target: SSL.Connection) -> None:
    """Bring what ``source`` has to send to ``target``."""
    with suppress(SSL.WantReadError):
        target.bio_write(source.bio_read(1 << 16))


def reason(error: SSL.Error) -> str:
    """OpenSSL's words for an error."""
    queue = error.args[0] if error.args else []
    return str(queue[-1][2]) if queue else type(error).__name__


def handshake_with_python(
    server: SSL.Context, client: ssl.SSLContext, session: ssl.SSLSession | None = None
) -> tuple[SSL.Connection, ssl.SSLObject]:
    """Let Python's ``ssl``, with an OpenSSL of its own, connect to a server of that context.

    :raises ssl.SSLError: the client's handshake failed.
    """
    accepting = SSL.Connection(server)
    accepting.set_accept_state()
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    connecting = client.wrap_bio(to_client, to_server, session=session)
    errors: dict[SSL.Connection, str | None] = {}
    for _ in range(_FLIGHTS):
        with suppress(ssl.SSLWantReadError):
            connecting.do_handshake()
            connecting.read(1)
        if to_server.pending:
            accepting.bio_write(to_server.read())
        if accepting not in errors:
            _step(accepting, errors)
        with suppress(SSL.WantReadError):
            to_client.write(accepting.bio_read(1 << 16))
    return accepting, connecting


def python_client(
    version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3, ciphers: str | None = None
) -> ssl.SSLContext:
    """A client of Python's that verifies nothing and knows no later version."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.maximum_version = version
    if ciphers is not None:
        context.set_ciphers(ciphers)
    return context
