"""One gateway: a listener, what it lets in, and the upstream behind it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cryptography import x509
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IOpenSSLServerConnectionCreator
from twisted.internet.protocol import Factory

from pgtls.gateway.binding import ChannelBinding
from pgtls.gateway.cancel import CancelKeys, forward
from pgtls.gateway.session import ClientLeg
from pgtls.gateway.settings import GatewaySettings
from pgtls.gateway.upstream_check import check_upstream
from pgtls.protocols.endpoint import PgTLSClientEndpoint
from pgtls.protocols.server import PgTLSServerFactory
from pgtls.wire.messages import CancelRequest


class _ClientLegs(Factory):
    """Makes the client's leg of each session."""

    noisy = False

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    def buildProtocol(self, addr: IAddress | None) -> ClientLeg:
        return ClientLeg(self._gateway, addr)


class Gateway:
    """A ``[[gateway]]`` table at work.

    :param settings: the table.
    :param tls: makes the clients' TLS connections; None where ssl is off.
    :param upstream: connects to the server.
    :ivar factory: what is to listen.
    :ivar cancel_keys: the open sessions, as CancelRequests name them.
    :ivar binding: what is to be done about SCRAM's channel binding.
    """

    def __init__(
        self,
        reactor: Any,
        settings: GatewaySettings,
        tls: IOpenSSLServerConnectionCreator | None,
        upstream: PgTLSClientEndpoint,
    ) -> None:
        self.reactor = reactor
        self.upstream = upstream
        self.cancel_keys = CancelKeys()
        self.binding = ChannelBinding()
        self.tls_parameters = settings.tls_parameters
        self.authentication_timeout = settings.listener.authentication_timeout
        self.factory = PgTLSServerFactory(
            _ClientLegs(self), tls, settings.listener, reactor=reactor
        )

    def check_upstream(self, shown: Sequence[x509.Certificate]) -> Deferred[None]:
        """See once whether the server is there, and whether SCRAM can bind the channel to it.

        :param shown: the certificates that clients may be shown.
        :returns: fires when it is done; never fails, and may be cancelled.
        """
        return check_upstream(self.upstream, shown, self.binding, self.reactor)

    def cancel(self, request: CancelRequest) -> Deferred[list[None]]:
        """Pass a CancelRequest on; fires when that has been done."""
        return forward(request, self.upstream, self.cancel_keys, self.reactor)
