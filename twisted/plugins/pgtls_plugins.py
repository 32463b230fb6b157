"""Makes ``twistd pgtls`` and the ``pgtls:`` endpoint strings known to Twisted.

Every ``twistd`` imports this, whatever it runs: pgtls itself is imported when it is asked for.
"""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

from twisted.application.service import ServiceMaker
from twisted.internet.interfaces import (
    IStreamClientEndpoint,
    IStreamClientEndpointStringParserWithReactor,
    IStreamServerEndpoint,
    IStreamServerEndpointStringParser,
)
from twisted.plugin import IPlugin
from zope.interface import implementer

if TYPE_CHECKING:
    from pgtls.transport.reactor import IReactor


class GatewayMaker(ServiceMaker):
    """Sees to signals from the moment on in which Twisted asks for the options of ``pgtls``. A
    SIGHUP must not end a daemon that is not ready yet; a SIGINT must, and Python's
    KeyboardInterrupt may be lost while modules are imported. It is also the moment to take
    systemd's sockets, which Twisted would give away for one use, and those of a process whose place
    this one takes."""

    @property
    def options(self) -> object:
        """The options of the command line."""
        from pgtls.daemon.garbage_collector import collect_no_garbage  # noqa: PLC0415
        from pgtls.daemon.predecessor import look_for_predecessor  # noqa: PLC0415
        from pgtls.daemon.signals import OTHER_SIGNALS, signals  # noqa: PLC0415
        from pgtls.transport.socket_table import sockets  # noqa: PLC0415

        collect_no_garbage()
        sockets.take_systemds(os.environ)
        look_for_predecessor(os.environ, sockets)
        signals.keep(*OTHER_SIGNALS)
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
        return super().options  # type: ignore[misc]


@implementer(IPlugin, IStreamClientEndpointStringParserWithReactor)
class ClientStrings:
    """``pgtls:`` for ``clientFromString``."""

    prefix = "pgtls"

    def parseStreamClient(
        self, reactor: IReactor, *args: str, **kwargs: str
    ) -> IStreamClientEndpoint:
        """As :class:`pgtls.protocols.strings.ClientStringParser` has it."""
        from pgtls.protocols.strings import ClientStringParser  # noqa: PLC0415

        return ClientStringParser().parseStreamClient(reactor, *args, **kwargs)


@implementer(IPlugin, IStreamServerEndpointStringParser)
class ServerStrings:
    """``pgtls:`` for ``serverFromString``."""

    prefix = "pgtls"

    def parseStreamServer(
        self, reactor: IReactor, *args: str, **kwargs: str
    ) -> IStreamServerEndpoint:
        """As :class:`pgtls.protocols.strings.ServerStringParser` has it."""
        from pgtls.protocols.strings import ServerStringParser  # noqa: PLC0415

        return ServerStringParser().parseStreamServer(reactor, *args, **kwargs)


gateway = GatewayMaker(
    "pgtls",
    "pgtls.daemon.options",
    "TLS for anything that speaks PostgreSQL.",
    "pgtls",
)
client_endpoint = ClientStrings()
server_endpoint = ServerStrings()
