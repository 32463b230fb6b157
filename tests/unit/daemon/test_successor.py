"""A process that is started in another one's place, and what it has to say for itself."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import sys
import tempfile
from collections.abc import Iterator
from typing import Any, cast

import psutil
from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.logger import LogEvent, formatEvent, globalLogPublisher
from twisted.trial.unittest import TestCase

from pgtls.daemon import successor
from pgtls.daemon.pid_file import PidFile
from pgtls.daemon.predecessor import VARIABLE
from pgtls.daemon.successor import Program, Successor
from pgtls.daemon.upgrade import Upgrade
from pgtls.transport.socket_table import SocketTable

reactor = cast(Any, _reactor)


def open_files() -> set[str]:
    found = set()
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # the one of the directory
            found.add(f"{name} {os.readlink(f'/proc/self/fd/{name}')}")
    return found


#: What a program finds, and a file for what it says.
_LINK = f"import json, os; link = os.fdopen(json.loads(os.environ['{VARIABLE}'])['link'], 'w'); "


class Successors(TestCase):
    async def setUp(self) -> None:
        await deferLater(reactor, 0)  # the reactor runs, and has opened what it needs for that
        self.before = open_files()

    async def tearDown(self) -> None:
        await deferLater(reactor, 0)
        self.assertEqual(open_files() - self.before, set())

    def started(self, code: str, *command: str) -> Deferred[str]:
        """:returns: fires with why it is not ready, or with nothing."""
        result: Deferred[str] = Deferred()
        program = Program([*(command or (sys.executable, "-c", code))], os.getcwd(), {})
        self.successor = Successor(
            reactor,
            program,
            SocketTable(),
            None,
            [],
            {},
            lambda: result.callback(""),
            result.callback,
        )
        return result

    async def test_one_that_is_ready(self) -> None:
        self.assertEqual(
            await self.started(
                _LINK + "print('process', os.getpid(), file=link); print('ready', file=link); "
                "link.flush(); os.read(link.fileno(), 10)"
            ),
            "",
        )
        os.kill(self.successor.process, signal.SIGKILL)
        self.successor._popen.wait()
        self.successor._link.close()

    async def test_one_that_says_what_is_wrong(self) -> None:
        mistakes = json.dumps(["a mistake", "another"])
        reason = await self.started(_LINK + f"print('failed', {mistakes!r}, file=link)")
        self.assertEqual(reason, "a mistake; another")

    async def test_one_that_writes_what_is_wrong(self) -> None:
        reason = await self.started(
            "import sys; sys.exit('pgtls: a mistake\\npgtls: another\\nAn error has occurred')"
        )
        self.assertEqual(reason, "a mistake; another")

    async def test_one_that_cannot_be_imported(self) -> None:
        self.patch(successor, "_STANDARD_ERROR", os.open(os.devnull, os.O_WRONLY))
        self.addCleanup(os.close, successor._STANDARD_ERROR)
        self.before = open_files()
        reason = await self.started("import nothing_of_this_name")
        self.assertEqual(
            reason,
            "it exited with status 1: ModuleNotFoundError: No module named 'nothing_of_this_name'",
        )

    async def test_one_that_is_killed(self) -> None:
        reason = await self.started("import os; os.kill(os.getpid(), 9)")
        self.assertEqual(reason, "it was ended by signal 9 (SIGKILL)")

    async def test_one_that_hangs(self) -> None:
        self.patch(successor, "READY_TIMEOUT", 0.2)
        reason = await self.started("", "sleep", "1000")
        self.assertEqual(reason, "it is not ready after 0.2 s")

    async def test_one_that_is_ended_since_the_old_one_is(self) -> None:
        result = self.started("", "sleep", "1000")
        self.successor.kill()
        self.successor._link.close()
        self.assertFalse(result.called)

    def test_one_that_is_not_there(self) -> None:
        self.assertRaises(OSError, self.started, "", "/nowhere/at/all")


@contextlib.contextmanager
def few_files(count: int) -> Iterator[None]:
    """No more than ``count`` files can be opened while this lasts."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(map(int, os.listdir("/proc/self/fd")))
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 20, hard))
    opened = []
    try:
        with contextlib.suppress(OSError):
            while True:
                opened.append(os.open(os.devnull, os.O_RDONLY))
        for _ in range(count):
            os.close(opened.pop())
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for each in opened:
            os.close(each)


class WithoutFileDescriptors(TestCase):
    """SIGUSR2 when all of them are used, or nearly all."""

    def setUp(self) -> None:
        self.patch(tempfile, "tempdir", None)  # as in a process that has used none
        self.events: list[LogEvent] = []
        globalLogPublisher.addObserver(self.events.append)
        self.addCleanup(globalLogPublisher.removeObserver, self.events.append)

    def upgraded(self, count: int) -> bool:
        """Whether the other process is started when that many files can still be opened."""
        program = Program(["sleep", "1000"], os.getcwd(), {})
        upgrade = Upgrade(
            *(reactor, program, SocketTable(), PidFile()),
            *(list, {}, lambda process: None),
        )
        with few_files(count):
            upgrade.start()
        started = upgrade._successor
        upgrade.cancel()
        if started is not None:
            started._link.close()
        return started is not None

    def test_the_log_says_so_and_nothing_is_left(self) -> None:
        """Wherever they run out."""
        files, children = open_files(), psutil.Process().children()
        count = 0
        while not self.upgraded(count):
            self.assertEqual(
                formatEvent(self.events[-1]),
                "not upgraded: it cannot be started: too many open files: raise the limit "
                "(ulimit -n, LimitNOFILE=); this process goes on",
            )
            self.assertEqual(open_files() - files, set(), f"with {count}")
            self.assertEqual(psutil.Process().children(), children)
            count += 1
        self.assertEqual(open_files() - files, set())
        self.assertGreater(count, 5)
