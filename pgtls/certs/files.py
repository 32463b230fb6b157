"""Files of an authority's directory: written whole or not at all, keys never readable by others.

A file is made under a temporary name in the same directory, brought to the disk, and only then
given its name, in one step of the file system's: whoever is interrupted, at any moment, leaves the
old file or the new one. Writers of one directory take turns (:func:`locked`).
"""

from __future__ import annotations

import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pgtls.wire.errors import ConfigurationError

#: Modes of the two kinds of file.
PUBLIC = 0o644
PRIVATE = 0o600

_LOCK_NAME = ".pgtls.lock"
#: End of a name that a file has while it is being written.
_UNFINISHED = ".pgtls-unfinished"


def write_file(path: Path, content: bytes, mode: int = PUBLIC, *, overwrite: bool = False) -> None:
    """Write a file whole or not at all; :data:`PRIVATE` ones are so from their creation.

    :raises FileExistsError: it is there already, and ``overwrite`` is false.
    :raises ConfigurationError: a private file would take the place of a symbolic link.
    """
    if mode == PRIVATE:
        refuse_symlink(path)
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


def refuse_symlink(path: Path) -> None:
    """A key's file is the file itself: who places a link would choose what is read or replaced.

    :raises ConfigurationError: ``path`` is a symbolic link.
    """
    if path.is_symlink():
        raise ConfigurationError(f'private key file "{path}" is a symbolic link')


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """While the block runs, no other writer is in the directory.

    What a writer that was killed left unfinished is cleared away first.
    """
    descriptor = lock_file(directory / _LOCK_NAME)
    try:
        for unfinished in directory.glob(f".*{_UNFINISHED}"):
            unfinished.unlink()
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
