"""What a server's certificate, a request or a record says never reaches the terminal raw."""

from __future__ import annotations

import os
import pty
import re
import subprocess
from functools import cache
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from twisted.trial.unittest import SynchronousTestCase

from tests.support.certificates import Authority, Issued, Key
from tests.support.command_line import PGTLS, pgtls
from tests.support.processes import TIMEOUT, environment
from tests.support.servers import Server

#: Clears the screen, twice, with CSI as two characters and as one; writes from right to left.
HOSTILE = "ev\x1b[2J\x9b2J\u202eil"


@cache
def authority() -> Authority:
    """An authority with such a name."""
    return Authority(HOSTILE)


@cache
def leaf() -> Issued:
    """A server's certificate with such names."""
    hostile = x509.DNSName("ev\x1b[2Jil")
    return authority().issue(["localhost"], cn=HOSTILE, san=[hostile])


@cache
def server() -> Server:
    """A server that shows them."""
    chain = leaf().chain() + authority().pem()
    return Server(17, ssl=True, files={"server.crt": chain, "server.key": leaf().key.pem()})


class TerminalTests(SynchronousTestCase):
    """Each command that shows what somebody else wrote."""

    def setUp(self) -> None:
        self.directory = Path(self.mktemp()).absolute()
        self.directory.mkdir()
        self.env = {"HOME": str(self.directory)}

    def check(self, text: str) -> None:
        """Nothing in it steers a terminal; and the names are there, escaped."""
        raw = {character for character in text if not character.isprintable()} - {"\n"}
        self.assertEqual(raw, set(), text)
        self.assertRegex(text, r"ev\\+(x|u00)1b\[2J")

    def run_piped(self, *arguments: str) -> None:
        done = pgtls(*arguments, env=self.env)
        self.assertNotIn("Traceback", done.stderr)
        self.check(done.stdout + done.stderr)

    def run_at_a_terminal(self, *arguments: str, answer: str = "") -> None:
        ours, theirs = pty.openpty()
        env = environment({**self.env, "COLUMNS": "300", "TERM": "xterm"})
        with subprocess.Popen(
            [*PGTLS, *arguments], env=env, stdin=theirs, stdout=theirs, stderr=theirs
        ) as child:
            os.close(theirs)
            os.write(ours, answer.encode())
            shown = b""
            try:
                while piece := os.read(ours, 65536):
                    shown += piece
            except OSError:  # EIO: the child has closed the terminal
                pass
            child.wait(TIMEOUT)
        os.close(ours)
        # Colours are ours, and so are the line ends of the terminal.
        text = re.sub(r"\x1b\[[0-9;]*m", "", shown.decode().replace("\r\n", "\n"))
        self.check(text)

    def place(self) -> str:
        return f"localhost:{server().port}"

    def test_probe(self) -> None:
        conninfo = server().conninfo(host="localhost")
        self.run_at_a_terminal("probe", conninfo)
        self.run_at_a_terminal("probe", "--all", conninfo)

    def test_explain(self) -> None:
        root = self.directory / "root.crt"
        root.write_bytes(authority().pem())
        self.run_piped("explain", f"host=x sslmode=verify-full sslrootcert={root}")

    def test_trust(self) -> None:
        self.run_piped("trust", self.place(), "--fingerprint", "00" * 32)
        self.run_at_a_terminal("trust", self.place(), answer="y\n")
        self.run_piped("trust", self.place(), "--json")

    def test_sign_a_request(self) -> None:
        pgtls("mkcert", "-D", str(self.directory / "ca"), "localhost")
        request = self.directory / "postgresql.csr"
        key = Key.generate("ecdsa")
        for name, oid in ((HOSTILE, NameOID.COMMON_NAME), (HOSTILE, NameOID.ORGANIZATION_NAME)):
            attributes = [x509.NameAttribute(oid, name)]
            if oid is not NameOID.COMMON_NAME:
                attributes.append(x509.NameAttribute(NameOID.COMMON_NAME, "alice"))
            subject = x509.Name(attributes)
            made = x509.CertificateSigningRequestBuilder().subject_name(subject)
            request.write_bytes(made.sign(**key.signing()).public_bytes(Encoding.PEM))
            self.run_piped("sign", "-D", str(self.directory / "ca"), "--yes", str(request))

    def test_list_a_record(self) -> None:
        ca = self.directory / "ca"
        pgtls("mkcert", "-D", str(ca), "localhost")
        index = ca / "index.txt"
        index.write_bytes(
            index.read_bytes() + f"V\t300101000000Z\t\t0A\tunknown\t/CN={HOSTILE}\n".encode()
        )
        self.run_piped("list", "-D", str(ca))
        self.run_piped("list", "-D", str(ca), "--json")
