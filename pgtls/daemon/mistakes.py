"""The mistakes of a configuration: all that there are, found in one go."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from pgtls.errors import ConfigurationError


class Mistakes:
    """Collects mistakes, so that the first one does not hide the others.

    :ivar found: each in one sentence, with its location in front.
    """

    def __init__(self) -> None:
        self.found: list[str] = []

    @contextmanager
    def at(self, location: str) -> Iterator[None]:
        """Go on behind the block where it ends in a ConfigurationError.

        :param location: goes in front of each mistake; may be empty.
        :returns: the context manager.
        """
        try:
            yield
        except ConfigurationError as error:
            self.found.extend(f"{location}{mistake}" for mistake in error.mistakes)

    def check(self) -> None:
        """End here if anything is wrong.

        :raises ConfigurationError: with every mistake.
        """
        if self.found:
            raise ConfigurationError(*dict.fromkeys(self.found))
