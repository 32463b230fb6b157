"""PEM as OpenSSL reads it: nothing more, and nothing less.

OpenSSL itself decides what a file holds: what is trusted or used, it reads from the very octets.
The reader here is a copy of its rules, for what OpenSSL gives no way to ask for: names and dates
of what was read, revocation lists apart from certificates, certificate requests. A BEGIN line
counts at the start of a line only; an END line must name the same thing, and stand alone.

Source: ``PEM_read_bio()``, ``get_name()`` and ``get_header_and_data()`` in OpenSSL's
``crypto/pem/pem_lib.c``, ``file_gets()`` in ``crypto/bio/bss_file.c``.
"""

from __future__ import annotations

import base64
import binascii
import os
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import NamedTuple

#: What OpenSSL takes for a certificate among roots; of these, the third is none in a list of
#: authorities that a server asks certificates of, nor behind the first of a chain.
CERTIFICATES = ("CERTIFICATE", "X509 CERTIFICATE", "TRUSTED CERTIFICATE")
PLAIN_CERTIFICATES = CERTIFICATES[:2]
CRLS = ("X509 CRL",)
REQUESTS = ("CERTIFICATE REQUEST", "NEW CERTIFICATE REQUEST")

#: Octets of a line that are read at a time. What follows counts as the next line.
_LINE = 254
#: Octets of a line of what is encrypted, its end included.
_ENCRYPTED_LINE = 65

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_BEGIN, _END, _TAIL = b"-----BEGIN ", b"-----END ", b"-----"

#: What does not count at the end of a line.
_IGNORED_AT_END = bytes([*range(0x21), *range(0x80, 0x100)])


class Block(NamedTuple):
    """What stands between a BEGIN and an END line.

    :ivar name: what both lines call it.
    :ivar header: the lines of its header, empty for none.
    :ivar der: what is encoded in it.
    :ivar text: its lines, BEGIN and END included.
    """

    name: str
    header: bytes
    der: bytes
    text: bytes


def blocks(data: bytes, names: Collection[str] = ()) -> list[Block]:
    """All blocks of a file.

    :param data: its content.
    :param names: leave out all but these; none for all.
    :returns: each, in its order.
    :raises ValueError: one of them, wanted or not, is damaged.
    """
    return [block for block in _blocks(data) if not names or block.name in names]


def first_block(data: bytes, names: Collection[str]) -> Block | None:
    """The first block of some names, as OpenSSL finds it where it looks for one: what is behind it
    is not read.

    :param data: the content of a file.
    :param names: the names that will do.
    :returns: the block; None where there is none.
    :raises ValueError: it is damaged, or one before it.
    """
    return next((block for block in _blocks(data) if block.name in names), None)


def looks_like_pem(data: bytes) -> bool:
    """Whether a BEGIN line is in a file, where OpenSSL would find it.

    :param data: its content.
    :returns: whether there is one, of any name.
    """
    return bool(_next_name(_lines(data)))


def is_der(data: bytes) -> bool:
    """Whether a file is DER, and not PEM behind some text.

    :param data: its content.
    :returns: whether it begins as all that is meant here does: with a SEQUENCE.
    """
    return data[:1] == b"\x30" and not looks_like_pem(data)


def as_file(data: bytes) -> bytes:
    """The octets that OpenSSL sees when it reads a file: each line up to its first NUL, and nothing
    after a line that begins with one.

    :param data: its content.
    :returns: the same where it has no NUL.
    """
    if b"\0" not in data:
        return data
    return b"".join(line if line.endswith(b"\n") else line + b"\n" for line in _lines(data))


