"""The process whose place this one takes, in an upgrade: what it passes on, and what they say.

It starts the program with ``PGTLS_UPGRADE`` in its environment, a JSON object: ``process``, its
process id; ``link``, one end of a socketpair; ``stderr``, its standard error, while this process's
goes to a file until it is ready; ``pid_file``, twistd's, or null; ``older``, the links to processes
before it whose sessions go on, by process id; ``sockets``, the listening sockets by address, and
``systemds``, those of systemd's by name. All but names and process ids are descriptors.

Over the link the new process says ``process`` with its process id, then ``ready``, or ``failed``
with a JSON list of mistakes; the old one answers ``serve``. From then on each may ask the other one
something: :mod:`pgtls.daemon.pipe_requests`. This module imports nothing heavy, as
:mod:`pgtls.daemon.signals` does not.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, MutableMapping
from contextlib import suppress
from typing import Any

from pgtls.transport.socket_table import SocketTable

#: The environment variable.
VARIABLE = "PGTLS_UPGRADE"

_STANDARD_ERROR = 2


class Predecessor:
    """What it has passed on.

    :param passed: as above.
    :ivar process: its process id.
    :ivar link: the descriptor of this process's end of the socketpair.
    :ivar pid_file: the descriptor of twistd's pid file; None where there is none.
    :ivar older: processes before it whose sessions go on, and the descriptors of links to them.
    """

    def __init__(self, passed: Mapping[str, Any]) -> None:
        self.process: int = passed["process"]
        self.link: int = passed["link"]
        self.pid_file: int | None = passed["pid_file"]
        self.older: list[tuple[int, int]] = [(each, link) for each, link in passed["older"]]
        self._stderr: int = passed["stderr"]
        self._captured = os.fstat(_STANDARD_ERROR)
        pid_file = () if self.pid_file is None else (self.pid_file,)
        for descriptor in (self.link, self._stderr, *pid_file, *(link for _, link in self.older)):
            os.set_inheritable(descriptor, False)

    @classmethod
    def taken_from(
        cls, environ: MutableMapping[str, str], sockets: SocketTable
    ) -> Predecessor | None:
        """Take what it has passed on, so that no program that this one starts gets it too.

        :param environ: the process's own; the variable is removed from it.
        :param sockets: gets the listening sockets.
        :returns: the predecessor; None where this process takes no other one's place.
        """
        text = environ.pop(VARIABLE, "")
        if not text:
            return None
        passed = json.loads(text)
        sockets.inherit(
            [(name, descriptor) for name, descriptor in passed.pop("systemds")],
            [(address, descriptor) for address, descriptor in passed.pop("sockets")],
        )
        return cls(passed)

    def give_back_stderr(self) -> None:
        """Write errors to where the predecessor writes them, from now on."""
        # A daemon of twistd's has /dev/null there.
        if os.path.samestat(os.fstat(_STANDARD_ERROR), self._captured):
            os.dup2(self._stderr, _STANDARD_ERROR)
        with suppress(OSError):
            os.close(self._stderr)


#: The process's own, once it has been looked for.
predecessor: Predecessor | None = None


def look_for_predecessor(environ: MutableMapping[str, str], sockets: SocketTable) -> None:
    """Find out whether this process takes the place of another one.

    :param environ: the process's own.
    :param sockets: gets the listening sockets.
    """
    global predecessor  # noqa: PLW0603 - the process has one at most
    found = Predecessor.taken_from(environ, sockets)
    predecessor = found or predecessor
