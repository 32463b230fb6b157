"""TLS secrets in a file, for Wireshark and tshark: ``ssl_keylog_file`` and ``sslkeylogfile``."""

from __future__ import annotations

import os
import stat
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar

from OpenSSL import SSL

from pgtls.errors import ConfigurationError

Path = str | os.PathLike[str]

_looks_only: ContextVar[bool] = ContextVar("looks_only", default=False)


@contextmanager
def making_no_keylog() -> Iterator[None]:
    """See whether files can be had while the block runs, and make none that is not there.

    :returns: the context manager.
    """
    token = _looks_only.set(True)
    try:
        yield
    finally:
        _looks_only.reset(token)


def keylog_to(context: SSL.Context, path: Path, *others: SSL.Context) -> None:
    """Append the secrets of each handshake of a context to a file, in the NSS key log format.

    The file is created with mode 0600 and stays open as long as the context lives. With it
    every connection can be decrypted, so a file that others may read is refused.

    :param context: whose handshakes.
    :param path: the file.
    :param others: those that its handshakes may go on with.
    :raises ConfigurationError: it cannot be opened, is no regular file or a symbolic link, belongs
        to another user, or has wider permissions.
    """
    descriptor = _open(path)
    weakref.finalize(context, os.close, descriptor)

    def append(_connection: SSL.Connection, line: bytes) -> None:
        # O_APPEND and one write a line: workers may share the file. A full disk ends no session.
        with suppress(OSError):
            os.write(descriptor, line + b"\n")

    for each in (context, *others):
        each.set_keylog_callback(append)


def _open(path: Path) -> int:
    # O_NONBLOCK: to open a FIFO would wait for its reader.
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    name = os.fspath(path)
    if _looks_only.get() and not os.path.lexists(path):
        if not os.access(os.path.dirname(os.path.abspath(path)), os.W_OK | os.X_OK):
            raise ConfigurationError(
                f'could not open SSL key log file "{name}": it cannot be made in its directory'
            )
        return os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
    try:
        descriptor = os.open(path, flags, 0o600)
    except OSError as error:
        reason = "it is a symbolic link" if os.path.islink(path) else error.strerror
        raise ConfigurationError(f'could not open SSL key log file "{name}": {reason}') from error
    if mistake := _mistake(os.fstat(descriptor)):
        os.close(descriptor)
        raise ConfigurationError(f'SSL key log file "{name}" {mistake}')
    return descriptor


def _mistake(status: os.stat_result) -> str | None:
    if not stat.S_ISREG(status.st_mode):
        return "is not a regular file"
    if status.st_uid != os.geteuid():
        return f"is owned by user {status.st_uid}; it must be owned by user {os.geteuid()}"
    if status.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        return "has group or world access; it must have permissions u=rw (0600) or less"
    return None
