"""What pyOpenSSL has no public call for, and what its public calls get right only in one way.

Each function takes a pyOpenSSL ``Context`` that no connection has used yet. Where pyOpenSSL lacks
the call, ``OpenSSL._util.lib`` is asked for it, and nowhere else in pgtls. A test for each fails on
the day that pyOpenSSL gains a public one.

One wish stays open: neither pyOpenSSL nor its ``lib`` has ``SSL_CTX_set_num_tickets``. A server
therefore sends each TLS 1.3 client two session tickets, some 500 bytes. With
:func:`forbid_resumption` they are names of sessions that nobody keeps, and resume nothing. Who
wants them gone sets ``NumTickets = 0`` in the ``system_default`` section of the file that the
environment variable ``OPENSSL_CONF`` names; a library must not do that to its process.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Sequence
from functools import cache
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes as PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import PublicKeyAlgorithmOID
from OpenSSL import SSL, crypto
from OpenSSL._util import ffi, lib

from pgtls.errors import ConfigurationError

#: The ALPN name of PostgreSQL's protocol.
POSTGRESQL = b"postgresql"

# AlgorithmIdentifier of id-RSASSA-PSS without parameters, in DER (RFC 4055, section 1.2).
_RSASSA_PSS = bytes.fromhex("300b06092a864886f70d01010a")


def select_alpn(context: SSL.Context) -> None:
    """Select ``postgresql`` from what a client offers; offered without it, the handshake ends.

    A client that offers nothing is accepted. PostgreSQL's ``alpn_cb`` does the same.
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


def forbid_resumption(context: SSL.Context) -> None:
    """No session tickets, no session cache, as PostgreSQL has it.

    Both are needed: with either alone, OpenSSL resumes TLS 1.3 sessions.
    """
    context.set_options(SSL.OP_NO_TICKET)
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)


def forbid_renegotiation_and_compression(context: SSL.Context) -> None:
    """No renegotiation in TLS 1.2, and no compression (CRIME)."""
    context.set_options(SSL.OP_NO_RENEGOTIATION | SSL.OP_NO_COMPRESSION)


def set_groups(context: SSL.Context, groups: str) -> None:
    """Set the key exchange groups, as ``ssl_groups``.

    Without it OpenSSL's default holds, which has X25519MLKEM768 in front since 3.5, and the
    ffdhe groups of RFC 7919 too. A list without those leaves TLS 1.2 clients that offer them
    no DHE suite, whatever parameters were loaded (RFC 7919, section 4).

    :param groups: names with colons between them, the preferred one first, for example
        ``X25519MLKEM768:X25519:prime256v1``.
    :raises ConfigurationError: a name that this OpenSSL does not know, or none at all.
    """
    if not _groups_set(context, groups):
        raise ConfigurationError(
            "could not set group names specified in ssl_groups: " + _groups_mistake(groups)
        )


def _groups_set(context: SSL.Context, groups: str) -> bool:
    """Whether OpenSSL took the list; its reasons for not taking one name no name."""
    if not groups.strip(":"):
        return False  # OpenSSL takes an empty list, and then no handshake succeeds
    taken = lib.SSL_CTX_set1_curves_list(context._context, groups.encode()) == 1
    lib.ERR_clear_error()  # what is left in the queue would be read as the next call's error
    return bool(taken)


def _groups_mistake(groups: str) -> str:
    scratch = SSL.Context(SSL.TLS_METHOD)
    # OpenSSL 3.5 has "/" between tuples of groups and "*", "?", "-" before a name.
    names = [name.lstrip("*?-") for name in re.split("[:/]", groups)]
    unknown = [f'"{name}"' for name in names if name and not _groups_set(scratch, name)]
    version = SSL.OpenSSL_version(SSL.OPENSSL_VERSION).decode().rsplit(" ", 3)[0]
    if unknown:
        return f"{version} has no group {', '.join(unknown)}"
    return f'"{groups}" is not a list of group names with a colon between them'


def verify_error_text(error: int) -> str:
    """OpenSSL's words for what a verify callback gets as a number."""
    text: bytes = ffi.string(lib.X509_verify_cert_error_string(error))
    return text.decode()


def use_key_pair(context: SSL.Context, chain: Sequence[x509.Certificate], key: PrivateKey) -> None:
    """Add a certificate, its intermediates and its private key to a context.

    A context takes one of each kind of key: with RSA and ECDSA, OpenSSL uses what the client
    can verify.

    :param chain: the certificate itself first.
    :raises ConfigurationError: OpenSSL refuses them, for a weak key for example, or they do not
        belong together.
    """
    try:
        _use_chain(context, chain)
        if chain[0].public_key_algorithm_oid == PublicKeyAlgorithmOID.RSASSA_PSS:
            _use_rsa_pss_key(context, key)
        else:
            context.use_privatekey(key)  # type: ignore[arg-type] # what it can't use, it refuses
        context.check_privatekey()
    except (SSL.Error, TypeError) as error:
        raise ConfigurationError(
            f"could not use the certificate with its private key: {_reason(error)}"
        ) from error


def _use_chain(context: SSL.Context, chain: Sequence[x509.Certificate]) -> None:
    # add_extra_chain_cert() holds intermediates for the context as a whole: each of several
    # certificates would be sent with those of all. Only the call that reads a file holds them by
    # certificate, and a file it must be.
    with tempfile.NamedTemporaryFile(suffix=".crt") as file:
        file.write(b"".join(each.public_bytes(Encoding.PEM) for each in chain))
        file.flush()
        context.use_certificate_chain_file(file.name)


