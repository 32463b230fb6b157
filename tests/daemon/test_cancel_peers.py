"""Gateways that are peers of one another: a cancel request finds its session at any of them."""

from __future__ import annotations

import contextlib
import signal
import socket
import socketserver
import struct
import threading
import time

from pgtls.wire.messages import CancelRequest
from tests.daemon.test_routes import RoutesCase
from tests.support.gateway_daemon import Gateway
from tests.support.raw_client import answer
from tests.support.servers import HOST, free_port

#: Seconds within which a request is over whose peer is not there.
SOON = 15.0


class _Question(socketserver.StreamRequestHandler):
    server: RecordingPeer

    def handle(self) -> None:
        with contextlib.suppress(ConnectionError, struct.error):  # where another one has it
            self.rfile.read(8)  # SSLRequest
            self.wfile.write(b"N")
            length = self.rfile.read(4)
            self.server.got.append(length + self.rfile.read(struct.unpack("!I", length)[0] - 4))
            self.wfile.write(b"N")


class RecordingPeer(socketserver.ThreadingTCPServer):
    """A gateway without sessions.

    :ivar got: what the other gateways have asked it.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__((HOST, 0), _Question)
        self.got: list[bytes] = []
        self._thread = threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    @property
    def place(self) -> str:
        return f"{HOST}:{self.server_address[1]}"

    def stop(self) -> None:
        self.shutdown()
        self.server_close()
        self._thread.join()


class PeersCase(RoutesCase):
    """Gateways in front of tenants that record what they get."""

    def take(self) -> list[bytes]:
        """All keys that the servers got since the last time; each has given out its own."""
        for tenant, keys in self.tenants.cancels.items():
            for key in keys:
                self.assertEqual(struct.unpack("!I", key[:4])[0], tenant)
        got = [key for keys in self.tenants.cancels.values() for key in keys]
        self.tenants.cancels.clear()
        return sorted(got)


class Fleet(PeersCase):
    """Two gateways with workers and one that takes cancel requests in TLS only; and a recorder."""

    def setUp(self) -> None:
        super().setUp()
        self.recorder = RecordingPeer()
        self.addCleanup(self.recorder.stop)
        self.ports = [free_port() for _ in range(3)]
        self.first = self.member(0, workers=2)
        self.second = self.member(1, workers=2, upstream=self.at(152))
        self.third = self.member(2, ssl="require", cancel="tls")

    def member(self, number: int, *, workers: int = 1, **settings: str) -> Gateway:
        """One of them. Each has the same peers, itself included."""
        self.workers = workers
        return self.started(
            self.by_label(),
            {"database": "app", "upstream": self.at(151)},
            listen=f"tcp:{self.ports[number]}:interface={HOST}",
            peers=", ".join([*(f"{HOST}:{port}" for port in self.ports), self.recorder.place]),
            **settings,
        )

    def test_sessions_are_found(self) -> None:
        first, second, third = self.first, self.second, self.third
        sessions = [self.tls(first, f"{number}.example.com") for number in range(2, 8)]
        sessions += [self.tls(second, f"{number}.example.com") for number in range(8, 14)]
        sessions += [self.tls(third, f"{number}.example.com") for number in range(14, 17)]
        keys = [session.key for session in sessions]
        keys += [self.plain(each, database="app").key for each in (first, second)]
        keys.append(self.plain(second).key)
        for number, key in enumerate(keys):  # by a name that leads nowhere, and without one
            self.cancel((first, second)[number % 2], key, "example.org" if number % 3 else "")
            self.cancel(third, key, "example.org")
        self.assertEqual(self.take(), sorted(keys * 2))
        self.unknown_keys()
        self.forged(sessions[0].key, sessions[-1].key)
        second.signal(signal.SIGTERM)
        second.wait_for_log(r"\d sessions have 10 s to finish")
        self.cancel(first, sessions[8].key)
        self.cancel(second, sessions[9].key)
        self.assertEqual(self.take(), [sessions[8].key, sessions[9].key])

    def unknown_keys(self) -> None:
        """One that no session has is asked about once, and gets no further."""
        self.recorder.got.clear()
        request = CancelRequest.build(struct.pack("!I", 152) + b"nobody's")
        self.cancel(self.second, request.key)
        self.assertEqual(self.take(), [request.key])  # it may be an older session's
        self.assertEqual(self.recorder.got, [request.for_peers])
        self.cancel(self.first, request.key)  # has no upstream of its own
        self.cancel(self.second, request.key, "example.org")  # may be of two servers
        self.assertEqual(self.take(), [])
        self.assertEqual(self.recorder.got, [request.for_peers] * 3)
        self.cancel(self.first, struct.pack("!I", 9) + b"nobody's", "9.example.com")
        self.assertEqual(len(self.take()), 1)
        self.assertEqual(len(self.recorder.got), 3)

    def forged(self, here: bytes, elsewhere: bytes) -> None:
        """A client that pretends to be a gateway."""
        self.recorder.got.clear()
        unknown = struct.pack("!II", 152, 1)
        for gateway, key, said in (
            (self.first, here, b"Y"),
            (self.first, elsewhere, b"N"),
            (self.second, unknown, b"N"),
        ):
            request = CancelRequest.build(key).for_peers
            self.assertEqual(answer(gateway.address, request), said)
        self.assertEqual(self.take(), [here])
        self.assertEqual(self.recorder.got, [])


class Absent(PeersCase):
    """Peers that do not answer cost a bounded time, and a line of the log each."""

    def test_they_hold_up_nobody(self) -> None:
        with socket.create_server((HOST, 0)) as silent:
            absent = f"{HOST}:{free_port()}"
            peers = [absent, f"{HOST}:{silent.getsockname()[1]}", f"{HOST}:{self.tenants.port}"]
            peers.append("no-such-host.invalid:6432")
            gateway = self.started(self.by_label(), peers=",".join(peers), upstream=self.at(9))
            session, named = self.plain(gateway), self.tls(gateway, "2.example.com")
            for key in (session.key, named.key):
                self.cancel(gateway, key)
            self.cancel(gateway, struct.pack("!II", 3, 1), "3.example.com")  # the name knows better
            self.assertEqual(sorted(self.tenants.cancels), [2, 3, 9])
            self.assertEqual(len(self.take()), 3)
            silent.setblocking(False)
            self.assertRaises(BlockingIOError, silent.accept)  # none of these was for a peer
            began = time.monotonic()
            for _ in range(2):
                self.cancel(gateway, struct.pack("!II", 9, 99))
            self.assertLess(time.monotonic() - began, SOON)
        for peer in peers:
            gateway.wait_for_log(f"peer {peer}: cancel request not passed on: ")
        self.assertEqual(gateway.log().count(f"peer {absent}: cancel"), 1)
        # It may be the key of a session at one of them, of another tenant.
        self.assertEqual(self.take(), [])
