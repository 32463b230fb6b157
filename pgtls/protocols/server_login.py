"""Logging in to a server with what a connection string says, and talking to it after that.

PostgreSQL documentation, "Message Flow", "Start-up" and "Simple Query"; ``pg_fe_sendauth`` in
``src/interfaces/libpq/fe-auth.c``.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable
from pathlib import Path

from twisted.internet.defer import Deferred
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure

from pgtls.conninfo.connection_string import ConnInfo, Host
from pgtls.conninfo.keywords import ChannelBinding
from pgtls.conninfo.password_file import password_from_file
from pgtls.errors import ConfigurationError, ConnectFailed, PgTLSError, ProtocolViolation
from pgtls.protocols.scram_mechanism import scram_client
from pgtls.transport.relay_transport import IStreamTransport
from pgtls.wire.authentication import AuthenticationRequest, RequestCode
from pgtls.wire.message_stream import HEADER_SIZE
from pgtls.wire.messages import ErrorResponse, ServerRejected, StartupMessage
from pgtls.wire.scram import KeySource, ScramClient
from pgtls.wire.scram_secret import ScramKeys

#: Bytes of one message at most.
_MAX_MESSAGE = 16 * 1024 * 1024

#: Iterations of PBKDF2 that a server may ask for: some seconds of work.
_MAX_ITERATIONS = 10_000_000

Row = tuple[bytes | None, ...]

_WORD = struct.Struct("!I")


class Login:
    """Who logs in, and how it proves that. What a password was made into is kept.

    :param conninfo: the connection string, with the password or the password file.
    :param startup: the StartupMessage; in place of the one that libpq would send.
    :param keys: SCRAM's keys, where no password is known.
    :ivar startup: the StartupMessage.
    """

    def __init__(
        self, conninfo: ConnInfo, startup: StartupMessage, keys: KeySource | None = None
    ) -> None:
        self.startup = startup
        self._conninfo = conninfo
        self._given_keys = keys
        self._derived: tuple[tuple[bytes, bytes, int], ScramKeys] | None = None

    @property
    def binds(self) -> bool:
        """Whether SCRAM's channel binding may be used."""
        return self._conninfo.channel_binding is not ChannelBinding.DISABLE

    def check(self, hosts: Iterable[Host]) -> None:
        """See whether the password file can be used, where it counts; without a password there may
        be a server that asks for none.

        :param hosts: the servers.
        :raises ConfigurationError: it cannot.
        """
        for host in hosts:
            self._known_password(host)

    def password(self, host: Host | None) -> bytes:
        """The password for a server.

        :param host: the server; None where it is not known.
        :returns: the password.
        :raises ConfigurationError: there is none.
        """
        found = self._known_password(host)
        if not found:
            raise ConfigurationError(
                "the server asks for a password: set PGPASSWORD, or password= in the connection "
                "string, or have it in the password file"
            )
        return found

    def _known_password(self, host: Host | None) -> bytes | None:
        """:raises ConfigurationError: the password file cannot be used."""
        conninfo = self._conninfo
        if conninfo.password is not None:
            return conninfo.password.encode("utf-8", "surrogateescape")
        if conninfo.passfile is None or host is None:
            return None
        user = self.startup.user.decode("utf-8", "surrogateescape")
        database = self.startup.database.decode("utf-8", "surrogateescape")
        return password_from_file(Path(conninfo.passfile), host, database, user)

    def keys(self, host: Host | None, salt: bytes, iterations: int) -> ScramKeys:
        """SCRAM's keys for a server.

        :param host: the server; None where it is not known.
        :param salt: as the server sent it.
        :param iterations: the same.
        :returns: the keys.
        :raises ConfigurationError: there is no password.
        :raises ProtocolViolation: the server asks for too many iterations.
        :raises StaleSecret: the keys that are known are for another salt.
        """
        if self._given_keys is not None:
            return self._given_keys(salt, iterations)
        conninfo = self._conninfo
        if conninfo.scram_client_key is not None and conninfo.scram_server_key is not None:
            return ScramKeys(conninfo.scram_client_key, conninfo.scram_server_key)
        if iterations > _MAX_ITERATIONS:
            raise ProtocolViolation(f"the server asks for {iterations} iterations")
        source = self.password(host), salt, iterations
        if self._derived is None or self._derived[0] != source:
            self._derived = source, ScramKeys.derive(*source)
        return self._derived[1]


class SessionLogin(Login):
    """A gateway's login as the role of a client. What is in the gateway's own environment and files
    is not for that.

    :param conninfo: the connection string.
    :param startup: the client's StartupMessage.
    :param keys: SCRAM's keys of the role, where they are known.
    """

    def password(self, host: Host | None) -> bytes:
        """There is none.

        :param host: the server.
        :returns: nothing.
        :raises ConnectFailed: always.
        """
        raise ConnectFailed(
            "the server asks for a password that only the client knows: for target_session_attrs "
            "the gateway needs a user in the upstream's connection string"
        )

    def keys(self, host: Host | None, salt: bytes, iterations: int) -> ScramKeys:
        """SCRAM's keys for a server.

        :param host: the server.
        :param salt: as the server sent it.
        :param iterations: the same.
        :returns: the keys.
        :raises ConnectFailed: they are not known.
        :raises StaleSecret: they are known for another salt.
        """
        if self._given_keys is None:
            self.password(host)
        return super().keys(host, salt, iterations)


