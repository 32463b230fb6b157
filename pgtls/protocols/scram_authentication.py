"""SCRAM-SHA-256 on a transport: authenticating clients.

The exchange is :mod:`pgtls.wire.scram_server`'s; ``CheckSASLAuth`` in
``src/backend/libpq/auth-sasl.c`` says what surrounds it.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

import attrs

from pgtls.protocols.connection_info import own_certificate
from pgtls.protocols.deciding import AUTHENTICATION_TIMEOUT
from pgtls.protocols.stages import Admit, Authenticate, Client, Decision, Refuse
from pgtls.tls.channel_binding_hash import channel_binding_hash
from pgtls.transport.relay_transport import IStreamTransport
from pgtls.wire.authentication import RequestCode
from pgtls.wire.message_stream import HEADER_SIZE
from pgtls.wire.messages import ErrorResponse
from pgtls.wire.required_authentication import sasl_request
from pgtls.wire.scram import KnownKeys
from pgtls.wire.scram_server import MAX_SASL_MESSAGE_LENGTH, ScramRefused, ScramServer

_PASSWORD_MESSAGE = ord("p")


class PendingAuthentication:
    """A client that is being authenticated.

    :param client: the client.
    :param held: what it has sent behind its StartupMessage.
    :param decision: the policy's.
    :param transport: the client's connection.
    :param decided: is called with the client, its keys in it where it is authenticated; with what
        it has sent behind the exchange; and with the decision; unless :meth:`stop` was called.
    """

    def __init__(
        self,
        client: Client,
        held: bytes,
        decision: Authenticate,
        transport: IStreamTransport,
        decided: Callable[[Client, bytes, Decision], None],
    ) -> None:
        self._client = client
        self._received = held
        self._decision = decision
        self._transport = transport
        self._decided: Callable[[Client, bytes, Decision], None] | None = decided
        certificate = own_certificate(transport)
        self._server = ScramServer(
            client.startup.user,
            decision.secret,
            mock_nonce=decision.mock_nonce,
            certificate_hash=None if certificate is None else channel_binding_hash(certificate),
        )

    def begin(self) -> None:
        """Ask the client for SASL."""
        self._transport.write(sasl_request(self._server.mechanisms))
        self._read()

    def receive(self, data: bytes) -> None:
        """The client's answers.

        :param data: more bytes from it.
        """
        self._received += data
        self._read()

    def time_out(self) -> None:
        """``authentication_timeout`` is over."""
        self._refuse(AUTHENTICATION_TIMEOUT)

    def stop(self) -> None:
        """The client is gone."""
        self._decided = None

    def _read(self) -> None:
        while self._decided is not None and len(self._received) >= HEADER_SIZE:
            kind, length = struct.unpack_from("!BI", self._received)
            if kind != _PASSWORD_MESSAGE:
                message = f"expected SASL response, got message type {kind}"
                self._refuse(ErrorResponse.fatal("08P01", message))
            elif not 4 <= length <= 4 + MAX_SASL_MESSAGE_LENGTH:
                self._refuse(self._server.failure, "invalid length of SASL response")
            elif len(self._received) <= length:
                return
            else:
                body = self._received[HEADER_SIZE : 1 + length]
                self._received = self._received[1 + length :]
                self._answer(body)

    def _answer(self, body: bytes) -> None:
        try:
            challenge = self._server.receive(body)
        except ScramRefused as error:
            self._refuse(error.response, error.log_detail)
            return
        keys = self._server.keys
        code = RequestCode.SASL_CONTINUE if keys is None else RequestCode.SASL_FINAL
        self._transport.write(struct.pack("!cII", b"R", 8 + len(challenge), code) + challenge)
        if keys is not None and self._decision.secret is not None:
            self._client = attrs.evolve(self._client, scram=KnownKeys(self._decision.secret, keys))
            self._end(self._decision.then)

    def _refuse(self, response: ErrorResponse, detail: str = "") -> None:
        # PostgreSQL's details are sentences; the log has more of the line behind them.
        reason = f"{response.message}: {detail.removesuffix('.')}" if detail else ""
        self._end(Refuse(response, reason))

    def _end(self, decision: Admit | Refuse) -> None:
        decided, self._decided = self._decided, None
        if decided is not None:
            decided(self._client, self._received, decision)
