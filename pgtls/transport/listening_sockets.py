"""Listening sockets: which process they belong to, and of which kind they are.

A reactor between an endpoint and the real one, so that what an endpoint string makes is decided by
what it asks the reactor for, whatever wraps it (``haproxy:unix:...``), and not by how it begins.
"""

from __future__ import annotations

import os
import re
import socket
from typing import Any, NamedTuple, cast

from twisted.internet.defer import Deferred, succeed
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import (
    IListeningPort,
    IProtocolFactory,
    IReactorSocket,
    IStreamServerEndpoint,
)
from twisted.internet.protocol import Factory
from twisted.internet.tcp import Port
from twisted.protocols.haproxy import proxyEndpoint
from twisted.python.failure import Failure
from zope.interface import implementer

from pgtls.transport.opened_sockets import SocketFile, UNIXPort, open_tcp, remove_stale_files
from pgtls.transport.socket_table import sockets, tcp_address, unix_address

#: An endpoint string of a socket of systemd's, and what separates its arguments.
_SYSTEMD = re.compile(r"(?P<haproxy>haproxy:)?systemd:(?P<arguments>.*)", re.DOTALL)
_SEPARATOR = re.compile(r"(?<!\\):")
_SYSTEMD_ARGUMENTS = ("domain", "index", "name")

#: What Twisted's endpoint strings begin with where connections begin with a PROXY header. We read
#: it ourselves (``proxy_protocol``), and Twisted's wrapper of every connection is left out.
HAPROXY = "haproxy:"

#: The queue of a TCP socket of a supervisor's, as systemd has it; the kernel's limit counts too.
_BACKLOG = 4096


def _family_of(descriptor: int) -> socket.AddressFamily:
    """``systemd:domain=INET`` may get an IPv6 socket, which takes IPv4 too: systemd's default."""
    with socket.socket(fileno=os.dup(descriptor)) as adopted:
        return socket.AddressFamily(adopted.family)


class _ListeningReactor:
    """A reactor whose listening sockets are in the table: :mod:`pgtls.transport.socket_table`. It
    leaves a supervisor's as they are, and takes no notice of lock files of processes that have
    gone."""

    def __init__(self, reactor: IReactorSocket) -> None:
        self._reactor = reactor

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)

    def adoptStreamPort(self, fd: int, _family: Any, factory: Any) -> IListeningPort:
        """As the reactor's; of which family the socket is the socket says."""
        family = _family_of(fd)
        if family == socket.AF_UNIX:
            return self._unix_port(socket.fromfd(fd, family, socket.SOCK_STREAM), factory, None)
        opened: Any = self._reactor.adoptStreamPort(fd, family, factory)
        opened.socket.listen(_BACKLOG)  # Twisted has made it 50
        return cast(IListeningPort, opened)

    def _unix_port(
        self, listening: socket.socket, factory: IProtocolFactory, file: SocketFile | None
    ) -> IListeningPort:
        listening.setblocking(False)
        port = UNIXPort(listening, factory, self._reactor, file)
        port.startListening()
        return cast(IListeningPort, port)

    def listenTCP(
        self, port: int, factory: Any, backlog: int = 50, interface: str = ""
    ) -> IListeningPort:
        """As the reactor's."""
        address = tcp_address(interface, port)
        inherited = sockets.take(address)
        with (
            open_tcp(port, interface, backlog)
            if inherited is None
            else socket.socket(fileno=inherited)
        ) as listening:
            opened: Any = self._reactor.adoptStreamPort(
                listening.fileno(), listening.family, factory
            )
        if isinstance(opened, Port):  # a reactor in memory has others
            sockets.opened(address, opened)
        return cast(IListeningPort, opened)

    def listenUNIX(
        self,
        address: Any,
        factory: Any,
        backlog: int = 50,
        mode: int = 0o666,
        wantPID: bool = False,
    ) -> IListeningPort:
        """As the reactor's."""
        path = os.fsdecode(address)
        inherited = sockets.take(unix_address(path))
        file = SocketFile(path, locked=bool(wantPID), ours=inherited is None)
        if inherited is None:
            remove_stale_files(path)
            listening = file.open(backlog, mode)
        else:
            listening = socket.socket(fileno=inherited)
        opened = self._unix_port(listening, factory, file)
        sockets.opened(unix_address(path), cast(Any, opened))
        return opened


def server_endpoint(reactor: IReactorSocket, description: str) -> IStreamServerEndpoint:
    """An endpoint string's endpoint, without :data:`HAPROXY`.

    A socket that a supervisor (``systemd:``) has opened stays as it is: neither its file nor its
    permissions are touched, at the end either. A lock file of a process that has gone does not
    count.

    :param reactor: Twisted's reactor.
    :param description: as for ``serverFromString``.
    :returns: the endpoint.
    :raises ValueError: as ``serverFromString``, with which other exceptions may come too.
    """
    return endpoint_from_string(_ListeningReactor(reactor), description.removeprefix(HAPROXY))


