"""The SSH connection of ``upstream_via`` while it cannot be made."""

from __future__ import annotations

import errno
import os
import socket
from urllib.parse import urlsplit

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Protocol
from twisted.trial.unittest import TestCase

from pgtls.conninfo.hosts import Host
from pgtls.errors import ConfigurationError, ConnectFailed
from pgtls.transport import ssh_tunnel
from pgtls.transport.ssh_settings import SSHSettings
from pgtls.transport.ssh_tunnel import SSHTunnel
from tests.support.servers import free_port


class TunnelCase(TestCase):
    """A tunnel, and nothing where its SSH server should be."""

    def setUp(self) -> None:
        known_hosts = self.mktemp()
        with open(known_hosts, "w"):
            pass
        self.address = f"ssh://alice@127.0.0.1:{free_port()}"
        settings = SSHSettings(upstream_via=self.address, ssh_known_hosts_file=known_hosts)
        self.tunnel = SSHTunnel(reactor, settings)  # type: ignore[arg-type]
        self.addCleanup(self.tunnel.stop)

    def dialling(self) -> Deferred[None]:
        return self.tunnel.dial(Host("db.internal", "", 5432), Protocol(), 60)


class PauseTests(TunnelCase):
    """Clients that come before the next attempt."""

    async def test_one_that_is_near_is_waited_for(self) -> None:
        self.patch(ssh_tunnel, "FIRST_PAUSE", 0.1)
        for _ in range(2):
            with self.assertRaisesRegex(ConnectFailed, f"^{self.address}: Connection refused$"):
                await self.dialling()

    async def test_one_that_is_far_away_is_not(self) -> None:
        self.patch(ssh_tunnel, "FIRST_PAUSE", 12)
        with self.assertRaisesRegex(ConnectFailed, f"^{self.address}: Connection refused$"):
            await self.dialling()
        why = str(self.failureResultOf(self.dialling(), ConnectFailed).value)
        self.assertEqual(why, f"{self.address}: Connection refused; next attempt in 12 s")


class SilentServerTests(TunnelCase):
    """An SSH server that answers nothing, not even TCP."""

    def setUp(self) -> None:
        super().setUp()
        server = socket.create_server(("127.0.0.1", urlsplit(self.address).port or 0), backlog=0)
        self.addCleanup(server.close)
        for _ in range(2):  # one is one more than it takes
            client = socket.socket()
            self.addCleanup(client.close)
            client.setblocking(False)
            client.connect_ex(server.getsockname())

    async def test_the_client_is_told(self) -> None:
        self.patch(ssh_tunnel, "LOGIN_TIMEOUT", 0.1)
        with self.assertRaisesRegex(ConnectFailed, f"^{self.address}: no SSH connection in 0.1 s$"):
            await self.dialling()

    def test_a_stop_ends_the_attempt(self) -> None:
        dialling = self.dialling()
        self.tunnel.stop()
        self.failureResultOf(dialling, ConnectFailed)
        self.assertEqual(reactor.getDelayedCalls(), [])  # type: ignore[attr-defined]


class SettingsTests(TestCase):
    """What it is made from."""

    def test_all_mistakes_are_said(self) -> None:
        settings = SSHSettings(
            upstream_via="ssh://alice@bastion",
            ssh_known_hosts_file="no-hosts",
            ssh_identity_file="no-key",
        )
        error = self.assertRaises(ConfigurationError, SSHTunnel, reactor, settings)
        self.assertEqual(len(error.mistakes), 2)


class DescriptorTests(TunnelCase):
    """No descriptors are left."""

    async def test_the_client_is_told(self) -> None:
        def no_pair() -> None:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

        self.patch(self.tunnel, "_connection", object())
        self.patch(socket, "socketpair", no_pair)
        with self.assertRaisesRegex(ConnectFailed, "^Too many open files$"):
            await self.dialling()
