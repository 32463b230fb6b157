"""The context that a server serves with, from settings named as in ``postgresql.conf``.

PostgreSQL's documentation, "Connections and Authentication", "SSL"; ``be_tls_init`` in
``src/backend/libpq/be-secure-openssl.c``. What a context has whatever the settings: ALPN
``postgresql``, and neither renegotiation, compression, session tickets nor a session cache.
"""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Callable
from functools import partial

import attrs
from cryptography import x509
from OpenSSL import SSL, crypto

from pgtls.tls import settings
from pgtls.tls.ciphers import (
    FORWARD_SECRET,
    check_dsa_key,
    set_ciphers,
    set_ciphersuites,
)
from pgtls.tls.dh import load_builtin_dh_params, load_dh_params
from pgtls.tls.key_file import load_certificate_chain, load_key_pair
from pgtls.tls.keylog import keylog_to
from pgtls.tls.openssl import (
    forbid_renegotiation_and_compression,
    forbid_resumption,
    select_alpn,
    set_groups,
    use_key_pair,
)
from pgtls.tls.revocation import add_crl_directory, add_crl_file
from pgtls.tls.verify_failures import note_failure
from pgtls.tls.versions import set_versions
from pgtls.wire.errors import ConfigurationError

#: Seconds that a passphrase command may take.
PASSPHRASE_TIMEOUT = 60


@attrs.frozen
class ServerTLSSettings:
    """What a server's TLS can be told."""

    ssl_cert_file: str = settings.text(
        "", "the server's certificate, with its intermediates; several of other key types: a,b"
    )
    ssl_key_file: str = settings.text("", "its private key; as many as certificates: a,b")
    ssl_passphrase_command: str = settings.text(
        "", "prints the passphrase of an encrypted key; %p in it stands for a prompt"
    )
    ssl_ca_file: str = settings.text("", "whose client certificates are valid; asks for one")
    ssl_crl_file: str = settings.text("", "revoked client certificates")
    ssl_crl_dir: str = settings.text("", "the same, as a directory made by openssl rehash")
    ssl_min_protocol_version: str = settings.text("TLSv1.2", "the oldest version: TLSv1.2, TLSv1.3")
    ssl_max_protocol_version: str = settings.text("", "the newest version; empty for no bound")
    ssl_ciphers: str = settings.text(
        FORWARD_SECRET, "cipher suites of TLS 1.2, as OpenSSL has them"
    )
    ssl_tls13_ciphers: str = settings.text("", "cipher suites of TLS 1.3; empty for OpenSSL's")
    ssl_groups: str = settings.text(
        "", "key exchange groups, a:b; empty for OpenSSL's, X25519MLKEM768 in front"
    )
    ssl_dh_params_file: str = settings.text(
        "", "parameters for DHE; empty for RFC 7919's ffdhe3072"
    )
    ssl_prefer_server_ciphers: bool = settings.boolean(True, "the server's order of suites counts")
    ssl_keylog_file: str = settings.text(
        "", "for debugging: secrets of all sessions, for Wireshark"
    )


def server_context(tls: ServerTLSSettings) -> SSL.Context:
    """Make the context.

    :raises ConfigurationError: with every setting that cannot be used.
    """
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    steps: list[Callable[[SSL.Context, ServerTLSSettings], None]] = [
        _protocol,
        _key_exchange,
        _certificates,
        _client_certificates,
        _keylog,
    ]
    mistakes: list[str] = []
    for step in steps:
        try:
            step(context, tls)
        except ConfigurationError as error:
            mistakes.extend(error.mistakes)
    if mistakes:
        raise ConfigurationError(*mistakes)
    return context


def _protocol(context: SSL.Context, tls: ServerTLSSettings) -> None:
    forbid_resumption(context)
    forbid_renegotiation_and_compression(context)
    select_alpn(context)
    context.set_mode(SSL.MODE_RELEASE_BUFFERS)
    set_versions(
        context,
        ("ssl_min_protocol_version", tls.ssl_min_protocol_version),
        ("ssl_max_protocol_version", tls.ssl_max_protocol_version),
    )


