"""The mistakes of a configuration: all that there are, found in one go."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from pgtls.errors import ConfigurationError
from pgtls.text import printable


class Mistakes:
    """Collects mistakes, so that the first one does not hide the others.

    :ivar found: each in one sentence, with its location in front. What a terminal would not show,
        but carry out, is escaped: files may have been written by somebody else.
    """

    def __init__(self) -> None:
        self.found: list[str] = []
        self._settings: dict[str, set[str]] = {}

    def copy(self) -> Mistakes:
        """The same so far.

        :returns: a copy.
        """
        other = Mistakes()
        other.found = list(self.found)
        other._settings = {location: set(names) for location, names in self._settings.items()}
        return other

    def add(self, mistake: str, *, setting: str = "", location: str = "") -> None:
        """There is a mistake.

        :param mistake: in one sentence.
        :param setting: the setting whose value is wrong, if it is that: nothing else is said of it
            then, since that may only follow from the default in its place.
        :param location: where that setting stands.
        """
        self.found.append(printable(mistake, None))
        if setting:
            self._settings.setdefault(location, set()).add(setting)

    def has(self, location: str, setting: str) -> bool:
        """Whether the value of a setting is wrong.

        :param location: where it stands.
        :param setting: its name.
        :returns: True if so.
        """
        return setting in self._settings.get(location, ())

    @contextmanager
    def at(self, location: str) -> Iterator[None]:
        """Go on behind the block where it ends in a ConfigurationError.

        :param location: goes in front of each mistake; may be empty.
        :returns: the context manager.
        """
        try:
            yield
        except ConfigurationError as error:
            known = self._settings.get(location, ())
            for mistake in error.mistakes:
                if not any(re.search(rf"\b{re.escape(name)}\b", mistake) for name in known):
                    self.found.append(printable(f"{location}{mistake}", None))

    def check(self) -> None:
        """End here if anything is wrong.

        :raises ConfigurationError: with every mistake.
        """
        if self.found:
            raise ConfigurationError(*dict.fromkeys(self.found))