def endpoint_from_string(reactor: object, description: str) -> IStreamServerEndpoint:
    """``serverFromString``; but where this process holds systemd's sockets itself, ``systemd:``
    means those, which can be listened on more than once.

    :param reactor: Twisted's reactor, or what stands for it.
    :param description: as for ``serverFromString``.
    :returns: the endpoint.
    :raises LookupError: systemd has passed no such socket.
    :raises ValueError: as ``serverFromString``, with which other exceptions may come too.
    """
    systemds = _SYSTEMD.fullmatch(description) if sockets.systemds else None
    if systemds is None:
        endpoint: IStreamServerEndpoint = serverFromString(reactor, description)
        return endpoint
    arguments = _systemd_arguments(systemds["arguments"])
    descriptor = sockets.systemd(arguments.get("index"), arguments.get("name"))
    held = _SystemdEndpoint(reactor, descriptor)
    return proxyEndpoint(held) if systemds["haproxy"] else held


def _systemd_arguments(text: str) -> dict[str, str]:
    """Twisted's grammar: ``domain=INET:index=0``, ``INET:0``.

    :raises ValueError: one is unknown.
    """
    arguments = {}
    for position, argument in enumerate(_SEPARATOR.split(text)):
        name, equals, value = argument.partition("=")
        if not equals:
            name, value = "".join(_SYSTEMD_ARGUMENTS[position : position + 1]), argument
        if name not in _SYSTEMD_ARGUMENTS:
            raise ValueError(f'systemd: takes domain, index and name, not "{argument}"')
        arguments[name] = re.sub(r"\\(.)", r"\1", value)
    return arguments


@implementer(IStreamServerEndpoint)
class _SystemdEndpoint:
    """A socket of systemd's that this process holds."""

    def __init__(self, reactor: object, descriptor: int) -> None:
        self._reactor = cast(Any, reactor)  # which takes any factory
        self._descriptor = descriptor

    def listen(self, protocolFactory: IProtocolFactory) -> Deferred[IListeningPort]:
        """Accept connections."""
        os.set_blocking(self._descriptor, False)
        family = _family_of(self._descriptor)
        return succeed(self._reactor.adoptStreamPort(self._descriptor, family, protocolFactory))


_DESCRIPTOR = "descriptor "


class Address(NamedTuple):
    """Where an endpoint string listens.

    :ivar unix_socket: whether on a Unix socket.
    :ivar name: an IP address, a path, or which of a supervisor's sockets.
    :ivar port: the number; 0 where the system chooses one, and where there is none.
    """

    unix_socket: bool
    name: str
    port: int = 0

    @property
    def is_one_socket(self) -> bool:
        """Whether there can be only one such socket: the port is not one that the system
        chooses."""
        return self.unix_socket or self.port > 0 or self.name.startswith(_DESCRIPTOR)


class _Asked(Exception):
    """What an endpoint has asked a reactor for."""

    def __init__(self, address: Address) -> None:
        self.address = address


class _AskedReactor:
    """A reactor that opens nothing."""

    def listenTCP(
        self, port: int, _factory: object, _backlog: int = 50, interface: str = "", **_: Any
    ) -> None:
        """As a reactor's."""
        raise _Asked(Address(False, interface or "0.0.0.0", port))  # noqa: S104

    def listenSSL(
        self, port: int, _factory: object, _context: object, _backlog: int = 50, interface: str = ""
    ) -> None:
        """As a reactor's."""
        self.listenTCP(port, _factory, interface=interface)

    def listenUNIX(self, address: Any, *_arguments: Any, **_options: Any) -> None:
        """As a reactor's."""
        raise _Asked(Address(True, os.fsdecode(address)))

    def adoptStreamPort(self, fd: int, _family: int, _factory: object) -> None:
        """As a reactor's."""
        raise _Asked(Address(_family_of(fd) == socket.AF_UNIX, f"{_DESCRIPTOR}{fd}"))


def listening_address(description: str) -> Address | None:
    """Where an endpoint string listens; nothing is opened.

    :param description: as for ``serverFromString``; what wraps an endpoint, and options such as
        ``backlog``, make no difference.
    :returns: the address; None where the string cannot be used, or opens something else.
    """
    failed: list[Failure] = []
    try:
        endpoint = endpoint_from_string(_AskedReactor(), description)
        endpoint.listen(Factory()).addErrback(failed.append)
    except Exception as error:
        failed.append(Failure(error))
    found = [failure.value for failure in failed]
    return next((each.address for each in found if isinstance(each, _Asked)), None)


def is_unix_socket(description: str) -> bool:
    """Whether an endpoint string makes a Unix socket, one of a supervisor's or a wrapped one too.

    :param description: as for ``serverFromString``; one that cannot be used makes none.
    :returns: whether it does.
    """
    address = listening_address(description)
    return address is not None and address.unix_socket
