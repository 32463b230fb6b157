"""Files of an authority's directory: written whole or not at all, keys never readable by others.

A file is made under a temporary name in the same directory, brought to the disk, and only then
given its name, in one step of the file system's: an interruption, at any moment, leaves the old
file or the new one. Writers of one directory take turns (:func:`locked`).
"""

from __future__ import annotations

import fcntl
import glob
import os
import pwd
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pgtls.errors import ConfigurationError

#: Modes of the two kinds of file.
PUBLIC = 0o644
PRIVATE = 0o600

_LOCK_NAME = ".pgtls.lock"
#: End of a name that a file has while it is being written.
_UNFINISHED = ".pgtls-unfinished"


def write_file(path: Path, content: bytes, mode: int = PUBLIC, *, overwrite: bool = False) -> None:
    """Write a file whole or not at all; :data:`PRIVATE` ones are private from their creation.

    :param path: the file.
    :param content: all of it.
    :param mode: its permissions.
    :param overwrite: replace an existing file.
    :raises FileExistsError: it is there already, and ``overwrite`` is false.
    :raises ConfigurationError: the file would take the place of a symbolic link.
    """
    refuse_symlink(path, "private key file" if mode == PRIVATE else "file")
    unfinished = path.with_name(f".{path.name}.{secrets.token_hex(4)}{_UNFINISHED}")
    try:
        _create(unfinished, content, mode)
        if overwrite:
            unfinished.replace(path)
        else:
            # Unlike rename, link fails where the name is taken, even if that was just now.
            path.hardlink_to(unfinished)
    finally:
        unfinished.unlink(missing_ok=True)
    _sync_directory(path.parent)


def refuse_symlink(path: Path, kind: str = "private key file") -> None:
    """Refuse a symbolic link in place of a key file: it would choose which file is read or
    replaced. Nor is a link replaced by a new file, while its target stays as it was.

    :param path: the file.
    :param kind: what the error message calls it.
    :raises ConfigurationError: ``path`` is a symbolic link.
    """
    if path.is_symlink():
        raise ConfigurationError(f'{kind} "{path}" is a symbolic link')


def refuse_existing(path: Path) -> None:
    """Refuse to replace a file.

    :param path: the file.
    :raises ConfigurationError: it exists.
    """
    if os.path.lexists(path):
        raise ConfigurationError(f'"{path}" is there already')


def clear_output(path: Path, *, overwrite: bool) -> None:
    """Check where a file is to be written, in a directory without a lock.

    :param path: the file.
    :param overwrite: replace an existing file.
    :raises ConfigurationError: it is a symbolic link, or it exists and ``overwrite`` is false.
    """
    clear_unfinished(path.parent, path.name)
    refuse_symlink(path, "file")
    if not overwrite:
        refuse_existing(path)


def refuse_foreign(directory: Path) -> None:
    """Refuse a directory in which another user could put or exchange files: keys and records go
    there.

    :param directory: the directory.
    :raises ConfigurationError: it is no directory, another user's, or writable for others.
    """
    user = os.geteuid()
    try:
        link, status = directory.lstat(), directory.stat()
    except OSError as error:
        raise ConfigurationError(f'directory "{directory}": {error.strerror}') from error
    if not stat.S_ISDIR(status.st_mode):
        raise ConfigurationError(f'"{directory}" is not a directory')
    if link.st_uid not in (user, 0) or status.st_uid != user:
        foreign = link.st_uid if status.st_uid == user else status.st_uid
        raise ConfigurationError(
            f'directory "{directory}" belongs to {_user_name(foreign)}, and you are '
            f"{_user_name(user)}: run this as {_user_name(foreign)}, or take another directory"
        )
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        mode = stat.S_IMODE(status.st_mode)
        raise ConfigurationError(
            f'others can write into directory "{directory}" (mode {mode:04o}): chmod go-w it'
        )


def make_directory(directory: Path, mode: int) -> None:
    """Make a directory, and those above it, if it is absent; an existing one must be private.

    :param directory: the directory.
    :param mode: the permissions of a new one.
    :raises ConfigurationError: it cannot be made, or see :func:`refuse_foreign`.
    """
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        directory.mkdir(mode=mode, exist_ok=True)
    except OSError as error:
        reason = error.strerror
        if isinstance(error, FileExistsError):
            reason = f'"{error.filename}" is there, and is not a directory'
        raise ConfigurationError(f'directory "{directory}" cannot be made: {reason}') from error
    refuse_foreign(directory)


def read_limited(path: Path, kind: str, limit: int = 65536) -> bytes:
    """The content of a regular file that may have been made by another user.

    :param path: the file.
    :param kind: what the error message calls it.
    :param limit: the most that is read, in bytes.
    :returns: the content.
    :raises ConfigurationError: it cannot be read, is no regular file, or is longer than ``limit``.
    """
    try:
        # Without O_NONBLOCK a FIFO in the file's place would hang us before it is refused.
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise ConfigurationError(f'{kind} "{path}" is not a regular file')
            content = file.read(limit + 1)
    except OSError as error:
        raise ConfigurationError(f'could not open {kind} "{path}": {error.strerror}') from error
    if len(content) > limit:
        raise ConfigurationError(f'{kind} "{path}" has more than {limit} bytes')
    return content


def clear_unfinished(directory: Path, name: str = "") -> None:
    """Remove the temporary files of a writer that was killed.

    The caller sees to it that no other process is writing there.

    :param directory: where they are.
    :param name: the file that they are for; empty for any.
    """
    for unfinished in directory.glob(f".{glob.escape(name)}*{_UNFINISHED}"):
        unfinished.unlink(missing_ok=True)


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Keep other writers out of the directory while the block runs.

    Temporary files of a writer that was killed are removed first.

    :param directory: the directory.
    :returns: a context manager.
    """
    descriptor = lock_file(directory / _LOCK_NAME)
    try:
        clear_unfinished(directory)
        yield
    finally:
        os.close(descriptor)


def lock_file(path: Path, *, wait: bool = True) -> int:
    """Take the exclusive lock on ``path``, a file that is created if absent and never removed.

    :param path: the file.
    :param wait: whether to wait for another holder of the lock.
    :returns: a descriptor; closing it, or the end of the process, releases the lock.
    :raises BlockingIOError: another process has it, and ``wait`` is false.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, PRIVATE)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _create(path: Path, content: bytes, mode: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, PRIVATE)
    with open(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        # A daemon's umask (077) must not hide from its clients what they are to verify against.
        os.fchmod(descriptor, mode)
        os.fsync(descriptor)


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"