def _use_rsa_pss_key(context: SSL.Context, key: PrivateKey) -> None:
    # cryptography reads a key whose algorithm is RSASSA-PSS and writes it as plain RSA, with which
    # OpenSSL makes no signature for such a certificate. So the algorithm is put back.
    rsa = key.private_bytes(Encoding.DER, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    pkcs8 = _der(0x30, _der(0x02, b"\0") + _RSASSA_PSS + _der(0x04, rsa))
    pkey = crypto.load_privatekey(crypto.FILETYPE_ASN1, pkcs8)
    # Context.use_privatekey() deprecates PKey objects, and cryptography has no key to give instead.
    if not lib.SSL_CTX_use_PrivateKey(context._context, pkey._pkey):
        lib.ERR_clear_error()
        raise TypeError("not an RSA-PSS key")


def _der(tag: int, content: bytes) -> bytes:
    """One value in DER."""
    length = len(content)
    if length < 0x80:
        return bytes([tag, length]) + content
    octets = length.to_bytes((length.bit_length() + 7) // 8)
    return bytes([tag, 0x80 | len(octets)]) + octets + content


def _reason(error: Exception) -> str:
    queue = error.args[0] if isinstance(error, SSL.Error) and error.args else []
    return queue[-1][2] if queue else str(error)


_alpn = ffi.new("unsigned char **")
_alpn_length = ffi.new("unsigned int *")


def version_cipher_alpn(connection: SSL.Connection) -> tuple[str, str, int, bytes]:
    """What a handshake agreed on: ``get_protocol_version_name()``, ``get_cipher_name()``,
    ``get_cipher_bits()`` and ``get_alpn_proto_negotiated()`` in one, which costs 40 % less.

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


#: Bytes of plaintext in a TLS record that we send; PostgreSQL's own have no more. libpq before 18.6
#: (15.20 and so on) leaves what exceeds this inside OpenSSL, and its asynchronous interface then
#: waits on a socket on which nothing more comes.
RECORD_LIMIT = 8192


class Connection(SSL.Connection):
    """pyOpenSSL's, whose records carry at most :data:`RECORD_LIMIT` bytes of plaintext.

    OpenSSL itself has ``SSL_CTX_set_max_send_fragment``, which pyOpenSSL and its ``lib`` have not.
    So each call of SSL_write gets at most that much: with SSL_MODE_ENABLE_PARTIAL_WRITE, which
    pyOpenSSL always sets, a caller is used to a part being sent.
    """

    def send(self, buf: Any, flags: int = 0) -> int:
        """As pyOpenSSL's; one record's content at most.

        :returns: how many of the bytes have been sent.
        :raises SSL.Error: as pyOpenSSL's.
        """
        return super().send(memoryview(buf)[:RECORD_LIMIT], flags)

    write = send

    def sendall(self, buf: Any, flags: int = 0) -> int:
        """As pyOpenSSL's, in records of limited size.

        :returns: the number of the bytes.
        :raises SSL.Error: as pyOpenSSL's.
        """
        view = memoryview(buf)
        sent = 0
        while sent < len(view):
            sent += self.send(view[sent:], flags)
        return sent


# The three calls of a fast transport, at half of what pyOpenSSL's own cost: no exception where the
# peer has simply not spoken yet, or has finished, and one buffer for all connections (only one call
# is under way).
_BUFFER_SIZE = 16384
_buffer = ffi.new("char[]", _BUFFER_SIZE)
_WANT_READ = lib.SSL_ERROR_WANT_READ
_ZERO_RETURN = lib.SSL_ERROR_ZERO_RETURN


def handshake(connection: SSL.Connection) -> bool:
    """Go on with the handshake, as ``Connection.do_handshake``.

    :returns: whether it is complete; if not, the peer's next message is waited for.
    :raises SSL.Error: as ``do_handshake``, WantReadError apart.
    """
    ssl = connection._ssl
    result = lib.SSL_do_handshake(ssl)
    if result <= 0 and lib.SSL_get_error(ssl, result) == _WANT_READ:
        return False
    # Where it is complete, too: an exception in a callback of pyOpenSSL's is kept until then.
    connection._raise_ssl_error(ssl, result)
    return True


def receive(connection: SSL.Connection) -> bytes | None:
    """Up to one TLS record's content, as ``Connection.recv`` gives it.

    :returns: None where none has come; nothing where the peer has said that none will.
    :raises SSL.Error: as ``recv``, WantReadError and ZeroReturnError apart.
    """
    ssl = connection._ssl
    size = lib.SSL_read(ssl, _buffer, _BUFFER_SIZE)
    if size > 0:
        return bytes(ffi.buffer(_buffer, size))
    error = lib.SSL_get_error(ssl, size)
    if error == _ZERO_RETURN:
        return b""
    if error != _WANT_READ:
        connection._raise_ssl_error(ssl, size)
    return None


def send(connection: SSL.Connection, data: bytes | memoryview) -> int:
    """As ``Connection.send``: one record at most.

    :returns: how many of the bytes have been sent.
    :raises SSL.Error: as ``Connection.send``.
    """
    ssl = connection._ssl
    start = data if type(data) is bytes else ffi.from_buffer(data)
    size: int = lib.SSL_write(ssl, start, min(len(data), RECORD_LIMIT))
    if size <= 0:
        connection._raise_ssl_error(ssl, size)
    return size
