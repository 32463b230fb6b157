"""Where the gateway keeps its state, and the certificate that it makes for itself."""

from __future__ import annotations

import multiprocessing
import os
import socket
import stat
import subprocess
from pathlib import Path

from cryptography import x509
from twisted.trial.unittest import SynchronousTestCase

from pgtls.certs.authority import Authority
from pgtls.certs.server_files import mkcert
from pgtls.daemon.state import DefaultCertificate, default_certificate, state_directory
from pgtls.errors import ConfigurationError
from pgtls.tls import certificate


class Directory(SynchronousTestCase):
    def setUp(self) -> None:
        self.top = Path(self.mktemp()).absolute()

    def test_the_option_wins(self) -> None:
        environ = {"STATE_DIRECTORY": f"{self.top}/systemd", "XDG_STATE_HOME": f"{self.top}/xdg"}
        self.assertEqual(state_directory(f"{self.top}/option", environ), self.top / "option")

    def test_a_relative_option_is_made_absolute(self) -> None:
        self.assertEqual(
            state_directory(f"{self.top.name}/x", {}), Path.cwd() / self.top.name / "x"
        )

    def test_systemds_first_directory(self) -> None:
        environ = {
            "STATE_DIRECTORY": f"{self.top}/one:{self.top}/two",
            "XDG_STATE_HOME": f"{self.top}/xdg",
        }
        self.assertEqual(state_directory(None, environ), self.top / "one")

    def test_the_xdg_state_home(self) -> None:
        environ = {"XDG_STATE_HOME": f"{self.top}/xdg"}
        self.assertEqual(state_directory(None, environ), self.top / "xdg" / "pgtls")

    def test_under_the_home_directory(self) -> None:
        self.patch(Path, "expanduser", lambda path: Path(str(path).replace("~", str(self.top))))
        self.assertEqual(
            state_directory(None, {"XDG_STATE_HOME": "relative"}),
            self.top / ".local" / "state" / "pgtls",
        )

    def test_it_is_made_for_its_owner_only(self) -> None:
        made = state_directory(f"{self.top}/a/b", {})
        self.assertEqual(stat.S_IMODE(made.stat().st_mode), 0o700)

    def test_one_that_is_there_keeps_its_mode(self) -> None:
        self.top.mkdir()
        self.top.chmod(0o750)
        state_directory(str(self.top), {})
        self.assertEqual(stat.S_IMODE(self.top.stat().st_mode), 0o750)

    def test_one_that_everybody_can_write_into_is_refused(self) -> None:
        self.top.mkdir()
        self.top.chmod(0o1777)
        with self.assertRaisesRegex(ConfigurationError, "others can write into"):
            state_directory(str(self.top), {})

    def test_one_that_its_group_can_write_into_is_refused(self) -> None:
        self.top.mkdir()
        self.top.chmod(0o770)
        with self.assertRaisesRegex(
            ConfigurationError, "^state directory: others can write into directory"
        ):
            state_directory(str(self.top), {})

    def test_somebody_elses_is_refused(self) -> None:
        self.top.mkdir()
        link = self.top.with_name(f"{self.top.name}-link")
        link.symlink_to(self.top)
        self.patch(os, "geteuid", lambda: 12345)
        for directory in (self.top, link):
            with self.assertRaisesRegex(
                ConfigurationError, "^state directory: directory .* belongs to"
            ):
                state_directory(str(directory), {})

    def test_one_that_cannot_be_made(self) -> None:
        self.top.write_text("a file")
        with self.assertRaisesRegex(ConfigurationError, "cannot be made"):
            state_directory(f"{self.top}/below", {})


