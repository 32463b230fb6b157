"""Where a CancelRequest goes, and in which order; what a flood of them does."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import cast

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IProtocol, IProtocolFactory
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from pgtls.conninfo.connection_string import ConnInfo, Host
from pgtls.gateway import cancel
from pgtls.gateway.cancel import SEARCHES_AT_ONCE, Backend, CancelForwarder
from pgtls.gateway.cancel_peers import Peers, host_and_port
from pgtls.protocols.endpoint import PgTLSClientEndpoint
from pgtls.wire.messages import CancelRequest

KEY = b"\0\0\0\1four"
OTHER = b"\0\0\0\2" + b"x" * 256


class Server:
    """A server, as an endpoint: records what it gets, and closes when it is told to."""

    def __init__(self, name: str) -> None:
        self.conninfo = ConnInfo.parse(f"host={name}", {})
        self.got: list[bytes] = []
        self._open: list[IProtocol] = []

    def for_session(self, host: Host, *, preface: bytes | None) -> Server:
        return self

    def connect(self, factory: IProtocolFactory) -> Deferred[IProtocol]:
        protocol = factory.buildProtocol(None)
        assert protocol is not None
        transport = StringTransport()
        protocol.makeConnection(transport)
        self.got.append(transport.value())
        self._open.append(protocol)
        return succeed(protocol)

    def close(self) -> None:
        for protocol in self._open:
            protocol.connectionLost(Failure(Exception("closed")))
        self._open.clear()

    @property
    def backend(self) -> Backend:
        return Backend(cast(PgTLSClientEndpoint, self), self.conninfo.hosts[0])


@dataclass
class Elsewhere:
    """Other processes, or peers, of which one has the session or none."""

    answer: bool | None = False
    asked: list[object] = field(default_factory=list)
    wait: Deferred[bool | None] | None = None
    open: int = 0

    def has_key(self, key: bytes) -> Deferred[bool | None]:
        self.asked.append(("has_key", key))
        return self.wait or succeed(self.answer)

    def cancel(self, key: bytes) -> Deferred[bool | None]:
        self.asked.append(("cancel", key))
        return succeed(self.answer)

    def have_room(self) -> bool:
        return True

    async def pass_on(self, request: CancelRequest) -> bool | None:
        self.asked.append(request.key)
        return self.answer

    def stop(self) -> None:
        pass


class Routes:
    """A route by name, and the gateway's own upstream."""

    def __init__(self) -> None:
        self.named, self.own = Server("named"), Server("own")
        self.has_own = True
        self.always_own = False  # as where there is but one upstream

    def renewed(self, endpoint: PgTLSClientEndpoint) -> PgTLSClientEndpoint:
        return endpoint

    def by_name(self, sni: str) -> PgTLSClientEndpoint | None:
        return cast(PgTLSClientEndpoint, self.named) if sni == "named" else None

    def for_unknown_key(self, sni: str | None, *, sure: bool) -> PgTLSClientEndpoint | None:
        goes = self.always_own or (self.has_own and sure)
        return cast(PgTLSClientEndpoint, self.own) if goes else None


class CancelCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.elsewhere, self.peers, self.routes = Elsewhere(), Elsewhere(), Routes()
        self.forwarder = CancelForwarder(self.clock, self.elsewhere)
        self.forwarder.peers = cast(Peers, self.peers)
        self.server = Server("session")
        self.forwarder.keys.add(KEY, self.server.backend)
        self.addCleanup(self.forwarder.stop)

    def forward(self, key: bytes, sni: str | None = None) -> Deferred[None]:
        return self.forwarder.forward(CancelRequest.build(key), self.routes, sni)


