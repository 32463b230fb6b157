"""docs/debugging.rst: a recorded session is decrypted with the key log, by the commands shown."""

from __future__ import annotations

import contextlib
import re
import shlex
import shutil
import socket
import subprocess
from pathlib import Path
from threading import Thread

import psycopg

from tests.support.gateway_daemon import Gateway, GatewayCase, wait_until
from tests.support.processes import TIMEOUT
from tests.support.servers import HOST, postgres

TEXT = (Path(__file__).parent.parent.parent / "docs" / "debugging.rst").read_text()
QUERY = "SELECT 'a secret'"
KEY_LOG = "/run/user/1000/pgtls-keys.log"


def command(program: str) -> list[str]:
    """A command line that the text shows."""
    match = re.search(rf"^    ({program} .*)$", TEXT, re.MULTILINE)
    assert match, program
    return shlex.split(match[1])


class Debugging(GatewayCase):
    """Each command with this run's port and paths in it."""

    def setUp(self) -> None:
        self.key_log = Path(self.mktemp()).absolute()
        self.recording = Path(f"{self.mktemp()}.pcapng").absolute()

    def looked_through(self) -> Gateway:
        """The text's second gateway."""
        self.assertEqual(command("twistd")[-2:], ["--ssl-keylog-file", KEY_LOG])
        upstream = postgres(18).conninfo(user=None, dbname=None)
        return self.gateway("--upstream", upstream, "--ssl-keylog-file", str(self.key_log))

    def ours(self, shown: list[str], port: int) -> list[str]:
        names = {KEY_LOG: str(self.key_log), "session.pcapng": str(self.recording)}
        for old, new in (names | {"6433": str(port)}).items():
            shown = [word.replace(old, new) for word in shown]
        return shown

    def ask(self, gateway: Gateway, port: int | None = None) -> None:
        with psycopg.connect(gateway.conninfo(port=port or gateway.port)) as connection:
            connection.execute(QUERY)

    def test_the_key_log_is_of_the_session(self) -> None:
        gateway = self.looked_through()
        with contextlib.closing(socket.create_server((HOST, 0))) as proxy:
            said: list[bytes] = []
            relay = Thread(target=_relay, args=(proxy, gateway.address, said), daemon=True)
            relay.start()
            self.ask(gateway, proxy.getsockname()[1])
            relay.join(TIMEOUT)
        client_hello = b"".join(said)[8:]  # behind the SSLRequest
        random = client_hello[11:43].hex()  # behind two headers and the version
        labels = {line.split()[0] for line in self.key_log.read_text().splitlines()}
        self.assertEqual(
            {line.split()[1] for line in self.key_log.read_text().splitlines()}, {random}
        )
        self.assertLess({"CLIENT_TRAFFIC_SECRET_0", "SERVER_TRAFFIC_SECRET_0"}, labels)

    def test_tshark_decrypts_with_it(self) -> None:
        gateway = self.looked_through()
        record = self.ours(command("tshark -i"), gateway.port)
        decrypt = self.ours(command("tshark -r"), gateway.port)
        if not self.begin_recording(record):
            # The commands are at least of one port, and of the files that the gateway was told.
            self.assertIn(f"tls.keylog_file:{self.key_log}", decrypt)
            self.assertEqual(record[-1], decrypt[2])
            return
        self.ask(gateway)
        wait_until(lambda: QUERY in printed(decrypt), lambda: printed(decrypt))
        blind = [word for word in decrypt if word != "-o" and not word.startswith("tls.keylog")]
        self.assertEqual(printed(blind), "")

    def begin_recording(self, record: list[str]) -> bool:
        """Start to record; it ends with the test.

        :returns: whether there is a tshark, and it may: else it ends at once.
        """
        if shutil.which(record[0]) is None:
            return False
        tshark = subprocess.Popen(record, stderr=subprocess.PIPE, text=True)
        self.addCleanup(_end, tshark)
        assert tshark.stderr
        return any("Capture started" in line or "File:" in line for line in tshark.stderr)


def printed(decrypt: list[str]) -> str:
    """What tshark finds in the recording so far."""
    done = subprocess.run(decrypt, capture_output=True, text=True, check=False)
    return done.stdout


def _end(process: subprocess.Popen[str]) -> None:
    process.terminate()
    process.communicate()


def _relay(proxy: socket.socket, target: tuple[str, int], said: list[bytes]) -> None:
    """Pass one connection on, and keep what the client says."""
    client, _ = proxy.accept()
    with client, socket.create_connection(target, TIMEOUT) as server:
        back = Thread(target=_copy, args=(server, client, []), daemon=True)
        back.start()
        _copy(client, server, said)
        back.join(TIMEOUT)


def _copy(source: socket.socket, target: socket.socket, seen: list[bytes]) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            seen.append(data)
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
