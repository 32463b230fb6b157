"""What a client asks of its socket before the first byte: TCP's options, a Unix socket's owner.

``PQconnectPoll`` in ``src/interfaces/libpq/fe-connect.c``, CONNECTION_NEEDED and CONNECTION_MADE;
``getpeereid`` in ``src/port``.
"""

from __future__ import annotations

import errno
import pwd
import socket
import struct
from functools import lru_cache

from pgtls.conninfo.connection_string import ConnInfo
from pgtls.errors import ConnectFailed, NegotiationRefused
from pgtls.transport.keepalive import tcp_options

_tcp_options = lru_cache(maxsize=64)(tcp_options)  # connection strings are few

#: struct ucred of Linux: process, user, group.
_UCRED = struct.Struct("iII")


def set_tcp_options(connection: socket.socket, conninfo: ConnInfo) -> None:
    """Set ``keepalives`` and its companions; as in libpq, ``tcp_user_timeout`` too needs it on.

    :param connection: the socket; one that is not TCP's is the near end of an SSH tunnel, which
        has options of its own.
    :param conninfo: the connection string.
    :raises ConnectFailed: the system does not accept a value.
    """
    try:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except OSError as error:
        if error.errno != errno.EOPNOTSUPP:
            raise
        return
    if not conninfo.keepalives:
        return
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _tcp_options(
        idle=conninfo.keepalives_idle,
        interval=conninfo.keepalives_interval,
        count=conninfo.keepalives_count,
        user_timeout=conninfo.tcp_user_timeout,
    ):
        try:
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
        except OSError as error:
            raise ConnectFailed(f"setsockopt({name}) failed: {error.strerror}") from error


def check_peer(connection: socket.socket, requirepeer: str) -> None:
    """Check that the process at the other end of a Unix socket runs as the user of ``requirepeer``.

    :param connection: the socket.
    :param requirepeer: the user's name.
    :raises NegotiationRefused: it does not, or it cannot be determined.
    """
    if not hasattr(socket, "SO_PEERCRED"):
        raise NegotiationRefused("requirepeer parameter is not supported on this platform")
    try:
        credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    except OSError as error:
        raise NegotiationRefused(f"could not get peer credentials: {error.strerror}") from error
    _, user, _ = _UCRED.unpack(credentials)
    try:
        name = pwd.getpwuid(user).pw_name
    except KeyError:
        raise NegotiationRefused(f"local user with ID {user} does not exist") from None
    if name != requirepeer:
        raise NegotiationRefused(
            f'requirepeer specifies "{requirepeer}", but actual peer user name is "{name}"'
        )
