"""The gateway from outside: how it starts, where it listens, what is behind it, what goes wrong."""

from __future__ import annotations

import os
import re
import shlex
import socket
import subprocess
from contextlib import closing
from functools import cache
from pathlib import Path

import psycopg

from tests.support import certificates
from tests.support.gateway_daemon import TWIST, Gateway, GatewayCase, in_thread
from tests.support.processes import TIMEOUT, environment
from tests.support.raw_client import SSL_REQUEST, answer, startup_message
from tests.support.servers import (
    HOST,
    Server,
    free_port,
    negotiation_server,
    postgres,
    psql,
    scram_server,
)

PORT = "SELECT inet_server_port()"
ON_TLS = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"


def query(conninfo: str, sql: str) -> object:
    """The first column of the first row, by psycopg."""
    with psycopg.connect(conninfo) as connection:
        row = connection.execute(sql).fetchone()
    assert row is not None
    return row[0]


def refusal(conninfo: str) -> str:
    """What psycopg says when it is not let in."""
    try:
        psycopg.connect(conninfo).close()
    except psycopg.OperationalError as error:
        return str(error)
    raise AssertionError("it was let in")


class Embedded(GatewayCase):
    def pasted(self, gateway: Gateway) -> str:
        """What the command line that the gateway printed answers to a query."""
        (line,) = (line for line in gateway.log().splitlines() if line.strip().startswith("psql "))
        done = subprocess.run(
            ["sh", "-c", f"{line} -XAtc {shlex.quote('SELECT current_user, version()')}"],
            env=environment({"PATH": f"{Path(psql(17)).parent}:{os.environ['PATH']}"}),
            capture_output=True,
            text=True,
            check=False,
        )
        return done.stdout + done.stderr

    def test_the_psql_line_that_it_prints_works_as_pasted(self) -> None:
        gateway = self.gateway("--embedded", "demo")
        self.assertRegex(self.pasted(gateway), r"\Apostgres\|PostgreSQL 18")
        self.assertRegex(gateway.log(), r"(?m)^certificate \(SHA-256\): ([0-9A-F]{2}:){31}")

    def test_it_runs_under_twist_too(self) -> None:
        gateway = self.gateway("--embedded", "demo", program=TWIST)
        self.assertRegex(self.pasted(gateway), r"\Apostgres\|PostgreSQL 18")


class Upstreams(GatewayCase):
    def test_over_tcp(self) -> None:
        self.assertEqual(query(self.shared().conninfo(), PORT), postgres(17).port)

    def test_over_a_unix_socket(self) -> None:
        server = postgres(17)
        gateway = self.gateway("--upstream", f"host={server.socket_dir} port={server.port}")
        self.assertIs(query(gateway.conninfo(), "SELECT inet_server_port() IS NULL"), True)

    def test_the_local_one_as_libpq_finds_it(self) -> None:
        server = postgres(17)
        gateway = self.gateway(env={"PGHOST": server.socket_dir, "PGPORT": str(server.port)})
        self.assertIs(query(gateway.conninfo(), "SELECT inet_server_port() IS NULL"), True)

    def test_with_verified_tls(self) -> None:
        server = postgres(17, ssl=True)
        gateway = self.gateway("--upstream", verified(server))
        self.assertIs(query(gateway.conninfo(), ON_TLS), True)

    def test_with_direct_tls(self) -> None:
        server = postgres(17, ssl=True)
        gateway = self.gateway("--upstream", verified(server) + " sslnegotiation=direct")
        self.assertIs(query(gateway.conninfo(), ON_TLS), True)

    def test_tls_for_clients_that_have_none(self) -> None:
        server = postgres(17, ssl=True)
        gateway = self.gateway("--ssl", "off", "--upstream", verified(server))
        self.assertIs(query(gateway.conninfo(sslmode="disable"), ON_TLS), True)

    def test_the_next_host_where_the_first_one_is_down(self) -> None:
        server = postgres(17)
        gateway = self.gateway(
            "--upstream", f"host={HOST},{HOST} port={free_port()},{server.port} sslmode=disable"
        )
        self.assertEqual(query(gateway.conninfo(), PORT), server.port)

    def test_the_same_certificate_on_both_sides_keeps_channel_binding(self) -> None:
        server = scram_server(17, ssl=True)
        leaf = certificates.localhost()
        files = certificates.Files(Path(self.mktemp()).absolute())
        gateway = self.gateway(
            *("--upstream", verified(server)),
            *("--ssl-cert-file", files.write("server.crt", leaf.chain())),
            *("--ssl-key-file", files.write("server.key", leaf.key.pem(), mode=0o600)),
        )
        conninfo = gateway.conninfo(
            user="scramuser",
            password="secret",
            channel_binding="require",
            sslrootcert=server.root_crt,
        )
        self.assertEqual(query(conninfo, "SELECT current_user"), "scramuser")


