"""A server that has a certificate for each host name: a context for each, and one to begin with.

Source: ``be_tls_init`` and ``init_host_context`` of PostgreSQL 19, in
``src/backend/libpq/be-secure-openssl.c``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import attrs
from OpenSSL import SSL

from pgtls.errors import ConfigurationError
from pgtls.tls.keylog import keylog_to
from pgtls.tls.loaded_keys import NO_KEYS, LoadedKeys, PairSource
from pgtls.tls.passphrase import passphrase
from pgtls.tls.revocation import load_crl_directory
from pgtls.tls.server_context import (
    CRL_STEPS,
    HANDSHAKE_STEPS,
    KEYLOG_WARNING,
    ServerContext,
    ServerTLSSettings,
    ask_for_client_certificates,
    crls,
    take_steps,
    use_pair,
)
from pgtls.tls.server_name import ServerNames, choose_by_name
from pgtls.tls.sources import Chain, missing_file
from pgtls.tls.validity import Kind, Validity, listener_validities, of_certificate

#: Any other client.
DEFAULT = "*"

#: A client that names no host.
NO_SNI = "/no_sni/"

_WRITE_COMMAND = (
    "write a command that prints its passphrase behind the certificate, the key and the CA "
    '("" for none)'
)


@dataclass(frozen=True, slots=True)
class HostEntry:
    """The certificate of a host, or of several.

    :ivar place: where it stands, to go in front of a mistake.
    :ivar names: the host names, in lower case; or DEFAULT or NO_SNI alone.
    :ivar ssl_cert_file: the certificate, as ``ssl_cert_file``.
    :ivar ssl_key_file: its private key.
    :ivar ssl_ca_file: whose client certificates are valid; empty: none is asked for.
    :ivar ssl_passphrase_command: prints the passphrase of the key; empty for none.
    :ivar passphrase_reload: whether that command may run at a reload.
    """

    place: str
    names: tuple[str, ...]
    ssl_cert_file: str
    ssl_key_file: str
    ssl_ca_file: str = ""
    ssl_passphrase_command: str = ""
    passphrase_reload: bool = False


@attrs.frozen
class HostContexts:
    """Contexts by host name.

    :ivar first: what connections are made with; it has the certificates, validities and warnings of
        all.
    :ivar names: what their handshakes go on with.
    :ivar keys: the hosts' private keys.
    """

    first: ServerContext
    names: ServerNames[SSL.Context]
    keys: LoadedKeys = attrs.field(repr=False)


def host_contexts(
    tls: ServerTLSSettings,
    hosts: Sequence[HostEntry],
    mistakes: Sequence[str] = (),
    loaded: LoadedKeys | None = None,
    handed: LoadedKeys = NO_KEYS,
) -> HostContexts:
    """Make a context for each host, by rules that are the same for all.

    :param tls: the settings; certificate, key, passphrase command and authorities in them do not
        count.
    :param hosts: the hosts.
    :param mistakes: what has been found to be wrong with them before.
    :param loaded: at a reload, the keys that have been in use so far: where a passphrase command
        may not run again, a key that is encrypted stays as it is.
    :param handed: keys that another process has read: their files are not looked at.
    :returns: the contexts.
    :raises ConfigurationError: with everything that cannot be used.
    """
    shared = attrs.evolve(
        tls, ssl_cert_file="", ssl_key_file="", ssl_ca_file="", ssl_passphrase_command=""
    )
    first = ServerContext()
    wrong = [*mistakes, *take_steps(first, shared, HANDSHAKE_STEPS)]
    wrong += _check_crls(first, shared, hosts)
    named: dict[str, SSL.Context] = {}
    contexts: list[SSL.Context] = []
    for host in hosts:
        made, its_own, common = _host_context(shared, host, handed, loaded)
        wrong += [f"{host.place}: {mistake}" for mistake in its_own]
        wrong += [mistake for mistake in common if mistake not in wrong]
        named |= dict.fromkeys(host.names, made.context)
        contexts.append(made.context)
        first.certificates.extend(made.certificates)
        first.validities.extend(made.validities)
        first.pairs.extend(made.pairs)
        first.keys.update(made.keys)
        first.warnings.extend(made.warnings)
    if tls.ssl_keylog_file:
        wrong += take_steps(first, tls, [("ssl_keylog_file", partial(_keylog, contexts))])
    if wrong:
        raise ConfigurationError(*wrong)
    first.warnings[:] = dict.fromkeys(first.warnings)
    first.validities[:] = dict.fromkeys(first.validities)
    default, nameless = named.pop(DEFAULT, None), named.pop(NO_SNI, None)
    names = ServerNames({name.encode(): named[name] for name in named}, default, nameless)
    choose_by_name(first.context, names)
    return HostContexts(first, names, first.keys)


def _check_crls(
    first: ServerContext, shared: ServerTLSSettings, hosts: Sequence[HostEntry]
) -> list[str]:
    """See whether CRLs can be used, once for all hosts, and how long they and the CAs are valid.

    :returns: what is wrong.
    """
    named = crls(shared)
    authorities = list(dict.fromkeys(host.ssl_ca_file for host in hosts if host.ssl_ca_file))
    if named and hosts and not authorities:
        return ["ssl_crl_file and ssl_crl_dir need a host with a CA in hosts_file"]
    first.validities.extend(listener_validities([], authorities, named))
    return take_steps(first, shared, CRL_STEPS)


def _host_context(
    shared: ServerTLSSettings,
    host: HostEntry,
    handed: LoadedKeys,
    loaded: LoadedKeys | None,
) -> tuple[ServerContext, list[str], list[str]]:
    """A host's context.

    :returns: it; what is wrong with what is the host's own, and with what is common to all.
    """
    made = ServerContext(handed_keys=handed, loaded_keys=loaded)
    common = take_steps(made, shared, HANDSHAKE_STEPS)
    tls = attrs.evolve(shared, ssl_ca_file=host.ssl_ca_file)

    def use_certificate(made: ServerContext, tls: ServerTLSSettings) -> None:
        path = host.ssl_key_file
        ask = partial(passphrase, host.ssl_passphrase_command, path, _WRITE_COMMAND)
        source = PairSource(host.ssl_cert_file, path, ask, asks_again=host.passphrase_reload)
        use_pair(made, source, tls, f"{host.place}: ")
        made.validities.extend(_validities(made.pairs[0].chain, host.ssl_cert_file))

    mistakes = take_steps(made, tls, [("", use_certificate), ("", ask_for_client_certificates)])
    key = missing_file(host.ssl_key_file)
    if key and missing_file(host.ssl_cert_file):
        mistakes.append(f'private key file "{key}" does not exist')
    if host.ssl_ca_file:
        common += _use_crls(made, tls)
    return made, mistakes, common


def _validities(chain: Chain, file: str) -> list[Validity]:
    return [of_certificate(each, file, Kind.CERTIFICATE) for each in chain.certificates]


def _use_crls(made: ServerContext, tls: ServerTLSSettings) -> list[str]:
    """Without looking at the files of a directory again: they may be as many as the hosts.

    :returns: what is wrong.
    """
    if tls.ssl_crl_dir:
        load_crl_directory(made.context, tls.ssl_crl_dir)
    return take_steps(made, attrs.evolve(tls, ssl_crl_dir=""), CRL_STEPS)


def _keylog(others: Sequence[SSL.Context], made: ServerContext, tls: ServerTLSSettings) -> None:
    keylog_to(made.context, tls.ssl_keylog_file, *others)
    made.warnings.append(KEYLOG_WARNING.format(tls.ssl_keylog_file))
