"""The daemon's log files, when logrotate or another program has renamed them."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator

from twisted.logger import FileLogObserver, Logger, globalLogPublisher
from twisted.python.logfile import BaseLogFile, LogFile

_log = Logger(namespace="pgtls.gateway")


def append_to_log_files() -> None:
    """Have each line go to the end of its file also when that has been truncated: where
    Twisted's own position stays, a file truncated by logrotate's ``copytruncate`` would begin with
    as many NUL bytes."""
    for file in _log_files():
        descriptor = file._file.fileno()
        flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
        fcntl.fcntl(descriptor, fcntl.F_SETFL, flags | os.O_APPEND)


def reopen_log_files() -> None:
    """Where a log file has another name now, or none, go on in a new one under the old name. What
    is renamed from outside Twisted no longer rotates by itself. Where the new file cannot be
    opened, the old one stays in use."""
    for file in _log_files():
        try:
            if not _moved(file):
                continue
            mode = os.fstat(file._file.fileno()).st_mode & 0o777
            os.close(os.open(file.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, mode))
        except OSError as error:
            _log.error(
                'log file "{path}" cannot be opened again: {reason}',
                path=file.path,
                reason=error.strerror,
            )
            continue
        file.reopen()
        if isinstance(file, LogFile):
            file.rotateLength = None
    append_to_log_files()


def rotate_log_files() -> None:
    """What twistd does at SIGUSR1, for files that are where they were; the others are opened again:
    see :func:`reopen_log_files`."""
    for file in _log_files():
        if isinstance(file, LogFile) and not _moved(file):
            file.rotate()
    reopen_log_files()


def _moved(file: BaseLogFile) -> bool:
    """Whether its name leads to another file, or to none."""
    try:
        there = os.stat(file.path)
    except FileNotFoundError:
        return True
    return not os.path.samestat(there, os.fstat(file._file.fileno()))


def _log_files() -> Iterator[BaseLogFile]:
    # There is no public way to the observers and their files. Without this one, nothing is done.
    for observer in getattr(globalLogPublisher, "_observers", ()):
        file = getattr(observer, "_outFile", None)
        if isinstance(observer, FileLogObserver) and isinstance(file, BaseLogFile):
            yield file
