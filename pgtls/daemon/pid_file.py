"""twistd's pid file: when it is needed, and when the one that is there does not count."""

from __future__ import annotations

import os
from collections.abc import MutableMapping
from contextlib import suppress
from pathlib import Path

from pgtls.errors import ConfigurationError

#: twistd's default, which a program in the foreground has no use for.
_DEFAULT = "twistd.pid"


def pid_file_to_use(name: str, *, foreground: bool, inherited: bool = False) -> str:
    """The pid file for twistd, which refuses to start where one names a process that is there. A
    file that names this process, or one that is no twistd, was left by a process that was killed:
    in a container the only process is number 1 each time. Such a file is removed.

    :param name: twistd's ``--pidfile``.
    :param foreground: whether twistd stays in the foreground; it then writes none unless another
        name than the default was given.
    :param inherited: whether the file is open already, as another process's whose place this one
        is about to take; this one may have no right to read it.
    :returns: the file; empty for none.
    :raises ConfigurationError: another twistd runs, or the file cannot be read.
    """
    if not name or (foreground and name == _DEFAULT):
        return ""
    if inherited:
        return os.path.abspath(name)
    try:
        content = Path(name).read_bytes().strip()
    except FileNotFoundError:
        directory = os.path.dirname(os.path.realpath(name))
        if not os.path.isdir(directory):
            raise ConfigurationError(
                f'pid file "{name}": there is no directory "{directory}"'
            ) from None
        return name
    except OSError as error:
        raise ConfigurationError(f'pid file "{name}": {error.strerror}') from error
    if content and not content.isdigit():
        raise ConfigurationError(f'pid file "{name}" has no process number in it: remove it')
    pid = int(content or b"0")  # empty where twistd was killed before it could write
    if pid not in (0, os.getpid()) and _is_twistd(pid):
        raise ConfigurationError(
            f'another twistd runs: process {pid}, by pid file "{name}"; stop it, or give this one '
            "another file with --pidfile"
        )
    with suppress(FileNotFoundError):
        os.unlink(name)
    return name


def _is_twistd(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        pass
    try:
        return b"twistd" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return os.path.exists("/proc/self") is False  # no procfs: it may be one


class PidFile:
    """twistd's pid file, which one process may hand on to another. It is opened while the process
    has the right to, for the day when it has not.

    :param twistd: twistd's options; those of another program have no ``pidfile``.
    :param inherited: the descriptor of the file that this process is to take over; None for none.
    :ivar descriptor: the file's, once it is open.
    """

    def __init__(
        self, twistd: MutableMapping[str, object] | None = None, inherited: int | None = None
    ) -> None:
        self._twistd = twistd if twistd is not None else {}
        self._name = self._twistd.get("pidfile") or ""
        self.descriptor = inherited
        if inherited is not None:
            self.give_up()  # until this process takes it

    def open(self) -> None:
        """Open it, where twistd has written one."""
        name = str(self._twistd.get("pidfile") or "")
        if name and self.descriptor is None:
            self.descriptor = os.open(name, os.O_WRONLY | os.O_CLOEXEC)

    def give_up(self) -> None:
        """It is another process's: twistd is not to write or remove it."""
        self._twistd["pidfile"] = ""

    def take(self) -> list[OSError]:
        """It is this process's.

        :returns: what has failed.
        """
        if self.descriptor is None:
            return []
        self._twistd["pidfile"] = self._name
        try:
            # In one step: whoever reads it meanwhile finds a process in it, and a full disk does
            # not leave it empty.
            text, size = b"%d" % os.getpid(), os.fstat(self.descriptor).st_size
            os.pwrite(self.descriptor, text.ljust(size, b"\n"), 0)
            os.ftruncate(self.descriptor, len(text))
        except OSError as error:
            return [error]
        return []
