"""A connection that is read from no faster than another one takes what comes."""

from __future__ import annotations

from twisted.internet.interfaces import IPushProducer
from zope.interface import implementer

from pgtls.transport.relay_transport import IStreamTransport, lowest_transport, own_transport


def read_no_faster(source: IStreamTransport, sink: IStreamTransport) -> None:
    """Pause one connection while another one has too much to send.

    :param source: what comes from it is written to the other one.
    :param sink: the other one; has no producer yet.
    """
    own = own_transport(sink) is not None
    sink.registerProducer(source if own else _ForTwisteds(source, sink), True)


@implementer(IPushProducer)
class _ForTwisteds:
    """The producer of a connection on Twisted's own transports.

    Where the peer says goodbye (close_notify), Twisted's TLS sends what is left and closes then;
    but a producer that waits for that is resumed instead, of which nothing is taken any more: the
    connection would stay open for ever, and nobody would be told.

    :param source: what is read from.
    :param sink: what is written to.
    """

    def __init__(self, source: IStreamTransport, sink: IStreamTransport) -> None:
        self._source = source
        self._sink = sink
        self._lowest = lowest_transport(sink)

    def pauseProducing(self) -> None:
        """There is too much to send."""
        self._source.pauseProducing()

    def resumeProducing(self) -> None:
        """All of it is sent."""
        if getattr(self._lowest, "disconnecting", False):
            self._sink.unregisterProducer()  # it closes, and says so
        else:
            self._source.resumeProducing()

    def stopProducing(self) -> None:
        """The connection is gone."""
        self._source.stopProducing()
