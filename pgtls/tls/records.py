"""TLS records, made and opened in memory by OpenSSL, at a fraction of what pyOpenSSL's own calls
cost. Like :mod:`pgtls.tls.openssl` it asks ``OpenSSL._util.lib``."""

from __future__ import annotations

import struct
from typing import Any

from OpenSSL import SSL
from OpenSSL._util import ffi, lib

from pgtls.tls.record_size import RECORD_LIMIT

#: Bytes that :meth:`Records.open` takes at a time.
PIECE = 65536
#: Bytes that :meth:`Records.seal` takes at a time, and what they may become. A peer may ask for
#: records of 512 bytes (RFC 6066, max_fragment_length); each has up to 85 more.
BULK = 131072
_SEALED = BULK + BULK // 512 * 85
#: Bytes after which it reads what OpenSSL has made of them: OpenSSL's buffer, of which each
#: connection has one, stays in the processor's cache then, also where many take turns.
_BATCH = 4 * RECORD_LIMIT
_LONGEST_RECORD, _PLAIN = 16384, PIECE + 16384
#: A record's type, version and length.
_header = struct.Struct("!BHH").unpack_from
#: What looks like one record is taken for one; after so many it is seen whether it was.
_APPLICATION_DATA, _SINGLE = 23, 64

_WANT_READ = lib.SSL_ERROR_WANT_READ

_bio_read, _bio_write = lib.BIO_read, lib.BIO_write
_ssl_read, _ssl_write = lib.SSL_read, lib.SSL_write
_unpack, _from_buffer = ffi.unpack, ffi.from_buffer
#: To step through plaintext record by record, at less than an addition to a pointer costs.
_full_records = ffi.typeof(f"char[][{RECORD_LIMIT}]")
_NOTHING, _CLOSED = memoryview(b""), SSL.ZeroReturnError()

# One of each for all connections: what is in them is used at once.
_received, _plain = ffi.new("char[]", PIECE), ffi.new("char[]", _PLAIN)
_sealed = ffi.new("char[]", _SEALED)
_sealed_view = memoryview(ffi.buffer(_sealed))

#: Where the bytes that :meth:`Records.open` is to read are put, by ``socket.recv_into``.
received = memoryview(ffi.buffer(_received))