def verified(server: Server) -> str:
    """A connection string without a user: verify-full."""
    return server.conninfo(
        user=None,
        dbname=None,
        host="localhost",
        hostaddr=HOST,
        sslmode="verify-full",
        sslrootcert=server.root_crt,
    )


class UpstreamRefuses(GatewayCase):
    def test_down(self) -> None:
        port = free_port()
        gateway = self.gateway("--upstream", f"host={HOST} port={port}")
        said = refusal(gateway.conninfo())
        self.assertIn("FATAL:  could not connect to the upstream server: Connection refused", said)
        self.assertRegex(
            gateway.log(),
            rf"user=postgres database=postgres upstream: .*{HOST}.*port {port}.*Connection refused",
        )

    def test_down_in_the_wire_format(self) -> None:
        gateway = self.gateway("--ssl", "on", "--upstream", f"host={HOST} port={free_port()}")
        self.assertRegex(
            answer(gateway.address, startup_message()), rb"\AE.{4}SFATAL\0VFATAL\0C08006\0M"
        )

    def test_without_tls_where_tls_is_required(self) -> None:
        gateway = self.gateway(
            *("--ssl", "on"),
            *("--upstream", postgres(18).conninfo(user=None, sslmode="require")),
        )
        said = answer(gateway.address, startup_message())
        self.assertIn(b"C08001\0Mcould not make a secure connection to the upstream server", said)
        self.assertIn("server does not support SSL, but SSL was required", gateway.log())

    def test_whose_certificate_is_anothers(self) -> None:
        server = postgres(17, ssl=True)
        files = certificates.Files(Path(self.mktemp()).absolute())
        root = files.write("root.crt", certificates.Authority("another").pem())
        upstream = server.conninfo(user=None, sslmode="verify-ca", sslrootcert=root)
        gateway = self.gateway("--ssl", "on", "--upstream", upstream)
        said = answer(gateway.address, startup_message())
        self.assertIn(b"C08001\0Mcould not make a secure connection to the upstream server", said)
        self.assertRegex(gateway.log(), r"upstream: .*certificate verify failed: .*\(depth [01],")

    def test_whose_name_is_another(self) -> None:
        server = postgres(17, ssl=True)
        upstream = verified(server).replace("host='localhost'", "host='db.example.com'")
        gateway = self.gateway("--upstream", upstream)
        self.assertIn("could not make a secure connection", refusal(gateway.conninfo()))
        self.assertIn('does not match host name "db.example.com"', gateway.log())

    def same_error(self, server: Server, startup: bytes) -> None:
        """The gateway's client gets the server's own words, byte for byte."""
        upstream = server.conninfo(user=None, dbname=None, sslmode="disable")
        gateway = self.gateway("--ssl", "on", "--upstream", upstream)
        direct = answer((HOST, server.port), startup)
        self.assertEqual(direct[:1], b"E")
        self.assertEqual(answer(gateway.address, startup), direct)

    def test_a_user_whom_it_does_not_let_in(self) -> None:
        server = negotiation_server(ssl=False)
        self.same_error(server, startup_message(user="nobody"))

    def test_a_database_that_is_not_there(self) -> None:
        server = postgres(17)
        gateway = self.gateway(
            *("--ssl", "on"),
            *("--upstream", server.conninfo(user=None, dbname=None, sslmode="disable")),
        )
        startup = startup_message(database="nowhere")
        direct = answer((HOST, server.port), startup)
        self.assertIn(b'C3D000\0Mdatabase "nowhere" does not exist\0', direct)
        self.assertEqual(answer(gateway.address, startup), direct)

    def test_a_wrong_password(self) -> None:
        server = scram_server()
        upstream = server.conninfo(user=None, dbname=None, sslmode="disable")
        gateway = self.gateway("--upstream", upstream)
        said = refusal(gateway.conninfo(user="scramuser", password="wrong"))
        self.assertIn('FATAL:  password authentication failed for user "scramuser"', said)

    def test_while_it_starts_again(self) -> None:
        server = Server(17)
        self.addCleanup(server.stop)
        gateway = self.gateway("--upstream", server.conninfo(user=None, sslmode="disable"))
        server.stop()
        self.assertIn("Connection refused", refusal(gateway.conninfo()))
        server.start()
        self.assertEqual(query(gateway.conninfo(), PORT), server.port)

    def test_one_that_never_answers(self) -> None:
        with closing(socket.create_server((HOST, 0))) as silent:
            upstream = f"host={HOST} port={silent.getsockname()[1]} sslmode=require"
            gateway = self.gateway("--authentication-timeout", "0.5", "--upstream", upstream)
            self.assertIn("authentication_timeout is over", refusal(gateway.conninfo()))
            self.assertRegex(
                gateway.log(), r"over: connection to server .* was tried for 0\.\d s\n"
            )

    def test_one_that_never_answers_in_front_of_another(self) -> None:
        """Without connect_timeout it uses up the time; the log says so, and what to do."""
        with closing(socket.create_server((HOST, 0))) as silent:
            port, good = silent.getsockname()[1], postgres(17).port
            upstream = f"host={HOST},{HOST} port={port},{good} sslmode=require"
            gateway = self.gateway("--authentication-timeout", "0.5", "--upstream", upstream)
            self.assertIn("authentication_timeout is over", refusal(gateway.conninfo()))
            self.assertRegex(
                gateway.log(),
                f'at "{HOST}", port {port} was tried for 0\\.\\d s; 1 more not tried: set conn',
            )
            upstream = upstream.replace("require", "prefer") + " connect_timeout=2"
            patient = self.gateway("--upstream", upstream)
            self.assertEqual(query(patient.conninfo(), PORT), good)


