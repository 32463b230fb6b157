"""Files that are taken apart: what would take too long."""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from pgtls.errors import ConfigurationError
from pgtls.policy.hba_file import load_hba_file


class TooMuchTests(SynchronousTestCase):
    def test_a_file_that_includes_itself_in_each_line(self) -> None:
        """A minute and more, without an end to it."""
        path = Path(self.mktemp())
        path.write_text(f"include {path.absolute()}\n" * 4000)
        error = self.assertRaises(ConfigurationError, load_hba_file, path, list)
        self.assertRegex(
            str(error), "^hba_file: more than 1000 lines cannot be read, the last one line "
        )
        self.assertIn("maximum nesting depth exceeded", str(error))

    def test_a_thousand_mistakes_are_each_told(self) -> None:
        path = Path(self.mktemp())
        path.write_text('host "\0\n' * 1000)
        error = self.assertRaises(ConfigurationError, load_hba_file, path, list)
        self.assertEqual(len(error.mistakes), 1000)
