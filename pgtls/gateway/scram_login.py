"""Logging in to the server for a client that the gateway itself has authenticated.

The client's proof has given the gateway the ClientKey (RFC 5802, section 3), with which it takes
the client's role in a second exchange, bound to the channel to the server. So both channels are
bound, each to its own certificate.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import TYPE_CHECKING

from pgtls.errors import NegotiationRefused, PgTLSError, ProtocolViolation
from pgtls.gateway.session_authentication import SessionAuthentication
from pgtls.protocols.deciding import EARLY_LIMIT
from pgtls.protocols.scram_mechanism import scram_client
from pgtls.wire.authentication import AuthenticationRequest, RequestCode
from pgtls.wire.message_stream import AUTHENTICATION, HEADER_SIZE
from pgtls.wire.required_authentication import AuthenticationCheck
from pgtls.wire.scram import KnownKeys, ScramClient

if TYPE_CHECKING:
    from pgtls.gateway.client_side import ClientSide
    from pgtls.gateway.server_side import ServerSide

OUT_OF_DATE = (
    "the auth_file is out of date: the server has another SCRAM secret for this role; write it "
    'anew with "pgtls auth-file"'
)


class ScramLogin(SessionAuthentication):
    """One session's login to its server; the client waits for AuthenticationOk.

    :param keys: the client's.
    :param check: what the upstream's connection string requires; None for nothing.
    :param client: the connection from the client.
    :param upstream: the connection to the server.
    :param refused: ends the client's connection with an error that it can read, and logs it.
    """

    def __init__(
        self,
        keys: KnownKeys,
        check: AuthenticationCheck | None,
        client: ClientSide,
        upstream: ServerSide,
        refused: Callable[[PgTLSError], None],
    ) -> None:
        super().__init__(client, upstream, refused)
        self._keys = keys
        self._check = check
        self._exchange: ScramClient | None = None
        self._early = b""
        self._completed = False

    def client_sent(self, data: bytes) -> None:
        """A client that does not wait for AuthenticationOk waits here.

        :param data: more bytes from it.
        """
        self._early += data
        if len(self._early) > EARLY_LIMIT:
            self._client.transport.pauseProducing()

    def edit(self, message: bytes) -> bytes:
        """Answer the server's authentication requests.

        :param message: a whole ``R`` or ``E`` message from it.
        :returns: what the client gets of it: AuthenticationOk, and errors.
        """
        if message[0] != AUTHENTICATION or self._completed or self._refused is None:
            return message
        try:
            return self._answer(AuthenticationRequest.parse(message), message)
        except PgTLSError as error:
            self._refuse(error)
        return b""

    def server_sent(self) -> None:
        """More has come from the server: after AuthenticationOk the client may send."""
        if not self._completed or self._refused is None:
            return
        self._over()
        if len(self._early) > EARLY_LIMIT:
            self._client.transport.resumeProducing()
        if self._early:
            self._upstream.transport.write(self._early)
        self._client.allow_splice()

    def _answer(self, request: AuthenticationRequest, message: bytes) -> bytes:
        data = message[HEADER_SIZE + 4 :]
        if request.is_ok:
            if self._exchange is not None and not self._exchange.done:
                raise ProtocolViolation("server did not complete authentication")
            self._completed = True
            return message
        if request.code == RequestCode.SASL and self._exchange is None:
            self._exchange = scram_client(request.mechanisms, self._keys, self._upstream.transport)
            self._send(self._exchange.initial_response())
        elif request.code == RequestCode.SASL_CONTINUE and self._exchange is not None:
            self._send(self._exchange.receive_continue(data))
        elif request.code == RequestCode.SASL_FINAL and self._exchange is not None:
            self._exchange.receive_final(data)
        else:
            raise NegotiationRefused(
                f"the server asks for {request.method} authentication, and the gateway knows only "
                "the role's SCRAM keys"
            )
        return b""

    def _send(self, body: bytes) -> None:
        message = struct.pack("!cI", b"p", 4 + len(body)) + body
        if self._check is not None:
            message = self._check.from_client(message)
        self._upstream.transport.write(message)
