"""What pyOpenSSL has no public call for, and what its public calls get right only in one way.

Each function takes a pyOpenSSL ``Context`` that no connection has used yet. Where pyOpenSSL lacks
the call, ``OpenSSL._util.lib`` is asked for it, here and in :mod:`pgtls.tls.records` and nowhere
else in pgtls. A test for each fails on the day that pyOpenSSL gains a public one.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from OpenSSL import SSL, crypto
from OpenSSL._util import ffi, lib

from pgtls.errors import ConfigurationError
from pgtls.tls.loading import lenient_context, reason_of, use_chain

#: The ALPN name of PostgreSQL's protocol.
POSTGRESQL = b"postgresql"


def select_alpn(context: SSL.Context) -> None:
    """Select ``postgresql`` from what a client offers; offered without it, the handshake ends.

    A client that offers nothing is accepted. PostgreSQL's ``alpn_cb`` does the same.

    :param context: the server's.
    """
    lib.SSL_CTX_set_alpn_select_cb(context._context, _select, ffi.NULL)


# Context.set_alpn_select_callback() answers with the alert no_application_protocol only if its
# callback raises, and does more than is needed here at every handshake.
_name = ffi.new("unsigned char[]", POSTGRESQL)


@ffi.callback(  # type: ignore[untyped-decorator]
    "int (SSL *, unsigned char **, unsigned char *, const unsigned char *, unsigned int, void *)",
    error=lib.SSL_TLSEXT_ERR_ALERT_FATAL,
)
def _select(_ssl: Any, name: Any, length: Any, offered: Any, size: int, _argument: Any) -> int:
    """OpenSSL's ``SSL_CTX_alpn_select_cb_func``; each name offered has its length in front."""
    names = bytes(ffi.buffer(offered, size))
    while names:
        end = 1 + names[0]
        if names[1:end] == POSTGRESQL:
            name[0], length[0] = _name, len(POSTGRESQL)
            return lib.SSL_TLSEXT_ERR_OK  # type: ignore[no-any-return]
        names = names[end:]
    return lib.SSL_TLSEXT_ERR_ALERT_FATAL  # type: ignore[no-any-return]


#: The alert for a client that names no host; OpenSSL's own here is unrecognized_name.
_HANDSHAKE_FAILURE = 40


def choose_context(
    context: SSL.Context, choose: Callable[[bytes | None], SSL.Context | None]
) -> None:
    """Let each handshake go on with the context that is for its client. (pyOpenSSL's own call for
    it cannot end a handshake with an alert.)

    :param context: what the server's connections are made with.
    :param choose: takes the host name in the ClientHello, None for none, and returns the context;
        None ends the handshake: see :func:`pgtls.tls.server_name.choose_by_name`.
    """

    @ffi.callback("int (SSL *, int *, void *)", error=lib.SSL_TLSEXT_ERR_ALERT_FATAL)  # type: ignore[untyped-decorator]
    def choose_for(ssl: Any, alert: Any, _argument: Any) -> int:
        name = lib.SSL_get_servername(ssl, lib.TLSEXT_NAMETYPE_host_name)
        chosen = choose(ffi.string(name) if name else None)
        if chosen is not None and lib.SSL_set_SSL_CTX(ssl, chosen._context):
            # Whether the client is asked for a certificate does not come with the context.
            mode, helper = chosen.get_verify_mode(), chosen._verify_helper
            lib.SSL_set_verify(ssl, mode, helper.callback if helper is not None else ffi.NULL)
            return lib.SSL_TLSEXT_ERR_OK  # type: ignore[no-any-return]
        if not name:
            alert[0] = _HANDSHAKE_FAILURE
        return lib.SSL_TLSEXT_ERR_ALERT_FATAL  # type: ignore[no-any-return]

    context._tlsext_servername_callback = choose_for  # where pyOpenSSL keeps its own
    lib.SSL_CTX_set_tlsext_servername_callback(context._context, choose_for)


