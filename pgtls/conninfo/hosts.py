"""The hosts of a connection string: ``host``, ``hostaddr`` and ``port``, each a list with commas.

Source: PostgreSQL's documentation, "Specifying Multiple Hosts"; ``pqConnectOptions2`` and
``PQconnectPoll`` in ``src/interfaces/libpq/fe-connect.c``. libpq looks at a port or an address
when it comes to that host; here all of them are looked at before the first attempt.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from pgtls.conninfo.grammar import excerpt
from pgtls.errors import ConfigurationError

DEFAULT_PORT = "5432"

#: Bytes of a socket's path: what fits in sockaddr_un with its NUL.
_MAX_SOCKET_PATH = 107

# strtol(), with blanks on both sides
_INTEGER = re.compile(r"[ \t\n\r\v\f]*([+-]?[0-9]+)[ \t\n\r\v\f]*")


@dataclass(frozen=True, slots=True)
class Host:
    """One place to connect to.

    :ivar host: as written: a name, an IP address or the directory of a Unix socket; empty where
        only hostaddr is given.
    :ivar hostaddr: an IP address to connect to in place of the name's; empty where none is given.
    """

    host: str
    hostaddr: str
    port: int

    @property
    def unix_path(self) -> str | None:
        """The socket's path, with a leading ``@`` for an abstract one; None for TCP."""
        if self.hostaddr or not self.host.startswith(("/", "@")):
            return None
        return f"{self.host}/.s.PGSQL.{self.port}"

    @property
    def has_name(self) -> bool:
        """Whether there is a name that can be looked up: none in an address, nor in a path."""
        return bool(self.host) and self.unix_path is None and _address_error(self.host) is not None

    @property
    def address(self) -> str:
        """What to connect to."""
        return self.hostaddr or self.host

    @property
    def name(self) -> str:
        """What a certificate must be for, and what errors call the server."""
        return self.host or self.hostaddr

    @property
    def place(self) -> str:
        """``host:port``, or the path of a Unix socket."""
        if self.unix_path is not None:
            return self.unix_path
        return f"[{self.name}]:{self.port}" if ":" in self.name else f"{self.name}:{self.port}"

    @property
    def where(self) -> str:
        """The connection, as libpq names it in errors."""
        if self.unix_path is not None:
            return f'connection to server on socket "{self.unix_path}"'
        both = self.host and self.hostaddr and self.host != self.hostaddr
        address = f" ({self.hostaddr})" if both else ""
        return f'connection to server at "{self.name}"{address}, port {self.port}'


def default_host() -> str:
    """The directory of the local server's socket: Debian's where it exists, else PostgreSQL's."""
    debian = "/var/run/postgresql"
    return debian if os.path.isdir(debian) else "/tmp"  # noqa: S108


def parse_integer(text: str) -> int | None:
    """An integer as libpq reads one: 32 bits, blanks and a sign allowed.

    :param text: the value.
    :returns: the integer; None for anything else.
    """
    found = _INTEGER.fullmatch(text)
    # The limit on the length is Python's own: int() refuses thousands of digits.
    if found is None or len(text) > 1000:
        return None
    number = int(found[1])
    return number if -(2**31) <= number < 2**31 else None


def parse_hosts(values: Mapping[str, str]) -> tuple[Host, ...]:
    """The hosts in the order in which they are written.

    :param values: values by keyword: ``host``, ``hostaddr`` and ``port``.
    :returns: the hosts, at least one.
    :raises ConfigurationError: with every mistake in them.
    """
    triples = _match(values.get("host", ""), values.get("hostaddr", ""), values.get("port", ""))
    # A "/" in a password that is not percent-encoded makes its first half a port.
    split_password = "@" in values.get("dbname", "")
    mistakes = [
        mistake
        for host, hostaddr, port in triples
        for mistake in _host_mistakes(host, hostaddr, port, secret=split_password)
    ]
    if mistakes:
        raise ConfigurationError(*mistakes)
    hosts = (Host(host, hostaddr, int(port)) for host, hostaddr, port in triples)
    return tuple(hosts)


def _match(host: str, hostaddr: str, port: str) -> list[tuple[str, str, str]]:
    """Split the three lists and put together what belongs together, defaults filled in."""
    hostaddrs = hostaddr.split(",") if hostaddr else []
    hosts = host.split(",") if host else [""] * (len(hostaddrs) or 1)
    hostaddrs = hostaddrs or [""] * len(hosts)
    if len(hosts) != len(hostaddrs):
        raise ConfigurationError(
            f"could not match {len(hosts)} host names to {len(hostaddrs)} hostaddr values"
        )
    ports = port.split(",")
    if len(ports) == 1:
        ports = ports * len(hosts)
    if len(ports) != len(hosts):
        raise ConfigurationError(f"could not match {len(ports)} port numbers to {len(hosts)} hosts")
    return [
        (name if name or address else default_host(), address, number or DEFAULT_PORT)
        for name, address, number in zip(hosts, hostaddrs, ports, strict=True)
    ]


def _host_mistakes(host: str, hostaddr: str, port: str, *, secret: bool) -> Iterator[str]:
    number = parse_integer(port)
    shown = excerpt(port, secret=secret)
    if number is None:
        yield f'invalid integer value "{shown}" for connection option "port"'
        return
    if not 0 < number < 65536:
        yield f'invalid port number: "{shown}"'
    if hostaddr:
        yield from _hostaddr_mistakes(hostaddr)
        return
    path = Host(host, hostaddr, number).unix_path
    if path is None and "@" in host:
        yield 'invalid host name: it has an "@" (in the user and password of a URI, write %40)'
    if path is not None and len(path.encode("utf-8", "surrogateescape")) > _MAX_SOCKET_PATH:
        yield f'Unix-domain socket path "{path}" is too long (maximum {_MAX_SOCKET_PATH} bytes)'


def _hostaddr_mistakes(hostaddr: str) -> Iterator[str]:
    if reason := _address_error(hostaddr):
        yield f'could not parse network address "{hostaddr}": {reason}'


def _address_error(text: str) -> str | None:
    """Why a text is no IP address, by libpq's own test, which asks no name server."""
    numeric = text.encode("utf-8", "surrogateescape")
    try:
        socket.getaddrinfo(numeric, None, flags=socket.AI_NUMERICHOST)
    except OSError as error:
        return error.strerror
    return None
