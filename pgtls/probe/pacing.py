"""How many questions a server is asked at a time: a few, and one where it takes no more.

Some servers take one connection at a time (PGlite's socket server), have few slots for sessions
(``max_connections``), or limit how often a client may connect. What such a server answers to one of
several questions may be about the others. So an answer that can come from that is doubtful, and the
question is asked again, alone.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Coroutine, Sequence

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from pgtls.errors import (
    CertificateNotVerified,
    ConfigurationError,
    NegotiationRefused,
    PgTLSError,
)
from pgtls.wire.client_negotiation import ERROR_TO_SSL_REQUEST
from pgtls.wire.messages import ServerRejected

#: Connections at a time, of some 20 in all.
CONCURRENT = 4

#: Seconds before a question is asked alone, the first time and then again: the server has to notice
#: that the connections before it are closed, and a limit per second has to run out.
PAUSES = (0.1, 0.3, 1.0, 3.0)

#: In what a refused negotiation says where the server did not say why: of a handshake that it
#: breaks off, OpenSSL says no more; and an error that comes before TLS is not shown.
_UNEXPLAINED = ("EOF detected", "eof", ERROR_TO_SSL_REQUEST)

#: One question. It returns the error that it met where that is :func:`doubtful`, else None.
Question = Callable[[], Coroutine[Deferred[object], object, PgTLSError | None]]


def doubtful(error: PgTLSError | None) -> PgTLSError | None:
    """Judge an error.

    :param error: what a question met; None where it met none.
    :returns: the error where it may be there because of other connections: the server closed, did
        not answer, could not be reached, or says itself that it has no resources left (SQLSTATE
        class 53, 57P03; poolers say it with 08P01). None for any other.
    """
    if isinstance(error, ServerRejected):
        sqlstate = error.response.sqlstate
        return error if sqlstate.startswith("53") or sqlstate in ("57P03", "08P01") else None
    if isinstance(error, CertificateNotVerified | ConfigurationError):
        return None
    if isinstance(error, NegotiationRefused):
        return error if any(each in error.reason for each in _UNEXPLAINED) else None
    return error


class Pacing:
    """Asks questions.

    :param clock: for the pauses.
    :param answers: asks what the server has answered before, and tells whether it still does.
    :ivar limited: whether a question that was asked alone had another answer than among others.
    """

    def __init__(
        self, clock: IReactorTime, answers: Callable[[], Coroutine[Deferred[object], object, bool]]
    ) -> None:
        self.limited = False
        self._clock = clock
        self._answers = answers

    async def ask(self, questions: Sequence[Question]) -> None:
        """Ask several questions, a few at a time until one of the answers is doubtful, and from
        then on one at a time.

        :param questions: in the order in which they are begun.
        """
        waiting = deque(questions)
        again: list[Question] = []

        async def ask_in_turn() -> None:
            while waiting and not again:
                question = waiting.popleft()
                if await question() is not None:
                    again.append(question)

        asking = [Deferred.fromCoroutine(ask_in_turn()) for _ in range(CONCURRENT)]
        await gatherResults(asking, consumeErrors=True)
        for question in again:
            if await self._ask_alone(question):
                self.limited = True
        for question in waiting:
            await self._ask_alone(question)

    async def _ask_alone(self, question: Question) -> bool:
        """:returns: whether the answer is beyond doubt."""
        for pause in PAUSES:
            await deferLater(self._clock, pause)
            error = await question()
            if error is None:
                return True
            # A server that still answers other questions means it.
            if not isinstance(error, ServerRejected):
                await deferLater(self._clock, pause)
                if await self._answers():
                    return False
        return False
