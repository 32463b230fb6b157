"""An embedded PostgreSQL, for a gateway that has no server yet.

``DIR/data`` has the database cluster, unless DIR is one itself; ``DIR/postgresql.log`` what the
programs write. The server listens on a Unix socket only, which only its user (and root) can
reach, and trusts every connection over it.
"""

from __future__ import annotations

import atexit
import os
import re
import shlex
import shutil
import socket
import stat
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path

from twisted.logger import Logger

from pgtls.certs.files import lock_file, make_directory
from pgtls.daemon.embedded_programs import Programs, RunAs, find_programs, run_as
from pgtls.errors import ConfigurationError

_PORT = 5432
#: sizeof(sun_path) less the NUL, on the systems where it is shortest.
_MAX_SOCKET_PATH = 103
#: The data directory as a process sees it that was started in it. It leads there even where the
#: directories above are closed to the process's user.
_HERE = "/proc/self/cwd"
#: What our servers are told, so that one that outlived its gateway is known from a DBA's own.
_MARK = "cluster_name=pgtls"
#: Beginning of the name that a cluster has while it is being made.
_UNFINISHED = "data.unfinished-"
#: Seconds that crash recovery may take.
_START_TIMEOUT = 300
#: What PostgreSQL says while processes of a server that was killed have not quite gone, and the
#: seconds that they get: backends notice when they next wait, init reaps in its own time.
_OLD_SERVER = re.compile('lock file "postmaster.pid"|pre-existing shared memory block')
_DYING_TIMEOUT = 10

_log = Logger()


class EmbeddedPostgreSQL:
    """A PostgreSQL server in ``directory``, from :meth:`start` to :meth:`stop`.

    Both block, and may be called from any thread. What still runs when the process ends is stopped
    then; one that outlived its gateway (``kill -9``) is stopped by the next start.

    :param directory: the database's; it is made if absent.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory.expanduser().resolve()
        self._turn = threading.Lock()
        self._undo = ExitStack()

    def start(self, say: Callable[[str], None]) -> str:
        """Start the server; make the database cluster first, if there is none.

        :param say: is told, in a few words, what takes time.
        :returns: a libpq connection string with host and port; user and database are left open.
        :raises ConfigurationError: the package is missing, the directory cannot be used or is in
            use, or PostgreSQL will not start, for the reason given.
        """
        with self._turn, ExitStack() as undo:
            try:
                conninfo = self._start(say, undo)
            except OSError as error:
                raise ConfigurationError(
                    f'embedded PostgreSQL cannot use "{self._directory}": {error}'
                ) from error
            self._undo = undo.pop_all()
        atexit.register(self.stop)
        return conninfo

    def _start(self, say: Callable[[str], None], undo: ExitStack) -> str:
        """:param undo: takes what must be done to stop."""
        directory = self._directory
        if os.geteuid() == 0:  # the server's user is then another one, which may own it
            directory.mkdir(parents=True, exist_ok=True)
        else:
            make_directory(directory, 0o700)
        data = directory if (directory / "PG_VERSION").exists() else directory / "data"
        account = run_as(data if data.exists() else directory)
        programs = find_programs(account)
        undo.callback(os.close, _exclusive(directory, account))
        log = undo.enter_context(_Log(directory / "postgresql.log", account))
        cluster = _Cluster(data, programs, account, log)
        cluster.stop_leftover()
        if not cluster.exists():
            say(f"creating the database cluster in {directory}")
            cluster.create()
        say(f"starting {programs.version}")
        undo.callback(cluster.stop)
        return cluster.start()

    def stop(self) -> None:
        """Stop the server, at once but orderly; sessions that are open are ended."""
        atexit.unregister(self.stop)
        with self._turn:
            self._undo.close()


class _Cluster:
    """A database cluster and the server on it.

    :param data: its directory.
    :param account: the user that its programs run as.
    :param log: what they write to.
    """

    def __init__(self, data: Path, programs: Programs, account: RunAs, log: _Log) -> None:
        self._data = data
        self._programs = programs
        self._account = account
        self._log = log

    def exists(self) -> bool:
        """Whether there is a cluster.

        :raises ConfigurationError: something else is in its place.
        """
        if (self._data / "PG_VERSION").exists():
            return True
        if self._data.exists() and any(self._data.iterdir()):
            raise ConfigurationError(f'"{self._data}" is not empty, and no database cluster')
        return False

    def create(self) -> None:
        """Make the cluster, whole or not at all."""
        above = self._data.parent
        for abandoned in above.glob(f"{_UNFINISHED}*"):
            shutil.rmtree(abandoned, ignore_errors=True)
        # A new name: the initdb of a gateway that was just killed may still be at work in the old.
        unfinished = Path(tempfile.mkdtemp(prefix=_UNFINISHED, dir=above))
        if self._account:
            os.chown(unfinished, self._account["user"], self._account["group"])
        self._run(
            unfinished,
            *("initdb", "--username=postgres", "--encoding=UTF8", "--no-instructions"),
            # The same everywhere, whatever locales the machine has and will have.
            *("--no-locale", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"),
            # There is no other way in than the socket: see start.
            *("--auth-local=trust", "--auth-host=scram-sha-256"),
            # The gateway's own limit is the one that counts.
            *("-c", "max_connections=1000"),
        )
        unfinished.replace(self._data)

    def start(self) -> str:
        """Start the server, and wait until it takes connections.

        :returns: a connection string.
        """
        sockets = self._socket_directory()
        # A list of directories, so quoted as PostgreSQL quotes identifiers.
        seen = self._seen(sockets).replace('"', '""')
        options = shlex.join(
            [
                *("-c", _MARK, "-c", "listen_addresses=", "-p", str(_PORT)),
                *("-k", f'"{seen}"', "-c", "unix_socket_permissions=0700"),
            ]
        )
        self._pg_ctl_start(options)
        quoted = str(sockets).replace("\\", "\\\\").replace("'", "\\'")
        return f"host='{quoted}' port={_PORT}"

    def _pg_ctl_start(self, options: str) -> None:
        deadline = time.monotonic() + _DYING_TIMEOUT
        while True:
            try:
                return self._pg_ctl("-t", str(_START_TIMEOUT), "-o", options, "start")
            except ConfigurationError as error:
                if not _OLD_SERVER.search(str(error)) or time.monotonic() > deadline:
                    raise
            time.sleep(0.25)

    def stop(self) -> None:
        """Stop the server if it runs: orderly, and if that takes more than a minute, at once."""
        sockets = self._listening()
        if sockets is None:
            return
        for mode in ("fast", "immediate"):
            try:
                self._pg_ctl("-m", mode, "stop")
            except ConfigurationError as error:
                _log.warn("{error}", error=error)
            if self._listening() is None:
                break
        if sockets != self._data:
            with suppress(OSError):
                sockets.rmdir()

    def stop_leftover(self) -> None:
        """Stop the server that a gateway left behind when it was killed.

        :raises ConfigurationError: the server that is running was not started by a gateway.
        """
        if self._listening() is None:
            return
        if _MARK not in (self._data / "postmaster.opts").read_text():
            raise ConfigurationError(
                f'a PostgreSQL server is running on "{self._data}" already: stop it first, or '
                "give it to the gateway as --upstream"
            )
        self.stop()

    def _listening(self) -> Path | None:
        """The directory of the socket that the cluster's server listens on; None if none does.

        The process id in ``postmaster.pid`` alone would not tell: it may be another process's now.
        """
        try:
            lines = os.fsdecode((self._data / "postmaster.pid").read_bytes()).splitlines()
            directory = self._data if lines[4] == _HERE else Path(lines[4])
            with socket.socket(socket.AF_UNIX) as connection:
                connection.connect(os.fspath(directory / f".s.PGSQL.{lines[3]}"))
        except (OSError, IndexError):
            return None
        return directory

    def _socket_directory(self) -> Path:
        """The data directory; if its path cannot be a socket's, a new one that only its user can
        reach either."""
        path = self._data / f".s.PGSQL.{_PORT}"
        # libpq takes a comma for the end of a host.
        if len(os.fsencode(path)) <= _MAX_SOCKET_PATH and "," not in str(path):
            return self._data
        directory = tempfile.mkdtemp(prefix="pgtls-", dir="/tmp")
        if self._account:
            os.chown(directory, self._account["user"], self._account["group"])
        return Path(directory)

    def _pg_ctl(self, *arguments: str) -> None:
        self._run(self._data, "pg_ctl", "--silent", "--wait", *arguments)

    def _run(self, data: Path, program: str, *arguments: str) -> None:
        """Run one of PostgreSQL's programs on ``data``.

        :raises ConfigurationError: it failed; with its reason, and where to read more.
        """
        before = self._log.size()
        result = subprocess.run(  # noqa: S603
            [self._programs.directory / program, "-D", self._seen(data), *arguments],
            check=False,
            cwd=data,
            stdin=subprocess.DEVNULL,
            stdout=self._log.descriptor,
            stderr=self._log.descriptor,
            env=_environment(),
            # Ctrl-C at a terminal is for the gateway, whose sessions may end in their own time.
            start_new_session=True,
            **self._account,
        )
        if result.returncode:
            written = self._log.read(before)
            raise ConfigurationError(
                f'{program} failed on "{self._data}": {_reason(written)} (more in {self._log.path})'
            )

    def _seen(self, directory: Path) -> str:
        """A directory's name for a program that runs in it: see :data:`_HERE`."""
        above = directory.parents
        if self._account and not all(path.stat().st_mode & stat.S_IXOTH for path in above):
            return _HERE
        return str(directory)


