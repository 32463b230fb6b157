"""A session's connection from the client, from its StartupMessage on."""

from __future__ import annotations

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IAddress, IHalfCloseableProtocol
from twisted.internet.protocol import Factory, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from pgtls.gateway.relay import RelaySide
from pgtls.gateway.session import Session, SessionContext
from pgtls.gateway.session_authentication import SessionAuthentication
from pgtls.gateway.upstream_header import upstream_header
from pgtls.protocols.connection_info import server_name
from pgtls.protocols.deciding import EARLY_LIMIT
from pgtls.protocols.interfaces import IPostgreSQLSession
from pgtls.protocols.stages import Client
from pgtls.tls.tls_info import NegotiatedTLS
from pgtls.transport.tls_layer import TruncatedTLS
from pgtls.wire.messages import CancelRequest

#: How a connection ends that is not broken.
_ENDED_BY_PEER = (ConnectionDone, TruncatedTLS)


@implementer(IPostgreSQLSession, IHalfCloseableProtocol)
class ClientSide(RelaySide):
    """The connection from the client.

    :param context: what all sessions of the gateway share.
    :ivar authentication: where what the client sends goes until AuthenticationOk; None where
        nothing is watched.
    """

    authentication: SessionAuthentication | None = None

    def __init__(self, context: SessionContext) -> None:
        super().__init__(context.reactor)
        self._context = context
        self._session: Session | None = None
        self._early = b""  # what came before the server was there
        if context.observers.counts_bytes:
            self.count_bytes()

    def session_requested(self, client: Client) -> None:
        """The client wants a session: find its server, and connect to it.

        :param client: all that is known of it.
        """
        self._session = session = Session(self._context, self, client)
        session.begin()

    def cancel_requested(self, request: CancelRequest, tls: NegotiatedTLS | None) -> None:
        """Pass the request on to where the session's backend is; then close, without an answer to
        a client.

        :param request: the request.
        :param tls: what was negotiated.
        """
        # Not given up when the client goes: one that does not wait for the end still wants it done.
        cancels, routes = self._context.cancels, self._context.cancel_routes
        if request.from_peer:
            passed_on = cancels.forward_for_peer(request, routes, self.transport.write)
        else:
            sni = server_name(self.transport) if tls is not None else None
            header = None
            if self._context.sends_headers:
                header = upstream_header(self.transport, tls, sni)
            passed_on = cancels.forward(request, routes, sni, header)
        passed_on.addCallback(lambda _: self.close_when_read())

    def server_connected(self) -> None:
        """The server is there: what has come before goes to it."""
        self.transport.resumeProducing()
        early, self._early = self._early, b""
        if early:
            type(self).dataReceived(self, early)  # it has been counted

    def dataReceived(self, data: bytes) -> None:
        """Bytes from the client; before the server is there they wait."""
        if self.authentication is not None:
            self.authentication.client_sent(data)
            return
        if self._other is not None:
            self._other.transport.write(data)
            return
        if self._session is None or not self._session.opening:
            return  # it is being closed
        self._early += data
        if len(self._early) > EARLY_LIMIT:
            self.transport.pauseProducing()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The client is gone."""
        server = self._detach()
        session, self._session = self._session, None  # a cycle
        if session is not None:
            session.client_gone()
        if server is None:
            return
        if isinstance(reason.value, _ENDED_BY_PEER):
            server.close_when_read()
        else:
            # As in the kernel of a server that the client is connected to directly: what has not
            # been read is dropped, and the server sees that the connection is broken.
            server.transport.abortConnection()

    def peer_ended(self, broken: bool) -> None:
        """A client that has sent all that it will may still be waiting for answers.

        :param broken: whether the connection is broken, in both directions.
        """
        if broken:
            self.transport.abortConnection()

    def readConnectionLost(self) -> None:
        """The client will send no more, and may still be waiting for answers: the server gets to
        know, and ends the session when it has given them."""
        self._end_received = True
        other = self._other
        if other is None or not other.can_half_close:
            self.transport.loseConnection()
            return
        other.transport.unregisterProducer()
        other.transport.loseWriteConnection()

    def writeConnectionLost(self) -> None:
        """Never: this end closes as a whole."""


class ClientSides(Factory):
    """Makes them for a gateway.

    :param context: what all sessions of the gateway share; it may be replaced, for those to come.
    """

    noisy = False

    def __init__(self, context: SessionContext) -> None:
        self.context = context

    def buildProtocol(self, addr: IAddress | None) -> ClientSide:
        """Make one for a client whose StartupMessage or CancelRequest is there."""
        return ClientSide(self.context)

    def stopFactory(self) -> None:
        """The gateway's port is closed."""
        self.context.cancels.stop()
