"""The mistakes of a configuration."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from pgtls.daemon.mistakes import Mistakes
from pgtls.errors import ConfigurationError


class MistakesTests(SynchronousTestCase):
    def test_they_cannot_steer_a_terminal(self) -> None:
        """A file's name, for example, in a file that somebody else has written."""
        mistakes = Mistakes()
        mistakes.add("could not open file \x1b[31m")
        with mistakes.at("gateway 1: "):
            raise ConfigurationError("could not open file \udcff\n\u202e")
        self.assertEqual(
            mistakes.found,
            ["could not open file \\x1b[31m", "gateway 1: could not open file \\udcff\\n\\u202e"],
        )
