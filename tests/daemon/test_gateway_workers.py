"""Several processes at one listener: who serves, who dies, who counts, who logs."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import stat
import sys
import tempfile
from contextlib import closing
from pathlib import Path

import psycopg

from tests.daemon.test_gateway import AS_SYSTEMD
from tests.daemon.test_gateway_stop import STOPPED
from tests.support import certificates, processes
from tests.support.certificates import Files
from tests.support.gateway_daemon import Gateway, GatewayCase, wait_until
from tests.support.processes import TWISTD, alive
from tests.support.raw_client import answer, connect, startup_message
from tests.support.servers import HOST, postgres

IMPATIENT = (
    sys.executable,
    "-c",
    "from pgtls.daemon import workers; workers.ANSWER_TIMEOUT = workers.END_TIMEOUT = 1.0; "
    "from twisted.scripts.twistd import run; run()",
    "-n",
)
"""``twistd`` whose workers have one second to answer, and to end."""

LISTEN = f"tcp:0:interface={HOST}"


def children(gateway: Gateway) -> list[int]:
    """The workers that there are now, in the order in which they were started."""
    return processes.children(gateway.pid)


def sockets(pid: int) -> int:
    """How many sockets a process has open."""
    found = 0
    for name in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found += os.readlink(name).startswith("socket:")
    return found


def sessions_of(pid: int) -> int:
    """How many sessions a worker serves: a socket each for client and server, beside the one that
    listens and the one that others are handed over by."""
    return (sockets(pid) - 2) // 2


def wake_ups(pid: int) -> int:
    """How often a process has waited for something."""
    status = Path(f"/proc/{pid}/status").read_text()
    [waited] = re.findall(r"^voluntary_ctxt_switches:\s+(\d+)$", status, re.MULTILINE)
    return int(waited)


class WorkersCase(GatewayCase):
    def started(self, *options: str, listen: str = LISTEN, **parameters: object) -> Gateway:
        upstream = postgres(17).conninfo(user=None, dbname=None, sslmode="disable")
        return self.gateway(
            *("--workers", "2", "--upstream", upstream, *options), listen=listen, **parameters
        )

    def session(self, gateway: Gateway, **parameters: str) -> psycopg.Connection:
        session = psycopg.connect(
            gateway.conninfo(connect_timeout=60, **parameters), autocommit=True
        )
        self.addCleanup(session.close)
        return session

    def both_serve(self, gateway: Gateway) -> list[psycopg.Connection]:
        """Sessions, of which each of the workers that there are has some."""
        sessions: list[psycopg.Connection] = []
        wait_until(
            lambda: (
                all(sessions_of(pid) for pid in children(gateway))
                or sessions.append(self.session(gateway)) is not None
            ),
            gateway.log,
        )
        return sessions

    def works(self, session: psycopg.Connection) -> bool:
        try:
            return session.execute("SELECT 1").fetchone() == (1,)
        except psycopg.OperationalError:
            return False


class Serve(WorkersCase):
    def test_a_connection_wakes_one_of_them_and_they_share_what_comes(self) -> None:
        gateway = self.started("--workers", "3")
        workers = children(gateway)
        self.assertEqual(len(workers), 3)
        before = sum(map(wake_ups, workers))
        open_before = sum(map(sockets, workers))
        silent = []
        for number in range(1, 61):
            silent.append(connect(gateway.address))
            wait_until(
                lambda: sum(map(sockets, workers)) == open_before + number,  # noqa: B023 - now
                gateway.log,
            )
        # One for each, and another one 20 ms later where nothing else has come. If each of them
        # woke all workers it would be some 180.
        self.assertLess(sum(map(wake_ups, workers)) - before, 150)
        accepted = [sockets(pid) for pid in workers]
        self.assertLessEqual(max(accepted) - min(accepted), 3)
        for client in silent:
            client.close()
        wait_until(lambda: sum(map(sockets, workers)) == open_before, gateway.log)
        sessions = [self.session(gateway) for _ in range(40)]
        self.assertTrue(all(self.works(session) for session in sessions))
        served = [sessions_of(pid) for pid in children(gateway)]
        self.assertEqual(sum(served), 40)
        self.assertTrue(all(served), served)
        # The one that listens, and one for each worker to hand over others.
        self.assertEqual(sockets(gateway.pid), 4)

    def test_one_is_the_daemon_itself(self) -> None:
        upstream = postgres(17).conninfo(user=None, dbname=None, sslmode="disable")
        gateway = self.gateway("--workers", "1", "--upstream", upstream)
        self.assertEqual(children(gateway), [])

    def test_what_is_said_at_the_start_is_said_once(self) -> None:
        root = certificates.authority()
        files = Files(Path(self.mktemp()).absolute())
        gateway = self.started(
            *("--ssl-ca-file", files.write("root.crt", root.pem())),
            *("--ssl-crl-file", files.write("root.crl", root.crl(expired=True))),
        )
        self.both_serve(gateway)
        gateway.wait_for_log("upstream: reached")
        for said in ("upstream: reached", "has expired", "] listening on", "pgtls: listening on"):
            self.assertEqual(gateway.log().count(said), 1, said)

    def test_they_are_to_be_seen_in_the_list_of_processes(self) -> None:
        gateway = self.started("--upstream", f"host={HOST} password=secret sslmode=disable")
        for number, pid in enumerate(children(gateway), 1):
            shown = Path(f"/proc/{pid}/cmdline").read_text()
            self.assertIn(f"pgtls.daemon.worker\0worker={number}\0", shown)
            self.assertNotIn("secret", shown + Path(f"/proc/{pid}/environ").read_text())

    def test_on_a_unix_socket(self) -> None:
        with tempfile.TemporaryDirectory(
            dir="/tmp"
        ) as directory:  # a socket's path has to be short
            path = f"{directory}/socket"
            gateway = self.started(listen=f"unix:{path}:mode=660")
            mode = stat.S_IMODE(os.stat(path).st_mode)
            for pid in children(gateway):
                os.kill(pid, signal.SIGKILL)
            gateway.wait_for_log("worker . is ready", 4)
            self.assertEqual(mode, 0o660)
            self.assertEqual(stat.S_IMODE(os.stat(path).st_mode), 0o660)
            self.assertIn(b"R\0\0\0", answer(path, startup_message() + b"X\0\0\0\4"))
            gateway.stop()
            self.assertFalse(os.path.exists(path))

    def test_behind_haproxy(self) -> None:
        gateway = self.started("--ssl", "on", listen=f"haproxy:{LISTEN}")
        header = b"PROXY TCP4 192.0.2.7 198.51.100.1 56324 5432\r\n"
        for _ in range(10):
            said = answer(gateway.address, header + startup_message() + b"X\0\0\0\4")
            self.assertIn(b"R\0\0\0", said)
        gateway.wait_for_log(r"192\.0\.2\.7\(56324\): disconnection", 10)

    def test_on_a_socket_of_systemds(self) -> None:
        with closing(socket.create_server((HOST, 0))) as listening:
            gateway = self.started(
                listen="systemd:domain=INET:index=0",
                program=[*AS_SYSTEMD, str(listening.fileno())],
                pass_fds=[listening.fileno()],
            )
            self.assertTrue(self.works(self.session(gateway)))

    def test_a_cancel_request_finds_its_session(self) -> None:
        gateway = self.started()
        sessions = self.both_serve(gateway)
        server = postgres(17)
        for session in (sessions[0], sessions[-1]):
            for _ in range(10):
                session.pgconn.send_query(b"SELECT pg_sleep(3600)")
                asleep = (
                    "SELECT wait_event FROM pg_stat_activity "
                    f"WHERE pid = {session.info.backend_pid}"
                )
                wait_until(lambda: server.psql(asleep) == "PgSleep", gateway.log)  # noqa: B023
                session.cancel_safe()
                result = session.pgconn.get_result()
                assert result is not None
                state = result.error_field(psycopg.pq.DiagnosticField.SQLSTATE)
                self.assertEqual(state, b"57014")
                self.assertIsNone(session.pgconn.get_result())


class MaxConnections(WorkersCase):
    """The limit is the listener's."""

    def full(self, limit: int = 6) -> tuple[Gateway, list[psycopg.Connection]]:
        gateway = self.started("--max-connections", str(limit))
        return gateway, [self.session(gateway) for _ in range(limit)]

    def no_room(self, gateway: Gateway) -> None:
        for _ in range(10):  # whoever it is that answers
            with self.assertRaisesRegex(psycopg.OperationalError, "sorry, too many clients"):
                psycopg.connect(gateway.conninfo())

    def test_one_too_many_is_told_so(self) -> None:
        gateway, _ = self.full()
        self.no_room(gateway)

    def test_there_is_room_when_one_leaves(self) -> None:
        gateway, sessions = self.full()
        sessions[0].close()
        gateway.wait_for_log("disconnection: user=postgres")
        self.session(gateway)
        self.no_room(gateway)

    def test_there_is_room_when_a_worker_is_gone(self) -> None:
        gateway, _ = self.full()
        victim = max(children(gateway), key=sessions_of)
        lost = sessions_of(victim)
        os.kill(victim, signal.SIGKILL)
        gateway.wait_for_log("worker . is ready", 3)
        for _ in range(lost):
            self.assertTrue(self.works(self.session(gateway)))
        self.no_room(gateway)


