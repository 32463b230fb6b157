"""How much a TLS record of ours carries."""

from __future__ import annotations

from typing import Any

from OpenSSL import SSL

#: Bytes of plaintext in a TLS record that we send; PostgreSQL's own have no more. libpq before 18.6
#: (15.20 and so on) leaves what exceeds this inside OpenSSL, and its asynchronous interface then
#: waits on a socket on which nothing more comes.
RECORD_LIMIT = 8192


class Connection(SSL.Connection):
    """pyOpenSSL's, whose records carry at most :data:`RECORD_LIMIT` bytes of plaintext.

    OpenSSL itself has ``SSL_CTX_set_max_send_fragment``, which pyOpenSSL and its ``lib`` have not.
    So each call of SSL_write gets at most that much: with SSL_MODE_ENABLE_PARTIAL_WRITE, which
    pyOpenSSL always sets, a caller is used to a part being sent.
    """

    def send(self, buf: Any, flags: int = 0) -> int:
        """As pyOpenSSL's; one record's content at most.

        :param buf: bytes.
        :param flags: without meaning, as there.
        :returns: how many of the bytes have been sent.
        :raises SSL.Error: as pyOpenSSL's.
        """
        return super().send(memoryview(buf)[:RECORD_LIMIT], flags)

    write = send

    def sendall(self, buf: Any, flags: int = 0) -> int:
        """As pyOpenSSL's, in records of limited size.

        :param buf: bytes.
        :param flags: without meaning, as there.
        :returns: the number of the bytes.
        :raises SSL.Error: as pyOpenSSL's.
        """
        view = memoryview(buf)
        sent = 0
        while sent < len(view):
            sent += self.send(view[sent:], flags)
        return sent
