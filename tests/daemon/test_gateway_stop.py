"""The gateway's end: told to stop, or never begun because something is wrong."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import tempfile
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from threading import Timer
from time import monotonic, sleep

import psycopg
from twisted.trial.unittest import SynchronousTestCase

from tests.support import certificates
from tests.support.gateway_daemon import BUG, TWIST, Gateway, GatewayCase, in_thread, wait_until
from tests.support.processes import TIMEOUT, TWISTD, alive, children, environment
from tests.support.raw_client import SSL_REQUEST, connect
from tests.support.servers import HOST, free_port, postgres

STOPPED = -signal.SIGTERM
"""How twistd ends when it was told to: it stops all its services, then ends by the signal."""


class Stop(GatewayCase):
    #: For what is the same with and without workers.
    options: tuple[str, ...] = ()
    listener: Mapping[str, str] = {}

    def started(self, *options: str) -> Gateway:
        upstream = postgres(17).conninfo(user=None, dbname=None, sslmode="disable")
        return self.gateway("--upstream", upstream, *options, **self.listener)

    def test_without_sessions_it_stops_at_once(self) -> None:
        gateway = self.started("--shutdown-timeout", "3600")
        self.assertEqual(gateway.stop(), STOPPED)
        self.assertFalse((gateway.directory / "twistd.pid").exists())

    def test_an_interrupt_stops_it_too(self) -> None:
        gateway = self.started()
        gateway.signal(signal.SIGINT)
        self.assertEqual(gateway.wait(), -signal.SIGINT)

    def test_a_session_may_finish(self) -> None:
        gateway = self.started("--shutdown-timeout", "3600")
        with psycopg.connect(gateway.conninfo()) as session:
            gateway.signal(signal.SIGTERM)
            gateway.wait_for_log("1 sessions have 3600 s to finish")
            self.assertEqual(session.execute("SELECT 'done'").fetchone(), ("done",))
            self.assertTrue(gateway.runs())
        self.assertEqual(gateway.wait(), STOPPED)

    def accepted(self, gateway: Gateway) -> bool:
        """Whether a new session begins."""
        try:
            psycopg.connect(gateway.conninfo()).close()
        except psycopg.OperationalError:
            return False
        return True

    def test_until_then_it_refuses_new_sessions_and_passes_cancel_requests_on(self) -> None:
        gateway = self.started("--shutdown-timeout", "3600", *self.options)
        with psycopg.connect(gateway.conninfo(), autocommit=True) as session:
            gateway.signal(signal.SIGTERM)
            gateway.wait_for_log("1 sessions have 3600 s to finish")
            # Workers know of it a moment later.
            wait_until(lambda: not any(self.accepted(gateway) for _ in range(4)), gateway.log)
            for _ in range(4):  # whichever worker accepts it
                with self.assertRaisesRegex(
                    psycopg.OperationalError, "FATAL:  the database system is shutting down"
                ):
                    psycopg.connect(gateway.conninfo())
                cancelling = Timer(0.2, session.cancel_safe)
                cancelling.start()
                with self.assertRaises(psycopg.errors.QueryCanceled):
                    session.execute("SELECT pg_sleep(3600)")
                cancelling.join()
        self.assertEqual(gateway.wait(), STOPPED)
        with self.assertRaises(ConnectionRefusedError):
            socket.create_connection(gateway.address)

    def test_a_unix_socket_stays_as_long(self) -> None:
        # A socket's path has to be short.
        with tempfile.TemporaryDirectory(dir="/tmp") as directory:
            upstream = postgres(17).conninfo(user=None, dbname=None, sslmode="disable")
            gateway = self.gateway(
                *("--upstream", upstream, "--shutdown-timeout", "3600", *self.options),
                listen=f"unix:{directory}/.s.PGSQL.5432",
            )
            conninfo = f"host={directory} port=5432 user=postgres dbname=postgres"
            with psycopg.connect(conninfo):
                gateway.signal(signal.SIGTERM)
                gateway.wait_for_log("1 sessions have 3600 s to finish")
                with self.assertRaisesRegex(psycopg.OperationalError, "shutting down"):
                    psycopg.connect(conninfo)
            self.assertEqual(gateway.wait(), STOPPED)
            self.assertEqual(list(Path(directory).iterdir()), [])

    def test_a_second_signal_ends_it_at_once(self) -> None:
        for first, second in (
            (signal.SIGTERM, signal.SIGTERM),
            (signal.SIGINT, signal.SIGTERM),
            (signal.SIGTERM, signal.SIGINT),
        ):
            gateway = self.started("--shutdown-timeout", "3600", *self.options)
            with closing(psycopg.connect(gateway.conninfo())) as session:
                gateway.signal(first)
                gateway.wait_for_log("1 sessions have 3600 s to finish")
                gateway.signal(second)
                self.assertEqual(gateway.wait(), -first)
                with self.assertRaises(psycopg.OperationalError):
                    session.execute("SELECT 1")
            self.assertIsNone(BUG.search(gateway.log()), gateway.log())

    def test_many_signals_at_once(self) -> None:
        gateway = self.started("--shutdown-timeout", "3600", *self.options)
        with closing(psycopg.connect(gateway.conninfo())):
            for _ in range(5):
                gateway.signal(signal.SIGTERM)
                sleep(0.01)  # one that is pending already would not count
            self.assertEqual(gateway.wait(), STOPPED)
        self.assertIsNone(BUG.search(gateway.log()), gateway.log())

    def test_a_session_that_does_not_finish_is_closed(self) -> None:
        gateway = self.started("--shutdown-timeout", "0.5")
        with closing(psycopg.connect(gateway.conninfo(), autocommit=True)) as session:
            pid = session.info.backend_pid
            gateway.signal(signal.SIGTERM)
            with self.assertRaises(psycopg.OperationalError):
                session.execute("SELECT pg_sleep(3600)")
        self.assertEqual(gateway.wait(), STOPPED)
        server = postgres(17)
        server.psql(f"SELECT pg_terminate_backend({pid}, 60000)")

    def test_a_client_that_reads_nothing_is_closed(self) -> None:
        gateway = self.started("--shutdown-timeout", "0.5")
        with closing(psycopg.connect(gateway.conninfo(), autocommit=True)) as session:
            session.pgconn.send_query(b"SELECT repeat('x', 1000) FROM generate_series(1, 100000)")
            session.pgconn.flush()
            gateway.signal(signal.SIGTERM)
            self.assertEqual(gateway.wait(), STOPPED)

    def test_half_an_opening_does_not_hold_it_up(self) -> None:
        gateway = self.started("--shutdown-timeout", "0.5")
        with socket.create_connection(gateway.address) as connection:
            connection.sendall(b"\0\0")
            wait_until(lambda: gateway.connections() > 0, gateway.log)
            self.assertEqual(gateway.stop(), STOPPED)

    def test_a_handshake_that_it_interrupts_has_not_failed(self) -> None:
        gateway = self.started()
        with connect(gateway.address) as connection:
            connection.sendall(SSL_REQUEST)
            self.assertEqual(connection.recv(1), b"S")
            self.assertEqual(gateway.stop(), STOPPED)
            self.assertNotIn(f"({connection.getsockname()[1]}): could not", gateway.log())

    def test_the_embedded_postgresql_stops_with_it(self) -> None:
        gateway = self.gateway("--embedded", "demo")
        self.assertTrue((gateway.directory / "demo/data/postmaster.pid").exists())
        gateway.signal(signal.SIGUSR2)
        gateway.wait_for_log("not upgraded: the embedded PostgreSQL ends with this process")
        with closing(psycopg.connect(gateway.conninfo())) as session:
            begun = in_thread(lambda: gateway.wait_for_log("1 sessions have"))
            gateway.signal(signal.SIGTERM)
            begun.join(TIMEOUT)
            self.assertEqual(session.execute("SELECT 1").fetchone(), (1,))
        self.assertEqual(gateway.wait(), STOPPED)
        self.assertFalse((gateway.directory / "demo/data/postmaster.pid").exists())

    def test_under_twist(self) -> None:
        upstream = postgres(17).conninfo(user=None, dbname=None, sslmode="disable")
        gateway = self.gateway("--upstream", upstream, program=TWIST)
        self.assertEqual(gateway.stop(), STOPPED)

    def test_a_second_signal_under_twist(self) -> None:
        upstream = postgres(17).conninfo(user=None, dbname=None, sslmode="disable")
        gateway = self.gateway("--upstream", upstream, "--shutdown-timeout", "3600", program=TWIST)
        with closing(psycopg.connect(gateway.conninfo())):
            gateway.signal(signal.SIGTERM)
            gateway.wait_for_log("sessions have .* to finish")
            gateway.signal(signal.SIGINT)
            self.assertEqual(gateway.wait(), STOPPED)


class StopWithWorkers(GatewayCase):
    """What is the same with workers."""

    options = ("--workers", "2")
    listener = {"listen": f"tcp:0:interface={HOST}"}
    started = Stop.started
    accepted = Stop.accepted
    test_it_refuses_new_sessions_and_passes_cancel_requests_on = (
        Stop.test_until_then_it_refuses_new_sessions_and_passes_cancel_requests_on
    )
    test_a_unix_socket_stays_as_long = Stop.test_a_unix_socket_stays_as_long
    test_a_second_signal_ends_it_at_once = Stop.test_a_second_signal_ends_it_at_once
    test_many_signals_at_once = Stop.test_many_signals_at_once


class Starting(SynchronousTestCase):
    """Signals that come before it is ready."""

    def setUp(self) -> None:
        self.directory = Path(self.mktemp()).absolute()
        self.directory.mkdir()
        files = certificates.Files(self.directory)
        self.certificate, self.key = files.pair("server", certificates.localhost(), "secret")
        self.port = free_port()

    def starting(
        self, command: str, *options: str, env: Mapping[str, str] = {}
    ) -> subprocess.Popen[str]:
        """A gateway that has got as far as its passphrase, or its workers.

        :param command: what gives it the passphrase.
        :param env: more of its environment. One of the two makes the file "begun".
        """
        process = subprocess.Popen(
            [
                *(*TWISTD, "-n", "pgtls", "--listen", f"tcp:{self.port}:interface={HOST}"),
                *("--upstream", f"host={HOST}", "--ssl-cert-file", self.certificate),
                *("--ssl-key-file", self.key, "--ssl-passphrase-command", command, *options),
            ],
            cwd=self.directory,
            env=environment(env),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.addCleanup(process.communicate)
        self.addCleanup(process.kill)
        wait_until((self.directory / "begun").exists, lambda: "it does not begin")
        return process

    def lines_until(self, process: subprocess.Popen[str], said: str) -> str:
        """What it prints, up to a certain line."""
        assert process.stdout
        lines = ""
        for line in process.stdout:
            lines += line
            if said in line:
                return lines
        raise AssertionError(lines)

    def test_a_hangup_is_kept_until_it_is_ready(self) -> None:
        process = self.starting("touch begun; sleep 0.5; echo secret")
        process.send_signal(signal.SIGHUP)
        lines = self.lines_until(process, "reloaded: new connections get")
        self.assertIn("pgtls: listening on", lines)
        process.terminate()
        self.assertEqual(process.wait(TIMEOUT), STOPPED)

    def test_an_interrupt_ends_it(self) -> None:
        process = self.starting("touch begun; sleep 5; echo secret")
        process.send_signal(signal.SIGINT)
        self.assertEqual(process.wait(TIMEOUT), -signal.SIGINT)
        assert process.stdout
        self.assertEqual(process.stdout.read(), "")

    def with_slow_workers(self) -> subprocess.Popen[str]:
        """A gateway whose workers begin, and take their time."""
        customized = self.directory / "customized"
        customized.mkdir()
        (customized / "sitecustomize.py").write_text(
            "import sys, time\n"
            "if any(each.startswith('worker=') for each in sys.orig_argv):\n"
            f"    open({str(self.directory / 'begun')!r}, 'w').close()\n"
            "    time.sleep(5)\n"
        )
        path = os.pathsep.join((str(customized), environment()["PYTHONPATH"]))
        return self.starting("echo secret", "--workers", "2", env={"PYTHONPATH": path})

    def test_stopped_while_its_workers_start_it_leaves_nothing(self) -> None:
        process = self.with_slow_workers()
        wait_until(lambda: len(children(process.pid)) == 2, lambda: "there are no two workers")
        workers = children(process.pid)
        process.terminate()
        self.assertEqual(process.wait(TIMEOUT), STOPPED)
        with self.assertRaises(ConnectionRefusedError):
            socket.create_connection((HOST, self.port))
        self.assertFalse(any(alive(pid) for pid in workers))
        self.assertFalse((self.directory / "twistd.pid").exists())

    def test_killed_while_its_workers_start_it_leaves_nothing(self) -> None:
        process = self.with_slow_workers()
        workers = children(process.pid)
        process.kill()
        process.wait(TIMEOUT)
        wait_until(lambda: not any(alive(pid) for pid in workers), lambda: "they live on")
        with self.assertRaises(ConnectionRefusedError):
            socket.create_connection((HOST, self.port))


class DoesNotStart(SynchronousTestCase):
    def setUp(self) -> None:
        self.directory = Path(self.mktemp()).absolute()
        self.directory.mkdir()

    def refused(self, *options: str, program: tuple[str, ...] = (*TWISTD, "-n")) -> list[str]:
        """What ``twistd pgtls`` complains of."""
        done = subprocess.run(
            [*program, "pgtls", "--state-dir", "state", *options]
            if "--config" not in options
            else [*program, "pgtls", *options],
            cwd=self.directory,
            env=environment(),
            capture_output=True,
            text=True,
            check=False,
            timeout=TIMEOUT,
        )
        said = done.stdout + done.stderr
        self.assertGreater(done.returncode, 0, said)
        self.assertIsNone(BUG.search(said), said)
        self.assertNotIn("listening on", said)
        # A daemon removes its pidfile after its parent has ended.
        wait_until(
            lambda: not (self.directory / "twistd.pid").exists(), lambda: "it leaves a pidfile"
        )
        # What twistd -n writes to standard error once it has its log is in the log.
        return re.findall(r"^(?:.* \[stderr#error\] )?(pgtls: .*)", said, re.MULTILINE)

    def test_a_port_in_use(self) -> None:
        with closing(socket.create_server((HOST, 0))) as taken:
            listen = f"tcp:{taken.getsockname()[1]}:interface={HOST}"
            (line,) = self.refused("--upstream", f"host={HOST}", "--listen", listen)
        self.assertIn(f"pgtls: {listen}: ", line)
        self.assertIn("Address already in use", line)

    def test_a_port_in_use_under_twist(self) -> None:
        with closing(socket.create_server((HOST, 0))) as taken:
            listen = f"tcp:{taken.getsockname()[1]}:interface={HOST}"
            (line,) = self.refused("--upstream", f"host={HOST}", "--listen", listen, program=TWIST)
        self.assertIn("Address already in use", line)

    def test_a_port_in_use_as_a_daemon(self) -> None:
        with closing(socket.create_server((HOST, 0))) as taken:
            listen = f"tcp:{taken.getsockname()[1]}:interface={HOST}"
            lines = self.refused("--upstream", f"host={HOST}", "--listen", listen, program=TWISTD)
        self.assertEqual(lines, [])
        log = self.directory / "twistd.log"  # which the daemon may write after its parent has ended
        said = f"pgtls: {listen}: Address already in use"
        wait_until(lambda: said in log.read_text(), log.read_text)
        self.assertIsNone(BUG.search(log.read_text()), log.read_text())

    def test_the_other_ports_are_not_opened_either(self) -> None:
        other = free_port()
        with closing(socket.create_server((HOST, 0))) as taken:
            port = taken.getsockname()[1]
            self.configured(
                f"""
                state_dir = "state"
                [[gateway]]
                listen = "tcp:{other}:interface={HOST}"
                upstream = "host={HOST}"
                [[gateway]]
                listen = "tcp:{port}:interface={HOST}"
                upstream = "host={HOST}"
                """
            )
        with self.assertRaises(ConnectionRefusedError):
            socket.create_connection((HOST, other))

    def test_no_socket_stays_where_another_port_is_in_use(self) -> None:
        with closing(socket.create_server((HOST, 0))) as taken:
            port = taken.getsockname()[1]
            lines = self.configured(
                f"""
                [[gateway]]
                listen = "unix:socket"
                upstream = "host={HOST}"
                [[gateway]]
                listen = "tcp:{port}:interface={HOST}"
                upstream = "host={HOST}"
                ssl = "off"
                """
            )
        said = f"gateway 2: tcp:{port}:interface={HOST}: Address already in use"
        self.assertEqual(lines, [f"pgtls: pgtls.toml: {said}"])
        self.assertEqual([each.name for each in self.directory.iterdir()], ["pgtls.toml"])

    def test_the_embedded_postgresql_does_not_stay_where_the_port_is_in_use(self) -> None:
        with closing(socket.create_server((HOST, 0))) as taken:
            listen = f"tcp:{taken.getsockname()[1]}:interface={HOST}"
            (line,) = self.refused("--embedded", "demo", "--listen", listen)
        self.assertIn("Address already in use", line)
        self.assertFalse((self.directory / "demo/data/postmaster.pid").exists())

    def test_a_directory_that_the_embedded_postgresql_cannot_have(self) -> None:
        (self.directory / "file").touch()
        (line,) = self.refused("--embedded", "file")
        self.assertIn("embedded PostgreSQL cannot use", line)

    def test_an_address_that_is_not_ours(self) -> None:
        (line,) = self.refused(
            "--upstream", f"host={HOST}", "--listen", "tcp:0:interface=192.0.2.1"
        )
        self.assertIn("Cannot assign requested address", line)

    def test_a_socket_in_a_directory_that_is_not_there(self) -> None:
        (line,) = self.refused("--upstream", f"host={HOST}", "--listen", "unix:nowhere/socket")
        self.assertIn("No such file or directory", line)

    def test_no_such_endpoint(self) -> None:
        for listen in ("6432", "tpc:6432", "tcp:port", "haproxy:"):
            (line,) = self.refused("--upstream", f"host={HOST}", "--listen", listen)
            self.assertIn("is not a Twisted endpoint string", line)

    def test_no_such_socket_of_systemds(self) -> None:
        listen = "systemd:domain=INET:index=9"
        (line,) = self.refused("--upstream", f"host={HOST}", "--listen", listen)
        self.assertIn("needs a socket that systemd has opened", line)

    def test_an_endpoint_that_several_workers_cannot_share(self) -> None:
        (line,) = self.refused("--upstream", f"host={HOST}", "--listen", "stdio:", "--workers", "2")
        self.assertIn('listen: "stdio:" is for workers = 1', line)
        self.assertIn("tcp:", line)

    def test_a_number_of_workers_that_is_none(self) -> None:
        for number in ("0", "65", "many"):
            (line,) = self.refused("--upstream", f"host={HOST}", "--workers", number)
            self.assertIn("workers must be a whole number from 1 to 64", line)

    def test_a_worker_that_cannot_read_a_file(self) -> None:
        """It is gone when the daemon has read it."""
        files = certificates.Files(self.directory)
        certificate, key = files.pair("server", certificates.localhost(), "secret")
        (line,) = self.refused(
            *("--upstream", f"host={HOST}", "--listen", f"tcp:0:interface={HOST}"),
            *("--workers", "2", "--ssl-cert-file", certificate, "--ssl-key-file", key),
            *("--ssl-passphrase-command", f"rm {certificate}; echo secret"),
        )
        self.assertIn("could not open certificate file", line)

    def test_a_worker_that_dies_at_its_start(self) -> None:
        python = self.directory / "python"
        python.write_text("#!/bin/sh\nkill -9 $$\n")
        python.chmod(0o700)
        program = f"import sys; sys.executable = {str(python)!r}; {TWISTD[2]}"
        lines = self.refused(
            *("--upstream", f"host={HOST}", "--listen", f"tcp:0:interface={HOST}"),
            *("--workers", "2", "--ssl", "off"),
            program=(*TWISTD[:2], program, "-n"),
        )
        for line in lines:
            self.assertRegex(line, r"^pgtls: worker . was ended by signal 9 \(SIGKILL\)$")

    def test_no_upstream(self) -> None:
        (line,) = self.refused()
        self.assertIn("no PostgreSQL is at", line)
        self.assertIn("--upstream", line)
        self.assertIn("--embedded", line)

    def test_a_certificate_that_is_none(self) -> None:
        files = certificates.Files(self.directory)
        files.write("server.crt", b"no certificate")
        files.write("server.key", certificates.localhost().key.pem(), mode=0o600)
        lines = self.refused(
            *("--upstream", f"host={HOST}"),
            *("--ssl-cert-file", "server.crt", "--ssl-key-file", "server.key"),
        )
        self.assertEqual(len(lines), 1)
        self.assertIn("server.crt", lines[0])

    def test_every_mistake_of_the_command_line(self) -> None:
        lines = self.refused(
            *("--ssl", "maybe", "--max-connections", "0", "--authentication-timeout", "soon"),
            *("--upstream", f"host={HOST}"),
        )
        self.assertEqual(
            lines,
            [
                'pgtls: ssl must be "off" or "on" or "require", not \'maybe\'',
                "pgtls: authentication_timeout must be a number from 0.1 to 86400, not 'soon'",
                "pgtls: max_connections must be a whole number from 1 to 1000000, not '0'",
            ],
        )

    def test_every_mistake_in_settings_that_belong_together(self) -> None:
        lines = self.refused(
            *("--clientcert", "verify-full", "--map", "people", "--ssl-key-file", "server.key"),
            *("--upstream", "host=127.0.0.1 sslmode=maybe"),
        )
        self.assertEqual(
            lines,
            [
                "pgtls: ssl_cert_file, ssl_key_file: both must name a file, and as many of them",
                'pgtls: file "server.key" does not exist',
                "pgtls: clientcert = verify-full needs ssl_ca_file",
                "pgtls: map and ident_file are needed together",
                'pgtls: upstream: invalid sslmode value: "maybe"',
            ],
        )

    def test_an_unknown_option(self) -> None:
        done = subprocess.run(
            [*TWISTD, "-n", "pgtls", "--nonsense", "1"],
            cwd=self.directory,
            env=environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        self.assertEqual(done.returncode, 1)
        self.assertIn("option --nonsense not recognized", done.stdout + done.stderr)
        self.assertIsNone(BUG.search(done.stdout + done.stderr))

    def configured(self, toml: str) -> list[str]:
        (self.directory / "pgtls.toml").write_text(toml)
        return self.refused("--config", "pgtls.toml")

    def test_every_mistake_of_a_file(self) -> None:
        lines = self.configured(
            f"""
            state_dir = "state"
            colour = "blue"
            [[gateway]]
            upstream = "host={HOST}"
            ssl_cert = "server.crt"
            [[gateway]]
            upstream = "host={HOST}"
            ssl = "off"
            listen = "tcp:0:interface={HOST}"
            max_connections = "many"
            """
        )
        self.assertEqual(
            lines,
            [
                'pgtls: pgtls.toml: unknown setting "colour"',
                'pgtls: pgtls.toml: gateway 1: unknown setting "ssl_cert": did you mean '
                '"ssl_cert_file"?',
                "pgtls: pgtls.toml: gateway 2: max_connections must be a whole number from 1 to "
                "1000000, not 'many'",
            ],
        )

    def test_mistakes_of_values_do_not_hide_those_of_files_and_ports(self) -> None:
        with closing(socket.create_server((HOST, 0))) as taken:
            port = taken.getsockname()[1]
            lines = self.configured(
                f"""
                state_dir = "state"
                shutdown_timeout = "long"
                [[gateway]]
                listen = "tcp:{port}:interface={HOST}"
                upstream = "host={HOST} sslmode=maybe"
                ssl = "perhaps"
                ssl_cert_file = "missing.crt"
                ssl_key_file = "missing.key"
                clientcert = "verify-full"
                map = 5
                ident_file = "missing.ident"
                [[gateway]]
                listen = "tcp:0:interface={HOST}"
                upstream = "host={HOST} sslmode=verify-full sslrootcert=missing.root"
                ssl_min_protocol_version = "TLSv9"
                ssl_max_protocol_version = "TLSv10"
                ssl_crl_file = "missing.crl"
                ssl_crl_dir = "missing.crls"
                [[gateway]]
                listen = "unix:missing/socket"
                upstream = "host={HOST}"
                max_connections = 0
                """
            )
        self.assertFalse((self.directory / "state").exists())
        patterns = [
            r"shutdown_timeout must be a number from 0 to 86400, not 'long'",
            r"gateway 1: ssl must be .* not 'perhaps'",
            r"gateway 1: map must be a string, not 5",
            r"gateway 3: max_connections must be",
            r"gateway 1: .*missing\.crt",
            r"gateway 1: clientcert = verify-full needs ssl_ca_file",
            r"gateway 1: .*missing\.ident",
            r'gateway 1: upstream: invalid sslmode value: "maybe"',
            r"gateway 1: .*missing\.key",
            r"gateway 2: .*TLSv9",
            r"gateway 2: .*TLSv10",
            r"gateway 2: .*missing\.crl\"",
            r"gateway 2: .*missing\.crls\"",
            r"gateway 2: ssl_crl_file and ssl_crl_dir need ssl_ca_file",
            r"gateway 2: .*missing\.root",
            rf"gateway 1: tcp:{port}:interface={HOST}: Address already in use",
            r"gateway 3: unix:missing/socket: No such file or directory",
        ]
        for pattern in patterns:
            self.assertEqual(len([line for line in lines if re.search(pattern, line)]), 1, pattern)
        self.assertEqual(len(lines), len(patterns), "\n".join(lines))

    def test_every_mistake_in_what_the_settings_name(self) -> None:
        lines = self.configured(
            f"""
            state_dir = "state"
            [[gateway]]
            listen = "nowhere"
            upstream = "host={HOST} sslmod=require"
            ssl_cert_file = "missing.crt"
            ssl_key_file = "missing.key"
            [[gateway]]
            upstream = "host={HOST} sslmode=verify-full sslrootcert=missing.crt"
            ssl = "off"
            """
        )
        said = "\n".join(lines)
        for part in ("endpoint string", "missing.crt", "sslmod", "root certificate file"):
            self.assertIn(part, said)
        self.assertTrue(all("pgtls.toml: gateway" in line for line in lines), said)

    def test_a_file_that_is_not_there(self) -> None:
        self.assertEqual(
            self.refused("--config", "nowhere.toml"),
            ["pgtls: nowhere.toml: No such file or directory"],
        )

    def test_a_file_that_is_not_toml(self) -> None:
        (line,) = self.configured("[[gateway]\n")
        self.assertIn("pgtls: pgtls.toml: ", line)
        self.assertIn("at line 1", line)

    def test_it_says_so_without_delay(self) -> None:
        begun = monotonic()
        self.refused("--ssl", "maybe")
        self.assertLess(monotonic() - begun, TIMEOUT / 2)