class Die(WorkersCase):
    def test_a_killed_one_is_replaced(self) -> None:
        gateway = self.started()
        sessions = self.both_serve(gateway)
        victim, other = children(gateway)
        survivors = sessions_of(other)
        os.kill(victim, signal.SIGKILL)
        gateway.wait_for_log(
            rf"worker 1 \(process {victim}\): was ended by signal 9 \(SIGKILL\); "
            "another one follows in 0 s"
        )
        self.assertEqual(sum(self.works(session) for session in sessions), survivors)
        gateway.wait_for_log("worker . is ready", 3)
        self.assertEqual(len(children(gateway)), 2)
        self.assertNotIn(victim, children(gateway))
        self.both_serve(gateway)

    def test_one_that_dies_again_and_again_is_replaced_after_a_while(self) -> None:
        gateway = self.started()
        for number, pause in enumerate((0, 1, 2)):
            (victim,) = (pid for pid in children(gateway) if worker_number(pid) == 2)
            os.kill(victim, signal.SIGKILL)
            gateway.wait_for_log(rf"\(process {victim}\): .* another one follows in {pause} s")
            if pause < 2:
                gateway.wait_for_log("worker 2 is ready", number + 2)
        with closing(self.session(gateway)) as session:
            self.assertTrue(self.works(session))
        self.assertEqual(gateway.stop(), STOPPED)

    def test_what_a_crash_writes_is_logged(self) -> None:
        gateway = self.started(env={"PYTHONFAULTHANDLER": "1"})
        victim = children(gateway)[1]
        os.kill(victim, signal.SIGABRT)
        gateway.wait_for_log(r"#error\] worker 2: Fatal Python error: Aborted")
        gateway.wait_for_log(r"worker 2 \(process .*signal 6 \(SIGABRT\)")
        self.assertRegex(gateway.log(), r"(?s)Fatal Python error.*another one follows")

    def test_without_the_daemon_they_end_even_where_they_are_hung(self) -> None:
        gateway = self.started("--shutdown-timeout", "3600")
        self.both_serve(gateway)
        workers = children(gateway)
        os.kill(workers[0], signal.SIGSTOP)
        gateway.signal(signal.SIGKILL)
        gateway.wait()
        wait_until(lambda: not any(alive(pid) for pid in workers), gateway.log)
        self.assertFalse(self.accepts(gateway))

    def test_a_hung_one_does_not_hold_up_the_end(self) -> None:
        gateway = self.started("--shutdown-timeout", "0.5", program=IMPATIENT)
        session = self.session(gateway)
        for pid in children(gateway):
            if sessions_of(pid):
                os.kill(pid, signal.SIGSTOP)
        gateway.signal(signal.SIGTERM)
        self.assertEqual(gateway.wait(), STOPPED)
        self.assertFalse(self.works(session))

    def test_a_hung_one_without_sessions_is_not_waited_for_as_long_as_they_are(self) -> None:
        gateway = self.started("--shutdown-timeout", "3600", program=IMPATIENT)
        victim = children(gateway)[0]
        os.kill(victim, signal.SIGSTOP)
        gateway.signal(signal.SIGTERM)
        self.assertEqual(gateway.wait(), STOPPED)
        self.assertIn(f"worker 1 (process {victim}) does not answer", gateway.log())

    def test_a_reload_names_a_hung_one(self) -> None:
        gateway = self.started(program=IMPATIENT)
        victim = children(gateway)[0]
        os.kill(victim, signal.SIGSTOP)
        gateway.signal(signal.SIGHUP)
        gateway.wait_for_log(
            rf"not reloaded: worker 1 \(process {victim}\) has not answered for 1 s"
        )
        os.kill(victim, signal.SIGCONT)
        gateway.signal(signal.SIGHUP)
        gateway.wait_for_log("] reloaded: new connections get what is in the files now")
        self.assertEqual(gateway.stop(), STOPPED)

    def accepts(self, gateway: Gateway) -> bool:
        with contextlib.suppress(ConnectionRefusedError), connect(gateway.address):
            return True
        return False


