"""``pgtls top``: what it shows, and where it gets it from."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import socket
import subprocess
import threading
from contextlib import closing
from http.server import BaseHTTPRequestHandler, HTTPServer
from io import StringIO
from tempfile import TemporaryDirectory
from typing import ClassVar

from click.testing import CliRunner, Result
from rich.console import Console
from twisted.trial.unittest import SynchronousTestCase

from pgtls.commands.main import main
from pgtls.commands.top_screen import screen, sparkline
from pgtls.status.status_document import StatusDocument
from tests.support.command_line import PGTLS
from tests.support.processes import TIMEOUT, environment
from tests.support.status_documents import HOSTILE, status_document


def shown(status: StatusDocument, width: int = 200, height: int | None = None) -> str:
    """The screen, as text."""
    console = Console(width=width, file=StringIO(), force_terminal=False)
    console.print(screen(status, height))
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


class ScreenTests(SynchronousTestCase):
    """The screen."""

    def test_everything_is_there(self) -> None:
        text = shown(status_document(), 300)
        for said in (
            "pgtls ready",
            "up 1 d",
            "2 of 2 workers",
            "open 3",
            "refused 67",
            "to clients 5.0 GB",
            "role1",
            "TLSv1.3 X25519MLKEM768",
            "plaintext refused",
            "192.0.2.9",
            "CN=over",
            "expired",
        ):
            self.assertIn(said, text)

    def test_what_is_wrong(self) -> None:
        text = shown(status_document(ready=False))
        self.assertIn("pgtls not ready", text)
        self.assertIn("the upstream is not reachable", text)
        self.assertIn("last reload:", text)

    def test_names_cannot_steer_the_terminal(self) -> None:
        text = shown(status_document(ready=False), 400)
        raw = {character for character in text if not character.isprintable()} - {"\n"}
        self.assertEqual(raw, set())
        self.assertIn(HOSTILE[:20], text)

    def test_it_fits(self) -> None:
        for height in (24, 40, 60):
            for width in (60, 80, 200):
                lines = shown(status_document(200), width, height).splitlines()
                self.assertLessEqual(max(map(len, lines)), width)
                if width > 60:
                    for said in ("role0", "plaintext", "56.8 MB", "expired", "67"):
                        self.assertIn(said, "".join(lines), width)
                if width == 200 and height > 30:
                    self.assertLessEqual(len(lines), height)

    def test_sparkline(self) -> None:
        self.assertEqual(sparkline([0, 1, 4, 8]), " ▁▄█")
        self.assertEqual(sparkline([0, 0]), "  ")


class _Handler(BaseHTTPRequestHandler):
    """Answers what the test says."""

    answer: ClassVar[tuple[int, bytes]]

    def do_GET(self) -> None:
        code, body = self.answer
        self.send_response(code)
        self.end_headers()
        self.wfile.write(body)
        self.server.paths.append(self.path)  # type: ignore[attr-defined]

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""

    def address_string(self) -> str:
        return "test"


class _UnixServer(HTTPServer):
    address_family = socket.AF_UNIX

    def server_bind(self) -> None:
        self.socket.bind(self.server_address)
        self.server_name, self.server_port = "localhost", 0


class CommandTests(SynchronousTestCase):
    """The command."""

    def serve(self, code: int, body: bytes, path: str | None = None) -> str:
        """A site that answers just that; returns its URL."""
        handler = type("Handler", (_Handler,), {"answer": (code, body)})
        server = _UnixServer(path, handler) if path else HTTPServer(("127.0.0.1", 0), handler)  # type: ignore[arg-type]
        server.paths = []  # type: ignore[union-attr]
        self.server = server
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        self.addCleanup(server.server_close)
        self.addCleanup(thread.join)
        self.addCleanup(server.shutdown)
        return f"unix:{path}" if path else f"http://127.0.0.1:{server.server_port}/"

    def run_top(self, *arguments: str) -> Result:
        return CliRunner().invoke(main, ["top", *arguments])

    def test_in_a_pipe_it_is_shown_once(self) -> None:
        done = self.run_top(self.serve(200, json.dumps(status_document()).encode()))
        self.assertEqual(done.exit_code, 0, done.output)
        self.assertIn("pgtls ready", done.output)
        self.assertEqual(self.server.paths, ["/status.json"])  # type: ignore[attr-defined]

    def test_JSON(self) -> None:
        document = status_document()
        done = self.run_top("--json", self.serve(200, json.dumps(document).encode()))
        self.assertEqual(json.loads(done.output), document)

    def test_over_a_Unix_socket(self) -> None:
        with TemporaryDirectory(dir="/tmp") as directory:  # the path of a socket has to be short
            url = self.serve(200, json.dumps(status_document()).encode(), f"{directory}/status")
            self.assertIn("pgtls ready", self.run_top(url).output)

    def test_at_a_terminal_until_q(self) -> None:
        url = self.serve(200, json.dumps(status_document()).encode())
        ours, theirs = pty.openpty()
        self.addCleanup(os.close, ours)
        env = environment({"TERM": "xterm", "COLUMNS": "160", "LINES": "50"})
        with subprocess.Popen(
            [*PGTLS, "top", url], env=env, stdin=theirs, stdout=theirs, stderr=theirs
        ) as child:
            os.close(theirs)
            shown = b""
            while b"Certificates and CRLs" not in shown:
                shown += os.read(ours, 65536)
            os.write(ours, b"q")
            with contextlib.suppress(OSError):  # EIO: it has closed the terminal
                while os.read(ours, 65536):
                    pass
            self.assertEqual(child.wait(TIMEOUT), 0)
        self.assertIn(b"role1", shown)

    def test_what_is_no_status(self) -> None:
        for code, body, said in (
            (404, b"there is nothing", "404 Not Found: there is nothing"),
            (200, b"<html>", "is it what the setting status says?"),
            (200, b"[1]", "this is no status of pgtls"),
            (500, b"\x1b[2J", r"\x1b[2J"),
        ):
            done = self.run_top(self.serve(code, body))
            self.assertEqual(done.exit_code, 1)
            self.assertIn(said, done.stderr)
            self.assertEqual(done.stderr.count("\n"), 1)

    def test_nothing_listens(self) -> None:
        with closing(socket.socket()) as unused:
            unused.bind(("127.0.0.1", 0))
            done = self.run_top(f"http://127.0.0.1:{unused.getsockname()[1]}")
        self.assertEqual(done.exit_code, 1)
        self.assertIn("Connection refused: is it what the setting status says?", done.stderr)

    def test_what_is_no_URL(self) -> None:
        for url in ("ftp://x/", "http://", "http://[::1", "http://x:99999/", "unix:/no/such"):
            done = self.run_top(url)
            self.assertEqual(done.exit_code, 1, url)
            self.assertNotIn("Traceback", done.output)