class Certificate(SynchronousTestCase):
    def setUp(self) -> None:
        self.directory = Path(self.mktemp()).absolute()
        self.directory.mkdir()

    def leaf(self) -> x509.Certificate:
        return x509.load_pem_x509_certificate((self.directory / "server.crt").read_bytes())

    def names(self) -> list[str]:
        extension = self.leaf().extensions.get_extension_for_class(x509.SubjectAlternativeName)
        return [str(name.value) for name in extension.value]

    def replace_leaf(self, days: int) -> None:
        """Put a certificate there that has this many days to go."""
        wanted = ["localhost", "127.0.0.1", "::1", socket.gethostname()]
        issued = Authority.load(self.directory).issue_server(wanted, days=days)
        (self.directory / "server.crt").write_bytes(issued.certificate_pem)
        (self.directory / "server.key").write_bytes(issued.key_pem)

    def test_it_is_made_with_an_authority_that_verifies_it(self) -> None:
        made = default_certificate(self.directory)
        self.assertTrue(made.created)
        subprocess.run(
            ["openssl", "verify", "-CAfile", made.root_crt, made.server_crt],
            check=True,
            capture_output=True,
        )

    def test_it_has_this_machines_names(self) -> None:
        default_certificate(self.directory)
        self.assertLessEqual(
            {"localhost", "127.0.0.1", "::1", socket.gethostname()}, set(self.names())
        )

    def test_it_has_the_names_asked_for(self) -> None:
        default_certificate(self.directory, ["db.example.com", "10.0.0.1"])
        self.assertLessEqual({"db.example.com", "10.0.0.1"}, set(self.names()))

    def test_its_fingerprint(self) -> None:
        self.assertEqual(
            default_certificate(self.directory).sha256,
            certificate.Certificate.of(self.leaf()).fingerprint,
        )

    def test_the_next_start_uses_it_again(self) -> None:
        first = default_certificate(self.directory, ["db"])
        second = default_certificate(self.directory, ["db"])
        self.assertFalse(second.created)
        self.assertEqual(first.sha256, second.sha256)

    def test_one_that_ends_soon_is_made_anew_by_the_same_authority(self) -> None:
        default_certificate(self.directory)
        root = (self.directory / "root.crt").read_bytes()
        self.replace_leaf(days=29)
        self.assertTrue(default_certificate(self.directory).created)
        self.assertEqual((self.directory / "root.crt").read_bytes(), root)

    def test_one_that_has_expired_is_made_anew(self) -> None:
        default_certificate(self.directory)
        self.replace_leaf(days=0)
        self.assertTrue(default_certificate(self.directory).created)

    def test_one_that_ends_later_stays(self) -> None:
        default_certificate(self.directory)
        self.replace_leaf(days=31)
        self.assertFalse(default_certificate(self.directory).created)

    def test_a_new_name_is_added_to_the_others(self) -> None:
        default_certificate(self.directory, ["one.example.com"])
        self.assertTrue(default_certificate(self.directory, ["two.example.com"]).created)
        self.assertFalse(default_certificate(self.directory, ["one.example.com"]).created)

    def test_a_key_of_another_certificate_is_noticed(self) -> None:
        default_certificate(self.directory)
        other = Authority.load(self.directory).issue_server(["localhost"])
        (self.directory / "server.key").write_bytes(other.key_pem)
        self.assertTrue(default_certificate(self.directory).created)

    def test_a_certificate_of_another_authority_is_noticed(self) -> None:
        default_certificate(self.directory)
        for name in ("root.crt", "root.key"):
            (self.directory / name).unlink()
        Authority.create(self.directory)
        self.assertTrue(default_certificate(self.directory).created)

    def test_the_key_of_the_authority_is_not_needed_to_use_it_again(self) -> None:
        default_certificate(self.directory)
        (self.directory / "root.key").unlink()
        self.assertFalse(default_certificate(self.directory).created)

    def test_what_mkcert_made_is_used(self) -> None:
        mkcert(self.directory, ["localhost", "127.0.0.1", "::1", socket.gethostname()])
        self.assertFalse(default_certificate(self.directory).created)

    def test_an_unusable_name_is_refused(self) -> None:
        with self.assertRaises(ConfigurationError) as caught:
            default_certificate(self.directory, ["not a name"])
        self.assertEqual(
            caught.exception.mistakes, ('"not a name" is neither a host name nor an IP address',)
        )

    def test_a_directory_that_is_not_there(self) -> None:
        with self.assertRaisesRegex(ConfigurationError, "No such file or directory"):
            default_certificate(self.directory / "missing")

    def test_several_gateways_at_once_get_the_same_one(self) -> None:
        with multiprocessing.get_context("spawn").Pool(3) as pool:
            made: list[DefaultCertificate] = pool.map(default_certificate, [self.directory] * 3)
        self.assertEqual(len({certificate.sha256 for certificate in made}), 1)
        self.assertEqual([certificate.created for certificate in made].count(True), 1)
