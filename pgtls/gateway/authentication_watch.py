"""A session whose upstream has ``require_auth`` or ``channel_binding=require``, until
AuthenticationOk.

The client authenticates end to end, so that the gateway looks at both sides of it. The server's
requests are checked before they come here (:mod:`pgtls.protocols.client`); here are the client's
answers, and what becomes of the session.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from pgtls.errors import AuthenticationNotAllowed, PgTLSError
from pgtls.gateway.session_authentication import SessionAuthentication
from pgtls.protocols.connection_info import own_certificate
from pgtls.wire.required_authentication import AuthenticationCheck

if TYPE_CHECKING:
    from pgtls.gateway.client_side import ClientSide
    from pgtls.gateway.server_side import ServerSide

CLIENT_WITHOUT_TLS = "channel binding required, but the client's connection has no SSL"


class AuthenticationWatch(SessionAuthentication):
    """Watches one session's authentication.

    :param check: what is required, and how far it has come.
    :param client: the connection from the client; what it sends comes to :meth:`client_sent`.
    :param upstream: the connection to the server.
    :param refused: ends the client's connection with an error that it can read, and logs it.
    """

    def __init__(
        self,
        check: AuthenticationCheck,
        client: ClientSide,
        upstream: ServerSide,
        refused: Callable[[PgTLSError], None],
    ) -> None:
        super().__init__(client, upstream, refused)
        self._check = check

    def begin(self) -> None:
        """Look at what the client sends, if it can have what is required at all."""
        super().begin()
        if self._check.required.channel_binding and own_certificate(self._client.transport) is None:
            self._refuse(AuthenticationNotAllowed(CLIENT_WITHOUT_TLS))

    def client_sent(self, data: bytes) -> None:
        """Pass on what the client sends, where it may.

        :param data: more bytes from the client.
        """
        if self._refused is None:
            return
        try:
            data = self._check.from_client(data)
        except PgTLSError as error:
            self._refuse(error)
        else:
            self._upstream.transport.write(data)

    def server_sent(self) -> None:
        """More has come from the server: after AuthenticationOk nothing is looked at any more."""
        if not self._check.completed or self._refused is None:
            return
        self._over()
        if held := self._check.from_client(b""):
            self._upstream.transport.write(held)
        self._client.allow_splice()
