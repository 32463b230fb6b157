"""What systemd is told, read from a socket like its own."""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from twisted.trial.unittest import SynchronousTestCase

from pgtls.daemon.systemd_notify import SystemdNotify


@contextmanager
def service_manager(address: str) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind("\0" + address[1:] if address[0] == "@" else address)
        receiver.settimeout(5)
        yield receiver


class NotifyTests(SynchronousTestCase):
    """Messages."""

    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.path = os.path.join(directory.name, "notify")

    def test_each_message(self) -> None:
        with service_manager(self.path) as receiver:
            notify = SystemdNotify({"NOTIFY_SOCKET": self.path})
            for send, lines in (
                (
                    lambda: notify.ready("2 gateways,\n3 sessions"),
                    f"READY=1\nSTATUS=2 gateways, 3 sessions\nMAINPID={os.getpid()}",
                ),
                (lambda: notify.stopping("draining"), "STOPPING=1\nSTATUS=draining"),
                (lambda: notify.status("x"), "STATUS=x"),
                (notify.alive, "WATCHDOG=1"),
                (lambda: notify.new_main_process(77), "MAINPID=77"),
                (lambda: notify.extend_timeout(1.5), "EXTEND_TIMEOUT_USEC=1500000"),
            ):
                send()
                self.assertEqual(receiver.recv(4096).decode(), lines)
            notify.reloading()
            reloading, moment = receiver.recv(4096).decode().split("\n")
            self.assertEqual(reloading, "RELOADING=1")
            self.assertRegex(moment, r"^MONOTONIC_USEC=[0-9]+$")

    def test_an_abstract_socket(self) -> None:
        address = f"@pgtls-test-{os.getpid()}"
        with service_manager(address) as receiver:
            SystemdNotify({"NOTIFY_SOCKET": address}).alive()
            self.assertEqual(receiver.recv(4096), b"WATCHDOG=1")

    def test_without_a_service_manager_nothing_happens(self) -> None:
        for environ in ({}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": "vsock:2:1"}):
            SystemdNotify(environ).ready("fine")

    def test_one_that_is_gone_is_no_failure(self) -> None:
        SystemdNotify({"NOTIFY_SOCKET": self.path}).ready("fine")

    def test_one_that_does_not_read_holds_up_nothing(self) -> None:
        with service_manager(self.path):
            notify = SystemdNotify({"NOTIFY_SOCKET": self.path})
            for _ in range(2000):  # more than a queue holds
                notify.alive()

    def test_the_watchdog(self) -> None:
        own, other = str(os.getpid()), str(os.getpid() + 1)
        for watchdog, interval in (
            ({}, None),
            ({"WATCHDOG_USEC": "30000000"}, 15.0),
            ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": own}, 15.0),
            ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": other}, None),
            ({"WATCHDOG_USEC": "0"}, None),
            ({"WATCHDOG_USEC": "soon"}, None),
        ):
            environ = {"NOTIFY_SOCKET": self.path, **watchdog}
            self.assertEqual(SystemdNotify(environ).watchdog_interval, interval)
        self.assertIsNone(SystemdNotify({"WATCHDOG_USEC": "30000000"}).watchdog_interval)