class SSLSetting(GatewayCase):
    def ssl(self, setting: str) -> Gateway:
        return self.gateway(
            "--ssl", setting, "--upstream", postgres(17).conninfo(user=None, sslmode="disable")
        )

    def tls_used(self, gateway: Gateway, sslmode: str) -> bool:
        with psycopg.connect(gateway.conninfo(sslmode=sslmode)) as connection:
            return connection.pgconn.ssl_in_use

    def test_require_refuses_plaintext(self) -> None:
        gateway = self.ssl("require")
        self.assertTrue(self.tls_used(gateway, "prefer"))
        self.assertIn("this server requires SSL", refusal(gateway.conninfo(sslmode="disable")))
        self.assertIn(b"C28000\0", answer(gateway.address, startup_message()))

    def test_on_takes_both(self) -> None:
        gateway = self.ssl("on")
        self.assertTrue(self.tls_used(gateway, "verify-full"))
        self.assertFalse(self.tls_used(gateway, "disable"))
        self.assertFalse(self.tls_used(gateway, "allow"))

    def test_off_has_no_tls(self) -> None:
        gateway = self.ssl("off")
        self.assertFalse(self.tls_used(gateway, "prefer"))
        self.assertIn("does not support SSL", refusal(gateway.conninfo(sslmode="require")))


PROXY_V1 = b"PROXY TCP4 192.0.2.7 198.51.100.1 56324 5432\r\n"
PROXY_V2 = bytes.fromhex(
    "0d0a0d0a000d0a515549540a"  # signature
    "21 11 000c"  # version 2, PROXY; TCP over IPv4; length
    "c0000207 c6336401 dc04 1538"  # 192.0.2.7, 198.51.100.1, 56324, 5432
)


@cache
def upstream() -> str:
    """The shared PostgreSQL 17, plain."""
    return postgres(17).conninfo(user=None, dbname=None, sslmode="disable")


