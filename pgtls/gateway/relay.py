"""What the two connections of a session have in common: the relay, and how it ends."""

from __future__ import annotations

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure

from pgtls.transport.back_pressure import read_no_faster
from pgtls.transport.relay_transport import (
    IRelayTransport,
    IStreamTransport,
    can_half_close,
    own_transport,
)
from pgtls.transport.traffic import Traffic

#: Seconds that one side may take to read what is left for it when the other side is gone.
DRAIN_TIMEOUT = 60.0


class RelaySide(Protocol):
    """One of the two connections of a session: passes what comes to the other one.

    :param reactor: Twisted's reactor.
    """

    transport: IStreamTransport
    _own: IRelayTransport | None = None  # the transport again, where it is one of pgtls's own
    _received = 0
    _other: RelaySide | None = None
    _drain: IDelayedCall | None = None
    _end_received = False

    def __init__(self, reactor: IReactorTime) -> None:
        self._reactor = reactor

    def connectionMade(self) -> None:
        """The connection is there."""
        self._own = own_transport(self.transport)

    def count_bytes(self) -> None:
        """Count what comes from now on; without this nothing is."""
        self.dataReceived = self._counted  # type: ignore[method-assign]

    @property
    def received(self) -> int:
        """Bytes that have come, from :meth:`count_bytes` on."""
        past = self._own.spliced if self._own is not None else 0
        return self._received + int(past)

    def keep_traffic(self) -> bool:
        """Have :meth:`traffic` known also when this side is closed.

        :returns: whether it is known at all.
        """
        return self._own is not None and self._own.keep_traffic()

    def traffic(self) -> Traffic | None:
        """Count the bytes each way.

        :returns: as :meth:`~pgtls.transport.relay_transport.IRelayTransport.traffic`.
        """
        return self._own.traffic() if self._own is not None else None

    def _counted(self, data: bytes) -> None:
        self._received += len(data)
        type(self).dataReceived(self, data)

    def relay_to(self, other: RelaySide) -> None:
        """From now on pass on everything.

        :param other: where to, no faster than it reads.
        """
        self._other = other
        read_no_faster(self.transport, other.transport)

    def allow_splice(self) -> None:
        """From now on nothing here looks at what comes: where nothing encrypts it either, it may go
        from socket to socket."""
        if self._other is not None and self._own is not None:
            self._own.splice_to(self._other.transport)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """This side is gone: the other one reads what is left for it, and goes too."""
        other = self._detach()
        if other is not None:
            other.close_when_read()

    def _detach(self) -> RelaySide | None:
        """This side is gone.

        :returns: the other one, if there is one.
        """
        self.connected = 0  # Twisted leaves it at 1, and there is nothing left to close
        if self._drain is not None:
            self._drain.cancel()
            self._drain = None
        self.__dict__.pop("dataReceived", None)  # a cycle
        other, self._other = self._other, None
        if other is not None and other.connected:
            other.transport.unregisterProducer()
        return other

    def close_when_read(self) -> None:
        """Close when what was written has been read; not later than DRAIN_TIMEOUT."""
        self._other = None
        if self.connected:
            if not self._end_received:
                self.transport.resumeProducing()  # or TLS would never see the peer's close_notify
            self.transport.loseConnection()
            closing = self._own is not None and self._own.closing
            if self.connected and not closing:
                self.limit_draining()

    def limit_draining(self) -> None:
        """From now on there are DRAIN_TIMEOUT seconds to read what was written."""
        if self._drain is None:
            self._drain = self._reactor.callLater(DRAIN_TIMEOUT, self._drained)

    @property
    def can_half_close(self) -> bool:
        """Whether its peer can be told that no more will come, and go on sending."""
        return self._own is not None or can_half_close(self.transport)

    def notice_end(self) -> None:
        """Have the end of this side's peer noticed also while nothing is read from it, because the
        other side does not read."""
        if self._own is not None:
            self._own.notice_end(self.peer_ended)

    def peer_ended(self, broken: bool) -> None:
        """The peer has ended its side; what it has sent may still be there to be read.

        :param broken: whether the connection is broken, in both directions.
        """

    def _drained(self) -> None:
        self._drain = None
        self.transport.abortConnection()
