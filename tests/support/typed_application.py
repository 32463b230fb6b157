"""An application as mypy sees it: every public name of pgtls, and the types that its use has.

It is checked by ``tests/integration/test_api_typing.py``, and never run.
"""

from __future__ import annotations

from typing import assert_type

from cryptography import x509
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IListeningPort,
    IProtocol,
    IStreamServerEndpoint,
    ITCPTransport,
)
from twisted.internet.protocol import Factory, Protocol
from zope.interface import implementer

import pgtls


@implementer(pgtls.IPostgreSQLApplication)
class Application(Protocol):
    """The startup phase as values."""

    transport: ITCPTransport

    def startup_received(
        self, startup: pgtls.StartupMessage, tls: pgtls.NegotiatedTLS | None
    ) -> None:
        """A session."""
        assert_type(startup.user, bytes)
        assert_type(startup.parameters, tuple[tuple[bytes, bytes], ...])
        assert_type(pgtls.negotiated_tls(self.transport), pgtls.NegotiatedTLS | None)
        if tls is not None:
            assert_type(tls.version, str)
            assert_type(tls.peer_certificate, x509.Certificate | None)
        self.transport.write(pgtls.ErrorResponse.fatal("0A000", "not yet", hint="wait").encode())

    def cancel_requested(
        self, request: pgtls.CancelRequest, tls: pgtls.NegotiatedTLS | None
    ) -> None:
        """A cancel request."""
        assert_type(request.key, bytes)


@implementer(pgtls.IPostgreSQLSession)
class SessionApplication(Protocol):
    """All that is known of the client as a value."""

    def session_requested(self, client: pgtls.Client) -> None:
        """A session."""
        assert_type(client.sni, str | None)

    def cancel_requested(
        self, request: pgtls.CancelRequest, tls: pgtls.NegotiatedTLS | None
    ) -> None:
        """A cancel request."""


@implementer(pgtls.IAccessPolicy)
class Policy:
    """Admits clients with TLS."""

    def decide(self, client: pgtls.Client) -> pgtls.Admit | pgtls.Refuse:
        """The rule."""
        if client.tls is not None:
            return pgtls.ADMIT
        return pgtls.Refuse(pgtls.ErrorResponse.fatal("28000", "TLS is needed"), "in plaintext")


@implementer(pgtls.IRouter)
class Router:
    """Sends every session to one server."""

    def __init__(self, endpoint: pgtls.PgTLSClientEndpoint) -> None:
        self._endpoint = endpoint

    def upstream(self, client: pgtls.Client) -> pgtls.Upstream:
        """The rule."""
        return pgtls.Upstream(self._endpoint, route="the only one")


class Counter(pgtls.SessionObserver):
    """Counts refusals."""

    refusals = 0

    def refused(self, refused: pgtls.Refused) -> None:
        """A refusal."""
        assert_type(refused.reason, str)
        self.refusals += 1

    def ended(self, session: pgtls.ISession) -> None:
        """An end."""
        assert_type(session.client, pgtls.Client)


def listen(
    reactor: pgtls.IReactor, wrapped: IStreamServerEndpoint
) -> tuple[Deferred[IListeningPort], Deferred[IListeningPort]]:
    """Two ways to listen."""
    settings = pgtls.ListenerSettings(
        ssl=pgtls.SSL.REQUIRE,
        tls=pgtls.ServerTLSSettings(ssl_cert_file="server.crt", ssl_key_file="server.key"),
        clientcert=pgtls.ClientCert.VERIFY_FULL,
        clientname=pgtls.ClientName.SAN,
        cancel=pgtls.CancelPolicy.TLS,
        max_connections=10,
    )
    application = Factory.forProtocol(Application)
    endpoint = pgtls.PgTLSServerEndpoint(reactor, wrapped, settings)
    observers: list[pgtls.ISessionObserver] = [Counter()]
    factory = pgtls.PgTLSServerFactory(
        application,
        pgtls.ServerTLS(settings.tls),
        settings,
        policy=Policy(),
        observers=observers,
    )
    assert_type(factory.drain(10.0), Deferred[None])
    assert_type(factory.connections, set[pgtls.PgTLSServerProtocol])
    return endpoint.listen(application), wrapped.listen(factory)


async def connect(reactor: pgtls.IReactor, root: x509.Certificate) -> IProtocol | None:
    """A client."""
    conninfo = pgtls.ConnInfo.parse("host=localhost sslmode=verify-full", {})
    assert_type(conninfo.hosts, tuple[pgtls.Host, ...])
    assert_type(conninfo.sslmode, pgtls.SSLMode)
    assert_type(conninfo.sslnegotiation, pgtls.SSLNegotiation)
    events: list[pgtls.Event] = []
    assert_type(pgtls.startup_message(conninfo), pgtls.StartupMessage | None)
    startup = pgtls.StartupMessage.build({b"user": b"alice"})
    endpoint = pgtls.PgTLSClientEndpoint(
        reactor, conninfo, roots=[root], startup=startup, observe=events.append
    )
    try:
        protocol = await endpoint.connect(Factory.forProtocol(Protocol))
    except pgtls.ServerRejected as error:
        assert_type(error.response, pgtls.ErrorResponse)
    except pgtls.ConfigurationError as error:
        assert_type(error.mistakes, tuple[str, ...])
    except (
        pgtls.AuthenticationNotAllowed,
        pgtls.CertificateNotVerified,
        pgtls.ConnectFailed,
        pgtls.NegotiationRefused,
        pgtls.ProtocolViolation,
    ) as error:
        refused: pgtls.PgTLSError = error
        print(refused)
    else:
        assert_type(protocol, IProtocol)
        assert_type(endpoint.reached, pgtls.Host | None)
        return protocol
    return None


def other(client: pgtls.PgTLSClientProtocol) -> IProtocol:
    """What an endpoint makes for each attempt is a protocol."""
    return client
