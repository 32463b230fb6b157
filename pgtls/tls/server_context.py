"""The context that a server serves with, from settings named as in ``postgresql.conf``.

PostgreSQL's documentation, "Connections and Authentication", "SSL"; ``be_tls_init`` in
``src/backend/libpq/be-secure-openssl.c``. What a context has whatever the settings: ALPN
``postgresql``, and neither renegotiation, compression, session tickets nor a session cache.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial

import attrs
from OpenSSL import SSL

from pgtls import settings
from pgtls.errors import ConfigurationError
from pgtls.tls.certificate import Certificate
from pgtls.tls.ciphers import FORWARD_SECRET, check_dsa_key, set_ciphers, set_ciphersuites
from pgtls.tls.dh import load_builtin_dh_params, load_dh_params
from pgtls.tls.groups import set_groups
from pgtls.tls.keylog import keylog_to
from pgtls.tls.loaded_keys import NO_KEYS, LoadedKey, LoadedKeys, PairSource, load_pair
from pgtls.tls.openssl import select_alpn, use_key_pair
from pgtls.tls.passphrase import passphrase
from pgtls.tls.pem import as_file
from pgtls.tls.revocation import CRLSource, add_crl_directory, add_crl_file, read_crls
from pgtls.tls.revocation_list import RevocationList
from pgtls.tls.sources import (
    CertificateSource,
    KeyPair,
    KeySource,
    absent_files,
    ask_for_certificates_of,
    missing_file,
    parse_roots,
    read_pem,
    several,
    several_paths,
)
from pgtls.tls.switched_off import forbid_renegotiation_and_compression, forbid_resumption
from pgtls.tls.validity import Validity, listener_validities
from pgtls.tls.verify_failures import failure_noting
from pgtls.tls.versions import set_versions

#: What is logged about ``ssl_keylog_file``.
KEYLOG_WARNING = (
    'the secrets of all sessions go to ssl_keylog_file "{}": whoever has it can decrypt them'
)


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
    ssl_passphrase_command_supports_reload: bool = settings.boolean(
        False, "whether that command may run at a reload; else an encrypted key stays as it was"
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
    ssl_sni: bool = settings.boolean(
        False, "choose the certificate by the host name that the client asks for: see hosts_file"
    )
    hosts_file: str = settings.text(
        "", "certificates by host name, in pg_hosts.conf's format; used with ssl_sni"
    )


@attrs.frozen
class ServerContext:
    """A context, and what is to be known of it.

    :ivar handed_keys: private keys that another process has read: their files are not looked at.
    :ivar loaded_keys: at a reload, the private keys that are in use; None at a start.
    :ivar certificates: the server's own, one for each kind of key.
    :ivar pairs: the same with their chains and private keys.
    :ivar keys: the private keys, by the path of their file.
    :ivar warnings: what an operator should know, a sentence each.
    :ivar validities: how long certificates, authorities and CRLs are valid.
    """

    context: SSL.Context = attrs.field(factory=partial(SSL.Context, SSL.TLS_SERVER_METHOD))
    handed_keys: LoadedKeys = attrs.field(default=NO_KEYS, repr=False)
    loaded_keys: LoadedKeys | None = attrs.field(default=None, repr=False)
    certificates: list[Certificate] = attrs.field(factory=list)
    pairs: list[KeyPair] = attrs.field(factory=list, repr=False)
    keys: dict[str, LoadedKey] = attrs.field(factory=dict, repr=False)
    warnings: list[str] = attrs.field(factory=list)
    validities: list[Validity] = attrs.field(factory=list)


def server_context(
    tls: ServerTLSSettings, handed_keys: LoadedKeys = NO_KEYS, loaded_keys: LoadedKeys | None = None
) -> ServerContext:
    """Make the context.

    :param tls: the settings.
    :param handed_keys: see :class:`ServerContext`.
    :param loaded_keys: see :class:`ServerContext`.
    :returns: it, and what is to be known of it.
    :raises ConfigurationError: with every setting that cannot be used.
    """
    made = ServerContext(handed_keys=handed_keys, loaded_keys=loaded_keys)
    mistakes = take_steps(made, tls, (*HANDSHAKE_STEPS, *_OWN_STEPS))
    if mistakes:
        raise ConfigurationError(*mistakes)
    return made


Step = Callable[[ServerContext, ServerTLSSettings], None]

#: Something to be done to a context, and the setting to name in front of what it complains of,
#: where that does not name it itself.
NamedStep = tuple[str, Step]


def take_steps(
    made: ServerContext, tls: ServerTLSSettings, steps: Iterable[NamedStep]
) -> list[str]:
    """Do things to a context; go on where one fails.

    :param made: the context.
    :param tls: the settings.
    :param steps: what is to be done.
    :returns: every mistake in the settings.
    """
    mistakes: list[str] = []
    for setting, step in steps:
        try:
            step(made, tls)
        except ConfigurationError as error:
            named = f"{setting}: " if setting else ""
            mistakes.extend(f"{named}{mistake}" for mistake in error.mistakes)
    return mistakes


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
    named = "ssl_cert_file, ssl_key_file: "
    certificates = several_paths(tls.ssl_cert_file)
    keys = several_paths(tls.ssl_key_file)
    if len(certificates) != len(keys) or not certificates:
        absent = absent_files(*certificates, *keys)
        raise ConfigurationError(f"{named}both must name a file, and as many of them", *absent)
    mistakes: list[str] = []
    for certificate, key_source in zip(certificates, keys, strict=True):
        try:
            ask = partial(passphrase, tls.ssl_passphrase_command, key_source)
            may = tls.ssl_passphrase_command_supports_reload
            use_pair(made, PairSource(certificate, key_source, ask, asks_again=may), tls)
        except ConfigurationError as error:
            mistakes.extend(error.mistakes)
            missing = missing_file(key_source)
            if missing and missing_file(certificate):
                mistakes.append(f'private key file "{missing}" does not exist')
    if mistakes:
        raise ConfigurationError(*(f"{named}{mistake}" for mistake in mistakes))


def use_pair(
    made: ServerContext, source: PairSource, tls: ServerTLSSettings, place: str = ""
) -> None:
    """Show a certificate.

    :param made: the context.
    :param source: where the certificate and its key come from.
    :param tls: the cipher suites, for a DSA key.
    :param place: where that is said, to go in front of a warning.
    :raises ConfigurationError: they cannot be used.
    """
    pair, key, warning = load_pair(source, made.handed_keys, made.loaded_keys)
    check_dsa_key(pair.key, tls.ssl_ciphers)
    use_key_pair(made.context, pair.chain.pem, pair.key)
    made.certificates.append(pair.chain.certificates[0])
    made.pairs.append(pair)
    if source.path:
        made.keys[source.path] = key
    if warning:
        made.warnings.append(f"{place}{warning}")


def ask_for_client_certificates(made: ServerContext, tls: ServerTLSSettings) -> None:
    """Ask for a certificate; whether there must be one is not TLS's to say (see clientcert).

    :param made: the context.
    :param tls: ssl_ca_file, and what the log says of CRLs.
    :raises ConfigurationError: the file cannot be used.
    """
    if tls.ssl_ca_file == "":
        return
    sources = several(tls.ssl_ca_file)
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
    mistakes = take_steps(made, tls, CRL_STEPS)
    if tls.ssl_ca_file == "" and crls(tls):
        mistakes.insert(0, "ssl_crl_file and ssl_crl_dir need ssl_ca_file beside them")
    if mistakes:
        raise ConfigurationError(*mistakes)


def _crl_file(made: ServerContext, tls: ServerTLSSettings) -> None:
    if tls.ssl_crl_file != "":  # not by its truth: a CRL without entries is false
        add_crl_file(made.context, tls.ssl_crl_file, "ssl_crl_file")


def _crl_directory(made: ServerContext, tls: ServerTLSSettings) -> None:
    if tls.ssl_crl_dir:
        add_crl_directory(made.context, tls.ssl_crl_dir, "ssl_crl_dir")


#: Checking clients' certificates against CRLs, if there are any.
CRL_STEPS: tuple[NamedStep, ...] = (("", _crl_file), ("", _crl_directory))


def crls(tls: ServerTLSSettings) -> list[CRLSource]:
    """The CRLs that settings name.

    :param tls: the settings.
    :returns: a file, a directory, both or neither.
    """
    return [each for each in (tls.ssl_crl_file, tls.ssl_crl_dir) if each != ""]


def _current_crls(tls: ServerTLSSettings) -> Iterator[RevocationList]:
    """All CRLs, as they are now.

    :raises ConfigurationError: one cannot be read.
    """
    for source in crls(tls):
        for _, crl in read_crls(source, "ssl_crl_file"):
            yield crl


def _expiry(made: ServerContext, tls: ServerTLSSettings) -> None:
    made.validities.extend(
        listener_validities(several_paths(tls.ssl_cert_file), several(tls.ssl_ca_file), crls(tls))
    )


def _keylog(made: ServerContext, tls: ServerTLSSettings) -> None:
    if tls.ssl_keylog_file:
        keylog_to(made.context, tls.ssl_keylog_file)
        made.warnings.append(KEYLOG_WARNING.format(tls.ssl_keylog_file))


#: What the handshake is like, for whatever certificate.
HANDSHAKE_STEPS: tuple[NamedStep, ...] = (
    ("", _protocol),
    ("ssl_ciphers", _ciphers),
    ("ssl_tls13_ciphers", _ciphersuites),
    ("", _groups),
    ("ssl_dh_params_file", _dh_params),
)

#: Certificates, the server's and its clients'.
_OWN_STEPS: tuple[NamedStep, ...] = (
    ("", _certificates),
    ("ssl_ca_file", ask_for_client_certificates),
    ("", _revocation),
    ("ssl_keylog_file", _keylog),
    ("", _expiry),
)
