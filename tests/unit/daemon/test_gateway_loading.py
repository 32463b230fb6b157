"""What is checked of a configuration before gateways are made of it."""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from pgtls.daemon.configuration import Configuration, DaemonSettings
from pgtls.daemon.gateway_loading import check_status
from pgtls.daemon.mistakes import Mistakes


class StatusTests(SynchronousTestCase):
    def test_a_mistake_names_the_file(self) -> None:
        for daemon in (DaemonSettings(status="tcp:9187"), DaemonSettings(status_ssl=True)):
            for file, location in ((Path("pgtls.toml"), "pgtls.toml: status"), (None, "status")):
                configuration = Configuration(daemon, (), file=file)
                mistakes = Mistakes()
                check_status(configuration, mistakes)
                (found,) = mistakes.found
                self.assertTrue(found.startswith(location), found)
