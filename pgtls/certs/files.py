"""Files of an authority's directory: written whole or not at all, keys never readable by others.

A file is made under a temporary name in the same directory, brought to the disk, and only then
given its name, in one step of the file system's: whoever is interrupted, at any moment, leaves the
old file or the new one. Writers of one directory take turns (:func:`locked`).
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
    """Write a file whole or not at all; :data:`PRIVATE` ones are so from their creation.

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
            # Unlike rename, link fails where the name is taken, whoever took it and when.
            path.hardlink_to(unfinished)
    finally:
        unfinished.unlink(missing_ok=True)
    _sync_directory(path.parent)


def refuse_symlink(path: Path, kind: str = "private key file") -> None:
    """A key's file is the file itself: who places a link would choose what is read or replaced.
    Nor is a link's place taken by a new file, while what it leads to stays as it was.

    :raises ConfigurationError: ``path`` is a symbolic link.
    """
    if path.is_symlink():
        raise ConfigurationError(f'{kind} "{path}" is a symbolic link')


def refuse_existing(path: Path) -> None:
    """:raises ConfigurationError: it is there already."""
    if os.path.lexists(path):
        raise ConfigurationError(f'"{path}" is there already')


def clear_output(path: Path, *, overwrite: bool) -> None:
    """Make ready for a file in a directory that is not the authority's, where nobody has a lock.

    :raises ConfigurationError: it is a symbolic link, or there already and ``overwrite`` is false.
    """
    clear_unfinished(path.parent, path.name)
    refuse_symlink(path, "file")
    if not overwrite:
        refuse_existing(path)


def refuse_foreign(directory: Path) -> None:
    """Keys and records go only where nobody else can put or exchange files.

    :raises ConfigurationError: it is not a directory, somebody else's, or others may write into it.
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
    """Make it, and those above it, if it is absent; one that is there must be ours alone.

    :raises ConfigurationError: it cannot be made, or see :func:`refuse_foreign`.
    """
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        directory.mkdir(mode=mode, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(
            f'directory "{directory}" cannot be made: {error.strerror}'
        ) from error
    refuse_foreign(directory)


def read_limited(path: Path, kind: str, limit: int = 65536) -> bytes:
    """The content of a regular file that somebody else may have made.

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
    """Remove what a writer that was killed left of the file ``name``, or of any file.

    The caller sees to it that nobody is writing there.
    """
    for unfinished in directory.glob(f".{glob.escape(name)}*{_UNFINISHED}"):
        unfinished.unlink(missing_ok=True)


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """While the block runs, no other writer is in the directory.

    What a writer that was killed left unfinished is cleared away first.
    """
    descriptor = lock_file(directory / _LOCK_NAME)
    try:
        clear_unfinished(directory)
        yield
    finally:
        os.close(descriptor)


def lock_file(path: Path, *, wait: bool = True) -> int:
    """Take the exclusive lock on ``path``, a file that is made if absent and never removed.

    :returns: a descriptor; closing it, or the end of the process, gives the lock back.
    :raises BlockingIOError: somebody else has it, and ``wait`` is false.
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