class Order(CancelCase):
    """Own sessions, other processes, the host name, peers, own upstream."""

    def test_a_known_key_is_for_its_server_alone(self) -> None:
        done = self.forward(KEY, "named")
        self.assertNoResult(done)  # the client is to wait until the server has closed
        self.assertEqual(self.server.got, [CancelRequest.build(KEY).raw])
        self.server.close()
        self.successResultOf(done)
        self.assertEqual(self.elsewhere.asked + self.peers.asked, [])
        self.assertEqual(self.routes.named.got + self.routes.own.got, [])

    def test_another_process_has_the_session(self) -> None:
        self.elsewhere.answer = True
        self.successResultOf(self.forward(OTHER, "named"))
        self.assertEqual(self.elsewhere.asked, [("has_key", OTHER), ("cancel", OTHER)])
        self.assertEqual(self.peers.asked + self.routes.named.got + self.routes.own.got, [])

    def test_the_host_name(self) -> None:
        self.forward(OTHER, "named")
        self.routes.named.close()
        self.assertEqual(self.routes.named.got, [CancelRequest.build(OTHER).raw])
        self.assertEqual(self.peers.asked + self.routes.own.got, [])

    def test_a_peer_has_the_session(self) -> None:
        self.peers.answer = True
        for sni in (None, "other"):
            self.successResultOf(self.forward(OTHER, sni))
        self.assertEqual(self.peers.asked, [OTHER, OTHER])
        self.assertEqual(self.routes.own.got, [])

    def test_the_own_upstream_in_the_end(self) -> None:
        done = self.forward(OTHER)
        self.routes.own.close()
        self.successResultOf(done)
        self.assertEqual(self.routes.own.got, [CancelRequest.build(OTHER).raw])
        self.assertEqual(self.peers.asked, [OTHER])

    def test_not_where_a_process_or_a_peer_does_not_answer(self) -> None:
        """It may be the key of another server: a route's, or a peer's own."""
        for silent, always_own in (
            (self.elsewhere, False),
            (self.peers, False),
            (self.peers, True),
        ):
            silent.answer, self.routes.always_own = None, always_own
            self.successResultOf(self.forward(OTHER))
            silent.answer = False
        self.assertEqual(self.routes.own.got, [])

    def test_one_upstream_has_the_sessions_of_a_hung_worker_too(self) -> None:
        self.elsewhere.answer, self.routes.always_own = None, True
        self.assertNoResult(self.forward(OTHER))
        self.assertEqual(len(self.routes.own.got), 1)

    def test_a_shutdown_waits_for_those_on_their_way(self) -> None:
        self.successResultOf(self.forwarder.finished())
        self.forward(KEY)
        finished = self.forwarder.finished()
        self.assertNoResult(finished)
        self.server.close()
        self.successResultOf(finished)


class FromOthers(CancelCase):
    """Requests of peers and of other processes are for sessions, and for nothing else."""

    def test_a_peer_s(self) -> None:
        for key, found, answers in (
            (KEY, False, [b"Y"]),
            (OTHER, True, [b"Y"]),
            (OTHER, False, [b"N"]),
            (OTHER, None, []),  # it asks somebody else
        ):
            self.elsewhere.answer = found
            said: list[bytes] = []
            self.forwarder.forward_for_peer(CancelRequest.build(key), self.routes, said.append)
            self.server.close()
            self.assertEqual(said, answers)
        self.assertEqual(self.server.got, [CancelRequest.build(KEY).raw])
        self.assertEqual(self.elsewhere.asked.count(("cancel", OTHER)), 1)
        self.assertEqual(self.peers.asked + self.routes.own.got, [])

    def test_another_process_s(self) -> None:
        unknown = self.forwarder.forward_from_elsewhere(OTHER, self.routes)
        self.assertIs(self.successResultOf(unknown), False)
        known = self.forwarder.forward_from_elsewhere(KEY, self.routes)
        self.assertNoResult(known)
        self.server.close()
        self.assertIs(self.successResultOf(known), True)
        self.assertEqual(self.elsewhere.asked + self.peers.asked, [])


class Flood(CancelCase):
    def test_requests_with_unknown_keys_leave_room(self) -> None:
        for _ in range(cancel.UNKNOWN_AT_ONCE):
            self.assertNoResult(self.forward(OTHER))
        self.successResultOf(self.forward(OTHER))  # dropped
        self.assertNoResult(self.forward(KEY))
        self.elsewhere.answer = True
        self.successResultOf(self.forward(OTHER))
        self.assertEqual(self.elsewhere.asked[-1], ("cancel", OTHER))
        self.assertEqual(len(self.routes.own.got), cancel.UNKNOWN_AT_ONCE)

    def test_searches_have_a_bound(self) -> None:
        self.elsewhere.wait = Deferred()
        waiting = [self.forward(OTHER) for _ in range(SEARCHES_AT_ONCE)]
        self.successResultOf(self.forward(OTHER))
        self.forwarder.forward_for_peer(CancelRequest.build(OTHER), self.routes, self.fail)
        self.assertEqual(len(self.elsewhere.asked), SEARCHES_AT_ONCE)
        self.routes.has_own = False
        self.elsewhere.wait.callback(False)
        self.elsewhere.wait = None
        for each in waiting:
            self.successResultOf(each)
        self.successResultOf(self.forward(OTHER))


class PeerNames(SynchronousTestCase):
    """``peers``."""

    def test_good_ones(self) -> None:
        for place, found in (
            ("gateway-2.example.com:6432", ("gateway-2.example.com", 6432)),
            ("192.0.2.7:1", ("192.0.2.7", 1)),
            ("[2001:db8::7]:65535", ("2001:db8::7", 65535)),
            ("[fe80::1%eth0]:6432", ("fe80::1%eth0", 6432)),
        ):
            self.assertEqual(host_and_port(place), found)

    def test_others(self) -> None:
        for place in (
            "", "gateway", "gateway:", ":6432", "gateway:0", "gateway:65536", "2001:db8::7:6432",
            "gateway:6432 sslmode=disable", "a'b:6432", "/tmp:6432", "a,b:6432", "gateway:٣",
        ):  # fmt: skip
            self.assertRaises(ValueError, host_and_port, place)