def worker_number(pid: int) -> int:
    """As the list of processes has it."""
    arguments = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    return next(int(each[7:]) for each in arguments if each.startswith("worker="))


class Stop(WorkersCase):
    def test_sessions_may_finish(self) -> None:
        gateway = self.started("--shutdown-timeout", "3600")
        sessions = self.both_serve(gateway)
        gateway.signal(signal.SIGTERM)
        gateway.wait_for_log(f"{len(sessions)} sessions have 3600 s to finish")
        self.assertTrue(all(self.works(session) for session in sessions))
        self.assertTrue(gateway.runs())
        for session in sessions:
            session.close()
        self.assertEqual(gateway.wait(), STOPPED)

    def test_sessions_that_do_not_finish_are_closed(self) -> None:
        gateway = self.started("--shutdown-timeout", "0.5")
        sessions = self.both_serve(gateway)
        workers = children(gateway)
        self.assertEqual(gateway.stop(), STOPPED)
        self.assertFalse(any(self.works(session) for session in sessions))
        self.assertFalse(any(alive(pid) for pid in workers))

    def test_without_sessions_it_stops_at_once(self) -> None:
        gateway = self.started("--shutdown-timeout", "3600")
        self.assertEqual(gateway.stop(), STOPPED)
        self.assertNotIn("another one follows", gateway.log())

    def test_signals_to_the_whole_group_are_the_daemons(self) -> None:
        """Ctrl-C in a terminal, systemctl stop."""
        gateway = self.started("--shutdown-timeout", "3600")
        sessions = self.both_serve(gateway)
        for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGINT, signal.SIGTERM):
            for pid in children(gateway):
                os.kill(pid, number)
        gateway.signal(signal.SIGINT)
        gateway.wait_for_log(f"{len(sessions)} sessions have")
        self.assertTrue(all(self.works(session) for session in sessions))
        for session in sessions:
            session.close()
        self.assertEqual(gateway.wait(), -signal.SIGINT)
        self.assertNotIn("another one follows", gateway.log())

    def test_the_embedded_postgresql_stops_with_it(self) -> None:
        gateway = self.gateway("--workers", "2", "--embedded", "demo", listen=LISTEN)
        with closing(self.session(gateway)) as session:
            self.assertTrue(self.works(session))
        self.assertEqual(gateway.stop(), STOPPED)
        self.assertFalse((gateway.directory / "demo/data/postmaster.pid").exists())


class Log(WorkersCase):
    def test_it_is_one_for_all(self) -> None:
        gateway = self.started()
        sessions = self.both_serve(gateway)
        for session in sessions:
            session.close()
        gateway.wait_for_log("disconnection: user=postgres", len(sessions))
        self.assertEqual(
            gateway.log().count("user=postgres database=postgres SSL=TLSv1.3"), len(sessions)
        )

    def test_events_keep_their_fields(self) -> None:
        program = (*TWISTD, "-n", "--logger", "tests.support.json_log.observer")
        gateway = self.started(program=program)
        sessions = self.both_serve(gateway)
        gateway.wait_for_log("TLSv1.3", len(sessions))
        events = [json.loads(line) for line in gateway.log().splitlines() if line[:1] == "{"]
        connections = [event for event in events if event.get("tls_version") == "TLSv1.3"]
        connections = [event for event in connections if "user" in event]
        self.assertEqual({event["worker"] for event in connections}, {1, 2})
        for event in connections:
            self.assertEqual(event["log_namespace"], "pgtls.server")
            self.assertEqual(event["log_level"]["name"], "info")
            self.assertEqual((event["user"], event["client_dn"]), ("postgres", None))
