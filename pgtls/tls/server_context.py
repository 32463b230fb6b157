"""The context that a server serves with, from settings named as in ``postgresql.conf``.

PostgreSQL's documentation, "Connections and Authentication", "SSL"; ``be_tls_init`` in
``src/backend/libpq/be-secure-openssl.c``. What a context has whatever the settings: ALPN
``postgresql``, and neither renegotiation, compression, session tickets nor a session cache.
"""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from functools import partial
from typing import TypeVar, cast

import attrs
from OpenSSL import SSL

from pgtls import settings
from pgtls.errors import ConfigurationError
from pgtls.tls.certificate import Certificate
from pgtls.tls.ciphers import (
    FORWARD_SECRET,
    check_dsa_key,
    set_ciphers,
    set_ciphersuites,
)
from pgtls.tls.dh import load_builtin_dh_params, load_dh_params
from pgtls.tls.groups import set_groups
from pgtls.tls.keylog import keylog_to
from pgtls.tls.openssl import (
    select_alpn,
    use_key_pair,
)
from pgtls.tls.pem import as_file
from pgtls.tls.revocation import CRLSource, add_crl_directory, add_crl_file, read_crls
from pgtls.tls.revocation_list import RevocationList
from pgtls.tls.sources import (
    CertificateSource,
    KeySource,
    ask_for_certificates_of,
    load_key_pair,
    parse_roots,
    read_pem,
)
from pgtls.tls.switched_off import forbid_renegotiation_and_compression, forbid_resumption
from pgtls.tls.validity import listener_validities, warnings
from pgtls.tls.verify_failures import failure_noting
from pgtls.tls.versions import set_versions

#: Seconds that a passphrase command may take.
PASSPHRASE_TIMEOUT = 60

#: How long before its end the log begins to warn of a certificate or a CRL at each start.
EXPIRY_WARNING = timedelta(days=7)


@attrs.frozen
class ServerTLSSettings:
    """What a server's TLS can be told.

    An application may give certificates, keys and CRLs as PEM or DER in ``bytes``, or as
    cryptography's objects, wherever a file is named here, and several in a sequence.
    """

    ssl_cert_file: CertificateSource | Sequence[CertificateSource] = settings.text(
        "", "the server's certificate, with its intermediates; several of other key types: a,b"
    )
    ssl_key_file: KeySource | Sequence[KeySource] = settings.text(
        "", "its private key; as many as certificates: a,b"
    )
    ssl_passphrase_command: str = settings.text(
        "", "prints the passphrase of an encrypted key; %p in it stands for a prompt"
    )
    ssl_ca_file: CertificateSource | Sequence[CertificateSource] = settings.text(
        "", "authorities (CAs) of client certificates; the server then asks for one"
    )
    ssl_crl_file: CRLSource = settings.text(
        "", "certificate revocation list (CRL) for client certificates"
    )
    ssl_crl_dir: str = settings.text("", "CRLs in a directory made by openssl rehash")
    ssl_min_protocol_version: str = settings.text(
        "TLSv1.2", "oldest version of TLS: TLSv1.2, TLSv1.3"
    )
    ssl_max_protocol_version: str = settings.text("", "newest version of TLS; empty for no bound")
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
    ssl_prefer_server_ciphers: bool = settings.boolean(
        True, "prefer the server's order of cipher suites"
    )
    ssl_keylog_file: str = settings.text(
        "", "for debugging: a file for the secrets of all sessions, for Wireshark"
    )


@attrs.frozen
class ServerContext:
    """A context, and what is to be known of it.

    :ivar certificates: the server's own, one for each kind of key.
    :ivar warnings: what an operator should know, a sentence each.
    """

    context: SSL.Context
    certificates: list[Certificate] = attrs.field(factory=list)
    warnings: list[str] = attrs.field(factory=list)


