"""What an application may provide to learn more than bytes."""

from __future__ import annotations

from twisted.internet.interfaces import IProtocol

from pgtls.tls.tls_info import NegotiatedTLS
from pgtls.wire.messages import CancelRequest, StartupMessage


class IPostgreSQLApplication(IProtocol):
    """A server application's protocol that takes the startup phase as values.

    One that provides just ``IProtocol`` gets the packet byte for byte in ``dataReceived``.
    """

    def startup_received(startup: StartupMessage, tls: NegotiatedTLS | None) -> None:
        """The client has opened a session. What it sends from now on comes to ``dataReceived``.

        :param startup: what it asks for.
        :param tls: what was negotiated; None in plaintext.
        """

    def cancel_requested(request: CancelRequest, tls: NegotiatedTLS | None) -> None:
        """The client asks to cancel another session's statement. It expects no answer; close the
        connection when the request has been carried out.

        :param request: the key of that session.
        :param tls: what was negotiated; None in plaintext.
        """