class Listeners(GatewayCase):
    def test_a_unix_socket(self) -> None:
        directory = self.gateway("--ssl", "off", "--upstream", upstream()).directory
        gateway = self.gateway("--upstream", upstream(), listen=f"unix:{directory}/.s.PGSQL.5432")
        self.assertEqual(gateway.places, [("unix", f"{directory}/.s.PGSQL.5432")])
        conninfo = f"host={directory} port=5432 user=postgres dbname=postgres"
        self.assertEqual(query(conninfo, PORT), postgres(17).port)
        self.assertIn("[local]: user=postgres database=postgres SSL=off", gateway.log())

    def test_the_end_of_a_session_in_the_log(self) -> None:
        """As in PostgreSQL, where it is asked for."""
        for setting, ends in (("on", 1), ("off", 0)):
            gateway = self.gateway("--upstream", upstream(), "--log-disconnections", setting)
            at_rest = gateway.open_files_at_rest()
            query(gateway.conninfo(), PORT)
            gateway.wait_for_open_files(at_rest)
            found = re.findall(
                r": disconnection: user=postgres database=postgres session time: \d+\.\d{3} s\n",
                gateway.log(),
            )
            self.assertEqual(len(found), ends)

    def behind_a_proxy(self, header: bytes, log: str) -> None:
        """psycopg through a proxy that sends ``header`` in front of what it relays."""
        listen = f"haproxy:tcp:0:interface={HOST}"
        gateway = self.gateway("--upstream", upstream(), listen=listen)
        with closing(socket.create_server((HOST, 0))) as proxy:
            relay(proxy, gateway.address, header)
            conninfo = gateway.conninfo(port=proxy.getsockname()[1])
            self.assertEqual(query(conninfo, PORT), postgres(17).port)
            relay(proxy, gateway.address, header)
            self.assertEqual(query(conninfo + " sslnegotiation=direct", PORT), postgres(17).port)
        gateway.wait_for_log(log + ": disconnection", count=2)
        self.assertEqual(len(gateway.wait_for_log(log + ": user=postgres .*TLSv1.3")), 2)

    def test_behind_haproxy_with_version_1(self) -> None:
        self.behind_a_proxy(PROXY_V1, r"192\.0\.2\.7\(56324\)")

    def test_behind_haproxy_with_version_2(self) -> None:
        self.behind_a_proxy(PROXY_V2, r"192\.0\.2\.7\(56324\)")

    def test_refusals_behind_haproxy_name_the_client(self) -> None:
        gateway = self.gateway("--upstream", upstream(), listen="haproxy:tcp:0")
        answer(gateway.address, PROXY_V1 + startup_message())
        gateway.wait_for_log(r"192\.0\.2\.7\(56324\): connection without SSL encryption refused")

    def test_without_a_header_behind_haproxy(self) -> None:
        gateway = self.gateway("--upstream", upstream(), listen="haproxy:tcp:0")
        self.assertEqual(answer(gateway.address, SSL_REQUEST * 3), b"")

    def test_a_socket_of_systemds(self) -> None:
        with closing(socket.create_server((HOST, 0))) as listening:
            port = listening.getsockname()[1]
            gateway = self.gateway(
                *("--upstream", upstream()),
                listen="systemd:domain=INET:index=0",
                program=[*AS_SYSTEMD, str(listening.fileno())],
                pass_fds=[listening.fileno()],
            )
        self.assertEqual(gateway.port, port)
        self.assertEqual(query(gateway.conninfo(), PORT), postgres(17).port)


#: twistd, given a listening socket as systemd gives it: as descriptor 3, announced to its process.
AS_SYSTEMD = (
    *TWIST[:2],
    "import os, sys; os.dup2(int(sys.argv[1]), 3); "
    "os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS='1', LISTEN_FDNAMES='pg'); "
    "sys.argv[1:2] = ['-n']; from twisted.scripts.twistd import run; run()",
)


def relay(proxy: socket.socket, address: tuple[str, int], header: bytes) -> None:
    """Accept one connection in the background and pass it on, with ``header`` in front."""

    def pump(source: socket.socket, target: socket.socket) -> None:
        try:
            while chunk := source.recv(65536):
                target.sendall(chunk)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # the other direction has closed

    def accept() -> None:
        with proxy.accept()[0] as client, socket.create_connection(address) as gateway:
            gateway.sendall(header)
            back = in_thread(lambda: pump(gateway, client))
            pump(client, gateway)
            back.join(TIMEOUT)

    in_thread(accept)


class Config(GatewayCase):
    def test_several_gateways_from_one_file(self) -> None:
        gateway = self.gateway(
            config=f"""
                state_dir = "{{state}}"

                [[gateway]]
                listen = "tcp:0:interface={HOST}"
                upstream = "{postgres(17).conninfo(user=None, sslmode="disable")}"

                [[gateway]]
                listen = "tcp:0:interface={HOST}"
                upstream = "{postgres(18).conninfo(user=None, sslmode="disable")}"
                ssl = "off"
                """
        )
        first, second = (int(port) for _, port in gateway.places)
        self.assertEqual(query(gateway.conninfo(port=first), PORT), postgres(17).port)
        plain = gateway.conninfo(port=second, sslmode="disable")
        self.assertEqual(query(plain, PORT), postgres(18).port)
