"""How many bytes have gone over a TCP connection.

The kernel counts them: nothing has to be added up in between, and what goes from socket to socket
in the kernel is among them.
"""

from __future__ import annotations

import socket
import struct
from typing import NamedTuple

#: In ``struct tcp_info`` of ``linux/tcp.h``: tcpi_bytes_received; tcpi_bytes_sent and
#: tcpi_bytes_retrans, both since Linux 4.19.
_COUNTS = struct.Struct("=128xQ64xQQ")

_TCP_INFO: int | None = getattr(socket, "TCP_INFO", None)


class Traffic(NamedTuple):
    """Bytes each way. Those of TLS, its handshake included, are among them.

    :ivar received: from the peer.
    :ivar sent: to the peer.
    """

    received: int
    sent: int


def tcp_traffic(connection: socket.socket) -> Traffic | None:
    """Ask the kernel; this takes a microsecond.

    :param connection: an open socket.
    :returns: what it has carried so far; None where it is none of TCP's, and on systems that do not
        count.
    """
    if _TCP_INFO is None:
        return None
    try:
        info = connection.getsockopt(socket.IPPROTO_TCP, _TCP_INFO, _COUNTS.size)
    except OSError:
        return None
    if len(info) < _COUNTS.size:
        return None
    received, sent, again = _COUNTS.unpack(info)
    return Traffic(received, sent - again)
