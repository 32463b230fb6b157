"""Files that change under a running gateway: it reads them again by itself."""

from __future__ import annotations

import os
import shutil
from contextlib import closing
from pathlib import Path

import psycopg

from tests.daemon.test_gateway_reload import client_files, der, shown
from tests.support.certificates import Authority, Files, Issued
from tests.support.gateway_daemon import Gateway, GatewayCase, wait_until
from tests.support.servers import HOST, postgres

CHANGED = "reloaded: .* changed: new connections get what is in the files now"


class ChangingFilesCase(GatewayCase):
    """A gateway with files of its own."""

    workers = 1

    #: Connections of which each of several workers has some.
    enough = 1

    def setUp(self) -> None:
        self.files = Files(Path(self.mktemp()).absolute())
        self.root = Authority("root")
        self.server = self.issue()
        self.crt, self.key = self.files.pair("server", self.server)
        self.root_crt = self.files.write("root.crt", self.root.pem())

    def issue(self) -> Issued:
        return self.root.issue(["localhost"], cn="localhost", ips=[HOST])

    def started(self, *settings: str, upstream: str = "") -> Gateway:
        upstream = upstream or postgres(17).conninfo(user=None, dbname=None, sslmode="disable")
        return self.gateway(
            config="\n".join(
                [
                    'state_dir = "{state}"',
                    "reload_interval = 0.2",
                    f"workers = {self.workers}",
                    "[[gateway]]",
                    f'listen = "tcp:0:interface={HOST}"',
                    f'upstream = "{upstream}"',
                    f'ssl_cert_file = "{self.crt}"',
                    f'ssl_key_file = "{self.key}"',
                    *settings,
                ]
            ),
            env={"HOME": str(self.files.directory)},
        )

    def wait_until_shown(self, gateway: Gateway, issued: Issued) -> None:
        wait_until(
            lambda: {shown(gateway) for _ in range(self.enough)} == {der(issued)}, gateway.log
        )

    def session(self, gateway: Gateway, **parameters: str) -> psycopg.Connection:
        return psycopg.connect(gateway.conninfo(sslrootcert=self.root_crt, **parameters))

    def connects(self, gateway: Gateway, **parameters: str) -> bool:
        """Whether sessions begin."""
        try:
            for _ in range(self.enough):
                self.session(gateway, **parameters).close()
        except psycopg.OperationalError:
            return False
        return True


class ChangingFiles(ChangingFilesCase):
    """One process."""

    def test_certificates_in_four_ways(self) -> None:
        data = self.files.directory / "..data"
        for name in ("1", "2"):
            Files(self.files.directory / f"..{name}")
        for path in (self.crt, self.key):
            shutil.move(path, self.files.directory / "..1")
            Path(path).symlink_to(f"..data/{Path(path).name}")
        data.symlink_to("..1")
        gateway = self.started()
        with closing(self.session(gateway)) as old:
            second = self.issue()
            Files(self.files.directory / "..2").pair("server", second)
            (self.files.directory / "new").symlink_to("..2")
            (self.files.directory / "new").rename(data)
            self.wait_until_shown(gateway, second)

            for path in (self.crt, self.key):
                os.unlink(path)
            third = self.issue()
            self.files.pair("server", third)
            self.wait_until_shown(gateway, third)

            fourth = self.issue()
            for new, path in zip(self.files.pair("new", fourth), (self.crt, self.key), strict=True):
                os.replace(new, path)
            self.wait_until_shown(gateway, fourth)

            fifth = self.issue()
            new_crt, new_key = self.files.pair("new", fifth)
            os.replace(new_crt, self.crt)
            gateway.wait_for_log("not reloaded: .*server.key")
            self.assertTrue(self.connects(gateway))
            os.replace(new_key, self.key)
            self.wait_until_shown(gateway, fifth)
            self.assertEqual(old.execute("SELECT 'goes on'").fetchone(), ("goes on",))
        self.assertEqual(len(gateway.wait_for_log(CHANGED, 4)), 4)
        self.assertEqual(gateway.log().count("not reloaded"), 1)

    def test_the_upstream(self) -> None:
        server = postgres(17)
        services = self.files.write(
            "services", f"[db]\nhost={HOST}\nport=1\nsslmode=disable\n".encode()
        )
        gateway = self.started(upstream=f"service=db servicefile={services}")
        self.assertFalse(self.connects(gateway))
        self.files.write(
            "services", f"[db]\nhost={HOST}\nport={server.port}\nsslmode=disable\n".encode()
        )
        wait_until(lambda: self.connects(gateway), gateway.log)
        self.assertNotIn("not reloaded", gateway.log())


class ChangingFilesWithWorkers(ChangingFiles):
    """Two processes that serve, and the daemon, which alone looks at files."""

    workers = 2
    enough = 4


class OtherFiles(ChangingFilesCase):
    """Those that say which clients may connect."""

    def test_all_other_files(self) -> None:
        """The client's certificate is revoked and not, its role mapped and not."""
        alice = self.root.issue(cn="alice", client=True)
        client = client_files(self.files, "alice", alice)
        ident = self.files.write("ident", b"m alice postgres\n")
        (self.files.directory / "hba.d").mkdir()
        self.files.write("hba.d/first.conf", b"hostssl all all all cert map=m\n")
        hba = self.files.write("hba", b"include_dir hba.d\n")
        crl = self.files.write("root.crl", self.root.crl())
        gateway = self.started(
            f'ssl_ca_file = "{self.root_crt}"',
            f'ssl_crl_file = "{crl}"',
            f'ident_file = "{ident}"',
            f'hba_file = "{hba}"',
        )
        self.assertTrue(self.connects(gateway, **client))
        for name, bad, good in (
            ("ident", b"m alice nobody\n", b"m alice postgres\n"),
            ("hba.d/0.conf", b"host all all all reject\n", b"\n"),
            ("root.crl", self.root.crl([alice]), self.root.crl()),
        ):
            self.files.write(name, bad)
            wait_until(lambda: not self.connects(gateway, **client), gateway.log)
            self.files.write(name, good)
            wait_until(lambda: self.connects(gateway, **client), gateway.log)
