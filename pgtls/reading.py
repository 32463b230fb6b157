"""Files that a configuration names: how they are read, and which they were.

A loader does not say which files it reads: all of them come through here, and whoever wants to know
collects their names and states with :func:`noting`, those of files that are not there too. Reading
waits for nothing: a named pipe in a file's place is refused.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple

Path = str | os.PathLike[str]


class NotRegular(OSError):
    """What is to be read is a named pipe, a socket or a device."""


class FileState(NamedTuple):
    """What tells whether a file is another one than before, or has another content.

    :ivar device, inode: its identity, symbolic links followed.
    :ivar size: in bytes.
    :ivar modified: the time of the last change of its content, in nanoseconds since 1970.
    :ivar changed: the same of owner, permissions and name too.
    """

    device: int
    inode: int
    size: int
    modified: int
    changed: int

    @classmethod
    def of(cls, status: os.stat_result) -> FileState:
        """Take it from what the system says.

        :param status: of the file.
        :returns: its state.
        """
        return cls(
            *(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        )


#: Files by absolute path, each with its state when it was first read; None: it was not there.
FilesRead = dict[str, FileState | None]

_collecting: ContextVar[tuple[FilesRead, ...]] = ContextVar("collecting", default=())


@contextmanager
def noting() -> Iterator[FilesRead]:
    """Collect the files that are read in this thread while the block runs.

    :returns: the context manager; its value fills as they are read.
    """
    files: FilesRead = {}
    token = _collecting.set((*_collecting.get(), files))
    try:
        yield files
    finally:
        _collecting.reset(token)


@contextmanager
def not_noting() -> Iterator[None]:
    """Collect none of those that are read while the block runs: they are being made.

    :returns: the context manager.
    """
    token = _collecting.set(())
    try:
        yield
    finally:
        _collecting.reset(token)


def state_of(path: Path) -> FileState | None:
    """The state of a file as it is now.

    :param path: the file, or a directory.
    :returns: its state; None where it is not there or cannot be looked at.
    """
    try:
        return FileState.of(os.stat(path))
    except (OSError, ValueError):
        return None


def _note(path: Path, status: os.stat_result | None = None) -> None:
    if collecting := _collecting.get():
        name = os.path.abspath(path)
        state = FileState.of(status) if status is not None else state_of(path)
        for files in collecting:
            # A file that has changed since it was first read is to be read again.
            files.setdefault(name, state)


def _check_regular(status: os.stat_result) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise OSError(errno.EISDIR, os.strerror(errno.EISDIR))
    if not stat.S_ISREG(status.st_mode):
        raise NotRegular(errno.EINVAL, "it is no regular file")


def read_file(
    path: Path, most: int = -1, check: Callable[[os.stat_result], None] = _check_regular
) -> bytes:
    """Read a file.

    :param path: the file.
    :param most: bytes that are read at most; -1 for all.
    :param check: is called with what the system says of the open file, and raises an exception if
        it is not to be read. By default everything but a regular file is refused.
    :returns: what is in it.
    :raises OSError: it cannot be read, or is no regular file.
    :raises ValueError: its name has a NUL in it.
    """
    try:
        # Without O_NONBLOCK a named pipe would make us wait for its writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        _note(path)
        raise
    try:
        status = os.fstat(descriptor)
        _note(path, status)
        check(status)
        with open(descriptor, "rb", closefd=False) as file:
            return file.read(most)
    finally:
        os.close(descriptor)


def status_of(path: Path) -> os.stat_result:
    """What the system says of a file.

    :param path: the file, or a directory; symbolic links are followed.
    :returns: it.
    :raises OSError: it is not there, or cannot be looked at.
    """
    _note(path)
    return os.stat(path)


def exists(path: Path) -> bool:
    """Whether there is a file.

    :param path: the file.
    :returns: True if so.
    """
    _note(path)
    return os.path.exists(path)


def is_directory(path: Path) -> bool:
    """Whether a path is that of a directory.

    :param path: the path.
    :returns: True if so.
    """
    _note(path)
    return os.path.isdir(path)


def names_in(directory: Path) -> list[str]:
    """The names in a directory.

    :param directory: the directory.
    :returns: they, in no order.
    :raises OSError: it cannot be read.
    """
    _note(directory)
    return os.listdir(directory)
