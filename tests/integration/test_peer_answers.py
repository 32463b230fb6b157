"""What a gateway makes of its peers' answers to a cancel request."""

from __future__ import annotations

from typing import Any, cast

from twisted.internet import reactor as _reactor
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IAddress,
    IHostnameResolver,
    IHostResolution,
    IResolutionReceiver,
)
from twisted.internet.protocol import Factory, Protocol
from twisted.trial.unittest import TestCase
from zope.interface import implementer

from pgtls.gateway import cancel_peers
from pgtls.gateway.cancel_peers import Peers
from pgtls.wire.messages import CancelRequest
from tests.support.raw_client import SSL_REQUEST

reactor = cast(Any, _reactor)

REQUEST = CancelRequest.build(b"\0\0\0\7" + b"k" * 32)


class _Connection(Protocol):
    factory: Listener
    transport: Any

    def __init__(self) -> None:
        self._received = b""

    def dataReceived(self, data: bytes) -> None:
        self._received += data
        if self._received == SSL_REQUEST:
            self.transport.write(b"N")
        elif self._received == SSL_REQUEST + REQUEST.for_peers:
            self.factory.asked(self)


class Listener(Factory):
    """A peer that says what it is told to.

    :param says: its answer; empty for none.
    :param done: when it has passed the request on; None for at once.
    :ivar requests: how many it got.
    """

    protocol = _Connection
    noisy = False

    def __init__(self, says: bytes, done: Deferred[None] | None = None) -> None:
        self._says = says
        self._done = done
        self.requests = 0
        self.came: Deferred[None] = Deferred()

    def asked(self, connection: _Connection) -> None:
        self.requests += 1
        if not self.came.called:
            self.came.callback(None)
        connection.transport.write(self._says)
        if self._done is not None:
            self._done.addCallback(lambda _: connection.transport.loseConnection())
        elif self._says:
            connection.transport.loseConnection()


@implementer(IHostnameResolver)
class _Fleet:
    """The name ``fleet`` has three addresses."""

    def resolveHostName(
        self, resolutionReceiver: IResolutionReceiver, hostName: str, *_: object, **__: object
    ) -> IHostResolution:
        resolutionReceiver.resolutionBegan(cast(Any, None))
        for number in (1, 2, 3) if hostName == "fleet" else ():
            address = IPv4Address("TCP", f"127.0.0.{number}", 0)
            resolutionReceiver.addressResolved(cast(IAddress, address))
        resolutionReceiver.resolutionComplete()
        return cast(Any, None)


class Answers(TestCase):
    """One name, or several, with an answer at each address."""

    def setUp(self) -> None:
        self.addCleanup(reactor.installNameResolver, reactor.installNameResolver(_Fleet()))
        self.port = 0

    def at(self, number: int, says: bytes, done: Deferred[None] | None = None) -> Listener:
        """A peer at 127.0.0.<number>; all of them have the same port."""
        listener = Listener(says, done)
        port = reactor.listenTCP(self.port, listener, interface=f"127.0.0.{number}")
        self.port = port.getHost().port
        self.addCleanup(port.stopListening)
        return listener

    def ask(self, *hosts: str) -> Deferred[bool | None]:
        peers = Peers(reactor, [f"{host}:{self.port}" for host in hosts])
        self.addCleanup(peers.stop)
        return Deferred.fromCoroutine(peers.pass_on(REQUEST)).addCallback(self._over, peers)

    def _over(self, answer: bool | None, peers: Peers) -> bool | None:
        self.assertEqual(peers.open, 0)
        return answer

    async def test_every_address_of_a_name_is_asked_once(self) -> None:
        listeners = [self.at(number, b"N") for number in (1, 2, 3)]
        self.assertIs(await self.ask("fleet"), False)
        self.assertEqual([each.requests for each in listeners], [1, 1, 1])

    async def test_one_has_the_session(self) -> None:
        """The client waits until that one has passed the request on."""
        done: Deferred[None] = Deferred()
        self.at(1, b"N")
        has = self.at(2, b"Y", done)
        self.at(3, b"N")
        asked = self.ask("fleet")
        await has.came
        self.assertNoResult(asked)
        done.callback(None)
        self.assertIs(await asked, True)

    async def test_one_gateway_by_two_names(self) -> None:
        """Both requests are over before the client goes on: the second one must not cancel what it
        does next."""
        done: Deferred[None] = Deferred()
        has = self.at(1, b"Y", done)
        asked = self.ask("127.0.0.1", "127.0.0.1")
        await has.came
        self.assertNoResult(asked)
        done.callback(None)
        self.assertIs(await asked, True)

    async def test_an_address_where_there_is_none(self) -> None:
        """One that has a name to itself may have sessions; of a name with others it is none."""
        self.at(1, b"N")
        self.assertIs(await self.ask("fleet"), False)
        self.assertIsNone(await self.ask("127.0.0.1", "127.0.0.2"))
        self.assertIsNone(await self.ask("no-such-name", "127.0.0.1"))

    async def test_one_that_does_not_answer(self) -> None:
        self.patch(cancel_peers, "PEER_TIMEOUT", 0.3)
        self.at(1, b"N")
        self.at(2, b"")
        self.assertIsNone(await self.ask("fleet"))
        self.assertIsNone(await self.ask("127.0.0.2"))

    async def test_what_is_no_gateway(self) -> None:
        self.at(1, b"E\0\0\0\6x\0")
        self.assertIsNone(await self.ask("127.0.0.1"))
