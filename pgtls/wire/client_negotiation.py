"""The client's side of the negotiation: one connection, from TCP up to a session that may begin.

README.SSL's picture "From the client's perspective", and libpq's PQconnectPoll
(``src/interfaces/libpq/fe-connect.c``: CONNECTION_SSL_STARTUP, CONNECTION_AWAITING_RESPONSE).
Sans-I/O: bytes and what happened go in, actions come out. Whether a failure ends the matter or
leads to another connection is decided here, by :class:`~pgtls.wire.attempts.Attempts`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, StrEnum, auto

from pgtls.errors import (
    AuthenticationNotAllowed,
    ConnectFailed,
    NegotiationRefused,
    PgTLSError,
    ProtocolViolation,
)
from pgtls.wire.attempts import Attempts, Method, SSLNegotiation
from pgtls.wire.first_answer import Answer, FirstAnswer
from pgtls.wire.message_stream import ProtocolTwoError, printable_byte
from pgtls.wire.messages import SSL_REQUEST, ServerRejected
from pgtls.wire.negotiation import ALPN, Send
from pgtls.wire.required_authentication import AuthenticationCheck, RequiredAuthentication

#: SQLSTATE of a server that is starting up or shutting down: another host may do better.
CANNOT_CONNECT_NOW = "57P03"

CLOSED_UNEXPECTEDLY = (
    "server closed the connection unexpectedly: it may have terminated abnormally "
    "before or while processing the request"
)

#: The answer to an SSLRequest that is an ErrorResponse, or looks like one.
ERROR_TO_SSL_REQUEST = "server sent an error response during SSL exchange"


class Event(StrEnum):
    """What happened, in the words of PostgreSQL's negotiation tests."""

    CONNECT = "connect"
    RECONNECT = "reconnect"
    SSLACCEPT = "sslaccept"
    SSLREJECT = "sslreject"
    SSLERROR = "sslerror"
    DIRECTSSLACCEPT = "directsslaccept"
    DIRECTSSLREJECT = "directsslreject"
    AUTHOK = "authok"
    AUTHREQUEST = "authrequest"
    AUTHFAIL = "authfail"
    BACKENDERROR = "backenderror"


@dataclass(slots=True)
class Report:
    """Report what happened."""

    event: Event


@dataclass(slots=True)
class StartTLS:
    """Start TLS, as the client."""


@dataclass(slots=True)
class Ready:
    """The application may begin; ``rest`` is for it to read."""

    rest: bytes = b""


@dataclass(frozen=True, slots=True)
class Reconnect:
    """Close; then a new connection to the same host, with these attempts."""

    attempts: Attempts
    error: PgTLSError


@dataclass(frozen=True, slots=True)
class NextHost:
    """Close; then the next host, if there is one."""

    error: PgTLSError


@dataclass(frozen=True, slots=True)
class Fail:
    """Close; no other attempt may follow."""

    error: PgTLSError


Action = Send | StartTLS | Ready | Report | Reconnect | NextHost | Fail


def rejection(error: ServerRejected) -> Event:
    """The event for an ErrorResponse: SQLSTATEs of class 28 are about the client's identity.

    :param error: the server's error.
    :returns: the event.
    """
    return Event.AUTHFAIL if error.response.sqlstate.startswith("28") else Event.BACKENDERROR


class _State(Enum):
    START = auto()
    REPLY = auto()  # of the reply to SSLRequest nothing has come
    HANDSHAKE = auto()
    FIRST_ANSWER = auto()  # the StartupMessage is out
    DONE = auto()


# See pgtls.wire.server_negotiation.
_START, _REPLY, _HANDSHAKE, _FIRST_ANSWER, _DONE = _State
_OK, _AUTHENTICATION_REQUEST, _ERROR = Answer
_DIRECT, _PLAIN = SSLNegotiation.DIRECT, Method.PLAIN
_AUTHOK, _AUTHREQUEST = Event.AUTHOK, Event.AUTHREQUEST


