"""A connection's way to its socket with TLS: first the handshake, then records.

OpenSSL works in memory, so nothing that it writes can be stuck half-way in a socket: a KeyUpdate
that comes while the peer does not read is answered like any other, and a socket that cannot be
written to any more can be read to its end.
"""

from __future__ import annotations

import socket
from collections.abc import Callable

from OpenSSL import SSL
from twisted.internet.error import ConnectionLost
from twisted.internet.main import CONNECTION_DONE, CONNECTION_LOST

from pgtls.tls.records import PIECE, Records, received
from pgtls.transport.idle_memory import IdleMemory

#: Bytes that wait for a peer that does not read, past which its KeyUpdates are answered no more:
#: each is answered by as many bytes as it has.
_UNSENT_LIMIT = 4 * PIECE


class TruncatedTLS(ConnectionLost):
    """The peer ended TCP without TLS's close_notify: all that it has sent has been read."""


class _Layer:
    """What handshake and records share.

    :param connection: the socket; it does not block.
    :param records: OpenSSL's part.
    :ivar end: why nothing more will be received; None while more may come.
    :ivar unsent: what was taken and has not been sent yet.
    """

    end: Exception | None = None
    handshaking = False

    def __init__(
        self, connection: socket.socket, records: Records, unsent: bytes | memoryview
    ) -> None:
        self._socket = connection
        self._records = records
        self.unsent = unsent

    @property
    def handle(self) -> SSL.Connection:
        """pyOpenSSL's connection."""
        return self._records.connection

    def emit(self) -> bool:
        """Send what OpenSSL has made.

        :returns: whether the socket has taken all of it; the rest waits for :meth:`flush`.
        :raises OSError: the connection is broken.
        """
        return self._send_records(self._records.take())

    def _send_records(self, made: memoryview) -> bool:
        """What :meth:`emit` does."""
        if not made:
            return not self.unsent
        sent = 0
        if not self.unsent:
            try:
                sent = self._socket.send(made)
                if sent == len(made):
                    return True
            except (BlockingIOError, InterruptedError):
                sent = 0
        self.unsent = b"".join((self.unsent, made[sent:]))
        return False

    def flush(self) -> bool:
        """Send what waits.

        :returns: whether everything has been sent.
        :raises OSError: the connection is broken.
        """
        if self.unsent:
            try:
                sent = self._socket.send(self.unsent)
            except (BlockingIOError, InterruptedError):
                return False
            self.unsent = memoryview(self.unsent)[sent:] if sent < len(self.unsent) else b""
        return not self.unsent

    def finish(self) -> None:
        """Tell the peer that no more will come, by close_notify; TCP stays open."""
        self._records.close()
        self._emit_if_possible()

    def detach(self) -> None:
        """The connection is over."""

    def _emit_if_possible(self) -> None:
        if self._records.has_output:
            try:
                self.emit()
            except OSError:
                self.unsent = b""  # it will not be read


class Handshake(_Layer):
    """TLS until both sides have agreed.

    :param connection: the socket; it does not block.
    :param records: OpenSSL's part.
    :param unsent: plaintext that was written before, and goes first.
    :param completed: is called when they have; returns why the connection ends, if it does.
    """

    handshaking = True

    def __init__(
        self,
        connection: socket.socket,
        records: Records,
        unsent: bytes | memoryview,
        completed: Callable[[Handshake], Exception | None],
    ) -> None:
        super().__init__(connection, records, unsent)
        self._completed = completed

    def receive(self) -> bytes:
        """Read what has come, and go on.

        :returns: nothing: what is behind the handshake is the next layer's.
        """
        try:
            count = self._socket.recv_into(received)
        except (BlockingIOError, InterruptedError):
            return b""
        except OSError as error:
            self.end = SSL.SysCallError(error.errno or -1, error.strerror)
            return b""
        if not count:
            self.end = SSL.SysCallError(-1, "Unexpected EOF")
        else:
            self.go_on(count)
        return b""

    def go_on(self, count: int, data: bytes = b"") -> None:
        """The next step; a client's first one is to send a ClientHello.

        :param count: how many bytes have been read.
        :param data: such as were read before TLS began.
        """
        records = self._records
        if data:
            records.feed(data)
        try:
            complete = records.handshake(count)
        except SSL.Error as error:
            self.end = error.with_traceback(None)  # which would hold all that is here
            complete = False
        # Where the peer cannot be written to, why may still be there to be read: an alert, say.
        self._emit_if_possible()
        if complete:
            self.end = self._completed(self)

    def send(self, data: bytes | memoryview) -> int:
        """Nothing can be sent yet.

        :param data: what is to be sent later.
        :returns: 0.
        """
        return 0

    def close_notify(self) -> None:
        """Nothing to be closed yet."""

    def detach(self) -> None:
        """The connection is over: let it go."""
        self._completed = _gone

    def secured(self, memory: IdleMemory) -> TLS:
        """The layer that follows.

        :param memory: gives back what that needs.
        :returns: with what is still to be sent.
        """
        return TLS(self._socket, self._records, self.unsent, memory)