def server_context(tls: ServerTLSSettings) -> ServerContext:
    """Make the context.

    :param tls: the settings.
    :returns: it, and what is to be known of it.
    :raises ConfigurationError: with every setting that cannot be used.
    """
    made = ServerContext(SSL.Context(SSL.TLS_SERVER_METHOD))
    mistakes: list[str] = []
    for setting, step in _STEPS:
        try:
            step(made, tls)
        except ConfigurationError as error:
            named = f"{setting}: " if setting else ""
            mistakes.extend(f"{named}{mistake}" for mistake in error.mistakes)
    if mistakes:
        raise ConfigurationError(*mistakes)
    return made


def _protocol(made: ServerContext, tls: ServerTLSSettings) -> None:
    context = made.context
    forbid_resumption(context)
    forbid_renegotiation_and_compression(context)
    select_alpn(context)
    context.set_mode(SSL.MODE_RELEASE_BUFFERS)
    set_versions(
        context,
        ("ssl_min_protocol_version", tls.ssl_min_protocol_version),
        ("ssl_max_protocol_version", tls.ssl_max_protocol_version),
    )


def _ciphers(made: ServerContext, tls: ServerTLSSettings) -> None:
    weak = set_ciphers(made.context, tls.ssl_ciphers)
    if weak:
        made.warnings.append(
            "ssl_ciphers has suites without forward secrecy or encryption: " + ", ".join(weak)
        )
    if tls.ssl_prefer_server_ciphers:
        made.context.set_options(SSL.OP_CIPHER_SERVER_PREFERENCE)


def _ciphersuites(made: ServerContext, tls: ServerTLSSettings) -> None:
    set_ciphersuites(made.context, tls.ssl_tls13_ciphers)


def _groups(made: ServerContext, tls: ServerTLSSettings) -> None:
    made.context.set_options(SSL.OP_SINGLE_DH_USE | SSL.OP_SINGLE_ECDH_USE)
    if tls.ssl_groups:
        set_groups(made.context, tls.ssl_groups)


def _dh_params(made: ServerContext, tls: ServerTLSSettings) -> None:
    if tls.ssl_dh_params_file:
        load_dh_params(made.context, tls.ssl_dh_params_file)
    else:
        load_builtin_dh_params(made.context)


def _certificates(made: ServerContext, tls: ServerTLSSettings) -> None:
    certificates = _several_paths(tls.ssl_cert_file)
    keys = _several_paths(tls.ssl_key_file)
    if len(certificates) != len(keys) or not certificates:
        raise ConfigurationError("both must name a file, and as many of them")
    mistakes: list[str] = []
    for certificate, key_source in zip(certificates, keys, strict=True):
        try:
            _key_pair(made, tls, certificate, key_source)
        except ConfigurationError as error:
            mistakes.extend(error.mistakes)
            missing = _missing(key_source)
            if missing and _missing(certificate):
                mistakes.append(f'private key file "{missing}" does not exist')
    if mistakes:
        raise ConfigurationError(*mistakes)


def _key_pair(
    made: ServerContext, tls: ServerTLSSettings, certificate: CertificateSource, key: KeySource
) -> None:
    pair = load_key_pair(certificate, key, partial(_passphrase, tls, key), der_too=False)
    check_dsa_key(pair.key, tls.ssl_ciphers)
    use_key_pair(made.context, pair.chain.pem, pair.key)
    made.certificates.append(pair.chain.certificates[0])


def _missing(source: CertificateSource | KeySource) -> str:
    """The file that a source names, if it is not there."""
    if isinstance(source, str | os.PathLike) and not os.path.exists(source):
        return os.fspath(source)
    return ""


_Source = TypeVar("_Source", CertificateSource, KeySource)


def _several(value: _Source | Sequence[_Source]) -> list[_Source]:
    """What a setting of an application's holds: one thing, or a sequence of them.

    :param value: empty text stands for none.
    """
    if isinstance(value, list | tuple):
        return list(value)
    return [] if value == "" else [cast(_Source, value)]