def why_nothing(data: bytes) -> str:
    """Why there may be nothing in a file that OpenSSL finds: a hint for an error message.

    :param data: its content.
    :returns: half a sentence; empty where nothing comes to mind.
    """
    if not data.strip():
        return "it is empty"
    data = as_file(data)
    if not data.strip():
        return "it begins with a NUL: OpenSSL reads a line up to there only"
    if is_der(data):
        return "it is DER, and must be PEM: see the option -inform DER of openssl"
    if _BEGIN in data and not looks_like_pem(data):
        if b"\r" in data and b"\n" not in data:
            return "its lines end with a carriage return alone"
        return "a BEGIN line counts only at the start of a line, and with nothing behind it"
    return ""


@contextmanager
def file_of(data: bytes) -> Iterator[str]:
    """A file for OpenSSL's functions that read from nothing else.

    :param data: what is in it. Nothing secret.
    :returns: its path, while the block runs.
    """
    if hasattr(os, "memfd_create") and os.path.isdir("/proc/self/fd"):
        descriptor = os.memfd_create("pgtls", os.MFD_CLOEXEC)
        try:
            os.truncate(descriptor, 0)
            with open(descriptor, "wb", closefd=False) as file:
                file.write(data)
            yield f"/proc/self/fd/{descriptor}"
        finally:
            os.close(descriptor)
    else:
        with tempfile.NamedTemporaryFile(suffix=".pem") as named:
            named.write(data)
            named.flush()
            yield named.name


def _blocks(data: bytes) -> Iterator[Block]:
    lines = _lines(data)
    while name := _next_name(lines):
        yield _block(name, lines)


def _lines(data: bytes) -> Iterator[bytes]:
    """What ``file_gets()`` gives, one after the other."""
    position = 0
    while position < len(data):
        end = data.find(b"\n", position, position + _LINE) + 1 or position + _LINE
        line = data[position:end].partition(b"\0")[0]
        if not line:
            return
        yield line
        position = end


def _next_name(lines: Iterator[bytes]) -> str:
    """Go on behind the next BEGIN line, and say what it names; empty where there is none."""
    for number, raw in enumerate(lines):
        line = raw
        if number == 0 and len(raw) > len(_BYTE_ORDER_MARK):
            line = raw.removeprefix(_BYTE_ORDER_MARK)
        line = line.rstrip(_IGNORED_AT_END)
        if line.startswith(_BEGIN) and line.endswith(_TAIL) and len(line) >= len(_BEGIN + _TAIL):
            return line[len(_BEGIN) : -len(_TAIL)].decode("latin-1")
    return ""


def _block(name: str, lines: Iterator[bytes]) -> Block:
    """Read on to the END line.

    :raises ValueError: the block is damaged.
    """
    header: list[bytes] = []
    content: list[bytes] = []
    text = [_BEGIN + name.encode("latin-1") + _TAIL]
    in_header = header_over = short = cut = False
    end = _END + name.encode("latin-1") + _TAIL
    for raw in lines:
        cut_before, cut = cut, len(raw) == _LINE and not raw.endswith(b"\n")
        in_header = in_header or (not header_over and b":" in raw)
        line = raw.rstrip(_IGNORED_AT_END)
        if not line and cut_before:
            continue
        text.append(line)
        if not line:
            if header_over:
                break
            header, content, header_over = content, [], True
        elif line.startswith(_END):
            if line != end:
                break
            if in_header and not header_over:
                header, content = content, header
            return Block(name, b"\n".join(header), _decoded(content), b"\n".join(text) + b"\n")
        elif short or (header_over and len(line) >= _ENCRYPTED_LINE):
            break
        else:
            content.append(line)
            short = header_over and len(line) < _ENCRYPTED_LINE - 1
    raise ValueError("bad end line")


def _decoded(lines: list[bytes]) -> bytes:
    """:raises ValueError: it is not base64, or there is nothing."""
    data = b"".join(b"".join(lines).split()).partition(b"-")[0]
    if len(data) % 4:
        raise ValueError("bad base64 decode")
    try:
        decoded = base64.b64decode(data, validate=True)
    except binascii.Error as error:
        raise ValueError("bad base64 decode") from error
    if not decoded:
        raise ValueError("there is nothing in it")
    return decoded
