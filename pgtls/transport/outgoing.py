"""What waits to be sent, and the producer that it comes from."""

from __future__ import annotations

from typing import cast

from twisted.internet.interfaces import IProducer, IPushProducer

#: Bytes past which a producer pauses, and up to which pieces are put together.
LIMIT = 65536


class Outgoing:
    """A buffer.

    :ivar size: its bytes.
    :ivar producer: what writes them; None where no producer is registered.
    :ivar paused: whether it has been told to pause.
    """

    __slots__ = ("_pieces", "_streaming", "paused", "producer", "size")

    def __init__(self) -> None:
        self._pieces: list[bytes | memoryview] = []
        self.size = 0
        self.producer: IProducer | None = None
        self._streaming = False
        self.paused = False

    def add(self, data: bytes | memoryview) -> None:
        """Put something behind what is there.

        :param data: must not change.
        """
        if data:
            self._pieces.append(data)
            self.size += len(data)

    def next(self) -> bytes | memoryview:
        """What is to be sent next.

        :returns: more than nothing, where there is something.
        """
        pieces = self._pieces
        if len(pieces) > 1 and len(pieces[0]) < LIMIT:
            pieces[:] = [b"".join(pieces)]
        return pieces[0]

    def sent(self, count: int) -> None:
        """Forget what has been sent.

        :param count: bytes of what :meth:`next` has returned.
        """
        piece = self._pieces[0]
        self.size -= count
        if count == len(piece):
            del self._pieces[0]
        elif count:
            self._pieces[0] = memoryview(piece)[count:]

    def take_all(self) -> bytes:
        """Empty it.

        :returns: everything that was there.
        """
        everything = b"".join(self._pieces)
        self._pieces.clear()
        self.size = 0
        return everything

    def register(self, producer: IProducer, streaming: bool) -> None:
        """A producer will write.

        :param producer: pauses and resumes if it is ``streaming``, else is asked each time.
        :param streaming: which of the two.
        :raises RuntimeError: there is another one.
        """
        if self.producer is not None:
            raise RuntimeError(
                f"Cannot register producer {producer}, because producer {self.producer} was never "
                "unregistered."
            )
        self.producer, self._streaming, self.paused = producer, streaming, False

    def pause(self, more: int) -> None:
        """Have the producer pause, if it is too much.

        :param more: bytes that wait elsewhere.
        """
        if self.producer is not None and self._streaming and self.size + more > LIMIT:
            self.paused = True
            cast(IPushProducer, self.producer).pauseProducing()

    def resume(self) -> bool:
        """Have the producer go on, now that everything has been sent.

        :returns: whether there is one that waited for it.
        """
        if self.producer is None or (self._streaming and not self.paused):
            return False
        self.paused = False
        cast(IPushProducer, self.producer).resumeProducing()
        return True

    def stop(self) -> None:
        """The connection is closed: drop everything, and tell the producer."""
        self._pieces.clear()
        self.size = 0
        producer, self.producer = self.producer, None
        if producer is not None:
            producer.stopProducing()
