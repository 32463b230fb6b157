"""``hba_file``: which line of a ``pg_hba.conf`` decides about a client, and what it decides.

Source: ``check_hba``, ``check_db``, ``check_role``, ``check_ip``, ``check_hostname`` and
``check_same_host_or_net`` in ``src/backend/libpq/hba.c``; ``ClientAuthentication`` in
``src/backend/libpq/auth.c``; PostgreSQL documentation, "The pg_hba.conf File". How a line is read
is in :mod:`pgtls.policy.hba_file`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface
from typing import NamedTuple

from pgtls.policy.client_identity import ClientCert, ClientName
from pgtls.policy.regular_expression import RegularExpression, TooMuchWork
from pgtls.wire.messages import ErrorResponse

IPAddress = IPv4Address | IPv6Address

#: This machine's addresses, each with its netmask.
Interfaces = Callable[[], Sequence[IPv4Interface | IPv6Interface]]


class ConnectionType(StrEnum):
    """The first field of a line."""

    LOCAL = "local"
    HOST = "host"
    HOSTSSL = "hostssl"
    HOSTNOSSL = "hostnossl"
    HOSTGSSENC = "hostgssenc"
    HOSTNOGSSENC = "hostnogssenc"


class AuthMethod(StrEnum):
    """The methods that a gateway has."""

    TRUST = "trust"
    REJECT = "reject"
    CERT = "cert"
    SCRAM_SHA_256 = "scram-sha-256"


class Keyword(StrEnum):
    """Words without quotes that stand for more than a name."""

    ALL = "all"
    SAMEUSER = "sameuser"
    REPLICATION = "replication"
    SAMEHOST = "samehost"
    SAMENET = "samenet"


@dataclass(frozen=True, slots=True)
class HostName:
    """A host name in the address field; one that begins with a dot stands for all below it.

    :ivar name: in lower case.
    """

    name: str

    def matches(self, actual: str) -> bool:
        """``hostname_match``.

        :param actual: the name that the client's address resolves to.
        :returns: whether it is this one, letter case apart.
        """
        actual = actual.lower()
        return actual.endswith(self.name) if self.name[:1] == "." else actual == self.name


@dataclass(frozen=True, slots=True)
class IPRange:
    """An address and a mask of the same family. The mask may have any bits.

    :ivar version: 4 or 6.
    """

    version: int
    address: int
    mask: int

    def contains(self, client: IPAddress) -> bool:
        """``check_ip``.

        :param client: the client's address.
        :returns: whether it is in the range; never if it is of the other family.
        """
        return client.version == self.version and not (int(client) ^ self.address) & self.mask


#: What a database or role field may hold: a keyword, a name, or a regular expression.
NamePattern = Keyword | bytes | RegularExpression

AddressPattern = Keyword | IPRange | HostName


@dataclass(frozen=True, slots=True)
class HbaLine:
    """One record.

    :ivar file_name: the file that it stands in.
    :ivar line_number: of its first line, from 1.
    :ivar text: the record itself.
    :ivar databases: any of these.
    :ivar roles: any of these.
    :ivar address: ``all`` for ``local``.
    :ivar clientcert: what the client's certificate is needed for.
    :ivar clientname: what in it is compared with the role, or the map.
    :ivar map: the user name map; empty for none.
    """

    file_name: str
    line_number: int
    text: str
    connection_type: ConnectionType
    databases: tuple[NamePattern, ...]
    roles: tuple[NamePattern, ...]
    address: AddressPattern
    method: AuthMethod
    clientcert: ClientCert = ClientCert.NO
    clientname: ClientName = ClientName.CN
    map: str = ""

    @property
    def place(self) -> str:
        """Where it stands, as PostgreSQL says it."""
        return f'line {self.line_number} of configuration file "{self.file_name}"'


@dataclass(frozen=True, slots=True)
class RemoteHost:
    """The double lookup of a client's address, which PostgreSQL does for host names.

    :ivar name: what the address resolves to; None where it resolves to none.
    :ivar confirmed: whether the name resolves to the address again.
    """

    name: str | None
    confirmed: bool


class ConnectionRequest(NamedTuple):
    """What the lines are held against.

    :ivar address: the client's; None on a Unix-domain socket.
    :ivar tls: whether the connection has TLS.
    :ivar database: as in the StartupMessage, the role's name where it names none.
    :ivar user: the role.
    :ivar replication: whether it is for physical replication.
    :ivar remote_host: None while it has not been looked up.
    """

    address: IPAddress | None
    tls: bool
    database: bytes
    user: bytes
    replication: bool = False
    remote_host: RemoteHost | None = None


class HostNameNeeded(Exception):
    """A line has a host name, and the client's is not known yet: look it up, and ask again."""


