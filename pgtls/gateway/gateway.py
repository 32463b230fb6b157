"""One gateway: a listener, what it lets in, and the upstream behind it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs
from cryptography import x509
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory

from pgtls.daemon.prepared import Prepared
from pgtls.errors import ConfigurationError
from pgtls.gateway.cancel import CancelForwarder
from pgtls.gateway.channel_binding_check import ChannelBinding
from pgtls.gateway.session import ClientLeg, Surroundings
from pgtls.gateway.upstream_check import check_upstream
from pgtls.protocols.endpoint import PgTLSClientEndpoint
from pgtls.protocols.server_factory import PgTLSServerFactory


class _ClientLegs(Factory):
    """Makes the client's leg of each session."""

    noisy = False

    def __init__(self, shared: Surroundings) -> None:
        self.shared = shared

    def buildProtocol(self, addr: IAddress | None) -> ClientLeg:
        return ClientLeg(self.shared, addr)

    def stopFactory(self) -> None:
        self.shared.cancels.stop()


class Gateway:
    """A ``[[gateway]]`` table at work.

    :param prepared: with its upstream.
    :ivar factory: what is to listen.
    """

    def __init__(self, reactor: Any, prepared: Prepared) -> None:
        settings = prepared.plan.settings
        shared = Surroundings(
            reactor,
            _upstream(prepared),
            ChannelBinding(),
            settings.listener.authentication_timeout,
            settings.tls_parameters,
            settings.log_disconnections,
            CancelForwarder(reactor),
        )
        self._clients = _ClientLegs(shared)
        self.factory = PgTLSServerFactory(
            self._clients, prepared.tls, settings.listener, reactor=reactor
        )

    def renew(self, prepared: Prepared) -> None:
        """Serve connections that come from now on with what has been read anew; sessions stay as
        they are.

        :param prepared: the same settings with what is in the files now.
        """
        self.factory.tls = prepared.tls
        self.factory.admission = prepared.admission
        self._clients.shared = attrs.evolve(self._clients.shared, upstream=_upstream(prepared))

    def check_upstream(self, shown: Sequence[x509.Certificate]) -> Deferred[None]:
        """See once whether the server is there, and whether SCRAM can bind the channel to it.

        :param shown: the certificates that clients may be shown.
        :returns: fires when it is done; never fails, and may be cancelled.
        """
        shared = self._clients.shared
        return check_upstream(shared.upstream, shown, shared.binding, shared.reactor)


def _upstream(prepared: Prepared) -> PgTLSClientEndpoint:
    if prepared.upstream is None:
        raise ConfigurationError("the embedded PostgreSQL does not run")
    return prepared.upstream
