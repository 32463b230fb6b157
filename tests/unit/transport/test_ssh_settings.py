"""Addresses of SSH servers, and what goes with them."""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from pgtls.errors import ConfigurationError
from pgtls.transport.ssh_settings import SSHServer, SSHSettings, parse_ssh_server


class AddressTests(SynchronousTestCase):
    """``ssh://user@host:port``."""

    def test_user_host_and_port(self) -> None:
        for address, server in {
            "ssh://alice@bastion:2222": SSHServer("alice", "bastion", 2222),
            "ssh://alice@bastion": SSHServer("alice", "bastion", 22),
            "ssh://alice@[::1]:22/": SSHServer("alice", "::1", 22),
            "ssh://al%40ice@bastion": SSHServer("al@ice", "bastion", 22),
        }.items():
            self.assertEqual(parse_ssh_server(address), server, address)

    def test_what_is_no_address(self) -> None:
        for address in (
            "bastion",
            "alice@bastion",
            "http://alice@bastion",
            "ssh://",
            "ssh://alice@",
            "ssh://alice@bastion:0",
            "ssh://alice@bastion:65536",
            "ssh://alice@bastion:x",
            "ssh://alice@bastion/path",
            "ssh://alice@bastion?key=1",
            "ssh://alice@[::1",
            "ssh://al%0aice@bastion",
        ):
            error = self.assertRaises(ConfigurationError, parse_ssh_server, address)
            self.assertIn('is not an address such as "ssh://user@bastion:22"', str(error), address)

    def test_a_password_is_not_used_and_not_shown(self) -> None:
        error = self.assertRaises(
            ConfigurationError, parse_ssh_server, "ssh://alice:secret@bastion"
        )
        self.assertIn("log in with a key", str(error))
        self.assertNotIn("secret", str(error))

    def test_names_in_known_hosts(self) -> None:
        self.assertEqual(SSHServer("alice", "Bastion").known_as, "bastion")
        self.assertEqual(SSHServer("alice", "bastion", 2222).known_as, "[bastion]:2222")
        self.assertEqual(SSHServer("alice", "::1").known_as, "::1")


class SettingsTests(SynchronousTestCase):
    """The four settings."""

    def test_the_others_have_no_effect_without_the_server(self) -> None:
        error = self.assertRaises(
            ConfigurationError, SSHSettings(ssh_identity_file="key", upstream_via="").check
        )
        self.assertEqual(error.mistakes, ("ssh_identity_file has no effect without upstream_via",))
        SSHSettings(ssh_identity_file="key", upstream_via="ssh://alice@bastion").check()

    def test_a_named_file_of_host_keys_must_be_there(self) -> None:
        path = self.mktemp()
        named = SSHSettings(upstream_via="ssh://alice@bastion", ssh_known_hosts_file=path)
        error = self.assertRaises(ConfigurationError, named.check_known_hosts)
        self.assertEqual(
            error.mistakes,
            (f'ssh_known_hosts_file: could not open file "{path}": No such file or directory',),
        )
        Path(path).touch()
        named.check_known_hosts()
        SSHSettings(upstream_via="ssh://alice@bastion").check_known_hosts()
