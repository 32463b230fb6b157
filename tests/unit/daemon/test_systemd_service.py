"""What systemd gets to know, and when."""

from __future__ import annotations

import os
import socket
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from pgtls.daemon.systemd_notify import SystemdNotify
from pgtls.daemon.systemd_service import SystemdService


class ADaemon:
    def __init__(self) -> None:
        self.running = 1
        self.mistake = ""
        self.gateways = [object()]
        self.sessions = 0
        self.checked: list[float] = []

    def check_workers(self, timeout: float) -> None:
        self.checked.append(timeout)


class Systemd(SynchronousTestCase):
    def setUp(self) -> None:
        address = f"@pgtls-test-{os.getpid()}"
        self.receiver = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.receiver.bind("\0" + address[1:])
        self.receiver.setblocking(False)
        self.addCleanup(self.receiver.close)
        self.clock, self.daemon = Clock(), ADaemon()
        self.environ = {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "30000000", "OTHER": "1"}
        notify = SystemdNotify.taken_from(self.environ)
        self.service = SystemdService(self.clock, notify, self.daemon)

    def said(self) -> list[dict[str, str]]:
        messages = []
        while True:
            try:
                lines = self.receiver.recv(4096).decode().split("\n")
            except BlockingIOError:
                return messages
            messages.append(dict(line.split("=", 1) for line in lines))

    def ready(self) -> None:
        self.service.ready()
        self.said()

    def test_programs_that_it_starts_cannot_speak_for_it(self) -> None:
        self.assertEqual(self.environ, {"OTHER": "1"})

    def test_ready(self) -> None:
        self.service.ready()
        first, watchdog = self.said()
        self.assertEqual(
            first,
            {"READY": "1", "STATUS": "1 gateway, 0 sessions open", "MAINPID": str(os.getpid())},
        )
        self.assertEqual(watchdog, {"WATCHDOG": "1"})

    def test_alive_at_half_of_the_watchdogs_time(self) -> None:
        self.ready()
        self.clock.pump([5.0] * 9)
        self.assertEqual(self.said(), [{"WATCHDOG": "1"}] * 3)
        self.assertEqual(self.daemon.checked, [30.0] * 4)

    def test_a_reactor_that_hung_says_it_once_more_and_not_as_often_as_it_missed(self) -> None:
        self.ready()
        self.clock.advance(100)
        self.assertEqual(self.said(), [{"WATCHDOG": "1"}])

    def test_the_status_where_it_changes(self) -> None:
        self.ready()
        self.clock.advance(2)
        self.assertEqual(self.said(), [])
        self.daemon.sessions = 7
        self.clock.pump([2, 2])
        self.assertEqual(self.said(), [{"STATUS": "1 gateway, 7 sessions open"}])
        self.daemon.mistake, self.daemon.sessions = "it is wrong", 1
        self.clock.pump([2, 2])
        self.assertEqual(
            self.said(),
            [{"STATUS": "1 gateway, 1 session open; last reload failed: it is wrong"}],
        )

    def test_a_reload_ends_in_ready(self) -> None:
        self.ready()
        for result in (None, ValueError("a bug")):
            done: Deferred[Any] = Deferred()
            self.service.reload(done)
            [reloading] = self.said()
            self.assertEqual(set(reloading), {"RELOADING", "MONOTONIC_USEC"})
            done.addErrback(lambda failure: None)
            if result is None:
                done.callback(None)
            else:
                done.errback(result)
            self.assertEqual([each["READY"] for each in self.said()], ["1"])

    def test_ready_when_the_last_of_several_reloads_is_over(self) -> None:
        self.ready()
        first, second = Deferred[None](), Deferred[None]()
        self.service.reload(first)
        self.service.reload(second)
        self.assertEqual(["RELOADING" in each for each in self.said()], [True, True])
        first.callback(None)
        self.assertEqual(self.said(), [])
        second.callback(None)
        self.assertEqual(["READY" in each for each in self.said()], [True])

    def test_stopping(self) -> None:
        self.ready()
        reload: Deferred[None] = Deferred()
        self.service.reload(reload)
        self.said()
        self.daemon.running, self.daemon.sessions = 0, 3
        self.service.stopping(30)
        self.assertEqual(
            self.said(),
            [
                {"STOPPING": "1", "STATUS": "draining: 3 sessions open"},
                {"EXTEND_TIMEOUT_USEC": "30000000"},
            ],
        )
        reload.callback(None)
        self.assertEqual(self.said(), [])  # READY would take it back
        self.service.stop()
        self.clock.advance(100)
        self.assertEqual(self.said(), [])

    def test_without_systemd_nothing_runs(self) -> None:
        service = SystemdService(self.clock, SystemdNotify({}), self.daemon)
        service.starting(10)
        service.ready()
        service.reload(Deferred())
        service.stopping(10)
        service.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])
