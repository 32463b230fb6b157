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
from typing import TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.logger import Logger
from twisted.python.failure import Failure

from pgtls.conninfo.connection_string import ConnInfo, Host
from pgtls.errors import ConnectFailed, PgTLSError
from pgtls.gateway.cancel_connection import CANCEL_TIMEOUT, CancelConnection, CancelConnections
from pgtls.gateway.key_holders import first_yes
from pgtls.protocols.endpoint import PgTLSClientEndpoint
from pgtls.protocols.log_limit import PERIOD, LogLimit
from pgtls.protocols.places import CANCELS_AT_ONCE
from pgtls.transport.dial import TIMEOUT_EXPIRED
from pgtls.transport.name_resolution import known_place, places
from pgtls.transport.reactor import IReactor
from pgtls.wire.messages import PEER_HAS_NOT, PEER_HAS_SESSION, CancelRequest

T = TypeVar("T")

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

    :ivar answer: fires with whether the peer has the session; None where it has not said so.
    """

    def __init__(self, packet: bytes) -> None:
        super().__init__(packet)
        self.answer: Deferred[bytes] = Deferred(lambda _: self.transport.abortConnection())

    def dataReceived(self, data: bytes) -> None:
        """The answer; what a server that is no gateway says is none."""
        if not self.answer.called:
            self.answer.callback(data[:1])

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        """There may have been no answer."""
        if not self.answer.called:
            self.answer.callback(b"")
        super().connectionLost(reason)


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

    async def pass_on(self, request: CancelRequest) -> bool | None:
        """Ask each of its addresses, at the same time: a name may be that of several gateways.

        :param request: a client's.
        :returns: whether it had the session, and has passed the request on; None where it has not
            answered.
        """
        looked_up = Deferred.fromCoroutine(self._hosts())
        try:
            hosts = await looked_up.addTimeout(PEER_TIMEOUT, self._reactor)
        except (PgTLSError, DeferredTimeout) as error:
            self._failed(error)
            return None
        packet = request.for_peers
        return await first_yes([Deferred.fromCoroutine(self._ask(host, packet)) for host in hosts])

    async def _hosts(self) -> list[Host]:
        (host,) = self._endpoint.conninfo.hosts
        if known := known_place(host):
            return [known]
        now, (resolved, found) = self._reactor.seconds(), self._addresses
        if now - resolved > _ADDRESS_LIFETIME:
            found = await places(self._reactor, host)
            self._addresses = now, found
        return found

    async def _ask(self, host: Host, packet: bytes) -> bool | None:
        question = _Question(packet)
        answered = Deferred.fromCoroutine(self._answer(host, question))
        try:
            said = await answered.addTimeout(PEER_TIMEOUT, self._reactor)
            if said == PEER_HAS_SESSION:
                await question.done.addTimeout(CANCEL_TIMEOUT + PEER_TIMEOUT, self._reactor)
                return True
        except (PgTLSError, DeferredTimeout) as error:
            self._failed(error)
            return None
        question.transport.loseConnection()
        if said != PEER_HAS_NOT:
            self._failed(ConnectFailed("it takes none: is it a gateway that has peers as well?"))
            return None
        return False

    async def _answer(self, host: Host, question: _Question) -> bytes:
        await self._endpoint.for_session(host).connect(
            CancelConnections.forProtocol(lambda: question)
        )
        return await question.answer

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

    def pass_on(self, request: CancelRequest) -> Deferred[bool | None]:
        """Ask all of them, at the same time.

        :param request: a client's.
        :returns: fires with whether one of them had the session, and has passed the request on;
            with None where none of them had, and one has not answered. Never fails.
        """
        return first_yes([self._pass_on(peer, request) for peer in self._peers])

    def _pass_on(self, peer: Peer, request: CancelRequest) -> Deferred[bool | None]:
        size = peer.size
        self.open += size

        def over(answer: T) -> T:
            self.open -= size
            return answer

        return Deferred.fromCoroutine(peer.pass_on(request)).addBoth(over)

    def stop(self) -> None:
        """Log at once what has been counted."""
        for peer in self._peers:
            peer.stop()
