"""One query to a server, with a login before it: for commands that need to ask a database.

PostgreSQL documentation, "Message Flow", "Simple Query".
"""

from __future__ import annotations

from twisted.internet.defer import TimeoutError as DeferredTimeout

from pgtls.conninfo.connection_string import ConnInfo
from pgtls.conninfo.startup_packet import startup_message
from pgtls.errors import ConfigurationError, ConnectFailed
from pgtls.protocols.endpoint import PgTLSClientEndpoint
from pgtls.protocols.server_login import Login, Row, ServerDialogue, parse_row
from pgtls.transport.dial import TIMEOUT_EXPIRED, OneProtocol
from pgtls.transport.reactor import IReactor
from pgtls.wire.messages import ServerRejected

#: Seconds that the whole of it may take.
TIMEOUT = 60.0


class _Query(ServerDialogue):
    """Logs in, sends the query, and collects its rows.

    :param login: who logs in.
    :param sql: the query.
    :ivar rows: the rows.
    """

    def __init__(self, login: Login, sql: str) -> None:
        super().__init__(login)
        self._sql = sql
        self._asked = False
        self._error: ServerRejected | None = None
        self.rows: list[Row] = []

    def message(self, kind: bytes, body: bytes) -> None:
        if kind == b"D":
            self.rows.append(parse_row(body))

    def error(self, error: ServerRejected) -> None:
        """:raises ServerRejected: there is no login."""
        if not self._asked:
            raise error
        self._error = error

    def ready(self) -> None:
        if self._asked:
            self.end(self._error)
            return
        self._asked = True
        self.query(self._sql)


async def simple_query(reactor: IReactor, conninfo: ConnInfo, sql: str) -> list[Row]:
    """Log in, send one query, and close.

    :param reactor: Twisted's reactor.
    :param conninfo: names the user, and the password if the server asks for one.
    :param sql: the query.
    :returns: its rows, each value as the server writes it in text; None for NULL.
    :raises ConfigurationError: no user is named, or no password, and the server asks for one.
    :raises ConnectFailed: it takes longer than TIMEOUT, or the server goes away.
    :raises PgTLSError: there is no connection, no login, or an error in the query.
    """
    startup = startup_message(conninfo)
    if startup is None:
        raise ConfigurationError("name a user: user= in CONNINFO, or PGUSER")
    endpoint = PgTLSClientEndpoint(reactor, conninfo, startup=startup)
    query = _Query(Login(conninfo, startup), sql)
    await endpoint.connect(OneProtocol.forProtocol(lambda: query))
    query.host = endpoint.reached
    query.ended.addTimeout(TIMEOUT, reactor)
    try:
        await query.ended
    except DeferredTimeout:
        raise ConnectFailed(TIMEOUT_EXPIRED) from None
    return query.rows
