"""A server's TLS context, or one for each host name, where Twisted asks for connections."""

from __future__ import annotations

from datetime import timedelta

from OpenSSL import SSL
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from twisted.logger import Logger
from zope.interface import implementer

from pgtls.policy.hosts_file import read_hosts_file
from pgtls.tls.host_contexts import HostEntry, host_contexts
from pgtls.tls.loaded_keys import NO_KEYS, LoadedKeys
from pgtls.tls.record_size import Connection
from pgtls.tls.server_context import ServerContext, ServerTLSSettings, server_context
from pgtls.tls.server_name import ServerNames
from pgtls.tls.validity import EXPIRY_WARNING, warnings

_log = Logger(namespace="pgtls.server")


@implementer(IOpenSSLServerConnectionCreator)
class ServerTLS:
    """Makes the TLS connections of a listener.

    :param settings: certificates and how the handshake is done. Where ``ssl_sni`` is on and
        ``hosts_file`` has entries, certificates, keys and authorities are theirs alone.
    :param quiet: do not log what ought to be warned of: another process does.
    :param expiry_warning: how long before the end of a certificate, an authority or a CRL the log
        warns of it; None: somebody else does.
    :param loaded_keys: at a reload, the :attr:`keys` of the one before: private keys whose
        passphrase may not be asked for again stay as they are. None at a start.
    :param handed_keys: private keys that another process has read: their files are not looked at.
    :ivar certificates: those that it shows: one for each kind of key, of each host.
    :ivar pairs: the same with their chains and private keys. Never shown.
    :ivar by_name: whether they are those of ``hosts_file``.
    :ivar validities: how long its certificates, authorities and CRLs are valid.
    :ivar keys: the private keys that were read from files, by the path of their file.
    :raises ConfigurationError: a setting or a file cannot be used.
    """

    def __init__(
        self,
        settings: ServerTLSSettings,
        *,
        quiet: bool = False,
        expiry_warning: timedelta | None = EXPIRY_WARNING,
        loaded_keys: LoadedKeys | None = None,
        handed_keys: LoadedKeys = NO_KEYS,
    ) -> None:
        mistakes: list[str] = []
        hosts = _hosts(settings, mistakes)
        self.by_name = bool(hosts)
        if hosts or mistakes:
            by_name = host_contexts(settings, hosts, mistakes, loaded_keys, handed_keys)
            made, self._names = by_name.first, by_name.names
        else:
            made = server_context(settings, handed_keys, loaded_keys)
            self._names = ServerNames({}, made.context)
        self._take(made)
        ending = warnings(made.validities, expiry_warning) if expiry_warning is not None else []
        for warning in () if quiet else (*made.warnings, *ending):
            # Not "warning": an event with that field is one of Python's warnings to trial.
            _log.warn("{text}", text=warning)

    def _take(self, made: ServerContext) -> None:
        self.context = made.context
        self.certificates = made.certificates
        self.keys: LoadedKeys = made.keys
        self.pairs = made.pairs
        self.validities = tuple(made.validities)

    def serverConnectionForTLS(self, tlsProtocol: object) -> Connection:
        """A connection that waits for a ClientHello."""
        return Connection(self.context, None)

    @property
    def verifies_any(self) -> bool:
        """Whether clients of any host are asked for certificates."""
        names = self._names
        every = (*names.named.values(), names.default, names.nameless)
        return any(_asks(context) for context in every)

    def verifies_clients(self, server_name: str | None) -> bool:
        """Whether clients of a host are asked for certificates.

        :param server_name: the host name in their ClientHello; None for none.
        :returns: whether there is an authority to verify them by.
        """
        name = server_name.encode("ascii", "replace") if server_name is not None else None
        return _asks(self._names.find(name))


def _asks(context: SSL.Context | None) -> bool:
    return context is not None and context.get_verify_mode() != SSL.VERIFY_NONE


def names_hosts(settings: ServerTLSSettings) -> bool:
    """Whether certificates are to be those of ``hosts_file``.

    :param settings: a listener's.
    :returns: False where the file is empty or missing, or ``ssl_sni`` is off: then the certificate
        is that of the settings. True also where something is wrong with the file.
    """
    mistakes: list[str] = []
    return bool(_hosts(settings, mistakes) or mistakes)


def _hosts(settings: ServerTLSSettings, mistakes: list[str]) -> tuple[HostEntry, ...]:
    """The hosts that have certificates of their own.

    :param mistakes: gets what is wrong with the file.
    """
    if not settings.ssl_sni:
        return ()
    if not settings.hosts_file:
        mistakes.append("ssl_sni needs hosts_file: a file in pg_hosts.conf's format")
        return ()
    return read_hosts_file(settings.hosts_file, mistakes)
