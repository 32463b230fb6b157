"""What root makes for the user that the daemon will belong to."""

from __future__ import annotations

import os
import pwd
import tempfile
from pathlib import Path
from unittest import skipUnless

from twisted.trial.unittest import SynchronousTestCase

from pgtls.daemon import privileges
from pgtls.daemon.configuration import Configuration
from pgtls.daemon.privileges import DaemonUser, made_by
from pgtls.daemon.state import default_certificate, state_directory
from pgtls.errors import ConfigurationError


@skipUnless(os.geteuid() == 0, "only root can give something away")
class DaemonUserTests(SynchronousTestCase):
    def setUp(self) -> None:
        # Not below trial's directory, which need not be open to everybody.
        directory = tempfile.TemporaryDirectory(dir="/tmp")
        self.addCleanup(directory.cleanup)
        os.chmod(directory.name, 0o755)
        self.directory = Path(directory.name) / "state"
        self.nobody = pwd.getpwnam("nobody")
        self.user = DaemonUser({"uid": self.nobody.pw_uid, "gid": None})

    def make(self) -> None:
        default_certificate(state_directory(str(self.directory)))

    def owners(self) -> set[tuple[int, int]]:
        made = [self.directory, *self.directory.rglob("*")]
        return {(each.lstat().st_uid, each.lstat().st_gid) for each in made}

    def test_what_is_made_is_that_users(self) -> None:
        "".encode("idna")  # which that user might not be allowed to import
        before = (os.geteuid(), os.getegid(), os.getgroups())
        self.user.own_directory(self.directory)
        with self.user.rights():
            self.make()
        self.assertEqual(self.owners(), {(self.nobody.pw_uid, self.nobody.pw_gid)})
        self.assertEqual((os.geteuid(), os.getegid(), os.getgroups()), before)

    def test_what_root_has_made_becomes_that_users(self) -> None:
        self.make()
        shared = self.directory.parent / "shared"
        shared.touch()
        os.link(shared, self.directory / "linked")
        (self.directory / "symbolic").symlink_to(shared)
        self.user.own_directory(self.directory)
        self.assertEqual(shared.stat().st_uid, 0)
        for name in ("linked", "symbolic"):
            (self.directory / name).unlink()
        self.assertEqual(self.owners(), {(self.nobody.pw_uid, self.nobody.pw_gid)})

    def test_where_that_users_rights_do_not_do(self) -> None:
        """Another gateway has a file that only root can read: the certificate is used with root's
        rights, and stays that user's."""
        configuration = Configuration.from_options(
            {"state_dir": str(self.directory), "upstream": "host=localhost"}
        )
        calls = []

        def make(_: Configuration) -> int:
            calls.append(os.geteuid())
            self.make()
            if os.geteuid() != 0:
                raise ConfigurationError("only root can read it")
            return os.geteuid()

        self.assertEqual(made_by(self.user, configuration, make), 0)
        self.assertEqual(calls, [self.nobody.pw_uid, 0])
        self.assertEqual(self.owners(), {(self.nobody.pw_uid, self.nobody.pw_gid)})

        def fail(_: Configuration) -> None:
            raise ConfigurationError("nobody can read it")

        self.assertRaises(ConfigurationError, made_by, self.user, configuration, fail)
        self.assertEqual(self.owners(), {(self.nobody.pw_uid, self.nobody.pw_gid)})

    def test_what_only_some_need_is_imported_with_roots_rights(self) -> None:
        """That user might not be allowed to read it."""
        hba_file, status = "/etc/pg_hba.conf", "tcp:9187:interface=127.0.0.1"
        for options, module in (
            ({"status": status}, "pgtls.daemon.daemon_status"),
            ({"hba_file": hba_file}, "psutil"),
            ({"upstream_via": "ssh://user@bastion"}, "pgtls.transport.ssh_tunnel"),
        ):
            imported: list[str] = []
            self.patch(privileges, "import_module", imported.append)
            configuration = Configuration.from_options({"ssl": "off", **options})
            made_by(self.user, configuration, lambda _, seen=imported: self.assertTrue(seen))
            self.assertEqual(imported, [module])

    def test_without_uid_nothing_changes(self) -> None:
        for twistd in (None, {"uid": None, "gid": None}, {"uid": 0, "gid": 0}):
            self.assertFalse(DaemonUser(twistd).is_another)
