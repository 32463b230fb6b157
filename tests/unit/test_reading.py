"""Files that a configuration names: what is read, what is refused, what is noted."""

from __future__ import annotations

import ast
import contextlib
import os
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from pgtls.conninfo.connection_string import ConnInfo
from pgtls.errors import ConfigurationError
from pgtls.policy.auth_file import load_auth_file
from pgtls.policy.hba_file import load_hba_file
from pgtls.policy.ident_map import IdentMap
from pgtls.reading import (
    exists,
    is_directory,
    names_in,
    not_noting,
    noting,
    read_file,
    state_of,
    status_of,
)
from pgtls.tls.client_context import ClientTLS
from pgtls.tls.server_context import ServerTLSSettings, server_context
from tests.support.certificates import Authority, Files
from tests.unit.test_layering import modules, name_of

#: What reads files beside :mod:`pgtls.reading`, and why nothing is lost by it.
APART = {
    "pgtls.conninfo.hosts calls os.path.isdir",  # where sockets are by default
    "pgtls.conninfo.defaults calls os.path.isdir",  # where the system's service file is
    "pgtls.tls.keylog calls os.open",  # to write
    "pgtls.tls.keylog calls os.path.islink",
    "pgtls.tls.pem calls open",  # what OpenSSL reads in place of a file
    "pgtls.tls.pem calls os.path.isdir",
}


class FileTestCase(SynchronousTestCase):
    """One file, in a directory of its own."""

    def setUp(self) -> None:
        self.directory = Path(self.mktemp()).absolute()
        self.directory.mkdir()
        self.file = self.directory / "file"
        self.file.write_bytes(b"content")


class ReadTests(FileTestCase):
    """What is read."""

    def test_the_content(self) -> None:
        self.assertEqual(read_file(self.file), b"content")
        self.assertEqual(read_file(self.file, 3), b"con")

    def test_what_is_no_regular_file(self) -> None:
        os.mkfifo(self.directory / "fifo")
        for name, reason in (
            ("fifo", "it is no regular file"),
            ("", "Is a directory"),
            ("missing", "No such file or directory"),
        ):
            before = len(os.listdir("/proc/self/fd"))
            with self.assertRaises(OSError) as caught:
                read_file(self.directory / name)
            self.assertEqual(caught.exception.strerror, reason)
            self.assertEqual(len(os.listdir("/proc/self/fd")), before)

    def test_a_check_of_ones_own(self) -> None:
        def refuse(status: os.stat_result) -> None:
            raise ConfigurationError(f"{status.st_size} bytes")

        with self.assertRaisesRegex(ConfigurationError, "7 bytes"):
            read_file(self.file, check=refuse)


class NotingTests(FileTestCase):
    """What is noted."""

    def test_every_way_to_look_at_a_file(self) -> None:
        missing = self.directory / "missing"
        with noting() as files:
            read_file(self.file)
            names_in(self.directory)
            self.assertFalse(exists(missing))
        self.assertEqual(
            files,
            {
                str(self.file): state_of(self.file),
                str(self.directory): state_of(self.directory),
                str(missing): None,
            },
        )
        with noting() as files:
            is_directory(self.directory)
            status_of(self.file)
        self.assertEqual(set(files), {str(self.file), str(self.directory)})

    def test_what_cannot_be_read_too(self) -> None:
        fifo = self.directory / "fifo"
        os.mkfifo(fifo)
        with noting() as files:
            for path in (fifo, self.directory / "missing"):
                with contextlib.suppress(OSError):
                    read_file(path)
        self.assertEqual(files, {str(fifo): state_of(fifo), str(self.directory / "missing"): None})

    def test_the_first_state_counts(self) -> None:
        """What has changed in the meantime is to be read again."""
        with noting() as files:
            read_file(self.file)
            before = state_of(self.file)
            self.file.write_bytes(b"something else")
            read_file(self.file)
        self.assertEqual(files, {str(self.file): before})
        self.assertNotEqual(before, state_of(self.file))

    def test_one_within_another(self) -> None:
        with noting() as outer:
            with noting() as inner:
                read_file(self.file)
            exists(self.directory)
            with not_noting():
                exists(self.directory / "made")
        self.assertEqual(list(inner), [str(self.file)])
        self.assertEqual(list(outer), [str(self.file), str(self.directory)])

    def test_paths_are_absolute_and_links_followed(self) -> None:
        link = self.directory / "link"
        link.symlink_to(self.file)
        with noting() as files:
            read_file(os.path.relpath(link))
        self.assertEqual(files, {str(link): state_of(self.file)})


