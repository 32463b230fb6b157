"""What Twisted finds of pgtls, and when it is imported."""

from __future__ import annotations

import subprocess
import sys

from twisted.internet.endpoints import clientFromString, serverFromString
from twisted.internet.interfaces import IStreamClientEndpoint, IStreamServerEndpoint
from twisted.internet.testing import MemoryReactor
from twisted.trial.unittest import SynchronousTestCase

from tests.support.processes import environment

FINDS_SERVICES = """
import signal, sys
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # nohup ignores it
from twisted.application.service import IServiceMaker
from twisted.plugin import getPlugins
(gateway,) = [each for each in getPlugins(IServiceMaker) if each.tapname == "pgtls"]
print(sorted(name for name in sys.modules if name.startswith("pgtls.")))
print(signal.getsignal(signal.SIGHUP) == signal.SIG_DFL)
gateway.options
signal.raise_signal(signal.SIGHUP)
signal.raise_signal(signal.SIGUSR1)
print("it goes on")
"""


class Plugins(SynchronousTestCase):
    def test_twistd_imports_little_and_keeps_a_hangup_from_then_on(self) -> None:
        finished = subprocess.run(
            [sys.executable, "-c", FINDS_SERVICES],
            env=environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        self.assertEqual(
            (finished.stdout, finished.stderr, finished.returncode),
            ("[]\nTrue\nit goes on\n", "", 0),
        )

    def test_endpoint_strings(self) -> None:
        client = clientFromString(MemoryReactor(), "pgtls:host=localhost:sslmode=disable")
        self.assertTrue(IStreamClientEndpoint.providedBy(client))
        server = serverFromString(MemoryReactor(), "pgtls:tcp:5432:ssl=off")
        self.assertTrue(IStreamServerEndpoint.providedBy(server))
