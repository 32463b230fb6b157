"""Certificates that a strict parser stumbles over, from end to end: the commands against a
PostgreSQL that shows them, and a gateway whose clients do."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from pgtls.tls.certificate import Certificate
from pgtls.tls.sources import pem_of
from tests.support.certificates import Authority, Files
from tests.support.command_line import pgtls, pgtls_json
from tests.support.gateway_daemon import BUG, Gateway
from tests.support.libpq import says
from tests.support.odd_certificates import SUBJECTS, Signer, odd_certificates
from tests.support.servers import Server, postgres

AUTHORITY = Authority("odd root")

#: One of each kind of exception that ``cryptography`` has for them, and one of its warnings.
KINDS = (
    "version_2",
    "unknown_extension_twice",
    "alternative_x400_address",
    "malformed_sct_list",
    "subject_printable_string_with_ampersand",
    "serial_negative",
)


@cache
def server() -> Server:
    """A PostgreSQL whose certificate changes."""
    leaf = AUTHORITY.issue(["localhost"])
    return Server(17, ssl=True, files={"server.crt": leaf.chain(), "server.key": leaf.key.pem()})


class ServersTests(SynchronousTestCase):
    """What the commands say of such a server."""

    def setUp(self) -> None:
        self.files = Files(Path(self.mktemp()).absolute())
        self.root = self.files.write("root.crt", AUTHORITY.pem())
        self.signer = Signer(AUTHORITY)
        self.odd = odd_certificates(self.signer)

    def show(self, kind: str) -> Certificate:
        """Have the server show that kind, with its root."""
        pem = pem_of(self.odd[kind].der) + AUTHORITY.pem()
        server().reload(files={"server.crt": pem, "server.key": self.signer.key.pem()})
        conninfo = server().conninfo(host="localhost", sslmode="verify-full", sslrootcert=self.root)
        self.assertEqual(says(conninfo), "")
        return self.odd[kind]

    def test_probe(self) -> None:
        for kind in KINDS:
            certificate = self.show(kind)
            conninfo = server().conninfo(
                host="localhost", sslmode="verify-full", sslrootcert=self.root
            )
            done = pgtls("probe", conninfo)
            self.assertEqual((done.returncode, done.stderr), (0, ""), kind)
            found = pgtls_json("probe", conninfo)["certificate"]
            self.assertEqual(found["sha256"], certificate.sha256.hex(), kind)
            self.assertEqual(found["serial"], certificate.serial_hex, kind)

    def test_checks_for_monitoring(self) -> None:
        for kind in KINDS[:3]:
            self.show(kind)
            conninfo = server().conninfo(host="localhost", sslrootcert=self.root)
            done = pgtls("probe", conninfo, "--check", "expiry=14d,verify-full")
            self.assertEqual((done.returncode, done.stderr), (0, ""), kind)
            self.assertIn("PGTLS OK - a certificate expires in", done.stdout)

    def test_the_survey(self) -> None:
        self.show("version_2")
        conninfo = server().conninfo(host="localhost", sslrootcert=self.root)
        found = pgtls_json("probe", conninfo, "--all")["survey"]
        self.assertEqual(len(found["chain"]), 2)
        self.assertTrue(found["root_sent"])
        self.assertEqual(found["sslmodes"]["verify-full"]["outcome"], "ssl")

    def test_trust(self) -> None:
        certificate = self.show("unknown_extension_twice")
        where = self.files.directory / "home"
        place = f"localhost:{server().port}"
        done = pgtls("trust", place, "-D", str(where), "--fingerprint", certificate.fingerprint)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertIn("verify-full now succeeds", done.stdout)


class ClientsTests(SynchronousTestCase):
    """Clients that show such certificates to a gateway."""

    def test_their_sessions(self) -> None:
        files = Files(Path(self.mktemp()).absolute())
        signer = Signer(AUTHORITY, client=True)
        odd = odd_certificates(signer)
        roots = [signer.own_authority(subject) for subject in list(SUBJECTS.values())[:2]]
        root_crt = files.write("root.crt", AUTHORITY.pem(), *(pem_of(each.der) for each in roots))
        crt, key = files.pair("server", AUTHORITY.issue(["localhost"]))
        gateway = Gateway(
            *("--upstream", postgres(17).conninfo(sslmode="disable", user=None, dbname=None)),
            *("--ssl-cert-file", crt, "--ssl-key-file", key, "--ssl-ca-file", root_crt),
            *("--clientcert", "verify-ca"),
        )
        self.addCleanup(gateway.stop)
        for kind in (*KINDS, "version_4", "subject_latin_1_in_t61", "serial_zero"):
            conninfo = (
                f"host=127.0.0.1 port={gateway.port} user=postgres dbname=postgres sslmode=require "
                f"sslcert={files.write('odd.crt', pem_of(odd[kind].der))} "
                f"sslkey={files.write('odd.key', signer.key.pem())}"
            )
            self.assertEqual(says(conninfo), "", kind)
            serial = f"client_serial={odd[kind].serial_hex} "
            self.assertIn(f'{serial}issuer_dn="/CN=odd root"', gateway.log(), kind)
        self.assertNotRegex(gateway.log(), BUG)