def _key_exchange(context: SSL.Context, tls: ServerTLSSettings) -> None:
    set_ciphers(context, tls.ssl_ciphers)
    set_ciphersuites(context, tls.ssl_tls13_ciphers)
    if tls.ssl_prefer_server_ciphers:
        context.set_options(SSL.OP_CIPHER_SERVER_PREFERENCE)
    context.set_options(SSL.OP_SINGLE_DH_USE | SSL.OP_SINGLE_ECDH_USE)
    if tls.ssl_groups:
        set_groups(context, tls.ssl_groups)
    if tls.ssl_dh_params_file:
        load_dh_params(context, tls.ssl_dh_params_file)
    else:
        load_builtin_dh_params(context)


def _certificates(context: SSL.Context, tls: ServerTLSSettings) -> None:
    certificates, keys = (
        [path.strip() for path in paths.split(",")]
        for paths in (tls.ssl_cert_file, tls.ssl_key_file)
    )
    if len(certificates) != len(keys) or not all(certificates + keys):
        raise ConfigurationError("ssl_cert_file and ssl_key_file must both name a file")
    for certificate_path, key_path in zip(certificates, keys, strict=True):
        passphrase = partial(_passphrase, tls, key_path)
        chain, key = load_key_pair(certificate_path, key_path, passphrase)
        check_dsa_key(key, tls.ssl_ciphers)
        use_key_pair(context, chain, key)


def _passphrase(tls: ServerTLSSettings, key_path: str) -> bytes:
    """What ``ssl_passphrase_command`` prints, without the line's end.

    :raises ConfigurationError: there is no such command, or it failed.
    """
    if not tls.ssl_passphrase_command:
        raise ConfigurationError(
            f'private key file "{key_path}" is encrypted: set ssl_passphrase_command to a command '
            "that prints its passphrase"
        )
    prompt = f"Enter PEM pass phrase for {key_path}:"
    command = tls.ssl_passphrase_command.replace("%p", shlex.quote(prompt))
    try:
        # As PostgreSQL, with a shell: the setting is the operator's own.
        done = subprocess.run(  # noqa: S602
            command, shell=True, capture_output=True, check=True, timeout=PASSPHRASE_TIMEOUT
        )
    except (subprocess.SubprocessError, OSError) as error:
        raise ConfigurationError(f"ssl_passphrase_command failed: {error}") from error
    return done.stdout.rstrip(b"\r\n")


def _client_certificates(context: SSL.Context, tls: ServerTLSSettings) -> None:
    """Ask for a certificate; whether there must be one is not TLS's to say (see clientcert)."""
    if not tls.ssl_ca_file:
        if tls.ssl_crl_file or tls.ssl_crl_dir:
            raise ConfigurationError("ssl_crl_file and ssl_crl_dir need ssl_ca_file beside them")
        return
    trust(context, load_certificate_chain(tls.ssl_ca_file))
    context.set_client_ca_list(_subjects(load_certificate_chain(tls.ssl_ca_file)))
    if tls.ssl_crl_file:
        add_crl_file(context, tls.ssl_crl_file, "ssl_crl_file")
    if tls.ssl_crl_dir:
        add_crl_directory(context, tls.ssl_crl_dir, "ssl_crl_dir")
    context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_CLIENT_ONCE, note_failure)


def trust(context: SSL.Context, roots: list[x509.Certificate]) -> None:
    """Believe what these certificates have signed."""
    store = context.get_cert_store()
    if store is None:  # pyOpenSSL's type says so; a context has had one since it was made
        raise ConfigurationError("the TLS context has no certificate store")
    for root in roots:
        store.add_cert(crypto.X509.from_cryptography(root))


def _subjects(certificates: list[x509.Certificate]) -> list[crypto.X509Name]:
    return [crypto.X509.from_cryptography(each).get_subject() for each in certificates]


def _keylog(context: SSL.Context, tls: ServerTLSSettings) -> None:
    if tls.ssl_keylog_file:
        keylog_to(context, tls.ssl_keylog_file)
