"""The user that twistd gives the process to (``--uid``, ``--gid``, ``--euid``), before it does."""

from __future__ import annotations

import codecs
import os
import pwd
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from importlib import import_module
from importlib.resources import files
from pathlib import Path
from typing import TypeVar

from twisted.logger import Logger

from pgtls.certs.files import make_directory
from pgtls.daemon.configuration import Configuration
from pgtls.daemon.own_certificate import uses_default_certificate
from pgtls.daemon.state import chosen_directory
from pgtls.errors import ConfigurationError

_log = Logger(namespace="pgtls.gateway")

T = TypeVar("T")


class DaemonUser:
    """Whom the process will belong to.

    :param twistd: twistd's options; None where the program has none of them.
    """

    def __init__(self, twistd: Mapping[str, object] | None) -> None:
        uid, gid = (twistd.get("uid"), twistd.get("gid")) if twistd is not None else (None, None)
        self._uid = uid if isinstance(uid, int) else None
        self._gid = gid if isinstance(gid, int) else None
        if self._uid is not None and self._gid is None:
            self._gid = _primary_group(self._uid)

    @property
    def is_another(self) -> bool:
        """Whether this process is root's, and will be another user's or group's."""
        return os.geteuid() == 0 and (self._uid or self._gid or 0) != 0

    @property
    def name(self) -> str:
        """What messages call it."""
        uid = self._uid or 0
        try:
            return pwd.getpwuid(uid).pw_name
        except KeyError:
            return f"user {uid}"

    @contextmanager
    def rights(self) -> Iterator[None]:
        """Have the rights that the process will have, while the block runs: files are read with
        them, and what is made is that user's.

        :returns: the context manager.
        """
        if not self.is_another:
            yield
            return
        groups, gid = os.getgroups(), os.getegid()
        try:
            if self._gid is not None:
                os.setegid(self._gid)
            if self._uid:
                _take_groups(self._uid, self._gid)
                os.seteuid(self._uid)
            yield
        finally:
            os.seteuid(0)
            os.setegid(gid)
            os.setgroups(groups)

    def own_directory(self, directory: Path) -> None:
        """Have a state directory that will be this user's: made now, while there is the right to
        do it. What root has made, the directory or files in it, becomes this user's.

        :param directory: the directory.
        :raises ConfigurationError: it cannot be made, or be given away.
        """
        if not os.path.lexists(directory):
            make_directory(directory, 0o700)
        gid = -1 if self._gid is None else self._gid
        try:
            _give_tree(directory, 0, self._uid or -1, gid)
        except OSError as error:
            raise ConfigurationError(f"state directory: {error}") from error

    @contextmanager
    def lending_directory(self, directory: Path) -> Iterator[None]:
        """Have a state directory of this user's as root's, while the block runs with root's rights:
        what is in it is refused to another user than its owner.

        :param directory: the directory.
        :returns: the context manager.
        :raises ConfigurationError: it cannot be given back.
        """
        if self._uid:
            with suppress(OSError):  # then it is refused, and why
                _give_tree(directory, self._uid, 0, -1)
        try:
            yield
        finally:
            self.own_directory(directory)


def made_by(
    user: DaemonUser, configuration: Configuration, make: Callable[[Configuration], T]
) -> T:
    """Make a daemon with the rights that it will have, and that its reloads have; where those do
    not do, with those that there are now.

    :param user: whom the process will belong to.
    :param configuration: the daemon's.
    :param make: makes it of its configuration.
    :returns: the daemon.
    :raises ConfigurationError: it cannot be made, with whatever rights.
    """
    if not user.is_another:
        return make(configuration)
    state_dir = None
    if any(uses_default_certificate(gateway.settings) for gateway in configuration.gateways):
        state_dir = chosen_directory(configuration.daemon.state_dir or None)
        user.own_directory(state_dir)
    again = configuration.copy()
    _import_for(configuration)
    try:
        with user.rights():
            return make(configuration)
    except (ConfigurationError, OSError, LookupError, ImportError) as error:
        with user.lending_directory(state_dir) if state_dir is not None else nullcontext():
            made = make(again)
        for mistake in error.mistakes if isinstance(error, ConfigurationError) else [error]:
            _log.warn(
                "a reload will fail, which has the rights of {user}: {mistake}",
                user=user.name,
                mistake=mistake,
            )
        return made


def _import_for(configuration: Configuration) -> None:
    """Import what is imported only where it is needed: that user might not be allowed to."""
    codecs.lookup("idna")  # for host names
    files("pgtls.tls")  # what reads the files of packages
    listeners = [gateway.settings.listener for gateway in configuration.gateways]
    needed = {
        "pgtls.daemon.daemon_status": bool(configuration.daemon.status),
        "pgtls.transport.ssh_tunnel": any(
            gateway.settings.ssh.upstream_via for gateway in configuration.gateways
        ),
        "psutil": any(listener.hba_file for listener in listeners),  # for samehost and samenet
    }
    for module, is_needed in needed.items():
        if is_needed:
            import_module(module)


def _give_tree(directory: Path, giver: int, taker: int, gid: int) -> None:
    """Give a directory and the files in it that are ``giver``'s to ``taker``; -1: as it is."""
    status = directory.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return  # which is refused later, and why
    for each in directory.iterdir():
        if stat.S_ISDIR(each.lstat().st_mode):
            _give_tree(each, giver, taker, gid)
        else:
            _give(each, os.O_NONBLOCK, giver, (taker, gid))
    _give(directory, os.O_DIRECTORY, giver, (taker, gid))


def _give(path: Path, flags: int, giver: int, taker: tuple[int, int]) -> None:
    """Not what has other names too: somebody may have made a hard link to a file that is not ours
    to give."""
    with suppress(FileNotFoundError, PermissionError):
        if path.is_symlink():
            return
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | flags)
        try:
            status = os.fstat(descriptor)
            is_file = stat.S_ISREG(status.st_mode) and status.st_nlink == 1
            if status.st_uid == giver and (is_file or flags & os.O_DIRECTORY):
                os.fchown(descriptor, *taker)
        finally:
            os.close(descriptor)


def _primary_group(uid: int) -> int | None:
    try:
        return pwd.getpwuid(uid).pw_gid
    except KeyError:
        return None


def _take_groups(uid: int, gid: int | None) -> None:
    """As twistd does it: those that the user has."""
    try:
        os.initgroups(pwd.getpwuid(uid).pw_name, os.getegid() if gid is None else gid)
    except KeyError:
        os.setgroups([os.getegid() if gid is None else gid])