class ClientNegotiation:
    """One connection's negotiation, as the client.

    Carry out the actions in their order. After Ready, Reconnect, NextHost or Fail the negotiation
    is over and nothing that happens gives another action.

    :param attempts: what may be tried; its first method is this connection's.
    :param startup: the StartupMessage to send as soon as the connection is as it should be. The
        answer then decides, as in libpq, whether another attempt follows. Without it the
        application begins when TLS is up.
    :param opening: what to report when the connection is up: the first one to a host, or another.
    :param oldest: the oldest version of the protocol that the server may come down to.
    :param required: what the server may ask the client for; None where that is anything.
    :ivar authentication: what watches the session from Ready on until AuthenticationOk, where
        something is required; it has seen the bytes that Ready gives. None else.
    """

    def __init__(
        self,
        attempts: Attempts,
        startup: bytes | None = None,
        opening: Event = Event.CONNECT,
        oldest: tuple[int, int] = (3, 0),
        required: RequiredAuthentication | None = None,
    ) -> None:
        self._required = required
        self.authentication: AuthenticationCheck | None = None
        self._opening = opening
        self._oldest = oldest
        self._attempts = attempts
        self._startup = startup
        self._state = _START
        self._answer = FirstAnswer()

    @property
    def _direct(self) -> bool:
        return self._attempts.negotiation is _DIRECT

    def connected(self, error: PgTLSError | None = None) -> list[Action]:
        """The connection is up.

        :param error: why the peer is not the one wanted; None where it is.
        :returns: what to do: the first request, or to fail.
        """
        report = Report(self._opening)
        if error is not None:
            return [report, *self._fail(error)]
        if self._attempts.current is _PLAIN:
            return [report, *self._session(b"")]
        if self._direct:
            self._state = _HANDSHAKE
            return [report, StartTLS()]
        self._state = _REPLY
        return [report, Send(SSL_REQUEST)]

    def receive(self, data: bytes) -> list[Action]:
        """Bytes from the server.

        :param data: what came, of any length.
        :returns: what to do.
        """
        if self._state is _REPLY and data:
            return self._reply(data[:1], data[1:])
        if self._state is _FIRST_ANSWER:
            return self._first_answer(data)
        return []

    def handshake_completed(
        self, alpn: str | None, not_verified: PgTLSError | None = None
    ) -> list[Action]:
        """The TLS handshake is complete.

        :param alpn: the protocol that the server selected; None without ALPN.
        :param not_verified: why the server's certificate is not accepted; None where it is.
        :returns: what to do.
        """
        if self._state is not _HANDSHAKE:
            return []
        if self._direct and alpn != ALPN:
            error = NegotiationRefused(
                "direct SSL connection was established without ALPN protocol negotiation extension"
                if alpn is None
                else "SSL connection was established with unexpected ALPN protocol"
            )
            return [Report(Event.DIRECTSSLREJECT), *self._refused(error)]
        reports: list[Action] = [Report(Event.DIRECTSSLACCEPT)] if self._direct else []
        return reports + (self._refused(not_verified) if not_verified else self._session(b""))

    def handshake_failed(self, error: PgTLSError) -> list[Action]:
        """The TLS handshake failed, also because of the server's certificate chain.

        :param error: why.
        :returns: what to do.
        """
        if self._state is not _HANDSHAKE:
            return []
        reports: list[Action] = [Report(Event.DIRECTSSLREJECT)] if self._direct else []
        return reports + self._refused(error)

    def lost(self, error: PgTLSError | None = None) -> list[Action]:
        """The connection is closed.

        :param error: why, where more is known than that.
        :returns: what to do.
        """
        if self._state is _DONE:
            return []
        return self._fail(error or ConnectFailed(CLOSED_UNEXPECTEDLY))

    def _reply(self, reply: bytes, rest: bytes) -> list[Action]:
        if reply == b"S":
            if rest:  # CVE-2021-23222
                return [
                    Report(Event.SSLACCEPT),
                    *self._fail(ProtocolViolation("received unencrypted data after SSL response")),
                ]
            self._state = _HANDSHAKE
            return [Report(Event.SSLACCEPT), StartTLS()]
        if reply == b"N":
            return [Report(Event.SSLREJECT), *self._no_ssl(rest)]
        if reply == b"E":
            # CVE-2024-10977: the text behind the E is not authenticated.
            error = NegotiationRefused(ERROR_TO_SSL_REQUEST)
            return [Report(Event.SSLERROR), *self._refused(error)]
        return self._fail(
            ProtocolViolation(
                f"received invalid response to SSL negotiation: {printable_byte(reply)}"
            )
        )

    def _no_ssl(self, rest: bytes) -> list[Action]:
        plain = self._attempts.failed()
        if plain is None:
            return self._fail(
                NegotiationRefused("server does not support SSL, but SSL was required")
            )
        self._attempts = plain
        return self._session(rest)

    def _session(self, rest: bytes) -> list[Action]:
        if self._required is not None:
            encrypted = self._attempts.current is Method.SSL
            self.authentication = AuthenticationCheck(self._required, encrypted=encrypted)
        if self._startup is None:
            return self._ready(rest)
        self._state = _FIRST_ANSWER
        return [Send(self._startup), *(self._first_answer(rest) if rest else [])]

    def _first_answer(self, data: bytes) -> list[Action]:
        try:
            answer = self._answer.receive(data)
        except ProtocolTwoError as error:
            return [Report(Event.BACKENDERROR), *self._fail(error)]
        except ProtocolViolation as error:
            return self._fail(error)
        if answer is None:
            return []
        if answer is _ERROR:
            return self._rejected(ServerRejected(self._answer.error))
        newest = self._answer.newest
        if newest is not None and newest < self._oldest:
            return self._fail(
                NegotiationRefused(
                    "server only supports protocol version {}.{}, but "
                    '"min_protocol_version" was set to {}.{}'.format(*newest, *self._oldest)
                )
            )
        report = Report(_AUTHOK if answer is _OK else _AUTHREQUEST)
        return [report, *self._ready(self._answer.received)]

    def _ready(self, received: bytes) -> list[Action]:
        if self.authentication is not None:
            try:
                received = self.authentication.from_server(received)
            except (AuthenticationNotAllowed, ProtocolViolation) as error:
                return self._fail(error)
        self._state = _DONE
        return [Ready(received)]

    def _rejected(self, error: ServerRejected) -> list[Action]:
        report = Report(rejection(error))
        if error.response.sqlstate == CANNOT_CONNECT_NOW:
            self._state = _DONE
            return [report, NextHost(error)]
        return [report, *self._refused(error)]

    def _refused(self, error: PgTLSError) -> list[Action]:
        """This method will not do: on to the next one, where the sslmode has one left."""
        attempts = self._attempts.failed()
        if attempts is None:
            return self._fail(error)
        self._state = _DONE
        return [Reconnect(attempts, error)]

    def _fail(self, error: PgTLSError) -> list[Action]:
        self._state = _DONE
        return [Fail(error)]