def _several_paths(value: _Source | Sequence[_Source]) -> list[_Source]:
    """The same, where a configuration file has paths with commas between them."""
    if isinstance(value, str):
        return [cast(_Source, path) for part in value.split(",") if (path := part.strip())]
    return _several(value)


def _passphrase(tls: ServerTLSSettings, key: KeySource) -> bytes:
    """What ``ssl_passphrase_command`` prints, without the line's end.

    :raises ConfigurationError: there is no such command, or it failed.
    """
    key_path = os.fspath(key) if isinstance(key, str | os.PathLike) else "the key in memory"
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


def _client_certificates(made: ServerContext, tls: ServerTLSSettings) -> None:
    """Ask for a certificate; whether there must be one is not TLS's to say (see clientcert)."""
    if tls.ssl_ca_file == "":
        return
    sources = _several(tls.ssl_ca_file)
    if not sources:
        raise ConfigurationError("there is no root certificate")
    found = [read_pem(source, "root certificate file") for source in sources]
    for pem, what in found:
        parse_roots(pem, what, made.context)
    ask_for_certificates_of(made.context, [as_file(pem) for pem, _ in found])
    made.context.set_verify(
        SSL.VERIFY_PEER | SSL.VERIFY_CLIENT_ONCE, failure_noting(partial(_current_crls, tls))
    )


def _revocation(made: ServerContext, tls: ServerTLSSettings) -> None:
    # Not by its truth: a CRL without entries is false.
    has_file = tls.ssl_crl_file != ""
    mistakes: list[str] = []
    if tls.ssl_ca_file == "" and (has_file or tls.ssl_crl_dir):
        mistakes.append("ssl_crl_file and ssl_crl_dir need ssl_ca_file beside them")
    try:
        if has_file:
            add_crl_file(made.context, tls.ssl_crl_file, "ssl_crl_file")
    except ConfigurationError as error:
        mistakes.extend(error.mistakes)
    try:
        if tls.ssl_crl_dir:
            add_crl_directory(made.context, tls.ssl_crl_dir, "ssl_crl_dir")
    except ConfigurationError as error:
        mistakes.extend(error.mistakes)
    if mistakes:
        raise ConfigurationError(*mistakes)


def _crls(tls: ServerTLSSettings) -> list[CRLSource]:
    return [each for each in (tls.ssl_crl_file, tls.ssl_crl_dir) if each != ""]


def _current_crls(tls: ServerTLSSettings) -> Iterator[RevocationList]:
    """All CRLs, as they are now.

    :raises ConfigurationError: one cannot be read.
    """
    for source in _crls(tls):
        for _, crl in read_crls(source, "ssl_crl_file"):
            yield crl


def _expiry(made: ServerContext, tls: ServerTLSSettings) -> None:
    validities = listener_validities(
        _several_paths(tls.ssl_cert_file), _several(tls.ssl_ca_file), _crls(tls)
    )
    made.warnings.extend(warnings(validities, EXPIRY_WARNING))


def _keylog(made: ServerContext, tls: ServerTLSSettings) -> None:
    if tls.ssl_keylog_file:
        keylog_to(made.context, tls.ssl_keylog_file)
        made.warnings.append(
            f'the secrets of all sessions go to ssl_keylog_file "{tls.ssl_keylog_file}": whoever '
            "has it can decrypt them"
        )


_Step = Callable[[ServerContext, ServerTLSSettings], None]

#: What makes a context, and the setting to name before what it complains of, where it does not
#: name it itself.
_STEPS: tuple[tuple[str, _Step], ...] = (
    ("", _protocol),
    ("ssl_ciphers", _ciphers),
    ("ssl_tls13_ciphers", _ciphersuites),
    ("", _groups),
    ("ssl_dh_params_file", _dh_params),
    ("ssl_cert_file, ssl_key_file", _certificates),
    ("ssl_ca_file", _client_certificates),
    ("", _revocation),
    ("ssl_keylog_file", _keylog),
    ("", _expiry),
)