def groups_set(context: SSL.Context, groups: str) -> bool:
    """Set the key exchange groups. OpenSSL's reasons for not taking a list name no name.

    :param context: a client's or a server's.
    :param groups: names with colons between them, the preferred one first.
    :returns: whether OpenSSL has taken it.
    """
    if not groups.strip(":"):
        return False  # OpenSSL takes an empty list, and then no handshake succeeds
    taken = lib.SSL_CTX_set1_curves_list(context._context, groups.encode()) == 1
    lib.ERR_clear_error()  # what is left in the queue would be read as the next call's error
    return bool(taken)


def verify_error_text(error: int) -> str:
    """OpenSSL's text for the error number that a verify callback gets.

    :param error: X509_V_ERR_...
    :returns: the text.
    """
    text: bytes = ffi.string(lib.X509_verify_cert_error_string(error))
    return text.decode()


def use_key_pair(context: SSL.Context, chain: bytes, key: crypto.PKey) -> None:
    """Add a certificate, its intermediates and its private key to a context.

    A context takes one of each kind of key: with RSA and ECDSA, OpenSSL uses what the client
    can verify.

    :param context: the context.
    :param chain: PEM: the certificate itself first.
    :param key: the private key.
    :raises ConfigurationError: OpenSSL refuses them, for a weak key for example, or they do not
        belong together.
    """
    try:
        use_chain(context, chain)
        # Context.use_privatekey() deprecates PKey objects. cryptography's, which it wants, are not
        # there for every key that OpenSSL reads, and know no RSA-PSS.
        if not lib.SSL_CTX_use_PrivateKey(context._context, key._pkey):
            SSL._raise_current_error()
        context.check_privatekey()
    except SSL.Error as error:
        raise ConfigurationError(
            f"could not use the certificate with its private key: {reason_of(error)}"
        ) from error


def key_fits(certificate: crypto.X509, key: crypto.PKey) -> bool:
    """Whether a private key is the one for the key in a certificate: X509_check_private_key().

    :param certificate: the certificate.
    :param key: the private key.
    :returns: whether it is.
    :raises SSL.Error: the certificate's key is of no kind that TLS uses.
    """
    context = lenient_context()
    if not lib.SSL_CTX_use_certificate(context._context, certificate._x509):
        SSL._raise_current_error()
    fits = lib.SSL_CTX_use_PrivateKey(context._context, key._pkey) == 1
    lib.ERR_clear_error()
    return fits and bool(lib.SSL_CTX_check_private_key(context._context))


_alpn = ffi.new("unsigned char **")
_alpn_length = ffi.new("unsigned int *")


def version_cipher_alpn(connection: SSL.Connection) -> tuple[str, str, int, bytes]:
    """What a handshake agreed on: ``get_protocol_version_name()``, ``get_cipher_name()``,
    ``get_cipher_bits()`` and ``get_alpn_proto_negotiated()`` in one, which costs 40 % less.

    :param connection: the connection.
    :returns: empty names and no bits where there has been no handshake.
    """
    ssl = connection._ssl
    version = _constant(lib.SSL_get_version(ssl))
    lib.SSL_get0_alpn_selected(ssl, _alpn, _alpn_length)
    alpn = bytes(ffi.buffer(_alpn[0], _alpn_length[0])) if _alpn_length[0] else b""
    cipher = lib.SSL_get_current_cipher(ssl)
    if cipher == ffi.NULL:
        return version, "", 0, alpn
    return version, *_suite(cipher), alpn


@cache
def _constant(text: Any) -> str:
    """One of OpenSSL's own strings, which stay where they are."""
    found: bytes = ffi.string(text)
    return found.decode()


@cache
def _suite(cipher: Any) -> tuple[str, int]:
    """Name and bits of one of OpenSSL's own SSL_CIPHERs."""
    return _constant(lib.SSL_CIPHER_get_name(cipher)), lib.SSL_CIPHER_get_bits(cipher, ffi.NULL)
