"""An SSH connection that does not come up: what its server said, and what is wrong."""

from __future__ import annotations

import struct

from twisted.conch.ssh.common import NS
from twisted.conch.ssh.transport import MSG_KEXINIT, SSHClientTransport
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from pgtls.errors import ConnectFailed
from pgtls.transport.ssh_connection import SSHClientConnection
from pgtls.transport.ssh_known_hosts import KnownHosts
from pgtls.transport.ssh_settings import SSHServer

VERSION = b"SSH-2.0-Other_1.0\r\n"


class _Transport(StringTransport):
    """A TCP connection."""

    def setTcpNoDelay(self, enabled: bool) -> None:
        pass

    def setTcpKeepAlive(self, enabled: bool) -> None:
        pass


def packet(number: int, payload: bytes) -> bytes:
    """A packet that is not encrypted."""
    content = bytes((number,)) + payload
    padding = 8 - (5 + len(content)) % 8 + 8
    return struct.pack("!LB", 1 + len(content) + padding, padding) + content + bytes(padding)


def key_exchange(**others: bytes) -> bytes:
    """The packet in which a server offers what conch has, but for some lists."""
    conch = SSHClientTransport
    lists = {
        "key_exchange": b",".join(conch.supportedKeyExchanges),
        "host_key": b",".join(conch.supportedPublicKeys),
        "cipher": b",".join(conch.supportedCiphers),
        "cipher_back": b",".join(conch.supportedCiphers),
        "mac": b",".join(conch.supportedMACs),
        "mac_back": b",".join(conch.supportedMACs),
        "compression": b"none",
        "compression_back": b"none",
        "language": b"",
        "language_back": b"",
        **others,
    }
    return packet(MSG_KEXINIT, bytes(16) + b"".join(map(NS, lists.values())) + bytes(5))


class ConnectionTests(SynchronousTestCase):
    """What a server sends at first."""

    def setUp(self) -> None:
        server = SSHServer("alice", "bastion")
        self.connection = SSHClientConnection(server, KnownHosts([]), [], Clock())
        self.transport = _Transport()
        self.connection.makeConnection(self.transport)

    def why_lost(self, *pieces: bytes) -> str:
        """What is said of a server that sends this, and closes."""
        for piece in pieces:
            if not self.transport.disconnecting:
                self.connection.dataReceived(piece)
        self.connection.connectionLost(Failure(ConnectionDone()))
        return str(self.failureResultOf(self.connection.ready, ConnectFailed).value)

    def test_lines_that_come_alone_before_its_version(self) -> None:
        for piece in (b"Welcome\r\n", b"to SSH-2.0\r\n", VERSION[:5], VERSION[5:]):
            self.connection.dataReceived(piece)
        self.assertEqual(self.connection.otherVersionString, VERSION.strip())
        self.assertFalse(self.transport.disconnecting)

    def test_it_closes_before_that_and_has_said_why(self) -> None:
        self.assertEqual(
            self.why_lost(b"Exceeded MaxStartups\r\n"),
            'the server closed the connection before SSH began, and said: "Exceeded MaxStartups"',
        )

    def test_it_closes_without_a_word(self) -> None:
        self.assertEqual(self.why_lost(), "the server closed the connection before SSH began")

    def test_it_says_very_much_and_no_version(self) -> None:
        why = self.why_lost(*[b"x" * 1000] * 5)
        self.assertIn("SSH failed: Peer version string longer than 4KB", why)
        self.assertTrue(self.transport.disconnecting)

    def test_algorithms_that_are_not_here_are_named_with_those_that_are(self) -> None:
        etm = b"hmac-sha2-256-etm@openssh.com"
        why = self.why_lost(VERSION, key_exchange(mac_back=etm))
        self.assertIn("no matching MAC found: the SSH server offers hmac-sha2-256-etm", why)
        self.assertIn("hmac-sha2-512", why)

    def test_host_keys_with_SHA1_are_not_asked_for(self) -> None:
        why = self.why_lost(VERSION, key_exchange(host_key=b"ssh-rsa"))
        self.assertIn("no matching host key type found: the SSH server offers ssh-rsa", why)

    def test_a_malformed_packet(self) -> None:
        for bad in (packet(MSG_KEXINIT, b"short"), packet(31, b"\0\0\0\xffx")):
            self.setUp()
            why = self.why_lost(VERSION, key_exchange(), bad)
            self.assertIn("SSH failed: malformed packet", why)
            self.assertEqual(self.flushLoggedErrors(), [])
