"""The end of a daemon that cannot begin."""

from __future__ import annotations

from pgtls.errors import ConfigurationError


class CannotStart(SystemExit, Exception):
    """The end of a daemon that cannot begin: a line for each mistake, without a traceback.

    An Exception as well, since twistd removes its pidfile for nothing else, nor lets the parent of
    a daemon know.

    :param error: the mistakes.
    :ivar mistakes: the same, each in one sentence.
    """

    def __init__(self, error: ConfigurationError) -> None:
        super().__init__("\n".join(f"pgtls: {mistake}" for mistake in error.mistakes))
        self.mistakes = error.mistakes
