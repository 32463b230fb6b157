"""``ssl_keylog_file``: what is in it, and which files are refused."""

from __future__ import annotations

import gc
import os
import stat
from pathlib import Path

from OpenSSL import SSL
from twisted.trial.unittest import SynchronousTestCase

from pgtls.errors import ConfigurationError
from pgtls.tls.keylog import keylog_to
from tests.support.in_memory import client_context, handshake, server_context


class KeylogTests(SynchronousTestCase):
    """A context that logs its secrets."""

    def setUp(self) -> None:
        self.directory = Path(self.mktemp())
        self.directory.mkdir()
        self.path = self.directory / "keys.log"

    def refused(self) -> str:
        error = self.assertRaises(ConfigurationError, keylog_to, server_context(), self.path)
        return str(error).replace(f' "{self.path}"', "")

    def test_the_secrets_of_both_protocol_versions(self) -> None:
        server = server_context()
        keylog_to(server, self.path)
        for version, label in (
            (SSL.TLS1_2_VERSION, "CLIENT_RANDOM"),
            (SSL.TLS1_3_VERSION, "SERVER_TRAFFIC_SECRET_0"),
        ):
            pair = handshake(server, client_context(version=version))
            random = (pair.client.client_random() or b"").hex()
            self.assertRegex(self.path.read_text(), rf"(?m)^{label} {random} [0-9a-f]+$")

    def test_a_clients_context_logs_as_well(self) -> None:
        client = client_context()
        keylog_to(client, self.path)
        handshake(server_context(), client)
        self.assertIn("CLIENT_TRAFFIC_SECRET_0", self.path.read_text())

    def test_nobody_else_may_read_it(self) -> None:
        before = os.umask(0)
        self.addCleanup(os.umask, before)
        keylog_to(server_context(), self.path)
        self.assertEqual(stat.S_IMODE(self.path.stat().st_mode), 0o600)

    def test_what_was_there_stays(self) -> None:
        self.path.touch(mode=0o600)
        self.path.write_text("# before\n")
        server = server_context()
        keylog_to(server, self.path)
        handshake(server)
        self.assertTrue(self.path.read_text().startswith("# before\n"))

    def test_a_file_that_others_may_read_is_refused(self) -> None:
        for mode in (0o640, 0o604, 0o620):
            self.path.touch()
            self.path.chmod(mode)
            self.assertEqual(
                self.refused(),
                "SSL key log file has group or world access; "
                "it must have permissions u=rw (0600) or less",
            )

    def test_a_symbolic_link_is_refused(self) -> None:
        self.path.symlink_to(self.directory / "elsewhere")
        self.assertEqual(self.refused(), "could not open SSL key log file: it is a symbolic link")

    def test_a_fifo_is_refused_and_not_waited_for(self) -> None:
        os.mkfifo(self.path, 0o600)
        self.assertIn("SSL key log file", self.refused())

    def test_a_directory_is_refused(self) -> None:
        self.path.mkdir()
        self.assertEqual(self.refused(), "could not open SSL key log file: Is a directory")

    def test_the_file_is_closed_with_its_context(self) -> None:
        server = server_context()
        keylog_to(server, self.path)
        handshake(server)
        self.assertEqual(self.descriptors(), 1)
        del server
        gc.collect()
        self.assertEqual(self.descriptors(), 0)

    def descriptors(self) -> int:
        """How many of this process's open files it is."""
        status = self.path.stat()
        count = 0
        for descriptor in range(64):
            try:
                count += os.path.samestat(os.fstat(descriptor), status)
            except OSError:
                continue
        return count