class StateTests(FileTestCase):
    """What makes a file another one."""

    def changed(self) -> bool:
        before, self.state = self.state, state_of(self.file)
        return self.state != before

    def test_each_kind_of_change(self) -> None:
        self.state = state_of(self.file)
        self.assertFalse(self.changed())
        read_file(self.file)
        self.assertFalse(self.changed())
        times = self.file.stat()
        self.file.write_bytes(b"CONTENT")
        os.utime(self.file, ns=(times.st_atime_ns, times.st_mtime_ns))
        self.assertTrue(self.changed())  # of the same size and date
        self.file.chmod(0o600)
        self.assertTrue(self.changed())
        other = self.directory / "other"
        other.write_bytes(b"content")
        other.replace(self.file)
        self.assertTrue(self.changed())
        self.file.unlink()
        self.assertTrue(self.changed())
        self.assertIsNone(self.state)


class LoaderTests(SynchronousTestCase):
    """The loaders note what they read, and wait for no named pipe."""

    def test_a_servers_files(self) -> None:
        files = Files(Path(self.mktemp()).absolute())
        root = Authority("root")
        crt, key = files.pair("server", root.issue(["db"]))
        ca, crl = files.write("ca.crt", root.pem()), files.write("ca.crl", root.crl())
        directory = files.crl_dir("crls", [(root, root.crl())])
        with noting() as noted:
            server_context(
                ServerTLSSettings(
                    ssl_cert_file=crt,
                    ssl_key_file=key,
                    ssl_ca_file=ca,
                    ssl_crl_file=crl,
                    ssl_crl_dir=directory,
                )
            )
        hashed = os.path.join(directory, root.hashed(".r0"))
        self.assertEqual(set(noted), {crt, key, ca, crl, directory, hashed})

    def test_a_clients_files_those_that_are_missing_too(self) -> None:
        files = Files(Path(self.mktemp()).absolute())
        service = files.write("services", b"[db]\nhost=db.example.com\nsslmode=require\n")
        environ = {"HOME": str(files.directory), "PGSERVICEFILE": service}
        with noting() as noted:
            ClientTLS(ConnInfo.parse("service=db", environ))
        home = files.directory / ".postgresql"
        wanted = {service, *(str(home / name) for name in ("root.crt", "postgresql.crt"))}
        self.assertEqual(wanted - set(noted), set())

    def test_the_systems_roots(self) -> None:
        with noting() as noted:
            ClientTLS(ConnInfo.parse("host=db sslrootcert=system", {"HOME": "/nonexistent"}))
        self.assertIn("/etc/ssl/certs/ca-certificates.crt", noted)

    def test_a_named_pipe_in_a_files_place(self) -> None:
        files = Files(Path(self.mktemp()).absolute())
        fifo = str(files.directory / "fifo")
        crt, key = files.pair("server", Authority("root").issue(["db"]))
        os.mkfifo(fifo, 0o600)
        server = {"ssl_cert_file": crt, "ssl_key_file": key}
        for setting in (
            *("ssl_cert_file", "ssl_key_file", "ssl_ca_file", "ssl_dh_params_file"),
            "ssl_crl_file",
        ):
            self.refused(server_context, ServerTLSSettings(**{**server, setting: fifo}))
        environ = {"HOME": str(files.directory)}
        client = f"host=db sslcert={crt} sslkey={key}"
        for parameter in ("sslcert", "sslkey", "sslrootcert", "sslcrl"):
            conninfo = ConnInfo.parse(f"{client} {parameter}={fifo} sslrootcert={crt}", environ)
            if parameter == "sslrootcert":
                conninfo = ConnInfo.parse(f"{client} sslrootcert={fifo}", environ)
            self.refused(ClientTLS, conninfo)
        error = self.assertRaises(
            ConfigurationError, ConnInfo.parse, "service=db", environ | {"PGSERVICEFILE": fifo}
        )
        self.assertEqual(str(error), f'service file "{fifo}": it is no regular file')
        for load in (load_auth_file, IdentMap.load, lambda path: load_hba_file(path, list)):
            self.refused(load, fifo)

    def refused(self, load: object, *arguments: object) -> None:
        with self.assertRaisesRegex(ConfigurationError, "fifo"):
            load(*arguments)  # type: ignore[operator]


class HouseTests(SynchronousTestCase):
    """Nothing that a configuration names is read past :mod:`pgtls.reading`."""

    def test_no_loader_reads_by_itself(self) -> None:
        calls = {
            f"{name_of(module)} calls {called}"
            for layer in ("conninfo", "tls", "policy", "protocols", "gateway")
            for module in modules(layer)
            for node in ast.walk(ast.parse(module.read_text("utf-8")))
            if isinstance(node, ast.Call)
            for called in [ast.unparse(node.func)]
            if called.startswith(("os.path.exists", "os.path.is"))
            or called in ("open", "os.open", "os.stat", "os.lstat", "os.listdir", "os.scandir")
            or called.endswith((".read_bytes", ".read_text", ".exists", ".stat"))
        }
        self.assertEqual(calls - APART, set())