class TLS(_Layer):
    """TLS when the handshake is over.

    :param connection: the socket; it does not block.
    :param records: OpenSSL's part.
    :param unsent: records that wait to be sent.
    :param memory: gives back what this has needed.
    """

    def __init__(
        self,
        connection: socket.socket,
        records: Records,
        unsent: bytes | memoryview,
        memory: IdleMemory,
    ) -> None:
        super().__init__(connection, records, unsent)
        self._memory = memory
        self._watched = False

    def receive(self) -> bytes:
        """Read what has come.

        :returns: the plaintext of all records that are whole; :attr:`end` says whether more may
            come.
        """
        try:
            count = self._socket.recv_into(received)
        except (BlockingIOError, InterruptedError):
            return b""
        except OSError:
            self.end = CONNECTION_LOST
            return b""
        if not count:
            self.end = TruncatedTLS()
            return b""
        records = self._records
        data = records.open(count)
        if records.error is not None or records.has_output:
            self._note()
        if records.in_use and not self._watched:
            self._watch_memory()
        return data

    def opened_before(self) -> bytes:
        """What has come with the handshake.

        :returns: as :meth:`receive`.
        """
        data = self._records.open(0)
        self._note()
        self._records.release()
        return data

    def _note(self) -> None:
        """Send what OpenSSL wants to say, and see why it is over, if it is."""
        self._emit_if_possible()  # the answer to a KeyUpdate, an alert
        error = self._records.error
        if error is not None:
            self.end = CONNECTION_DONE if isinstance(error, SSL.ZeroReturnError) else error
        elif len(self.unsent) > _UNSENT_LIMIT:
            self.end = CONNECTION_LOST

    def send(self, data: bytes | memoryview) -> int:
        """Send as much as the socket takes; one piece more is kept in :attr:`unsent`.

        :param data: what is to be sent.
        :returns: how many bytes of it have been taken.
        :raises OSError: the connection is broken.
        :raises SSL.Error: TLS is.
        """
        records, size = self._records, len(data)
        taken = 0
        while taken < size:
            taken, made = records.seal(data, taken)
            if not self._send_records(made):
                break
        if records.in_use and not self._watched:
            self._watch_memory()
        return taken

    def _watch_memory(self) -> None:
        self._watched = True
        self._memory.watch(self)

    @property
    def in_use(self) -> bool:
        """See :class:`~pgtls.transport.idle_memory.Memory`."""
        return self._records.in_use

    @in_use.setter
    def in_use(self, in_use: bool) -> None:
        self._records.in_use = in_use

    def release(self) -> bool:
        """See :class:`~pgtls.transport.idle_memory.Memory`.

        :returns: whether it could be given back.
        """
        self._watched = not self._records.release()
        return not self._watched

    def detach(self) -> None:
        """The connection is over."""
        if self._watched:
            self._memory.forget(self)

    def close_notify(self) -> None:
        """Tell the peer that the connection will be closed, without waiting for the answer, as
        PostgreSQL does."""
        self.finish()


def _gone(handshake: Handshake) -> Exception | None:
    """Stands for a connection that is over."""
    return CONNECTION_LOST
