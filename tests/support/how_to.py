"""A document's commands, run as they stand but for ports and servers."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from pathlib import Path

from twisted.trial.unittest import TestCase

from tests.support.command_line import PGTLS
from tests.support.processes import TWISTD, Daemon, Finished, run

TOP = Path(__file__).parent.parent.parent


def section(name: str, heading: str, following: str) -> str:
    """What stands between two headings.

    :param name: the document's, below ``docs``.
    :param heading: the one in front of it.
    :param following: the one behind it.
    """
    text = (TOP / "docs" / name).read_text("utf-8")
    return text.partition(f"{heading}\n=")[2].partition(f"{following}\n=")[0]


class HowToCase(TestCase):
    """In a home directory of its own."""

    def setUp(self) -> None:
        self.home = Path(self.mktemp()).absolute()
        self.home.mkdir(mode=0o700)
        self.env = {"HOME": str(self.home), "XDG_STATE_HOME": ""}

    def commands(self, text: str) -> list[str]:
        """Those of ``pgtls`` and ``twistd`` in a text, in their order."""
        return re.findall(r"^    ((?:pgtls|twistd) .*)$", text, re.MULTILINE)

    async def pgtls(self, command: str) -> Finished:
        """Run one of ``pgtls`` to its end."""
        _, *arguments = shlex.split(command)
        return await run([*PGTLS, *arguments], env=self.env, cwd=str(self.home))

    async def succeeds(self, command: str) -> str:
        """The same for one that has to succeed.

        :returns: what it prints.
        """
        done = await self.pgtls(command)
        self.assertEqual(done.code, 0, done.err)
        return done.out

    async def gateway(self, command: str, ours: Mapping[str, str] = {}) -> Daemon:
        """Start one of ``twistd``, and wait until it listens.

        :param ours: what to take in place of some of its words.
        :returns: the daemon; its port is in the match of what said that it is ready.
        """
        _, *arguments = shlex.split(command)
        return await Daemon.start(
            self,
            [*TWISTD, "--pidfile=", *(ours.get(word, word) for word in arguments)],
            r"listening on .*:(\d+)",
            env=self.env,
            cwd=str(self.home),
        )
