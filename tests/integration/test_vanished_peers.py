"""Half-open sessions: the other machine has vanished without a word, as when its cable is cut."""

from __future__ import annotations

import subprocess

from twisted.trial.unittest import SkipTest

from tests.support.gateway_daemon import Gateway, GatewayCase, twistd
from tests.support.network_namespace import Machine, Machines, available
from tests.support.raw_client import RawSession, startup_message
from tests.support.servers import postgres
from tests.support.transports import OnTwistedsTransports

#: Given up after about three seconds of silence.
KEEPALIVES = (
    *("--tcp-keepalives-idle", "1"),
    *("--tcp-keepalives-interval", "1"),
    *("--tcp-keepalives-count", "2"),
)

CLIENT = """
import socket, struct, sys
connection = socket.create_connection((sys.argv[1], int(sys.argv[2])))
connection.sendall(bytes.fromhex(sys.argv[3]))
reader = connection.makefile("rb")
while True:
    kind, length = struct.unpack("!cI", reader.read(5))
    reader.read(length - 4)
    if kind == b"Z":
        break
def send(query, rest=0):
    body = query.encode() + b"\\0"
    connection.sendall(b"Q" + struct.pack("!I", len(body) + 4) + body)
print("open", flush=True)
for line in sys.stdin:
    if line.startswith("flood"):
        connection.setblocking(False)
        try:
            while True:
                connection.send(b"H\\0\\0\\0\\4" * 10000)
        except BlockingIOError:
            print("full", flush=True)
    else:
        send(line)
        print("sent", flush=True)
"""

SERVER = """
import socket, sys
server = socket.create_server((sys.argv[1], 0))
print(server.getsockname()[1], flush=True)
connections = []
while True:
    connection, _ = server.accept()
    connections.append(connection)
    if connection.recv(1000):
        connection.sendall(bytes.fromhex("5200000008000000005a0000000549"))
"""


class VanishedPeers(GatewayCase):
    def setUp(self) -> None:
        if not available():
            raise SkipTest("needs root and Linux's network namespaces")
        self.machines = Machines()
        self.addCleanup(self.machines.remove)

    def python(self, machine: Machine, code: str, *arguments: str) -> subprocess.Popen[str]:
        program = machine.python(code, *arguments)
        self.addCleanup(program.communicate)
        self.addCleanup(program.kill)
        return program

    def line(self, program: subprocess.Popen[str]) -> str:
        assert program.stdout is not None
        return program.stdout.readline().strip()

    def tell(self, program: subprocess.Popen[str], line: str) -> str:
        assert program.stdin is not None
        program.stdin.write(line + "\n")
        program.stdin.flush()
        return self.line(program)

    def start(self, *options: str) -> Gateway:
        return self.gateway(
            *("--ssl", "on", *options),
            listen="tcp:0",
            program=(*self.machines.here.enter, *twistd(self.fast)),
        )

    def session(self, gateway: Gateway, machine: Machine) -> subprocess.Popen[str]:
        """A client on a machine that has a session."""
        port = gateway.places[0][1]
        here = self.machines.here.address
        client = self.python(machine, CLIENT, here, port, startup_message().hex())
        self.assertEqual(self.line(client), "open")
        return client

    def client(self, *options: str) -> tuple[Gateway, subprocess.Popen[str]]:
        """A gateway, and a session of a client on the other machine."""
        server = postgres(17)
        upstream = f"host={server.socket_dir} port={server.port}"
        gateway = self.start("--upstream", upstream, *options)
        return gateway, self.session(gateway, self.machines.there)

    def test_a_client_that_says_nothing(self) -> None:
        gateway, _ = self.client(*KEEPALIVES)
        self.machines.vanish()
        gateway.wait_for_log("disconnection: user=postgres")

    def test_a_client_that_does_not_take_what_is_sent(self) -> None:
        gateway, client = self.client("--tcp-user-timeout", "1s")
        self.tell(client, "SELECT pg_sleep(1), repeat('x', 100000)")
        self.machines.vanish()
        gateway.wait_for_log("disconnection: user=postgres")

    def test_a_client_that_is_not_read_from(self) -> None:
        """Its server does not read, so the gateway does not either."""
        gateway, client = self.client(*KEEPALIVES)
        self.tell(client, "SELECT pg_sleep(3600)")
        self.assertEqual(self.tell(client, "flood"), "full")
        gateway.wait_until_still()
        self.machines.vanish()
        gateway.wait_for_log("disconnection: user=postgres")

    def test_a_server(self) -> None:
        server = self.python(self.machines.there, SERVER, self.machines.there.address)
        gateway = self.start(
            "--upstream",
            f"host={self.machines.there.address} port={self.line(server)} sslmode=disable "
            "keepalives_idle=1 keepalives_interval=1 keepalives_count=2",
        )
        self.session(gateway, self.machines.here)
        self.machines.vanish()
        gateway.wait_for_log("disconnection: user=postgres")

    def test_a_server_that_does_not_take_what_is_sent(self) -> None:
        server = self.python(self.machines.there, SERVER, self.machines.there.address)
        gateway = self.start(
            "--upstream",
            f"host={self.machines.there.address} port={self.line(server)} sslmode=disable "
            "tcp_user_timeout=1000",
        )
        client = self.session(gateway, self.machines.here)
        self.machines.vanish()
        self.tell(client, "SELECT 1")
        gateway.wait_for_log("disconnection: user=postgres")


class ClientsThatDoNotRead(GatewayCase):
    """The other machine is there, but takes nothing for longer than tcp_user_timeout."""

    def test_much_is_waiting_over_tcp(self) -> None:
        server = postgres(17).conninfo(user=None, dbname=None, sslmode="disable")
        gateway = self.gateway("--ssl", "on", "--tcp-user-timeout", "1s", "--upstream", server)
        session = RawSession(gateway.address)
        self.addCleanup(session.close)
        session.send_query("SELECT repeat('x', 1 << 29)")
        gateway.wait_for_log("disconnection: user=postgres")


class VanishedPeersOnTwisteds(OnTwistedsTransports, VanishedPeers):
    """On Twisted's own."""

    def test_a_client_that_is_not_read_from(self) -> None:
        raise SkipTest("Twisted's reactor does not watch what is not read from")
