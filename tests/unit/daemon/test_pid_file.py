"""A pid file that changes hands: whoever reads it finds one process or the other."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from pgtls.daemon import pid_file


class TakenOver(SynchronousTestCase):
    def taken(self, before: str) -> list[str]:
        """What is in the file after each step of taking it over.

        :param before: what was in it.
        """
        path = Path(self.mktemp())
        path.write_text(before)
        found = []

        def watched(call: Any) -> Any:
            def watching(*arguments: object) -> object:
                result = call(*arguments)
                found.append(path.read_text())
                return result

            return watching

        file = pid_file.PidFile({}, os.open(path, os.O_WRONLY))
        self.addCleanup(os.close, file.descriptor)
        for name in ("ftruncate", "pwrite"):
            self.patch(os, name, watched(getattr(os, name)))
        self.assertEqual(file.take(), [])
        self.assertEqual(path.read_text(), str(os.getpid()))
        return found

    def test_it_always_has_a_process_in_it(self) -> None:
        """``kill $(cat FILE)`` in that moment would else be a mistake."""
        for before in ("1", "12345678", "12345678901\n"):
            for text in self.taken(before):
                self.assertEqual(text.split(), [str(os.getpid())])
