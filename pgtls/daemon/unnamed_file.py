"""Files without a name, for what one process hands to another."""

from __future__ import annotations

import os
import tempfile
from typing import IO


def unnamed_file(content: bytes) -> IO[bytes]:
    """A file that only those can read that are given its descriptor. On Linux it is in memory
    (memfd_create(2)), so that a private key in it comes to no disk.

    :param content: what is in it, all of it written.
    :returns: the file, open; gone when the last one that has it open closes it.
    :raises OSError: there is no room for it.
    """
    file: IO[bytes]
    if hasattr(os, "memfd_create"):
        file = os.fdopen(os.memfd_create("pgtls"), "w+b")
    else:
        file = tempfile.TemporaryFile()  # noqa: SIM115 - it stays open
    try:
        file.write(content)
        file.flush()
    except OSError:
        file.close()
        raise
    return file
