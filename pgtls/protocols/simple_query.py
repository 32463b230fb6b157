"""One query to a server, with a login before it: for commands that need to ask a database.

PostgreSQL documentation, "Message Flow", "Start-up" and "Simple Query"; ``pg_fe_sendauth`` in
``src/interfaces/libpq/fe-auth.c``.
"""

from __future__ import annotations

import hashlib
import struct

from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure

from pgtls.conninfo.connection_string import ConnInfo
from pgtls.conninfo.startup_packet import startup_message
from pgtls.errors import ConfigurationError, ConnectFailed, PgTLSError, ProtocolViolation
from pgtls.protocols.endpoint import PgTLSClientEndpoint
from pgtls.protocols.scram_authentication import scram_client
from pgtls.transport.reactor import IReactor
from pgtls.transport.relay_transport import IStreamTransport
from pgtls.wire.authentication import AuthenticationRequest, RequestCode
from pgtls.wire.message_stream import HEADER_SIZE
from pgtls.wire.messages import ErrorResponse, ServerRejected
from pgtls.wire.scram import ScramClient
from pgtls.wire.scram_secret import ScramKeys

#: Bytes of one message at most.
_MAX_MESSAGE = 16 * 1024 * 1024

#: Iterations of PBKDF2 that a server may ask for: some seconds of work.
_MAX_ITERATIONS = 10_000_000

#: Seconds that the whole of it may take.
TIMEOUT = 60.0

Row = tuple[bytes | None, ...]

_WORD = struct.Struct("!I")


class _Query(Protocol):
    """Logs in, sends the query, and collects its rows.

    :param conninfo: with the user and the password.
    :param sql: the query.
    :ivar rows: fires with the rows, or fails.
    """

    transport: IStreamTransport

    def __init__(self, conninfo: ConnInfo, sql: str) -> None:
        self._conninfo = conninfo
        self._sql = sql
        self._received = b""
        self._found: list[Row] = []
        self._error: ErrorResponse | None = None
        self._exchange: ScramClient | None = None
        self._asked = False
        self.rows: Deferred[list[Row]] = Deferred(lambda _: self.transport.abortConnection())

    def dataReceived(self, data: bytes) -> None:
        """Bytes from the server."""
        self._received += data
        try:
            while len(self._received) >= HEADER_SIZE and not self.rows.called:
                (length,) = _WORD.unpack_from(self._received, 1)
                if not 4 <= length <= _MAX_MESSAGE:
                    raise ProtocolViolation("received a message with an invalid length")
                if len(self._received) <= length:
                    return
                message = self._received[: 1 + length]
                self._received = self._received[1 + length :]
                self._message(message[:1], message)
        except PgTLSError as error:
            self._end(error)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The server is gone."""
        self._end(ConnectFailed("server closed the connection unexpectedly"))

    def _message(self, kind: bytes, message: bytes) -> None:
        body = message[HEADER_SIZE:]
        if kind == b"R" and len(body) >= 4:
            self._authenticate(AuthenticationRequest.parse(message), body[4:])
        elif kind == b"E":
            self._error = ErrorResponse.parse(body, message)
            if not self._asked:
                raise ServerRejected(self._error)
        elif kind == b"D":
            self._found.append(_row(body))
        elif kind == b"Z":
            self._ready()

    def _ready(self) -> None:
        if self._error is not None:
            raise ServerRejected(self._error)
        if self._asked:
            self._end(None)
            return
        self._asked = True
        self._send(b"Q", self._sql.encode() + b"\0")

    def _authenticate(self, request: AuthenticationRequest, data: bytes) -> None:
        if request.is_ok:
            if self._exchange is not None and not self._exchange.done:
                raise ProtocolViolation("server did not complete authentication")
        elif request.code == RequestCode.SASL and self._exchange is None:
            self._exchange = scram_client(request.mechanisms, self._keys, self.transport)
            self._send(b"p", self._exchange.initial_response())
        elif request.code == RequestCode.SASL_CONTINUE and self._exchange is not None:
            self._send(b"p", self._exchange.receive_continue(data))
        elif request.code == RequestCode.SASL_FINAL and self._exchange is not None:
            self._exchange.receive_final(data)
        elif request.code == RequestCode.PASSWORD:
            self._send(b"p", self._password() + b"\0")
        elif request.code == RequestCode.MD5 and len(data) == 4:
            user = (self._conninfo.user or "").encode()
            inner = hashlib.md5(self._password() + user).hexdigest().encode()  # noqa: S324
            outer = hashlib.md5(inner + data).hexdigest().encode()  # noqa: S324 - the protocol's
            self._send(b"p", b"md5" + outer + b"\0")
        else:
            raise ProtocolViolation(f"authentication method {request.method} is not supported")

    def _keys(self, salt: bytes, iterations: int) -> ScramKeys:
        if iterations > _MAX_ITERATIONS:
            raise ProtocolViolation(f"the server asks for {iterations} iterations")
        return ScramKeys.derive(self._password(), salt, iterations)

    def _password(self) -> bytes:
        if self._conninfo.password is None:
            raise ConfigurationError(
                "the server asks for a password: set PGPASSWORD, or password= in CONNINFO"
            )
        return self._conninfo.password.encode("utf-8", "surrogateescape")

    def _send(self, kind: bytes, body: bytes) -> None:
        self.transport.write(kind + _WORD.pack(4 + len(body)) + body)

    def _end(self, error: PgTLSError | None) -> None:
        if self.rows.called:
            return
        if self.connected:
            self._send(b"X", b"")
            self.transport.loseConnection()
        if error is None:
            self.rows.callback(self._found)
        else:
            self.rows.errback(error)


def _row(body: bytes) -> Row:
    """A DataRow.

    :raises ProtocolViolation: it is none.
    """
    values: list[bytes | None] = []
    try:
        (count,) = struct.unpack_from("!H", body)
        at = 2
        for _ in range(count):
            (length,) = struct.unpack_from("!i", body, at)
            at += 4
            values.append(None if length < 0 else body[at : at + length])
            at += max(length, 0)
    except struct.error:
        at = -1
    if at != len(body):
        raise ProtocolViolation('insufficient data in "D" message')
    return tuple(values)


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
    query = _Query(conninfo, sql)
    endpoint = PgTLSClientEndpoint(reactor, conninfo, startup=startup)
    await endpoint.connect(Factory.forProtocol(lambda: query))
    query.rows.addTimeout(TIMEOUT, reactor)
    try:
        return await query.rows
    except TimeoutError:
        raise ConnectFailed("timeout expired") from None
