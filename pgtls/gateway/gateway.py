"""One gateway: a listener, what it lets in, and the upstream behind it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cryptography import x509
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IOpenSSLServerConnectionCreator
from twisted.internet.protocol import Factory

from pgtls.gateway.binding import ChannelBinding
from pgtls.gateway.session import ClientLeg, Surroundings
from pgtls.gateway.settings import GatewaySettings
from pgtls.gateway.upstream_check import check_upstream
from pgtls.protocols.endpoint import PgTLSClientEndpoint
from pgtls.protocols.server import PgTLSServerFactory


class _ClientLegs(Factory):
    """Makes the client's leg of each session."""

    noisy = False

    def __init__(self, shared: Surroundings) -> None:
        self._shared = shared

    def buildProtocol(self, addr: IAddress | None) -> ClientLeg:
        return ClientLeg(self._shared, addr)


class Gateway:
    """A ``[[gateway]]`` table at work.

    :param settings: the table.
    :param tls: makes the clients' TLS connections; None where ssl is off.
    :param upstream: connects to the server.
    :ivar factory: what is to listen.
    """

    def __init__(
        self,
        reactor: Any,
        settings: GatewaySettings,
        tls: IOpenSSLServerConnectionCreator | None,
        upstream: PgTLSClientEndpoint,
    ) -> None:
        self._shared = Surroundings(
            reactor,
            upstream,
            ChannelBinding(),
            settings.listener.authentication_timeout,
            settings.tls_parameters,
        )
        self.factory = PgTLSServerFactory(
            _ClientLegs(self._shared), tls, settings.listener, reactor=reactor
        )

    def check_upstream(self, shown: Sequence[x509.Certificate]) -> Deferred[None]:
        """See once whether the server is there, and whether SCRAM can bind the channel to it.

        :param shown: the certificates that clients may be shown.
        :returns: fires when it is done; never fails, and may be cancelled.
        """
        shared = self._shared
        return check_upstream(shared.upstream, shown, shared.binding, shared.reactor)
