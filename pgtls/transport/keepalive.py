"""TCP's options that end a connection whose peer has vanished without a word.

Names in ``socket``, values as the kernel wants them: ``TCP_KEEPIDLE`` and ``TCP_KEEPINTVL`` in
seconds, ``TCP_KEEPCNT`` in probes, ``TCP_USER_TIMEOUT`` in milliseconds. 0 stands for the system's
default everywhere. PostgreSQL: ``pq_setkeepalivesidle()`` and its relatives in
``src/backend/libpq/pqcomm.c``.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Sequence


def tcp_options(
    *, idle: int, interval: int, count: int, user_timeout: int
) -> tuple[tuple[str, int], ...]:
    """Collect the options that are to be set. Those that a system does not have are left out.

    :param idle: seconds of silence until the peer is asked whether it is there.
    :param interval: seconds between two such questions.
    :param count: questions without an answer after which the connection is over.
    :param user_timeout: milliseconds that sent data may stay without an acknowledgement.
    :returns: names in ``socket`` and values.
    """
    values = {
        "TCP_KEEPIDLE": idle,
        "TCP_KEEPINTVL": interval,
        "TCP_KEEPCNT": count,
        "TCP_USER_TIMEOUT": user_timeout,
    }
    return tuple((name, value) for name, value in values.items() if value and hasattr(socket, name))


def check_tcp_option(name: str, value: int) -> None:
    """See whether the system takes a value, on a socket that is made for it.

    :param name: the option's, in ``socket``.
    :param value: 0 is always right.
    :raises ValueError: it does not; says what would be right.
    """
    if not value:
        return
    if not hasattr(socket, name):
        raise ValueError(f"0 on this system, which has no {name}")
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as trial:
        try:
            trial.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
        except OSError as error:
            raise ValueError(
                f"a value that this system takes (setsockopt({name}): {error.strerror})"
            ) from error


def set_tcp_options(connection: socket.socket, options: Sequence[tuple[str, int]]) -> None:
    """Set the options of an accepted connection. Where that fails the client is gone already, as
    the next read will show: :func:`check_tcp_option` has seen that the values can be used.

    :param connection: the client's.
    :param options: as :func:`tcp_options` gives them.
    """
    for name, value in options:
        with contextlib.suppress(OSError):
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
