"""The other gateways of a fleet: a CancelRequest may be for a session of one of them.

They get it marked as passed on already, by a request code of its own: such a request is for their
own sessions or for none, so none circulates, whoever names whom as a peer. Each answers whether it
has the session. A client that forges the mark gains nothing: its request goes to fewer places.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.interfaces import IProtocol
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure

from pgtls.conninfo.connection_string import ConnInfo, Host
from pgtls.errors import ConnectFailed, PgTLSError
from pgtls.gateway.cancel_connection import CANCEL_TIMEOUT, CancelConnection
from pgtls.protocols.endpoint import PgTLSClientEndpoint
from pgtls.protocols.log_limit import PERIOD, LogLimit
from pgtls.protocols.places import CANCELS_AT_ONCE
from pgtls.transport.dial import TIMEOUT_EXPIRED, OneProtocol
from pgtls.transport.name_resolution import known_place, places
from pgtls.transport.reactor import IReactor
from pgtls.wire.messages import PEER_HAS_NOT, PEER_HAS_SESSION, CancelRequest

_log = Logger(namespace="pgtls.gateway")

#: Seconds that a peer has to say whether it has the session, the connection and TLS included.
PEER_TIMEOUT = 2.0

#: Connections to peers at a time.
PEERS_AT_ONCE = CANCELS_AT_ONCE // 4

#: Seconds for which a peer's addresses are used again.
_ADDRESS_LIFETIME = 5.0

_PLACE = re.compile(r"(?:\[([0-9A-Fa-f:.]+(?:%[\w.]+)?)\]|([\w.-]+)):(\d{1,5})", re.ASCII)


def host_and_port(place: str) -> tuple[str, int]:
    """Read one of ``peers``.

    :param place: ``host:port``; an IPv6 address in brackets.
    :returns: the host and the port.
    :raises ValueError: it is something else; the text says what would be right.
    """
    match = _PLACE.fullmatch(place)
    if match is None or not 0 < int(match[3]) < 65536:
        raise ValueError('places such as "gateway2.example.com:6432" or "[2001:db8::2]:6432"')
    return match[1] or match[2], int(match[3])


class _Question(CancelConnection):
    """Asks a peer.

    :ivar sent: whether it has been asked.
    :ivar answer: fires with what it says; with nothing where it closes.
    """

    def __init__(self, packet: bytes) -> None:
        super().__init__(packet)
        self.sent = False
        self.answer: Deferred[bytes] = Deferred(lambda _: self.transport.abortConnection())

    def connectionMade(self) -> None:
        """Send it."""
        self.sent = True
        super().connectionMade()

    def dataReceived(self, data: bytes) -> None:
        """The answer; what a server that is no gateway says is none."""
        if not self.answer.called:
            self.answer.callback(data[:1])

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """There may have been no answer."""
        if not self.answer.called:
            self.answer.callback(b"")
        super().connectionLost(reason)


class _Round:
    """A request, and the connections to peers that are being made for it.

    :ivar packet: the request.
    :ivar found: whether a peer has the session.
    """

    def __init__(self, request: CancelRequest) -> None:
        self.packet = request.for_peers
        self.found = False
        self._connecting: list[Deferred[IProtocol]] = []

    def connect(self, endpoint: PgTLSClientEndpoint, question: _Question) -> Deferred[IProtocol]:
        """Ask one, unless it need not be asked any more."""
        connecting = endpoint.connect(OneProtocol.forProtocol(lambda: question))
        self._connecting.append(connecting)
        return connecting

    def has_session(self) -> None:
        """A peer has it: those that have not been asked yet are not asked."""
        self.found = True
        for each in self._connecting:
            each.cancel()


class Peer:
    """One of them.

    :param reactor: Twisted's reactor.
    :param place: ``host:port``.
    """

    def __init__(self, reactor: IReactor, place: str) -> None:
        host, port = host_and_port(place)
        # TLS where it has it, as libpq by default; no files of a user's.
        text = f"host='{host}' port={port} sslmode=prefer sslcertmode=disable"
        conninfo = ConnInfo.parse(text, {}, Path(os.devnull))
        self._reactor = reactor
        self._place = place
        self._endpoint = PgTLSClientEndpoint(reactor, conninfo)
        self._addresses: tuple[float, list[Host]] = (float("-inf"), [])
        self._failures = LogLimit(reactor, 1, self._log_failures)

    @property
    def size(self) -> int:
        """How many addresses it has had lately, at least 1."""
        return max(1, len(self._addresses[1]))

    async def pass_on(self, asking: _Round) -> bool | None:
        """Ask each of its addresses, at the same time: a name may be that of several gateways. One
        that cannot be connected to does not count where another one answers.

        :param asking: a client's request.
        :returns: whether it had the session, and has passed the request on; None where it has not
            answered.
        """
        looked_up = Deferred.fromCoroutine(self._hosts()).addTimeout(PEER_TIMEOUT, self._reactor)
        try:
            hosts = await looked_up
        except (PgTLSError, DeferredTimeout) as error:
            self._failed(error)
            return None
        asked = [Deferred.fromCoroutine(self._ask(host, asking)) for host in hosts]
        said = await gatherResults(asked, consumeErrors=True)
        errors = [each for each in said if isinstance(each, Exception)]
        answers = [each for each in said if not isinstance(each, Exception)]
        if errors and not answers:
            self._failed(errors[0])
            return None
        return True if True in answers else None if None in answers else False

    async def _hosts(self) -> list[Host]:
        (host,) = self._endpoint.conninfo.hosts
        if known := known_place(host):
            return [known]
        now, (resolved, found) = self._reactor.seconds(), self._addresses
        if now - resolved > _ADDRESS_LIFETIME:
            found = await places(self._reactor, host)
            self._addresses = now, found
        return found

    async def _ask(self, host: Host, asking: _Round) -> bool | Exception | None:
        """:returns: the answer, None for none; or why it could not be asked."""
        if asking.found:
            return False
        question = _Question(asking.packet)
        connecting = asking.connect(self._endpoint.for_session(host), question)
        answering = Deferred.fromCoroutine(_answered(connecting, question))
        try:
            said = await answering.addTimeout(PEER_TIMEOUT, self._reactor)
            if said == PEER_HAS_SESSION:
                asking.has_session()
                await question.done.addTimeout(CANCEL_TIMEOUT + PEER_TIMEOUT, self._reactor)
                return True
        except CancelledError:
            return False
        except (PgTLSError, DeferredTimeout) as error:
            if not question.sent:
                return error
            self._failed(error)
            return None
        question.transport.loseConnection()
        if said == PEER_HAS_NOT:
            return False
        self._failed(ConnectFailed("it takes none: is it a gateway that has peers as well?"))
        return None

    def _failed(self, error: Exception) -> None:
        if self._failures.allows():
            _log.warn(
                "peer {peer}: cancel request not passed on: {error}",
                peer=self._place,
                error=TIMEOUT_EXPIRED if isinstance(error, DeferredTimeout) else error,
            )

    def _log_failures(self, count: int) -> None:
        _log.warn(
            "peer {peer}: {count} more cancel requests not passed on within {seconds:g} s",
            peer=self._place,
            count=count,
            seconds=PERIOD,
        )

    def stop(self) -> None:
        """Log at once what has been counted."""
        self._failures.stop()


async def _answered(connecting: Deferred[IProtocol], question: _Question) -> bytes:
    await connecting
    return await question.answer


class Peers:
    """All of them.

    :param reactor: Twisted's reactor.
    :param named: each as ``host:port``.
    :ivar named: the same.
    :ivar open: connections to them, as far as is known of their addresses.
    """

    def __init__(self, reactor: IReactor, named: Sequence[str]) -> None:
        self.named = tuple(named)
        self.open = 0
        self._peers = [Peer(reactor, place) for place in named]

    def have_room(self) -> bool:
        """Whether one more request can be passed on now. One for more gateways than there are
        connections at a time gets through alone."""
        return not self.open or self.open + self._size <= PEERS_AT_ONCE

    @property
    def _size(self) -> int:
        return sum(peer.size for peer in self._peers)

    async def pass_on(self, request: CancelRequest) -> bool | None:
        """Ask all of them, at the same time, and wait for each that has been asked: a request that
        came twice to one gateway must not come after the client goes on.

        :param request: a client's.
        :returns: whether one of them had the session, and has passed the request on; None where
            none of them had, and one has not answered.
        """
        asking, size = _Round(request), self._size
        self.open += size
        try:
            asked = [Deferred.fromCoroutine(peer.pass_on(asking)) for peer in self._peers]
            answers = await gatherResults(asked, consumeErrors=True)
        finally:
            self.open -= size
        return True if True in answers else None if None in answers else False

    def stop(self) -> None:
        """Log at once what has been counted."""
        for peer in self._peers:
            peer.stop()
