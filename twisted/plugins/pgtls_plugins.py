"""Makes ``twistd pgtls`` and the ``pgtls:`` endpoint strings known to Twisted."""

import signal

from twisted.application.service import ServiceMaker

from pgtls.protocols.strings import ClientStringParser, ServerStringParser


class GatewayMaker(ServiceMaker):
    """Keeps a SIGHUP from the moment on in which Twisted asks for the options of ``pgtls``: it must
    not end a daemon that is not ready yet."""

    @property
    def options(self) -> object:
        """The options of the command line."""
        from pgtls.daemon.signals import signals  # noqa: PLC0415 - for this plugin alone

        signals.keep(signal.SIGHUP)
        return super().options  # type: ignore[misc]


gateway = GatewayMaker(
    "pgtls",
    "pgtls.daemon.options",
    "TLS for anything that speaks PostgreSQL.",
    "pgtls",
)
client_endpoint = ClientStringParser()
server_endpoint = ServerStringParser()
