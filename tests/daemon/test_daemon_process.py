"""The daemon's process: what it changes, and that it gives it back."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.support.processes import environment
from tests.support.servers import HOST, free_port

STARTED_TWICE = """
import gc, os, signal, sys
from twisted.internet import reactor
from twisted.internet.task import deferLater, react
from twisted.internet.defer import Deferred
from pgtls.daemon.garbage_collector import collect_no_garbage
from pgtls.daemon.options import Options, makeService

HANDLED = [number for number in signal.valid_signals() if number not in (9, 19)]

def state():
    handlers = {number: signal.getsignal(number) for number in HANDLED}
    return handlers, reactor.seconds, len(os.listdir("/proc/self/fd")), reactor.getDelayedCalls()

async def main(reactor):
    await deferLater(reactor, 0)  # it runs
    options = Options()
    options.parseOptions(sys.argv[1:])
    service = makeService(options)
    collect_no_garbage()
    service.startService()  # what is made once in a process
    assert gc.isenabled()
    await service.stopService()
    before = state()
    for _ in range(2):
        service.startService()
        assert signal.getsignal(signal.SIGHUP) != before[0][signal.SIGHUP]
        assert reactor.seconds != before[1]
        await service.stopService()
        assert state() == before, (before, state())

react(lambda reactor: Deferred.fromCoroutine(main(reactor)))
"""


class Process(SynchronousTestCase):
    def test_it_can_be_started_again_and_leaves_the_process_as_it_was(self) -> None:
        directory = Path(self.mktemp()).absolute()
        directory.mkdir()
        finished = subprocess.run(
            [
                *(sys.executable, "-c", STARTED_TWICE, "--state-dir", "state"),
                *("--listen", f"tcp:{free_port()}:interface={HOST}"),
                *("--upstream", f"host={HOST} port={free_port()}"),
            ],
            cwd=directory,
            env=environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        self.assertEqual((finished.returncode, finished.stderr), (0, ""))
        self.assertEqual(finished.stdout.count("pgtls: listening on"), 3)
