"""Where the status may be listened for: on loopback and Unix sockets, elsewhere in TLS only."""

from __future__ import annotations

import os
import socket
from ipaddress import IPv6Address, ip_address
from typing import Any

from twisted.internet.endpoints import serverFromString
from twisted.internet.protocol import Factory
from twisted.python.failure import Failure

from pgtls.errors import ConfigurationError


class _Asked(Exception):
    """What an endpoint has asked a reactor for.

    :ivar interface: the address; None where strangers cannot reach it without TLS anyway.
    """

    def __init__(self, interface: str | None) -> None:
        super().__init__()
        self.interface = interface


class _AskedReactor:
    """A reactor that opens nothing."""

    def listenTCP(self, port: int, factory: object, backlog: int = 50, interface: str = "") -> None:
        """As a reactor's."""
        raise _Asked(interface)

    def listenSSL(self, *_arguments: Any, **_options: Any) -> None:
        """As a reactor's: it has TLS of its own."""
        raise _Asked(None)

    def listenUNIX(self, *_arguments: Any, **_options: Any) -> None:
        """As a reactor's."""
        raise _Asked(None)

    def adoptStreamPort(self, fd: int, _family: int, _factory: object) -> None:
        """As a reactor's."""
        with socket.socket(fileno=os.dup(fd)) as adopted:
            name = adopted.getsockname()
        raise _Asked(name[0] if isinstance(name, tuple) else None)


def check_status_endpoint(description: str, *, tls: bool) -> None:
    """See whether the status may be listened for there.

    :param description: the setting ``status``: an endpoint string.
    :param tls: the setting ``status_ssl``.
    :raises ConfigurationError: it may not, or it is no endpoint string.
    """
    failed: list[Failure] = []
    try:
        serverFromString(_AskedReactor(), description).listen(Factory()).addErrback(failed.append)
    except Exception as error:
        failed.append(Failure(error))
    asked = [failure.value for failure in failed if isinstance(failure.value, _Asked)]
    if not asked:
        reason = failed[0].value if failed else "it listens nowhere"
        raise ConfigurationError(
            f'status: "{description}" is not a Twisted endpoint string such as '
            f'"tcp:9187:interface=127.0.0.1": {reason}'
        )
    interface = asked[0].interface
    if interface is not None and not tls and not _is_loopback(interface):
        raise ConfigurationError(
            f'status: "{description}" could be read by others in the network, with the names of '
            'roles and databases: add ":interface=127.0.0.1", use a Unix socket, or set '
            "status_ssl = true, which serves it in TLS with the first gateway's certificate"
        )


def _is_loopback(interface: str) -> bool:
    if interface == "localhost":
        return True
    try:
        address = ip_address(interface.partition("%")[0])
    except ValueError:
        return False
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped.is_loopback
    return address.is_loopback