class _Log:
    """The file that PostgreSQL's programs write to.

    A link in its place would be the work of a user that can write here and, if we are root, not
    elsewhere: it is not followed.
    """

    def __init__(self, path: Path, account: RunAs) -> None:
        self.path = path
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW
        self.descriptor = _given(os.open(path, flags, 0o600), account)

    def __enter__(self) -> _Log:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.descriptor)

    def size(self) -> int:
        """Where what is written next begins."""
        return os.fstat(self.descriptor).st_size

    def read(self, since: int) -> str:
        """What has been written since :meth:`size` said so."""
        return os.pread(self.descriptor, 10_000, since).decode(errors="replace")


def _exclusive(directory: Path, account: RunAs) -> int:
    """Take the directory for this process.

    :returns: what to close to give it back.
    """
    try:
        descriptor = lock_file(directory / ".pgtls.lock", wait=False)
    except BlockingIOError as error:
        raise ConfigurationError(f'"{directory}" is in use by another gateway') from error
    return _given(descriptor, account)


def _given(descriptor: int, account: RunAs) -> int:
    """Make a file the server's own: crash recovery wants to sync all that is in its directory."""
    if account:
        os.fchown(descriptor, account["user"], account["group"])
    return descriptor


def _environment() -> dict[str, str]:
    """Ours, without what steers PostgreSQL (PGDATA, PGPORT), and in English for :func:`_reason`."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    return ours | {"LC_ALL": "C"}


def _reason(written: str) -> str:
    """The lines of a program's output that say why it failed, in one."""
    found = re.findall(r"(?:PANIC|FATAL|DETAIL|HINT|error|detail|hint): +(.+)", written)
    return "; ".join(found or written.splitlines()[-1:])
