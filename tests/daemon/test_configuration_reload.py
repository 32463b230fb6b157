"""SIGHUP: pgtls.toml is read anew, gateways are added, changed and removed."""

from __future__ import annotations

import os
import signal
from contextlib import closing
from pathlib import Path

import psycopg

from tests.daemon.test_gateway_reload import RELOADED
from tests.support.certificates import Authority, Files
from tests.support.gateway_daemon import Gateway, GatewayCase, wait_until
from tests.support.processes import TWISTD, children
from tests.support.servers import HOST, free_port, postgres


def inode(gateway: Gateway, port: int) -> str:
    """The listening socket of a port, as the kernel numbers it."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    (found,) = [row[9] for row in rows if row[1].endswith(f":{port:04X}") and row[3] == "0A"]
    return found


class ConfigurationReloadCase(GatewayCase):
    """A gateway with two listeners."""

    workers = 1

    def started(self, program: tuple[str, ...] = (*TWISTD, "-n")) -> Gateway:
        self.ports = [free_port() for _ in range(3)]
        self.upstream = postgres(17).conninfo(user=None, dbname=None, sslmode="disable")
        text = self.top() + self.table(0) + self.table(1)
        return self.gateway(config=text, program=program)

    def top(self) -> str:
        return f'state_dir = "{{state}}"\nreload_interval = 0\nworkers = {self.workers}\n'

    def table(self, number: int, *settings: str) -> str:
        listen = f"tcp:{self.ports[number]}:interface={HOST}"
        lines = [f'listen = "{listen}"', f'upstream = "{self.upstream}"', *settings]
        return "\n".join(["[[gateway]]", *lines, ""])

    def write(self, gateway: Gateway, *text: str) -> None:
        toml = gateway.directory / "pgtls.toml"
        toml.write_text("".join(text).replace("{state}", str(gateway.state)))

    def reload(self, gateway: Gateway, *text: str, said: str = RELOADED) -> None:
        before = len(gateway.wait_for_log(said, 0))
        self.write(gateway, *text)
        gateway.signal(signal.SIGHUP)
        gateway.wait_for_log(said, before + 1)

    def session(self, gateway: Gateway, number: int) -> psycopg.Connection:
        session = psycopg.connect(gateway.conninfo(port=self.ports[number]), autocommit=True)
        self.addCleanup(session.close)
        return session

    def works(self, session: psycopg.Connection) -> bool:
        return session.execute("SELECT 1").fetchone() == (1,)

    def is_closed(self, gateway: Gateway, number: int) -> bool:
        try:
            self.session(gateway, number).close()
        except psycopg.OperationalError as error:
            return "Connection refused" in str(error)
        return False

    def processes(self, gateway: Gateway) -> list[int]:
        return [gateway.pid, *children(gateway.pid)]

    def added_changed_and_removed(self, gateway: Gateway) -> None:
        sessions = [self.session(gateway, number) for number in (0, 1) for _ in range(6)]
        sockets = inode(gateway, self.ports[0])
        changed = self.table(0, "max_connections = 7", "log_disconnections = true")
        self.reload(gateway, self.top(), self.table(2), changed)
        self.assertEqual(inode(gateway, self.ports[0]), sockets)
        self.assertTrue(self.is_closed(gateway, 1))
        gateway.wait_for_log(rf"no longer listening on {HOST}:{self.ports[1]}")
        gateway.wait_for_log(rf"pgtls: listening on {HOST}:{self.ports[2]}")
        self.assertTrue(all(self.works(session) for session in sessions))
        self.assertTrue(self.works(self.session(gateway, 2)))
        self.session(gateway, 0)  # the seventh
        with self.assertRaisesRegex(psycopg.OperationalError, "too many clients"):
            self.session(gateway, 0)
        # The one that was removed comes back; the sessions that it had before still count for none.
        self.reload(gateway, self.top(), self.table(0), self.table(1, "max_connections = 1"))
        self.assertTrue(self.works(self.session(gateway, 1)))
        self.assertTrue(self.is_closed(gateway, 2))
        self.assertTrue(all(self.works(session) for session in sessions))


class ConfigurationReload(ConfigurationReloadCase):
    """One process."""

    def test_gateways_are_added_changed_and_removed(self) -> None:
        gateway = self.started()
        self.added_changed_and_removed(gateway)
        self.what_needs_a_restart_is_named(gateway)

    def what_needs_a_restart_is_named(self, gateway: Gateway) -> None:
        top = self.top().replace(f"workers = {self.workers}", "workers = 3")
        self.reload(gateway, top, 'embedded = "demo"\n', self.table(0), self.table(1))
        gateway.wait_for_log("not changed by a reload, .*restart: embedded, workers")
        self.assertEqual(len(children(gateway.pid)), 0)

    def test_a_mistake_anywhere_changes_nothing(self) -> None:
        gateway = self.started()
        with closing(self.session(gateway, 0)) as session:
            self.reload(
                gateway,
                self.top() + "colour = 1\n",
                self.table(0, 'clientcert = "perhaps"'),
                self.table(2, 'ident_file = "/missing/ident"'),
                self.table(2),
                said="not reloaded: .*is where gateway 2 listens",
            )
            for pattern in ("colour", "gateway 1: clientcert", "gateway 2: .*missing/ident"):
                gateway.wait_for_log(f"not reloaded: .*{pattern}")
            self.assertTrue(self.is_closed(gateway, 2))
            self.assertTrue(self.works(self.session(gateway, 1)))
            self.assertTrue(self.works(session))
        self.reload(gateway, "[[gateway", said=r"not reloaded: .*pgtls\.toml")
        self.assertTrue(self.works(self.session(gateway, 1)))
        self.a_port_that_another_program_has(gateway)

    def a_port_that_another_program_has(self, gateway: Gateway) -> None:
        other = f"tcp:{postgres(17).port}:interface={HOST}"
        table = f'[[gateway]]\nlisten = "{other}"\nupstream = "{self.upstream}"\n'
        said = rf"not reloaded: \S+pgtls\.toml: gateway 2: {other}: Address already in use"
        self.reload(gateway, self.top(), self.table(2), table, said=said)
        self.assertTrue(self.is_closed(gateway, 2))
        self.assertTrue(self.works(self.session(gateway, 1)))


class ConfigurationReloadWithWorkers(ConfigurationReloadCase):
    """Two processes that serve, and the daemon."""

    workers = 2

    def test_gateways_are_added_changed_and_removed(self) -> None:
        self.added_changed_and_removed(self.started())

    def test_one_that_takes_anothers_place_serves_what_there_is_now(self) -> None:
        gateway = self.started()
        self.nothing_is_left_of_many(gateway)
        self.reload(gateway, self.top(), self.table(0), self.table(2))
        for pid in children(gateway.pid):
            os.kill(pid, signal.SIGKILL)
        gateway.wait_for_log("worker . is ready", 4)
        self.assertTrue(self.works(self.session(gateway, 2)))
        self.assertTrue(self.is_closed(gateway, 1))

    def nothing_is_left_of_many(self, gateway: Gateway) -> None:
        self.reload(gateway, self.top(), self.table(0), self.table(1))
        processes = self.processes(gateway)

        def files() -> list[int]:
            return [len(os.listdir(f"/proc/{pid}/fd")) for pid in processes]

        gateway.open_files_at_rest()
        before = files()
        for number in range(4):
            tables = [self.table(0), *([self.table(2)] if number % 2 == 0 else [])]
            self.reload(gateway, self.top(), *tables)
            self.assertTrue(self.works(self.session(gateway, 0)))
        for each in list(self._cleanups):  # the sessions
            if getattr(each[0], "__name__", "") == "close":
                each[0]()
        self.reload(gateway, self.top(), self.table(0), self.table(1))
        wait_until(
            lambda: all(now <= then for now, then in zip(files(), before, strict=True)),
            lambda: f"{before} {files()}\n{gateway.log()}",
        )

    def test_the_passphrase_command_and_the_reactor_are_the_daemons(self) -> None:
        files = Files(Path(self.mktemp()).absolute())
        certificate, _ = files.pair("server", issued := Authority("a").issue(["localhost"]))
        key = files.write("locked.key", issued.key.pem("secret"))
        ran = files.directory / "ran"
        command = f"echo >> {ran}; echo secret"
        self.ports = [free_port()]
        self.upstream = f"host={HOST} sslmode=disable"
        settings = (
            f'ssl_cert_file = "{certificate}"',
            f'ssl_key_file = "{key}"',
            f'ssl_passphrase_command = "{command}"',
            "ssl_passphrase_command_supports_reload = true",
        )
        program = (*TWISTD, "-n", "--reactor=poll")
        gateway = self.gateway(config=self.top() + self.table(0, *settings), program=program)
        self.assertEqual(ran.read_text().count("\n"), 1)
        self.reload(gateway, self.top(), self.table(0, *settings))
        self.assertEqual(ran.read_text().count("\n"), 2)
        os.kill(children(gateway.pid)[0], signal.SIGKILL)
        gateway.wait_for_log("worker . is ready", 3)
        self.assertEqual(ran.read_text().count("\n"), 2)
        for pid in children(gateway.pid):
            files = [os.readlink(each) for each in Path(f"/proc/{pid}/fd").iterdir()]
            self.assertEqual(files.count("anon_inode:[eventpoll]"), 1)  # ours, and no reactor's