class HbaUndecided(Exception):
    """A regular expression of a line takes too long over this name. The client is to be refused:
    to pass over a line could pass over a ``reject``.

    :ivar line: the line.
    """

    def __init__(self, line: HbaLine) -> None:
        super().__init__(f"{line.place}: a regular expression takes too long")
        self.line = line


class HbaRules:
    """The lines of a file in their order; the first that matches decides.

    :param lines: of the file.
    :param interfaces: for ``samehost`` and ``samenet``.
    :ivar depend_on_interfaces: whether one has ``samehost`` or ``samenet``: the same client may
        come to another line when this machine's addresses have changed.
    """

    def __init__(self, lines: Sequence[HbaLine], interfaces: Interfaces) -> None:
        self.lines = tuple(lines)
        self._interfaces = interfaces
        own = (Keyword.SAMEHOST, Keyword.SAMENET)
        self.depend_on_interfaces = any(line.address in own for line in self.lines)

    def find(self, request: ConnectionRequest) -> HbaLine | None:
        """``check_hba``.

        :param request: what the client wants.
        :returns: the line that decides; None where none matches, which is a refusal.
        :raises HostNameNeeded: the client's host name has to be looked up first.
        :raises HbaUndecided: a line cannot be decided in reasonable time.
        """
        for line in self.lines:
            try:
                if not self.mismatch(line, request):
                    return line
            except TooMuchWork:
                raise HbaUndecided(line) from None
        return None

    def mismatch(self, line: HbaLine, request: ConnectionRequest) -> str:
        """Why a line does not decide about a client.

        :param line: one of the lines.
        :param request: what the client wants.
        :returns: the first field that does not match; empty where all match.
        :raises HostNameNeeded: the client's host name has to be looked up first.
        :raises TooMuchWork: a regular expression takes too long.
        """
        if not _connection_matches(line.connection_type, request):
            return "connection type"
        if not self._address_matches(line.address, request):
            return "address"
        if not any(_database_matches(pattern, request) for pattern in line.databases):
            return "database"
        if not any(_name_matches(pattern, request.user) for pattern in line.roles):
            return "user"
        return ""

    def _address_matches(self, pattern: AddressPattern, request: ConnectionRequest) -> bool:
        client = request.address
        if client is None or pattern is Keyword.ALL:
            return True
        if isinstance(pattern, IPRange):
            return pattern.contains(client)
        if isinstance(pattern, HostName):
            return _host_matches(pattern, request.remote_host)
        return any(
            client == interface.ip if pattern is Keyword.SAMEHOST else client in interface.network
            for interface in self._interfaces()
            if interface.version == client.version
        )


def _connection_matches(kind: ConnectionType, request: ConnectionRequest) -> bool:
    if request.address is None or kind is ConnectionType.LOCAL:
        return request.address is None and kind is ConnectionType.LOCAL
    if kind is ConnectionType.HOSTSSL:
        return request.tls
    if kind is ConnectionType.HOSTNOSSL:
        return not request.tls
    return kind is not ConnectionType.HOSTGSSENC


def _host_matches(pattern: HostName, remote: RemoteHost | None) -> bool:
    """:raises HostNameNeeded: ``remote`` is None."""
    if remote is None:
        raise HostNameNeeded
    return remote.name is not None and pattern.matches(remote.name) and remote.confirmed


def _database_matches(pattern: NamePattern, request: ConnectionRequest) -> bool:
    """``check_db``."""
    if request.replication or pattern is Keyword.REPLICATION:
        return request.replication and pattern is Keyword.REPLICATION
    if pattern is Keyword.SAMEUSER:
        return request.database == request.user
    return _name_matches(pattern, request.database)


def _name_matches(pattern: NamePattern, name: bytes) -> bool:
    if isinstance(pattern, bytes):
        return pattern == name
    if isinstance(pattern, RegularExpression):
        return pattern.matches(name)
    return pattern is Keyword.ALL


def refusal(request: ConnectionRequest, line: HbaLine | None) -> ErrorResponse | None:
    """What ``ClientAuthentication`` says to a client that the lines refuse.

    :param request: what the client wants.
    :param line: the line that decides; None for none.
    :returns: the error; None where the line's method is to be carried out.
    """
    if line is not None and line.method is not AuthMethod.REJECT:
        return None
    host = "[local]" if request.address is None else str(request.address)
    user, database = (_shown(name) for name in (request.user, request.database))
    encryption = "SSL encryption" if request.tls else "no encryption"
    connection = "replication connection" if request.replication else "connection"
    if line is not None:
        what = f'pg_hba.conf rejects {connection} for host "{host}"'
    elif request.replication:
        what = f'no pg_hba.conf entry for replication connection from host "{host}"'
    else:
        what = f'no pg_hba.conf entry for host "{host}"'
    where = "" if request.replication else f', database "{database}"'
    return ErrorResponse.fatal("28000", f'{what}, user "{user}"{where}, {encryption}')


def _shown(name: bytes) -> str:
    return name.decode("utf-8", "replace")
