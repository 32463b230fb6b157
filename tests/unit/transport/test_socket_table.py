"""What systemd has passed, and what is left of it for others."""

from __future__ import annotations

import os
import socket
from contextlib import ExitStack

from twisted.trial.unittest import SynchronousTestCase

from pgtls.transport import socket_table
from pgtls.transport.socket_table import SocketTable, tcp_address, unix_address


class SystemdsSockets(SynchronousTestCase):
    def setUp(self) -> None:
        opened = ExitStack()
        self.addCleanup(opened.close)
        sockets = [opened.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(3)]
        first = max(each.fileno() for each in sockets) + 50
        for number, each in enumerate(sockets):
            os.dup2(each.fileno(), first + number)
            self.addCleanup(os.close, first + number)
        self.patch(socket_table, "_FIRST", first)
        self.first = first

    def taken(self, **environ: str) -> SocketTable:
        table = SocketTable()
        self.environ = {"LISTEN_PID": str(os.getpid()), "OTHER": "1", **environ}
        table.take_systemds(self.environ)
        return table

    def test_by_number_and_by_name(self) -> None:
        table = self.taken(LISTEN_FDS="3", LISTEN_FDNAMES="a:b:b")
        self.assertEqual(
            table.systemds, [("a", self.first), ("b", self.first + 1), ("b", self.first + 2)]
        )
        self.assertEqual(table.systemd("1", None), self.first + 1)
        self.assertEqual(table.systemd(None, "a"), self.first)
        for index, name in (("3", None), ("-1", None), (None, "c")):
            self.assertRaises(LookupError, table.systemd, index, name)
        for index, name in ((None, None), ("0", "a"), ("first", None)):
            self.assertRaises(ValueError, table.systemd, index, name)

    def test_programs_that_are_started_get_nothing_of_it(self) -> None:
        self.taken(LISTEN_FDS="2", LISTEN_FDNAMES="a:b")
        self.assertEqual(self.environ, {"OTHER": "1"})
        self.assertEqual([os.get_inheritable(self.first + n) for n in (0, 1)], [False, False])

    def test_without_names(self) -> None:
        """As ``systemd-socket-activate`` passes them."""
        table = self.taken(LISTEN_FDS="2")
        self.assertEqual(table.systemd("1", None), self.first + 1)

    def test_another_processs(self) -> None:
        table = self.taken(LISTEN_FDS="2", LISTEN_PID="1")
        self.assertEqual(table.systemds, [])
        self.assertEqual(self.environ, {"OTHER": "1"})

    def test_what_is_not_there(self) -> None:
        for number, found in (("", 0), ("x", 0), ("²", 0), ("-1", 0), ("9" * 9, 3)):
            self.assertEqual(len(self.taken(LISTEN_FDS=number).systemds), found)


class InheritedSockets(SynchronousTestCase):
    """What a process gets from the one whose place it takes."""

    def setUp(self) -> None:
        self.table = SocketTable()
        self.opened = [socket.create_server(("127.0.0.1", 0)) for _ in range(3)]
        for each in self.opened:
            self.addCleanup(each.close)
        self.descriptors = [os.dup(each.fileno()) for each in self.opened]
        addresses = [tcp_address("", 6432), tcp_address("::1", 0), tcp_address("::1", 0)]
        self.table.inherit([], zip(addresses, self.descriptors, strict=True))

    def test_each_is_taken_once(self) -> None:
        first, second, third = self.descriptors
        self.assertTrue(self.table.is_inherited(tcp_address("0.0.0.0", 6432)))
        self.assertEqual(self.table.take(tcp_address("0.0.0.0", 6432)), first)
        self.assertFalse(self.table.is_inherited(tcp_address("", 6432)))
        self.assertIsNone(self.table.take(tcp_address("", 6432)))
        taken = [self.table.take(tcp_address("::1", 0)) for _ in range(3)]
        self.assertEqual(taken, [second, third, None])
        for descriptor in self.descriptors:
            os.close(descriptor)

    def test_what_is_not_used_is_closed(self) -> None:
        first = self.table.take(tcp_address("", 6432))
        self.assertEqual(self.table.take_over(), [])
        self.assertEqual(first, self.descriptors[0])
        os.close(self.descriptors[0])
        for descriptor in self.descriptors[1:]:
            self.assertRaises(OSError, os.fstat, descriptor)

    def test_the_address_of_a_unix_socket_does_not_depend_on_the_directory(self) -> None:
        self.assertEqual(unix_address("here/socket"), f"unix:{os.getcwd()}/here/socket")
        self.assertEqual(unix_address("\0name"), "unix:\0name")
