"""A session's connection to the server."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure

from pgtls.errors import PgTLSError
from pgtls.gateway.cancel import Backend
from pgtls.gateway.relay import RelaySide
from pgtls.gateway.scram_login import ScramLogin
from pgtls.gateway.session_authentication import SessionAuthentication
from pgtls.protocols.handshake_errors import is_tls_error, tls_reason
from pgtls.wire.messages import ErrorResponse
from pgtls.wire.session_attributes import TargetSessionAttrs
from pgtls.wire.session_start import SessionStart

if TYPE_CHECKING:
    from pgtls.gateway.client_side import ClientSide
    from pgtls.gateway.session import Session, SessionContext

_log = Logger(namespace="pgtls.gateway")


class ServerSide(RelaySide):
    """The connection to the server.

    :param context: what all sessions of the gateway share.
    """

    def __init__(self, context: SessionContext) -> None:
        super().__init__(context.reactor)
        self._context = context
        self._start: SessionStart | None = None
        self._key = b""
        self._backend: Backend | None = None
        self._authentication: SessionAuthentication | None = None
        self._session: Session | None = None  # until the session has begun
        if context.observers.counts_bytes:
            self.count_bytes()

    @property
    def refusal(self) -> ErrorResponse | None:
        """The server's, before it was ready for the first query."""
        return self._start.error if self._start is not None else None

    def begin(
        self,
        client: ClientSide,
        session: Session,
        backend: Backend | None,
        authentication: SessionAuthentication | None,
        target: TargetSessionAttrs = TargetSessionAttrs.ANY,
    ) -> None:
        """Begin the relay; nothing has been read from the server yet.

        :param client: the connection from the client.
        :param session: is told how the beginning of the session goes.
        :param backend: where its cancel requests go; None where that is not known.
        :param authentication: watches the client until AuthenticationOk, where it must be watched,
            or logs in for it.
        :param target: which session it must be, as far as the server reports that.
        """
        self._session = session
        self._backend = backend
        self._authentication = authentication
        self.relay_to(client)
        client.relay_to(self)
        self.notice_end()
        client.notice_end()
        if isinstance(authentication, ScramLogin):
            self._start = SessionStart(authentication.edit, target)
        else:
            binding = self._context.channel_binding
            self._start = SessionStart(binding.editor(client.transport, self.transport), target)
        if authentication is None:
            client.allow_splice()
        else:
            authentication.begin()

    def dataReceived(self, data: bytes) -> None:
        """Bytes from the server; until ReadyForQuery they are watched."""
        if self._start is not None:
            data = self._watched(self._start, data)
        if self._other is not None:
            self._other.transport.write(data)

    def _watched(self, start: SessionStart, data: bytes) -> bytes:
        data = start.receive(data)
        if start.mismatch is not None:
            return self._wrong_session(data, start.mismatch)
        if (start.authenticated or start.done) and self._session is not None:
            self._session.authenticated()
        if self._authentication is not None:
            self._authentication.server_sent()
        if start.done:
            self._session = None  # a cycle
            self._key, self._start = start.key, None
            self.allow_splice()
            if self._backend is not None:
                self._context.cancels.keys.add(self._key, self._backend)
        return data

    def _wrong_session(self, data: bytes, mismatch: str) -> bytes:
        """The server has changed since it was chosen: a standby was promoted, for example."""
        session, self._session = self._session, None
        if self._other is not None and session is not None:
            self._other.transport.write(data)
            session.wrong_server(mismatch)
        self.transport.abortConnection()
        return b""

    def peer_ended(self, broken: bool) -> None:
        """A client that does not read what is left does not keep its place for that.

        :param broken: whether the connection is broken, in both directions.
        """
        if self._other is not None:
            self._other.limit_draining()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The server is gone."""
        session, self._session = self._session, None
        if session is not None:
            session.server_gone()
        if (backend := self._backend) is not None:
            if is_tls_error(reason):
                _log.error("{host}: {reason}", host=backend.host.where, reason=tls_reason(reason))
            self._context.cancels.keys.remove(self._key, backend)
        if self._authentication is not None and isinstance(reason.value, PgTLSError):
            self._authentication.server_refused(reason.value)
        super().connectionLost(reason)


class ServerSides(Factory):
    """Makes them for a gateway.

    :param context: what all sessions of the gateway share.
    """

    noisy = False

    def __init__(self, context: SessionContext) -> None:
        self._context = context

    def buildProtocol(self, addr: IAddress | None) -> ServerSide:
        """Make one for a connection to the server."""
        return ServerSide(self._context)
