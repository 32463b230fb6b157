"""PROXY headers in and out: from a proxy, through two gateways, to PostgreSQL; and HAProxy's."""

from __future__ import annotations

import atexit
import shutil
import socket
import ssl
import subprocess
import tempfile
import textwrap
from contextlib import closing
from functools import cache
from pathlib import Path

import psycopg
from twisted.trial.unittest import SkipTest

from tests.daemon.test_gateway import relay
from tests.support.certificates import Files, authority, localhost
from tests.support.gateway_daemon import Gateway, GatewayCase, wait_until
from tests.support.processes import TIMEOUT
from tests.support.raw_client import answer, connect, startup_message
from tests.support.servers import HOST, free_port, postgres
from tests.unit.wire.test_proxy_header import IPV4, IPV6, V1, v2, with_checksum

CLIENT = r"192\.0\.2\.7\(56324\)"

#: A client of a Unix socket of the proxy's.
UNIX = v2(0x31, b"/run/client".ljust(108, b"\0") + b"/run/proxy".ljust(108, b"\0"))

ASLEEP = "SELECT wait_event FROM pg_stat_activity WHERE pid = {pid}"

#: Client addresses that get in are documentation's, which no connection has.
HBA = b"""
host   all all 192.0.2.7/32    trust
host   all all 2001:db8::/32   trust
local  all all                 trust
"""


class _Chain:
    """Outer gateways tell an inner one who their clients are, which admits them by address."""

    def __init__(self) -> None:
        self.directory = directory = Path(tempfile.mkdtemp())
        atexit.register(shutil.rmtree, directory)
        files = Files(directory)
        self.root = files.write("root.crt", authority().pem())
        hba = files.write("hba", HBA)
        certificate, key = files.pair("server", localhost())
        self.client = files.pair("client", authority().issue(cn="postgres", client=True))
        port = free_port()
        inner = f"host=localhost port={port} sslmode=require sslnegotiation"
        own = f'ssl_cert_file = "{certificate}"\nssl_key_file = "{key}"'
        outer = f"""
            {own}
            ssl = "on"
            ssl_ca_file = "{self.root}"
            proxy_protocol = "allow"
            upstream_proxy_protocol = "v2"
        """
        self.gateway = Gateway(
            config=textwrap.dedent(f"""
                [[gateway]]
                listen = "tcp:0:interface={HOST}"
                upstream = "{inner}=postgres"
                {outer}
                [[gateway]]
                listen = "tcp:0:interface={HOST}"
                upstream = "{inner}=direct"
                {outer}
                [[gateway]]
                listen = "unix:{directory}/.s.PGSQL.5432"
                upstream = "{inner}=direct"
                upstream_proxy_protocol = "v2"
                proxy_protocol = "require"

                [[gateway]]
                listen = "tcp:{port}:interface={HOST}"
                upstream = "{postgres(17).conninfo(user=None, dbname=None, sslmode="disable")}"
                proxy_protocol = "require"
                hba_file = "{hba}"
                {own}
            """)
        )
        atexit.register(self.gateway.remove)

    def address(self, number: int) -> tuple[str, int]:
        """Of one of the outer gateways."""
        host, port = self.gateway.places[number]
        return host, int(port)


_chain = cache(_Chain)


class Chain(GatewayCase):
    def setUp(self) -> None:
        super().setUp()
        self.chain = _chain()
        self.gateway_ = self.chain.gateway
        self.address = self.chain.address
        self.addCleanup(self._no_bug, self.gateway_, len(self.gateway_.log()))

    def test_clients_by_tls(self) -> None:
        certificate, key = self.chain.client
        for number, negotiation in ((0, "postgres"), (1, "direct")):
            with closing(socket.create_server((HOST, 0))) as proxy:
                relay(proxy, self.address(number), V1)
                conninfo = (
                    f"host=localhost hostaddr={HOST} port={proxy.getsockname()[1]} user=postgres "
                    f"dbname=postgres sslmode=verify-full sslnegotiation={negotiation} "
                    f"sslrootcert={self.chain.root} sslcert={certificate} sslkey={key}"
                )
                with psycopg.connect(conninfo, autocommit=True) as connection:
                    relay(proxy, self.address(number), V1)
                    # Cancelled twice over: by the outer gateway, then by the inner one.
                    sleeping = connection.pgconn
                    sleeping.send_query(b"SELECT pg_sleep(600)")
                    asleep = ASLEEP.format(pid=connection.info.backend_pid)
                    wait_until(lambda: postgres(17).psql(asleep) == "PgSleep", self.gateway_.log)  # noqa: B023
                    connection.cancel_safe(timeout=TIMEOUT)
                    # get_result() would keep the relay's thread from running.
                    wait_until(lambda: _is_over(sleeping), self.gateway_.log)  # noqa: B023
                    result = sleeping.get_result()
                    assert result is not None
                    self.assertIn(b"canceling statement", result.error_message)
                    self.assertIsNone(sleeping.get_result())
        facts = rf"{CLIENT}: .*SSL=TLSv1.3 .* proxy=127\.0\.0\.1\(\d+\) proxy_sni=localhost "
        uid = r"proxy_unique_id=192\.0\.2\.7:56324_198\.51\.100\.1:5432_\S+ "
        tls = "proxy_tls_version=TLSv1.3 proxy_client_cn=postgres\n"
        self.assertEqual(len(self.gateway_.wait_for_log(facts + uid + tls)), 2)
        # Of each cancel request: the outer gateway's line, and the inner one's.
        self.assertEqual(len(self.gateway_.wait_for_log(f"{CLIENT}: cancel request SSL=TLS", 4)), 4)

    def test_every_family_of_addresses_on_every_listener(self) -> None:
        unix = self.gateway_.places[2][1]
        for listener in (self.address(0), unix):
            for header in (V1, v2(0x11, IPV4), with_checksum(0x21, IPV6), UNIX):
                with connect(listener) as connection:
                    connection.sendall(header)
                    connection.sendall(startup_message())
                    self.assertEqual(connection.recv(1), b"R")
        self.assertEqual(len(self.gateway_.wait_for_log(r"2001:db8::7\(1\): method=trust", 2)), 2)
        self.assertEqual(len(self.gateway_.wait_for_log(r"\[local\]: method=trust", 2)), 2)
        # No header on TCP: the client is 127.0.0.1 itself, which no line admits.
        refused = answer(self.address(0), startup_message())
        self.assertIn(b'no pg_hba.conf entry for host "127.0.0.1"', refused)
        self.assertEqual(answer(unix, startup_message()), b"")
        self.gateway_.wait_for_log(
            r"\[local\]: PROXY header refused: the connection does not begin"
        )

    def test_a_header_and_a_ClientHello_in_one_segment(self) -> None:
        context = ssl.create_default_context(cafile=self.chain.root)
        context.set_alpn_protocols(["postgresql"])
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = context.wrap_bio(incoming, outgoing, server_hostname="localhost")
        with connect(self.address(0)) as connection:
            ahead = v2(0x11, IPV4)
            while tls.version() is None or ahead:
                try:
                    tls.do_handshake()
                    tls.write(startup_message())
                except ssl.SSLWantReadError:
                    pass
                connection.sendall(ahead + outgoing.read())
                ahead = b""
                incoming.write(connection.recv(65536))
        self.gateway_.wait_for_log(rf"{CLIENT}: user=postgres .*SSL=TLSv1.3 .* proxy=127")