class Records:
    """OpenSSL between plaintext and TLS records, in memory, at a fraction of what pyOpenSSL's own
    calls cost: many records a call, one copy, no exceptions for what is normal.

    :param connection: one of pyOpenSSL's in memory, which knows which end it is.
    :ivar error: why no more records will follow: ZeroReturnError after a close_notify, another
        SSL.Error where they are broken or the peer has sent an alert.
    :ivar in_use: whether it has needed much memory; the caller resets it.
    :ivar has_output: whether there may be something for :meth:`take` that has not been asked for.
    """

    __slots__ = ("_in", "_out", "_single", "_ssl", "connection", "error", "has_output", "in_use")

    def __init__(self, connection: SSL.Connection) -> None:
        self.connection = connection
        self._ssl = connection._ssl
        self._in = connection._into_ssl
        self._out = connection._from_ssl
        self._single = 0
        self.error: SSL.Error | None = None
        self.has_output = False
        self.in_use = False

    def feed(self, data: bytes) -> None:
        """Take bytes from the peer.

        :param data: as they came.
        """
        lib.BIO_write(self._in, data, len(data))

    def handshake(self, count: int) -> bool:
        """Go on with the handshake.

        :param count: how many bytes from the peer are in :data:`received`.
        :returns: whether it is complete.
        :raises SSL.Error: it has failed; an alert may have to be sent.
        """
        if count:
            _bio_write(self._in, _received, count)
        self.has_output = True
        result = lib.SSL_do_handshake(self._ssl)
        if result <= 0 and lib.SSL_get_error(self._ssl, result) == _WANT_READ:
            return False
        # An exception in a callback of pyOpenSSL's is kept until then.
        self.connection._raise_ssl_error(self._ssl, result)
        return True

    def open(self, count: int) -> bytes:
        """The plaintext of all records that have come whole.

        :param count: how many bytes from the peer are in :data:`received`.
        :returns: nothing where none has.
        """
        if count:
            _bio_write(self._in, _received, count)
        size: int = _ssl_read(self._ssl, _plain, _PLAIN)
        if size > 0:
            kind, _, length = _header(received)
            self._single += 1
            if kind == _APPLICATION_DATA and length + 5 == count and self._single < _SINGLE:
                return _unpack(_plain, size)  # type: ignore[no-any-return]
        if count > _LONGEST_RECORD:
            self.in_use = True
        return self._open_all(size)

    def _open_all(self, size: int) -> bytes:
        """What :meth:`open` does where more than one record may have come, or another kind."""
        ssl = self._ssl
        self._single = 0
        data, total = b"", 0
        while size > 0:
            total += size
            if _PLAIN - total < _LONGEST_RECORD:
                data, total = data + _unpack(_plain, total), 0
            size = _ssl_read(ssl, _plain + total, _PLAIN - total)
        why = lib.SSL_get_error(ssl, size)
        if why == lib.SSL_ERROR_ZERO_RETURN:
            self.error = _CLOSED
        elif why != _WANT_READ:
            try:
                self.connection._raise_ssl_error(ssl, size)
            except SSL.Error as error:
                self.error = error.with_traceback(None)  # which would hold all that is here
        # The answer to a KeyUpdate, an alert.
        self.has_output = bool(lib.BIO_get_mem_data(self._out, ffi.NULL))
        return data + _unpack(_plain, total) if total else data

    def seal(self, data: bytes | memoryview, start: int) -> tuple[int, memoryview]:
        """Make records.

        :param data: the plaintext.
        :param start: what is before it has been taken already.
        :returns: up to where it has been taken now, BULK bytes more at most; and, as :meth:`take`
            does, what is to be sent to the peer.
        :raises SSL.Error: OpenSSL cannot.
        """
        size = len(data)
        if not start and size <= RECORD_LIMIT and type(data) is bytes:
            end: int = _ssl_write(self._ssl, data, size)
            if end <= 0:
                self.connection._raise_ssl_error(self._ssl, end)
            return end, self.take()
        self.in_use = True
        end, made = min(size, start + BULK), 0
        plaintext = memoryview(data)[start:end]
        for batch in range(0, end - start, _BATCH):
            self._write(plaintext[batch : batch + _BATCH])
            made += _bio_read(self._out, _sealed + made, _SEALED - made)
        self.has_output = False
        return end, _sealed_view[:made]

    def _write(self, plaintext: memoryview) -> None:
        """Make records of it, which are in OpenSSL's buffer then."""
        ssl = self._ssl
        for record in _from_buffer(_full_records, plaintext):
            written = _ssl_write(ssl, record, RECORD_LIMIT)
            if written != RECORD_LIMIT:
                self._write_rest(record, RECORD_LIMIT, written)
        size = len(plaintext) % RECORD_LIMIT
        if size:
            last = _from_buffer(plaintext[-size:])
            self._write_rest(last, size, _ssl_write(ssl, last, size))

    def _write_rest(self, plaintext: Any, size: int, written: int) -> None:
        """What SSL_write has left, for a peer that asked for shorter records. Or it has failed."""
        total = written
        while written > 0 and total < size:
            written = _ssl_write(self._ssl, plaintext + total, size - total)
            total += written
        if written <= 0:
            self.connection._raise_ssl_error(self._ssl, written)

    def take(self) -> memoryview:
        """What is to be sent to the peer.

        :returns: not more than fits; good until the next call of any connection's.
        """
        self.has_output = False
        size: int = _bio_read(self._out, _sealed, _SEALED)
        return _sealed_view[:size] if size > 0 else _NOTHING

    def release(self) -> bool:
        """Give back the memory that has been needed so far; OpenSSL itself would keep it.

        :returns: whether that could be: not while something is in it.
        """
        if lib.BIO_get_mem_data(self._in, ffi.NULL) or lib.BIO_get_mem_data(self._out, ffi.NULL):
            return False
        self._in = lib.BIO_new(lib.BIO_s_mem())
        self._out = lib.BIO_new(lib.BIO_s_mem())
        lib.SSL_set_bio(self._ssl, self._in, self._out)  # which now owns them
        self.connection._into_ssl, self.connection._from_ssl = self._in, self._out
        return True

    def close(self) -> None:
        """Make a close_notify, for :meth:`take`; nothing where TLS has failed."""
        if lib.SSL_shutdown(self._ssl) < 0:
            lib.ERR_clear_error()
        self.has_output = True
