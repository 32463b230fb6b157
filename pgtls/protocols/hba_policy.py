"""``hba_file`` at work: which clients a listener admits, by the lines of a ``pg_hba.conf``.

Source: ``ClientAuthentication`` and ``CheckCertAuth`` in ``src/backend/libpq/auth.c``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from ipaddress import IPv4Interface, IPv6Interface, ip_address, ip_interface

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from twisted.logger import Logger
from zope.interface import implementer

from pgtls.errors import ConfigurationError
from pgtls.policy.auth_file import AuthFile
from pgtls.policy.client_identity import ClientCert, ClientNotVerified, check_client
from pgtls.policy.hba_file import load_hba_file
from pgtls.policy.hba_rules import (
    AuthMethod,
    ConnectionRequest,
    HbaLine,
    HbaUndecided,
    HostNameNeeded,
    IPAddress,
    refusal,
)
from pgtls.policy.ident_map import IdentMap
from pgtls.protocols.admission import Admission
from pgtls.protocols.client_authorities import NO_AUTHORITY, ClientAuthorities
from pgtls.protocols.connection_info import OVER_TCP
from pgtls.protocols.interfaces import IAccessPolicy
from pgtls.protocols.server_settings import AuthType, ListenerSettings
from pgtls.protocols.stages import Admit, Authenticate, Client, Decision, Refuse
from pgtls.transport.reactor import IReactor
from pgtls.transport.remote_host import RemoteHosts
from pgtls.wire.messages import ErrorResponse, StartupMessage
from pgtls.wire.server_negotiation import SSL

_log = Logger(namespace="pgtls.server")

#: Clients whose line is remembered: address, database and role, which come again and again.
_REMEMBERED = 256

#: PostgreSQL's ``parse_bool``, as far as a ``replication`` parameter is true by it.
_TRUE = (b"t", b"tr", b"tru", b"true", b"y", b"ye", b"yes", b"on", b"1")


def access_policy(
    listener: ListenerSettings,
    reactor: IReactor,
    tls: IOpenSSLServerConnectionCreator | None = None,
) -> IAccessPolicy:
    """The policy that a listener's settings ask for.

    :param listener: the settings.
    :param reactor: Twisted's.
    :param tls: makes the TLS connections; None where they are not known.
    :returns: the policy of ``hba_file``; without one, of ``clientcert``.
    :raises ConfigurationError: with every mistake in the settings and in the files.
    """
    if listener.hba_file:
        return HbaPolicy(listener, reactor, tls)
    return Admission(listener, tls)


@implementer(IAccessPolicy)
class HbaPolicy:
    """``hba_file`` and ``ident_file``.

    :param listener: the settings.
    :param reactor: Twisted's.
    :param tls: makes the TLS connections; None where they are not known.
    :raises ConfigurationError: with every mistake in the settings and in the files.
    """

    def __init__(
        self,
        listener: ListenerSettings,
        reactor: IReactor,
        tls: IOpenSSLServerConnectionCreator | None = None,
    ) -> None:
        self._remote_hosts = RemoteHosts(reactor)
        self._authorities = ClientAuthorities(listener, tls)
        mistakes = _setting_mistakes(listener)
        self._ident_map = IdentMap()
        try:
            if listener.ident_file:
                self._ident_map = IdentMap.load(listener.ident_file)
        except ConfigurationError as error:
            mistakes.extend(error.mistakes)
        self._auth_file: AuthFile | None = None
        try:
            if listener.auth_file:
                self._auth_file = AuthFile.load(listener.auth_file)
        except ConfigurationError as error:
            mistakes.extend(error.mistakes)
        try:
            self._rules = load_hba_file(listener.hba_file, interfaces)
            mistakes.extend(_line_mistakes(self._rules.lines, listener, self._authorities.missing))
        except ConfigurationError as error:
            mistakes.extend(error.mistakes)
        if mistakes:
            raise ConfigurationError(*mistakes)
        # What does not change from client to client.
        self._find: Callable[[ConnectionRequest], HbaLine | None] = self._rules.find
        if not self._rules.depend_on_interfaces:
            self._find = lru_cache(maxsize=_REMEMBERED)(self._rules.find)
        self._admit = {
            (line.file_name, line.line_number): Admit(
                f"method={line.method}{_where(line)}", str(line.method)
            )
            for line in self._rules.lines
        }

    def decide(self, client: Client) -> Decision | Deferred[Decision]:
        """Find the line that decides about a client, and do what it says.

        :param client: the client.
        :returns: whether it may connect; a Deferred where its host name must be looked up.
        """
        request = connection_request(client)
        try:
            return self.verdict(client, request)
        except HostNameNeeded:
            assert request.address is not None  # noqa: S101 - local connections have no host name
            looked_up = self._remote_hosts.lookup(request.address)
            return looked_up.addCallback(
                lambda remote: self.verdict(client, request._replace(remote_host=remote))
            )

    def verdict(self, client: Client, request: ConnectionRequest) -> Decision:
        """The same where the host name is known, or not needed.

        :param client: the client.
        :param request: what the lines are held against.
        :returns: whether it may connect.
        :raises HostNameNeeded: ``request`` lacks the client's host name.
        """
        try:
            line = self._find(request)
        except HbaUndecided as error:
            response = refusal(request, None)
            assert response is not None  # noqa: S101 - there is none for a line only
            return Refuse(response, f"{response.message} ({error})")
        if (response := refusal(request, line)) is not None:
            return Refuse(response, f"{response.message}{_where(line)}")
        assert line is not None  # noqa: S101 - else it was refused
        verdict = self._certificate_verdict(client, line)
        if line.method is not AuthMethod.SCRAM_SHA_256 or self._auth_file is None:
            return verdict
        if line.clientcert is not ClientCert.NO and not _has_certificate(client):
            return verdict  # as PostgreSQL, which asks for the password after that
        return Authenticate(
            self._auth_file.secrets.get(client.startup.user), self._auth_file.mock_nonce, verdict
        )

    def _certificate_verdict(self, client: Client, line: HbaLine) -> Admit | Refuse:
        admit = self._admit[line.file_name, line.line_number]
        if line.clientcert is ClientCert.NO:
            return admit
        if not self._authorities.are_there_for(client):
            return NO_AUTHORITY
        try:
            check_client(
                client.tls.certificate if client.tls is not None else None,
                client.startup.user,
                clientcert=line.clientcert,
                clientname=line.clientname,
                ident_map=self._ident_map,
                map_name=line.map or None,
            )
        except ClientNotVerified as error:
            return Refuse(_failure(line.method, error), f"{error.log_detail}{_where(line)}")
        return admit


def _has_certificate(client: Client) -> bool:
    return client.tls is not None and client.tls.certificate is not None


def _failure(method: AuthMethod, error: ClientNotVerified) -> ErrorResponse:
    """``auth_failed``: it names the line's method, whatever failed."""
    failed = "certificate authentication failed"
    response = error.response
    if method is AuthMethod.CERT or not response.message.startswith(failed):
        return response
    words, sqlstate = f'"{method}"', response.sqlstate
    if method is AuthMethod.SCRAM_SHA_256:
        words, sqlstate = "password", "28P01"
    message = response.message.replace(failed, f"{words} authentication failed")
    return ErrorResponse.fatal(sqlstate, message)