class ServerDialogue(Protocol):
    """Logs in; a subclass says what comes after that.

    :param login: who logs in.
    :ivar host: the server, for the password file; to be set as soon as it is known.
    :ivar ended: fires when all is done, or fails. Cancelling it closes the connection.
    """

    transport: IStreamTransport

    def __init__(self, login: Login) -> None:
        self.host: Host | None = None
        self._login = login
        self._received = b""
        self._exchange: ScramClient | None = None
        self._authenticated = False
        self.ended: Deferred[None] = Deferred(lambda _: self.transport.abortConnection())

    def ready(self) -> None:
        """ReadyForQuery has come."""

    def message(self, kind: bytes, body: bytes) -> None:
        """Any message after AuthenticationOk, errors and ReadyForQuery apart.

        :param kind: its type byte.
        :param body: what follows the length word.
        """

    def error(self, error: ServerRejected) -> None:
        """An ErrorResponse has come.

        :param error: the server's.
        :raises ServerRejected: always, unless a subclass waits for ReadyForQuery.
        """
        raise error

    def query(self, sql: str) -> None:
        """Send a query.

        :param sql: the query.
        """
        self._send(b"Q", sql.encode() + b"\0")

    def dataReceived(self, data: bytes) -> None:
        """Bytes from the server."""
        self._received += data
        try:
            while len(self._received) >= HEADER_SIZE and not self.ended.called:
                (length,) = _WORD.unpack_from(self._received, 1)
                if not 4 <= length <= _MAX_MESSAGE:
                    raise ProtocolViolation("received a message with an invalid length")
                if len(self._received) <= length:
                    return
                message = self._received[: 1 + length]
                self._received = self._received[1 + length :]
                self._message(message[:1], message)
        except PgTLSError as error:
            self.end(error)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The server is gone."""
        error = reason.value
        if not isinstance(error, PgTLSError):
            error = ConnectFailed("server closed the connection unexpectedly")
        self.end(error)

    def end(self, error: PgTLSError | None = None) -> None:
        """All is done: close the connection.

        :param error: why it failed; None where it did not.
        """
        if self.ended.called:
            return
        if self.connected:
            self._send(b"X", b"")
            self.transport.loseConnection()
        if error is None:
            self.ended.callback(None)
        else:
            self.ended.errback(error)

    def _message(self, kind: bytes, message: bytes) -> None:
        body = message[HEADER_SIZE:]
        if kind == b"E":
            self.error(ServerRejected(ErrorResponse.parse(body, message)))
        elif kind == b"R" and len(body) >= 4:
            self._authenticate(AuthenticationRequest.parse(message), body[4:])
        elif not self._authenticated:
            if kind not in (b"N", b"v"):
                raise ProtocolViolation("received a message before authentication was complete")
        elif kind == b"Z":
            self.ready()
        else:
            self.message(kind, body)

    def _authenticate(self, request: AuthenticationRequest, data: bytes) -> None:
        if request.is_ok:
            if self._exchange is not None and not self._exchange.done:
                raise ProtocolViolation("server did not complete authentication")
            self._authenticated = True
        elif request.code == RequestCode.SASL and self._exchange is None:
            self._exchange = scram_client(
                request.mechanisms, self._keys, self.transport, binds=self._login.binds
            )
            self._send(b"p", self._exchange.initial_response())
        elif request.code == RequestCode.SASL_CONTINUE and self._exchange is not None:
            self._send(b"p", self._exchange.receive_continue(data))
        elif request.code == RequestCode.SASL_FINAL and self._exchange is not None:
            self._exchange.receive_final(data)
        elif request.code == RequestCode.PASSWORD:
            self._send(b"p", self._login.password(self.host) + b"\0")
        elif request.code == RequestCode.MD5 and len(data) == 4:
            password = self._login.password(self.host)
            inner = hashlib.md5(password + self._login.startup.user).hexdigest()  # noqa: S324
            outer = hashlib.md5(inner.encode() + data).hexdigest()  # noqa: S324 - the protocol's
            self._send(b"p", b"md5" + outer.encode() + b"\0")
        else:
            raise ProtocolViolation(f"authentication method {request.method} is not supported")

    def _keys(self, salt: bytes, iterations: int) -> ScramKeys:
        return self._login.keys(self.host, salt, iterations)

    def _send(self, kind: bytes, body: bytes) -> None:
        self.transport.write(kind + _WORD.pack(4 + len(body)) + body)


def parse_row(body: bytes) -> Row:
    """Read a DataRow.

    :param body: what follows the length word.
    :returns: each value as the server writes it in text; None for NULL.
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
