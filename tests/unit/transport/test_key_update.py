"""TLS 1.3's KeyUpdate at any moment, also while the peer does not read (RFC 8446, section 4.6.3).

Neither pyOpenSSL nor Python's ``ssl`` can send one, so these are made by hand from the secrets that
OpenSSL tells for key logs.
"""

from __future__ import annotations

import contextlib
import socket

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand
from OpenSSL import SSL
from twisted.internet.threads import deferToThread

from tests.support.in_memory import client_context
from tests.support.transports import OnTwistedsTransports
from tests.unit.transport.test_connection import End
from tests.unit.transport.test_transport_corners import MEGABYTE, CornerCase, turns, until

SIZE = 20 * MEGABYTE

#: A KeyUpdate that asks for one from the other side, and the type of its record.
KEY_UPDATE = b"\x18\0\0\1\1" + b"\x16"


class Keys:
    """A client's, for what it sends."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def key_update(self) -> bytes:
        """A KeyUpdate; nothing else has been sent with these keys. The next ones follow."""
        key, iv = self._expand("key", 16), self._expand("iv", 12)
        header = b"\x17\3\3" + (len(KEY_UPDATE) + 16).to_bytes(2, "big")
        self._secret = self._expand("traffic upd", 32)
        return header + AESGCM(key).encrypt(iv, KEY_UPDATE, header)

    def _expand(self, label: str, length: int) -> bytes:
        """HKDF-Expand-Label."""
        name = b"tls13 " + label.encode()
        info = length.to_bytes(2, "big") + bytes([len(name)]) + name + b"\0"
        return HKDFExpand(SHA256(), length, info).derive(self._secret)


class KeyUpdates(CornerCase):
    """From a peer that reads nothing before it has sent them."""

    async def connect_with_keys(self, end: End) -> tuple[socket.socket, SSL.Connection, Keys]:
        """The peer, its end of TLS, and its keys."""
        secrets: dict[bytes, bytes] = {}

        def note(_: object, line: bytes) -> None:
            name, _, secret = line.split()
            secrets[name] = bytes.fromhex(secret.decode())

        context = client_context(version=SSL.TLS1_3_VERSION)
        context.set_tls13_ciphersuites(b"TLS_AES_128_GCM_SHA256")
        context.set_keylog_callback(note)
        peer = await self.connect(end)
        end.transport.startTLS(self.tls())
        records = SSL.Connection(context)
        records.set_connect_state()
        await deferToThread(self.shake_hands_by_hand, peer, records)
        return peer, records, Keys(secrets[b"CLIENT_TRAFFIC_SECRET_0"])

    def read_all(self, peer: socket.socket, records: SSL.Connection, size: int) -> int:
        """How many bytes come, up to ``size``."""
        count = 0
        while count < size:
            with contextlib.suppress(SSL.WantReadError):
                count += len(records.recv(65536))
                continue
            piece = peer.recv(65536)
            if not piece:
                break
            records.bio_write(piece)
        return count

    async def test_two_while_much_waits_to_be_read(self) -> None:
        end = End()
        peer, records, keys = await self.connect_with_keys(end)
        end.transport.write(b"x" * SIZE)
        await turns(3)
        for _ in range(2):
            peer.sendall(keys.key_update())
            await turns(20)
        self.assertEqual(await deferToThread(self.read_all, peer, records, SIZE), SIZE)
        self.assertFalse(end.lost.called)
        end.transport.write(b"more")
        self.assertEqual(await deferToThread(self.read_all, peer, records, 4), 4)
        self.check_transports()

    async def test_one_after_the_other_of_a_session_that_says_nothing(self) -> None:
        end = End()
        peer, records, keys = await self.connect_with_keys(end)
        for _ in range(100):
            peer.sendall(keys.key_update())
        await turns(20)
        end.transport.write(b"hello")
        self.assertEqual(await deferToThread(self.read_all, peer, records, 5), 5)


class KeyUpdatesOnTwisteds(OnTwistedsTransports, KeyUpdates):
    pass


class KeyUpdatesWithoutBound(KeyUpdates):
    """Answers to a peer that never reads them do not pile up."""

    async def test_a_peer_that_only_asks_is_cut_off(self) -> None:
        end = End()
        peer, _, keys = await self.connect_with_keys(end)
        peer.setblocking(False)
        end.transport.write(b"x" * SIZE)  # what it is answered waits behind that

        def flood() -> bool:
            with contextlib.suppress(BlockingIOError, ConnectionError):
                for _ in range(500):
                    peer.send(keys.key_update())
            return end.lost.called

        await until(flood)
