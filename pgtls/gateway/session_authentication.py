"""A session until AuthenticationOk, where the gateway has a part in how it is authenticated."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from pgtls.errors import PgTLSError

if TYPE_CHECKING:
    from pgtls.gateway.client_side import ClientSide
    from pgtls.gateway.server_side import ServerSide


class SessionAuthentication:
    """What the client and the server of a session send comes here first.

    :param client: the connection from the client.
    :param upstream: the connection to the server.
    :param refused: ends the client's connection with an error that it can read, and logs it.
    """

    def __init__(
        self,
        client: ClientSide,
        upstream: ServerSide,
        refused: Callable[[PgTLSError], None],
    ) -> None:
        self._client = client
        self._upstream = upstream
        self._refused: Callable[[PgTLSError], None] | None = refused

    def begin(self) -> None:
        """Look at what the client sends."""
        self._client.authentication = self

    def client_sent(self, data: bytes) -> None:
        """More has come from the client.

        :param data: the bytes.
        """
        raise NotImplementedError

    def server_sent(self) -> None:
        """More has come from the server, and gone on to the client."""
        raise NotImplementedError

    def server_refused(self, error: PgTLSError) -> None:
        """The connection to the server has been closed for what the server asked.

        :param error: what is not allowed.
        """
        refused, self._refused = self._refused, None
        if refused is not None:
            refused(error)

    def _refuse(self, error: PgTLSError) -> None:
        self.server_refused(error)
        self._upstream.transport.abortConnection()

    def _over(self) -> None:
        """AuthenticationOk has come: from now on nothing is looked at."""
        self._refused = None
        self._client.authentication = None
