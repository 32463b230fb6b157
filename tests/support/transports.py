"""The same tests on pgtls's fast transports and on Twisted's own.

A test case that has :class:`Transports` among its bases, or is a
:class:`~tests.support.gateway_daemon.GatewayCase`, runs on the fast ones; a subclass with
:class:`OnTwistedsTransports` in front runs its tests once more on the others.
"""

from __future__ import annotations

from typing import Any

from pgtls.transport import reactor
from pgtls.transport.connection import Connection


class OnTwistedsTransports:
    """In front of a test case's class: the connections are Twisted's own."""

    fast = False


class Transports:
    """Before ``TestCase``: connections in the process of the tests.

    :cvar fast: whether they become fast ones.
    """

    fast = True

    def setUp(self) -> None:
        case: Any = self
        if not self.fast:
            case.patch(reactor, "EPOLL", False)
        self._events = 0
        ready = Connection.ready

        def counted(transport: Connection, events: int) -> None:
            self._events += 1
            ready(transport, events)

        case.patch(Connection, "ready", counted)

    def check_transports(self) -> None:
        """See that those that were to be used have been."""
        case: Any = self
        case.assertEqual(self._events > 0, self.fast, "on the fast transports")
