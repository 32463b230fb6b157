"""What a daemon without status does not even import."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

import pgtls
from tests.support.processes import environment

PROGRAM = (
    "import sys, pgtls.daemon.options, pgtls.daemon.worker_service\n"
    "print({'prometheus_client', 'jinja2', 'twisted.web.server', 'pgtls.gateway.activity'} "
    "& sys.modules.keys())\n"
)


class NotUsedTests(SynchronousTestCase):
    """Memory, and time at the start."""

    def test_nothing_of_it_is_imported(self) -> None:
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM],
            cwd=Path(pgtls.__file__).parent.parent,
            env=environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        self.assertEqual((done.stdout, done.stderr), ("set()\n", ""))
