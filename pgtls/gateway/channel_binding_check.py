"""What a session's two TLS connections mean for SCRAM's channel binding."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import ITransport
from twisted.logger import Logger

from pgtls.protocols.connection_info import negotiated_tls, own_certificate
from pgtls.tls.certificate import Certificate
from pgtls.wire.channel_binding import WAYS_OUT, PlusWithheld, RefusalExplained

_log = Logger(namespace="pgtls.gateway")


class ChannelBinding:
    """Compares the certificates of a session's two connections; warns once of each difference."""

    def __init__(self) -> None:
        self._warned: set[str] = set()

    def editor(self, client: ITransport, upstream: ITransport) -> Callable[[bytes], bytes] | None:
        """How the server's authentication messages are to be changed on their way to the client.

        :param client: the transport of the client.
        :param upstream: the transport of the server.
        :returns: takes a message, gives the one to send; None where nothing is to be changed.
        """
        server_tls = negotiated_tls(upstream)
        if server_tls is None or server_tls.certificate is None:
            return None
        shown = own_certificate(client)
        if shown is None:
            return PlusWithheld()
        cause = self.compare(shown, server_tls.certificate)
        return None if cause is None else RefusalExplained(cause)

    def compare(self, shown: Certificate, upstreams: Certificate) -> str | None:
        """Compare the gateway's certificate with the server's.

        :param shown: the one that clients get from the gateway.
        :param upstreams: the one that the gateway gets from the server.
        :returns: in a sentence, how they differ; None where they do not.
        """
        if shown == upstreams:
            return None
        cause = (
            "The gateway shows clients another certificate (SHA-256 "
            f"{shown.fingerprint}) than the server shows the gateway ({upstreams.fingerprint})."
        )
        if cause not in self._warned:
            self._warned.add(cause)
            _log.warn(
                "SCRAM channel binding will fail: {cause} {ways_out}",
                cause=cause,
                ways_out=WAYS_OUT,
            )
        return cause
