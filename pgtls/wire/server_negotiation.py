"""The server's side of the negotiation, from the first byte to the StartupMessage.

README.SSL's picture "From the server's perspective" and what PostgreSQL has put into it since
(``src/backend/tcop/backend_startup.c``: ProcessSSLStartup, ProcessStartupPacket,
ProcessCancelRequestPacket). Sans-I/O: bytes and what happened go in, actions come out.

Two differences from PostgreSQL are deliberate. Bytes behind an SSLRequest are refused before the
``S`` is sent, not after. Inside direct TLS, too, SSLRequest and GSSENCRequest are refused.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum, StrEnum, auto

from pgtls.wire.messages import (
    CANCEL_REQUEST_CODE,
    GSSENC_REQUEST_CODE,
    PEER_CANCEL_REQUEST_CODE,
    SSL_REQUEST_CODE,
    TLS_HANDSHAKE_RECORD,
    CancelRequest,
    ErrorResponse,
    InvalidLayout,
    InvalidLength,
    Packet,
    StartupMessage,
    split_packet,
)
from pgtls.wire.negotiation import ALPN, Send
from pgtls.wire.proxy_header import begins_like_header


class SSL(StrEnum):
    """The ``ssl`` setting: no TLS, TLS and plaintext, TLS only."""

    OFF = "off"
    ON = "on"
    REQUIRE = "require"


class CancelPolicy(StrEnum):
    """The ``cancel`` setting: CancelRequests in plaintext too, or inside TLS only."""

    ANY = "any"
    TLS = "tls"


@dataclass(frozen=True, slots=True)
class ServerPolicy:
    """What this connection may do.

    :ivar ssl: the ``ssl`` setting.
    :ivar cancel: the ``cancel`` setting.
    :ivar tls_available: whether the transport can carry TLS; a Unix socket never does.
    :ivar has_peers: whether other gateways may pass CancelRequests on.
    """

    ssl: SSL = SSL.REQUIRE
    cancel: CancelPolicy = CancelPolicy.ANY
    tls_available: bool = True
    has_peers: bool = False

    @property
    def offers_tls(self) -> bool:
        """Whether SSLRequest is answered ``S``."""
        return self.ssl is not _OFF and self.tls_available


@dataclass(slots=True)
class StartTLS:
    """Start TLS, as the server. ``data`` is the beginning of the ClientHello, already read."""

    data: bytes = b""


@dataclass(slots=True)
class Startup:
    """The client wants a session. ``rest`` is what it sent behind the message."""

    message: StartupMessage
    rest: bytes


@dataclass(slots=True)
class Cancel:
    """The client wants another session's statement cancelled. Never answered, but for a peer's."""

    request: CancelRequest


@dataclass(slots=True)
class Close:
    """Close the connection.

    :ivar reason: for the log; None where there is nothing to say.
    :ivar response: what the client was sent before, None for nothing.
    """

    reason: str | None
    response: ErrorResponse | None = field(default=None, compare=False)


Action = Send | StartTLS | Startup | Cancel | Close


class _State(Enum):
    FIRST_BYTE = auto()  # nothing read: may become direct TLS
    PACKET = auto()  # a packet of the startup phase is expected
    HANDSHAKE = auto()  # TLS is being established; no bytes come here
    DONE = auto()


# In Python 3.11 each look at an enumeration's member is a call.
_FIRST_BYTE, _PACKET, _HANDSHAKE, _DONE = _State
_OFF, _ON, _REQUIRE = SSL


#: Why a connection is closed that begins with a PROXY header where none is taken.
UNWELCOME_HEADER = (
    "PROXY header refused: none is taken from this address (proxy_protocol, proxy_protocol_from)"
)


def _no_refusal() -> None:
    """Nothing is refused."""


class ServerNegotiation:
    """One connection's negotiation, as the server.

    Call :meth:`receive` with what arrives (inside TLS too, once it is up) and the other methods
    when their event happens; carry out the actions in their order. After Startup, Cancel or Close
    the negotiation is over and further input gives no action.

    :param policy: what the connection may do.
    :param refuse_session: asked at a valid StartupMessage: the error that the client gets in place
        of a session, None where it may have one. (PostgreSQL's ``canAcceptConnections``.)
        CancelRequests are not asked about.
    :param refuse_handshake: asked before a TLS handshake begins: the error that the client gets in
        plaintext in place of it, None where it may begin. A client of ``sslnegotiation=direct``
        could not read that error: for it the connection is closed.
    """

    def __init__(
        self,
        policy: ServerPolicy,
        refuse_session: Callable[[], ErrorResponse | None] = _no_refusal,
        refuse_handshake: Callable[[], ErrorResponse | None] = _no_refusal,
    ) -> None:
        self._policy = policy
        self._refuse_session = refuse_session
        self._refuse_handshake = refuse_handshake
        self._state = _FIRST_BYTE
        self._buffer = b""
        self._tls = False
        self._direct = False
        #: requests that may still come; each is answered once, none inside TLS
        self._open_requests = {SSL_REQUEST_CODE, GSSENC_REQUEST_CODE}

    def receive(self, data: bytes) -> list[Action]:
        """Bytes from the client. At most one packet and one chunk are ever held.

        :param data: what came, of any length.
        :returns: what to do.
        """
        if self._state in (_DONE, _HANDSHAKE) or not data:
            return []
        self._buffer += data
        if self._state is _FIRST_BYTE:
            self._state = _PACKET
            if self._buffer[0] == TLS_HANDSHAKE_RECORD:
                return self._direct_tls()
        try:
            split = split_packet(self._buffer)
        except InvalidLength:
            if begins_like_header(self._buffer):
                return self._close(UNWELCOME_HEADER)
            return self._close("invalid length of startup packet")
        if split is None:
            return []
        packet, self._buffer = split
        return self._packet(packet)

    def handshake_completed(self, alpn: str | None) -> list[Action]:
        """The TLS handshake is complete.

        :param alpn: the protocol that was selected; None where the client offered none.
        :returns: what to do.
        """
        if self._state is not _HANDSHAKE:
            return []
        self._state = _PACKET
        if self._direct and alpn != ALPN:
            return self._close(
                "received direct SSL connection request without ALPN protocol negotiation extension"
            )
        return []

    def eof(self) -> list[Action]:
        """The client has closed. Silent where it sent nothing, as health checks do."""
        if self._state in (_DONE, _HANDSHAKE) or not self._buffer:
            return self._close(None)
        if len(self._buffer) < 4 and len(self._open_requests) < 2:
            return self._close(None)
        return self._close("incomplete startup packet")

    def timed_out(self) -> list[Action]:
        """``authentication_timeout`` is over."""
        if self._state is _DONE:
            return []
        return self._close(
            "canceling authentication due to timeout: authentication_timeout is over before the "
            "startup packet was complete"
        )

    def _direct_tls(self) -> list[Action]:
        if not self._policy.offers_tls:
            return self._close("received direct SSL connection request, but SSL is not available")
        if refusal := self._refuse_handshake():
            return self._close(refusal.message)
        self._direct = True
        return self._start_tls(self._buffer)

    def _start_tls(self, data: bytes = b"") -> list[Action]:
        self._tls = True
        self._buffer = b""
        self._open_requests.clear()
        self._state = _HANDSHAKE
        return [StartTLS(data)]

    def _packet(self, packet: Packet) -> list[Action]:
        if packet.code == CANCEL_REQUEST_CODE:
            return self._cancel_request(packet)
        if packet.code in self._open_requests:
            self._open_requests.remove(packet.code)
            return (
                self._ssl_request() if packet.code == SSL_REQUEST_CODE else self._gssenc_request()
            )
        if packet.major != 3:
            if packet.code == PEER_CANCEL_REQUEST_CODE and self._policy.has_peers:
                return self._cancel_request(packet)
            return self._unsupported_protocol(packet)
        return self._startup_message(packet)

    def _ssl_request(self) -> list[Action]:
        refused = self._unencrypted_data("SSL")
        if not self._policy.offers_tls:
            return [Send(b"N"), *refused]
        # CVE-2021-23214: what came before the handshake must not count as said inside it.
        if refused:
            return refused
        if refusal := self._refuse_handshake():
            return self._fatal(refusal)
        return [Send(b"S"), *self._start_tls()]

    def _gssenc_request(self) -> list[Action]:
        return [Send(b"N"), *self._unencrypted_data("GSSAPI encryption")]

    def _unencrypted_data(self, request: str) -> list[Action]:
        if not self._buffer:
            return []
        return self._fatal(
            ErrorResponse.fatal(
                "08P01",
                f"received unencrypted data after {request} request",
                detail="This could be either a client-software bug or evidence of an attempted "
                "man-in-the-middle attack.",
            )
        )

    def _cancel_request(self, packet: Packet) -> list[Action]:
        if self._policy.cancel is CancelPolicy.TLS and not self._tls:
            return self._close('cancel request in plaintext refused: cancel is "tls"')
        try:
            request = CancelRequest.parse(packet)
        except ValueError as error:
            return self._close(str(error))
        self._state = _DONE
        return [Cancel(request)]

    def _unsupported_protocol(self, packet: Packet) -> list[Action]:
        error = ErrorResponse.fatal(
            "0A000",
            f"unsupported frontend protocol {packet.major}.{packet.minor}: "
            "server supports 3.0 to 3.2",
        )
        if packet.major < 3 and packet.code:  # of a client of 0.0 nothing is known, so 3 it is
            return [Send(error.encode_v2()), *self._close(error.message, error)]
        return self._fatal(error)

    def _startup_message(self, packet: Packet) -> list[Action]:
        try:
            message = StartupMessage.parse(packet)
        except InvalidLayout:
            return self._fatal(
                ErrorResponse.fatal(
                    "08P01", "invalid startup packet layout: expected terminator as last byte"
                )
            )
        if not message.user:
            return self._fatal(
                ErrorResponse.fatal("28000", "no PostgreSQL user name specified in startup packet")
            )
        if refusal := self._refuse_session():
            return self._fatal(refusal)
        if self._policy.ssl is _REQUIRE and not self._tls:
            return self._fatal(
                ErrorResponse.fatal(
                    "28000",
                    "connection without SSL encryption refused: this server requires SSL",
                    hint="Set sslmode=require, or a stricter mode, in the client.",
                )
            )
        self._state = _DONE
        return [Startup(message, self._buffer)]

    def _fatal(self, error: ErrorResponse) -> list[Action]:
        return [Send(error.encode()), *self._close(error.message, error)]

    def _close(self, reason: str | None, response: ErrorResponse | None = None) -> list[Action]:
        self._state = _DONE
        self._buffer = b""
        return [Close(reason, response)]
