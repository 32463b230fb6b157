"""A connection: what a protocol has as its transport where the library listens or connects.

Twisted's own way is general and pays for it on each small message: a write waits for another turn
of the reactor, with two calls of ``epoll_ctl``; each event is dispatched in a logging context.
Here a write goes to the socket at once and is buffered only for what the socket does not take, and
events come from an epoll of our own (:mod:`pgtls.transport.poller`).

What an application sees is Twisted's: ``startTLS``, ``ITLSTransport``, producers, half-close,
``loseConnection``. Different are two things: what it logs has no ``log_system`` (to set Twisted's
logging context costs more than to pass on a small message), and a Unix socket passes no file
descriptors. Between a connection and its socket is a layer: :mod:`pgtls.transport.plaintext`, or
:mod:`pgtls.transport.tls_layer`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

from OpenSSL import SSL
from twisted.internet.interfaces import IProducer, IPushProducer
from twisted.internet.main import CONNECTION_LOST
from twisted.protocols.policies import ProtocolWrapper
from zope.interface import implementer

from pgtls.transport.lifecycle import READABLE, WRITABLE, Lifecycle
from pgtls.transport.plaintext import Plaintext
from pgtls.transport.relay_transport import IRelayTransport
from pgtls.transport.states import CLOSING, ENDED, OPEN, SENT
from pgtls.transport.traffic import Traffic, tcp_traffic


@implementer(IRelayTransport)
class Connection(Lifecycle):
    """A connection, and all there is to one over a Unix socket."""

    def write(self, data: bytes) -> None:
        """Send ``data``, at once as far as the socket takes it.

        :param data: any number of bytes.
        """
        if not self._direct:
            self._write_later(data)
            return
        layer = self._layer
        try:
            sent = layer.send(data)
        except (OSError, SSL.Error) as error:
            # Not from inside a write, which is not expected to end the connection.
            self._direct = False
            self.reactor.callLater(0, self._write_failed, _reason(error))
            return
        if sent < len(data) or layer.unsent:
            self._direct = False
            self._outgoing.add(bytes(data[sent:]))
            self._wait_to_write()

    def writeSequence(self, iovec: Iterable[bytes]) -> None:
        """Send several pieces.

        :param iovec: the pieces.
        """
        self.write(b"".join(iovec))

    def _write_later(self, data: bytes) -> None:
        if self._state is not ENDED and self.connected:
            self._outgoing.add(bytes(data))
            self._wait_to_write()

    def _wait_to_write(self) -> None:
        layer = self._layer
        if layer.unsent or not layer.handshaking:
            self._watch(self._interest | WRITABLE)
        self._outgoing.pause(len(layer.unsent))

    def _write_more(self) -> Exception | None:
        """:returns: why the connection ends, if it does."""
        layer, outgoing = self._layer, self._outgoing
        try:
            if not layer.flush():
                return None
            while outgoing.size and not layer.handshaking:
                piece = outgoing.next()
                sent = layer.send(piece)
                outgoing.sent(sent)
                if sent < len(piece) or layer.unsent:
                    return None
        except (OSError, SSL.Error) as error:
            return _reason(error)
        self._watch(self._interest & ~WRITABLE)
        return None if outgoing.size else self._all_sent()

    def _all_sent(self) -> Exception | None:
        self._update_direct()
        if self._outgoing.resume():
            return None
        if self._state is CLOSING:
            return self._close()
        if self._change(SENT):
            self._end_sending()
        return None

    def _update_direct(self) -> None:
        layer = self._layer
        self._direct = (
            self._state is OPEN
            and not self._outgoing.size
            and not layer.unsent
            and not layer.handshaking
        )

    def _write_failed(self, why: Exception) -> None:
        if self.connected and self._interest & READABLE:
            # Why the peer is gone may still be in the socket: an alert, an ErrorResponse. libpq
            # too reads on after a write that failed.
            why = self._read() or why
        if self.connected:
            self._lost(why, reading=False)

    def takes_more(self) -> bool:
        """Whether a write would go to the socket at once."""
        return self._direct

    def unread(self, data: bytes) -> None:
        """Nothing: over a Unix socket there is no TLS.

        :param data: such as would belong to it.
        """

    def splice_to(self, sink: object) -> None:
        """See :class:`~pgtls.transport.relay_transport.IRelayTransport`.

        :param sink: the other transport.
        """
        mine = self._layer
        if (
            isinstance(mine, Plaintext)
            and not isinstance(self.protocol, ProtocolWrapper)  # which may be Twisted's own TLS
            and isinstance(sink, Connection)
            and isinstance(sink._layer, Plaintext)
        ):
            mine.splice_to(sink, self._poller.pipe)

    @property
    def spliced(self) -> int:
        """Bytes that have gone past the protocol."""
        return self._layer.spliced if isinstance(self._layer, Plaintext) else 0

    def keep_traffic(self) -> bool:
        """See :class:`~pgtls.transport.relay_transport.IRelayTransport`."""
        return False

    def traffic(self) -> Traffic | None:
        """See :class:`~pgtls.transport.relay_transport.IRelayTransport`."""
        return tcp_traffic(self._socket) if self.connected else self._traffic

    def registerProducer(self, producer: IProducer, streaming: bool) -> None:
        """Have a producer write no faster than the peer reads.

        :param producer: what writes.
        :param streaming: whether it writes until it is told to pause.
        :raises RuntimeError: there is another one.
        """
        if not self.connected:
            producer.stopProducing()
            return
        self._outgoing.register(producer, streaming)
        if not streaming:
            cast(IPushProducer, producer).resumeProducing()

    def unregisterProducer(self) -> None:
        """The producer writes no more."""
        self._outgoing.producer = None
        if self._state is CLOSING:
            self._watch(self._interest | WRITABLE)

    def pauseProducing(self) -> None:
        """Read no more, for a while."""
        self._watch(self._interest & ~READABLE)

    def resumeProducing(self) -> None:
        """Read again."""
        if self.connected and self._state is not CLOSING and not self._read_ended:
            self._watch(self._interest | READABLE)

    def stopProducing(self) -> None:
        """Close."""
        self.loseConnection()


def _reason(error: Exception) -> Exception:
    """Why a connection ends, as Twisted's transports say it."""
    return error.with_traceback(None) if isinstance(error, SSL.Error) else CONNECTION_LOST
