"""A small reader of DER: what stands where, without a judgement of anything else in it.

OpenSSL decides whether a certificate or a CRL is any good. This reader finds the parts of it that
are shown or compared, and skips the others, so that nothing that was not asked for can stand in
the way. ITU-T X.690; the types are those of RFC 5280.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import NamedTuple

BOOLEAN = 0x01
INTEGER = 0x02
BIT_STRING = 0x03
OCTET_STRING = 0x04
OBJECT_IDENTIFIER = 0x06
UTC_TIME = 0x17
GENERALIZED_TIME = 0x18
SEQUENCE = 0x30
SET = 0x31

_CONSTRUCTED = 0x20
_INDEFINITE = b"\x80"
_END_OF_CONTENTS = b"\0\0"

#: Values of indefinite length inside each other that are read: OpenSSL's ASN1_MAX_CONSTRUCTED_NEST.
_DEEPEST = 30


class Value(NamedTuple):
    """One value.

    :ivar tag: the octet that stands for its type.
    :ivar content: what it holds.
    :ivar whole: the same with tag and length in front.
    """

    tag: int
    content: bytes
    whole: bytes


def elements(der: bytes) -> Iterator[Value]:
    """The values that stand side by side.

    :param der: all of them, nothing before and nothing behind.
    :returns: each, in its order.
    :raises ValueError: it is not DER.
    """
    position = 0
    while position < len(der):
        value, position = _value(der, position, 0)
        yield value


def first(der: bytes, tag: int) -> Value:
    """The first of the values that stand side by side.

    :param der: at least that one.
    :param tag: the type that it must have.
    :returns: it.
    :raises ValueError: there is none, or it is of another type.
    """
    value = next(elements(der), None)
    if value is None or value.tag != tag:
        raise ValueError(f"not DER with the tag {tag:#x}")
    return value


def inner(der: bytes, tag: int = SEQUENCE) -> list[Value]:
    """The values inside the first one.

    :param der: begins with the outer one.
    :param tag: the type that the outer one must have.
    :returns: what it holds, in its order.
    :raises ValueError: it is not DER, or of another type.
    """
    return list(elements(first(der, tag).content))


def dotted(oid: bytes) -> str:
    """An OBJECT IDENTIFIER as text.

    :param oid: its content.
    :returns: numbers with dots between them.
    :raises ValueError: it is none.
    """
    if not oid or oid[-1] & 0x80:
        raise ValueError("not an OBJECT IDENTIFIER")
    arcs, arc = [], 0
    for octet in oid:
        arc = arc << 7 | octet & 0x7F
        if not octet & 0x80:
            arcs.append(arc)
            arc = 0
    root = min(arcs[0] // 40, 2)
    return ".".join(str(number) for number in (root, arcs[0] - 40 * root, *arcs[1:]))


def moment(value: Value) -> datetime:
    """A UTCTime or GeneralizedTime, in the one form of each that OpenSSL compares with
    (RFC 5280, section 4.1.2.5): in seconds, and UTC.

    :param value: it.
    :returns: the same, with UTC for its time zone.
    :raises ValueError: it is none.
    """
    digits = value.content[:-1]
    expected = {UTC_TIME: 12, GENERALIZED_TIME: 14}.get(value.tag)
    if len(digits) != expected or not digits.isdigit() or value.content[-1:] != b"Z":
        raise ValueError("not a time")
    text = digits.decode()
    if value.tag == UTC_TIME:
        text = ("20" if text < "50" else "19") + text
    parts = [int(text[at : at + 2]) for at in range(4, 14, 2)]
    month, day, hour, minute, second = parts
    return datetime(int(text[:4]), month, day, hour, minute, second, tzinfo=UTC)


def _value(der: bytes, start: int, depth: int) -> tuple[Value, int]:
    """The value that stands at ``start``, and where the next one does. OpenSSL takes BER's
    indefinite length too, in what it has no reason to encode anew.

    :raises ValueError: it is not DER.
    """
    tag, (length, position) = der[start], _length(der, start + 1)
    if tag & 0x1F == 0x1F:
        raise ValueError("not DER")
    if der[start + 1 : start + 2] == _INDEFINITE and tag & _CONSTRUCTED:
        end = position
        while der[end : end + 2] != _END_OF_CONTENTS:
            if depth == _DEEPEST or end >= len(der):
                raise ValueError("not DER")
            end = _value(der, end, depth + 1)[1]
        after = end + len(_END_OF_CONTENTS)
    else:
        end = after = position + length
    if end > len(der):
        raise ValueError("not DER")
    return Value(tag, der[position:end], der[start:after]), after


def _length(der: bytes, position: int) -> tuple[int, int]:
    """The length that stands at ``position``, and where it ends."""
    octet = int.from_bytes(der[position : position + 1], "big")
    if octet < 0x80:
        return octet, position + 1
    end = position + 1 + (octet & 0x7F)
    return int.from_bytes(der[position + 1 : end], "big"), end


def encoded(tag: int, content: bytes) -> bytes:
    """Write one value.

    :param tag: the octet that stands for its type.
    :param content: what it holds.
    :returns: DER.
    """
    size = len(content)
    if size < 0x80:
        return bytes([tag, size]) + content
    octets = size.to_bytes((size.bit_length() + 7) // 8)
    return bytes([tag, 0x80 | len(octets)]) + octets + content
