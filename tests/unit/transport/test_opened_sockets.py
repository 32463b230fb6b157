"""Listening sockets that more than one process has, and the files that belong to one of them."""

from __future__ import annotations

import os
import socket
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Any, cast

from twisted.internet import reactor as _reactor
from twisted.internet.endpoints import serverFromString
from twisted.internet.error import CannotListenError
from twisted.internet.protocol import Factory, Protocol
from twisted.trial.unittest import SynchronousTestCase, TestCase

from pgtls.transport.listening_sockets import server_endpoint
from pgtls.transport.opened_sockets import SocketFile, open_tcp
from pgtls.transport.socket_table import sockets, unix_address

reactor = cast(Any, _reactor)


class Files(SynchronousTestCase):
    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory(dir="/tmp")
        self.addCleanup(directory.cleanup)
        self.path = Path(directory.name, "socket")
        self.lock = Path(f"{self.path}.lock")

    def file(self, *, ours: bool = True) -> SocketFile:
        return SocketFile(str(self.path), locked=True, ours=ours)

    def test_from_the_beginning_to_the_end(self) -> None:
        file = self.file()
        with file.open(5, 0o640):
            self.assertEqual(self.path.stat().st_mode & 0o777, 0o640)
            self.assertEqual(os.readlink(self.lock), str(os.getpid()))
        file.remove()
        file.remove()  # somebody may have been quicker
        self.assertEqual(list(self.path.parent.iterdir()), [])

    def test_another_processs_are_left_alone_until_they_are_taken(self) -> None:
        self.path.touch()
        self.lock.symlink_to("1")
        file = self.file(ours=False)
        file.remove()
        self.assertEqual(os.readlink(self.lock), "1")
        file.take()
        self.assertEqual(os.readlink(self.lock), str(os.getpid()))
        file.remove()
        self.assertEqual(list(self.path.parent.iterdir()), [])

    def test_no_lock_is_left_where_it_cannot_be_opened(self) -> None:
        self.path.write_text("somebody's")
        self.assertRaises(CannotListenError, self.file().open, 5, 0o600)
        self.assertFalse(self.lock.is_symlink())

    def test_another_ones_lock(self) -> None:
        self.lock.symlink_to("1")
        self.assertRaises(CannotListenError, self.file().open, 5, 0o600)
        self.assertEqual(os.readlink(self.lock), "1")

    def test_without_a_file(self) -> None:
        file = SocketFile(f"\0pgtls-test-{os.getpid()}", locked=True, ours=True)
        file.open(5, 0o600).close()
        file.remove()


class TCP(SynchronousTestCase):
    def test_where(self) -> None:
        for interface, address in (("", "0.0.0.0"), ("127.0.0.1", "127.0.0.1"), ("::1", "::1")):
            with open_tcp(0, interface, 5) as opened:
                self.assertEqual(opened.getsockname()[0], address)

    def test_where_one_listens_already(self) -> None:
        with open_tcp(0, "127.0.0.1", 5) as opened:
            port = opened.getsockname()[1]
            error = self.assertRaises(CannotListenError, open_tcp, port, "127.0.0.1", 5)
        self.assertIn("Address already in use", str(error))

    def test_an_address_that_is_none(self) -> None:
        for interface in ("192.0.2.1", "::z"):
            self.assertRaises(CannotListenError, open_tcp, 0, interface, 5)


class Closing(TestCase):
    """A port that is closed closes its own descriptor, and does not shut the socket down."""

    async def test_another_holder_goes_on(self) -> None:
        directory = tempfile.TemporaryDirectory(dir="/tmp")
        self.addCleanup(directory.cleanup)
        path = os.path.join(directory.name, "socket")
        for description in (f"unix:{path}", "tcp:0:interface=127.0.0.1"):
            factory = Factory.forProtocol(Protocol)
            port = await server_endpoint(reactor, description).listen(factory)
            [(_, descriptor)] = sockets.listening()
            with socket.socket(fileno=os.dup(descriptor)) as other:
                sockets.give_away()
                await cast(Any, port.stopListening())
                self.assertEqual(sockets.listening(), [])
                with closing(socket.socket(other.family)) as client:
                    client.connect(other.getsockname())
        self.assertTrue(os.path.exists(path))

    async def test_an_inherited_one_is_used(self) -> None:
        directory = tempfile.TemporaryDirectory(dir="/tmp")
        self.addCleanup(directory.cleanup)
        path = os.path.join(directory.name, "socket")
        listening = socket.socket(socket.AF_UNIX)
        listening.bind(path)
        listening.listen()
        os.symlink("1", f"{path}.lock")
        sockets.inherit([], [(unix_address(path), listening.detach())])
        endpoint = server_endpoint(reactor, f"unix:{path}")
        port = await endpoint.listen(Factory.forProtocol(Protocol))
        self.assertEqual(os.readlink(f"{path}.lock"), "1")
        self.assertEqual(sockets.take_over(), [])
        self.assertEqual(os.readlink(f"{path}.lock"), str(os.getpid()))
        await cast(Any, port.stopListening())
        self.assertEqual(os.listdir(directory.name), [])

    async def test_twisteds_own_is_shut_down(self) -> None:
        """Which is why it is done here."""
        factory = Factory.forProtocol(Protocol)
        port: Any = await serverFromString(reactor, "tcp:0:interface=127.0.0.1").listen(factory)
        with socket.socket(fileno=os.dup(port.fileno())) as other:
            await port.stopListening()
            with closing(socket.socket(other.family)) as client:
                self.assertRaises(ConnectionRefusedError, client.connect, other.getsockname())