def connection_request(client: Client) -> ConnectionRequest:
    """What the lines of an ``hba_file`` are held against.

    :param client: the client.
    :returns: its wishes, without its host name.
    """
    startup = client.startup
    return ConnectionRequest(
        address=_ip_address(client),
        tls=client.tls is not None,
        database=startup.database,
        user=startup.user,
        replication=_is_physical_replication(startup),
    )


def _ip_address(client: Client) -> IPAddress | None:
    if isinstance(client.address, OVER_TCP):
        return _parsed(client.address.host)
    return None


@lru_cache(maxsize=_REMEMBERED)
def _parsed(host: str) -> IPAddress:
    return ip_address(host.partition("%")[0])


def _is_physical_replication(startup: StartupMessage) -> bool:
    """``am_walsender && !am_db_walsender``; an invalid value is the server's to refuse."""
    value = startup.get(b"replication")
    return value is not None and value.lower() in _TRUE


def interfaces() -> Sequence[IPv4Interface | IPv6Interface]:
    """This machine's addresses, as ``pg_foreach_ifaddr`` finds them.

    :returns: each with its netmask.
    """
    import psutil  # noqa: PLC0415 - for samehost and samenet only

    found: list[IPv4Interface | IPv6Interface] = []
    for addresses in psutil.net_if_addrs().values():
        for each in addresses:
            try:
                host = ip_address(each.address.partition("%")[0])
                bits = (
                    int(ip_address(each.netmask)) if each.netmask else (1 << host.max_prefixlen) - 1
                )
            except ValueError:
                continue  # of another family
            found.append(ip_interface(f"{host}/{bits.bit_count()}"))
    return found


def _where(line: HbaLine | None) -> str:
    return "" if line is None else f" ({line.file_name}:{line.line_number})"


def _setting_mistakes(listener: ListenerSettings) -> list[str]:
    named = [
        name
        for name, given in (
            ("clientcert", listener.clientcert is not ClientCert.NO),
            ("map", bool(listener.map)),
            ("auth_type", listener.auth_type is not AuthType.TRUST),
        )
        if given
    ]
    return [f"{name} is said by the lines of hba_file: leave the setting out" for name in named]


def _line_mistakes(lines: Sequence[HbaLine], listener: ListenerSettings, missing: str) -> list[str]:
    mistakes = []
    for line in lines:
        if line.method is AuthMethod.SCRAM_SHA_256 and not listener.auth_file:
            mistakes.append(f"{line.place}: scram-sha-256 needs auth_file")
        if line.clientcert is ClientCert.NO or listener.ssl is SSL.OFF:
            continue
        if missing:
            mistakes.append(f"{line.place}: client certificates can only be checked with {missing}")
        if line.map and not listener.ident_file:
            mistakes.append(f"{line.place}: map={line.map} needs ident_file")
    return mistakes
