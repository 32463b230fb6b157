"""A process that is started in another one's place, and what it has to say for itself."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
from typing import Any, cast

from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from pgtls.daemon import successor
from pgtls.daemon.predecessor import VARIABLE
from pgtls.daemon.successor import Program, Successor
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