HAPROXY = """
global
    log stdout format raw local0
defaults
    mode tcp
    timeout connect 10s
    timeout client 60s
    timeout server 60s
listen in
    bind 127.0.0.1:{entry} ssl crt {pem} alpn postgresql ca-file {root} verify optional
    server gateway 127.0.0.1:{gateway} send-proxy-v2-ssl-cn proxy-v2-options {options}
    unique-id-format id-%ci
frontend out
    bind 127.0.0.1:{exit} accept-proxy
    log global
    log-format "%ci:%cp sni=%[fc_pp_authority] id=%[fc_pp_unique_id]"
    default_backend postgresql
backend postgresql
    server postgresql 127.0.0.1:{postgres}
"""


class RealHAProxy(GatewayCase):
    """HAProxy's headers in, and ours to HAProxy."""

    def test_in_and_out(self) -> None:
        program = shutil.which("haproxy") or shutil.which("haproxy", path="/usr/sbin")
        if program is None:
            raise SkipTest("haproxy is not installed")
        files = Files(Path(self.mktemp()).absolute())
        root = files.write("root.crt", authority().pem())
        issued = localhost()
        pem = files.write("server.pem", issued.chain(), issued.key.pem(), mode=0o600)
        certificate, key = files.pair("client", authority().issue(cn="alice", client=True))
        entry, leave = free_port(), free_port()
        gateway = self.gateway(
            *("--upstream", f"host={HOST} port={leave} sslmode=disable", "--ssl", "on"),
            *("--proxy-protocol", "require", "--upstream-proxy-protocol", "v2"),
            listen=f"tcp:0:interface={HOST}",
        )
        config = files.write(
            "haproxy.cfg",
            HAPROXY.format(
                entry=entry,
                options="unique-id,crc32c,authority",
                exit=leave,
                pem=pem,
                root=root,
                gateway=gateway.port,
                postgres=postgres(17).port,
            ).encode(),
        )
        log = files.directory / "log"
        with log.open("wb") as output:
            haproxy = subprocess.Popen([program, "-db", "-f", config], stdout=output, stderr=output)
        self.addCleanup(haproxy.wait)
        self.addCleanup(haproxy.kill)
        wait_until(lambda: _listens(entry) or haproxy.poll() is not None, log.read_text)
        context = ssl.create_default_context(cafile=root)
        context.set_alpn_protocols(["postgresql"])
        context.load_cert_chain(certificate, key)
        with connect((HOST, entry)) as connection:
            port = connection.getsockname()[1]
            with context.wrap_socket(connection, server_hostname="localhost") as tls:
                tls.sendall(startup_message())
                self.assertEqual(tls.recv(1), b"R")
        # In: the client as HAProxy has seen it. Its TLS is HAProxy's; here it is plaintext.
        gateway.wait_for_log(
            rf"127\.0\.0\.1\({port}\): user=postgres database=postgres SSL=off "
            r"proxy=127\.0\.0\.1\(\d+\) proxy_sni=localhost proxy_unique_id=id-127\.0\.0\.1 "
            r"proxy_tls_version=TLSv1.3 proxy_client_cn=alice\n"
        )
        # Out: HAProxy says the same of the client, and what it was told. The upstream check of the
        # gateway was no client's.
        told = f"127.0.0.1:{port} sni=localhost id=id-127.0.0.1\n"
        wait_until(lambda: told in log.read_text(), log.read_text)


def _is_over(query: psycopg.pq.abc.PGconn) -> bool:
    query.consume_input()
    return not query.is_busy()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((HOST, port)) == 0
