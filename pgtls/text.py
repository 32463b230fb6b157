r"""Text of a peer, made fit for a log line, an error or a terminal.

What a peer sends can hold control characters that break a log line or steer a terminal, characters
that turn the direction of writing ("Trojan Source", CVE-2021-42574), and more than a person reads.

===================  =========================================================================
:func:`clean_ascii`  all of it in ASCII, as PostgreSQL does it with ``application_name``
:func:`log_text`     for a log line or an error: ASCII, the beginning of what is too long
:func:`log_name`     for the same, of a certificate or a role: ASCII, the end of what is too long
:func:`printable`    for a person: Unicode, of which all that can be seen stays as it is
:func:`sasl_text`    PostgreSQL's own in messages about SASL
===================  =========================================================================
"""

from __future__ import annotations

import re

#: Bytes of a text that a log line or a person is shown.
MOST = 200

#: Bytes of a name that a log line shows: a CN of 64 with ``.../CN=`` before it.
MOST_OF_NAME = 71

_UNCLEAN = re.compile(rb"[^\x20-\x7e]")
_NOT_IN_SASL = re.compile(r"[^\x21-\x7e]")


def clean_ascii(text: bytes) -> str:
    r"""Keep printable ASCII, write every other byte as ``\xXX``.

    Source: pg_clean_ascii() in ``src/common/string.c``.

    :param text: in whatever encoding.
    :returns: ASCII without control characters.
    """
    return _UNCLEAN.sub(lambda byte: b"\\x%02x" % ord(byte[0]), text).decode("ascii")


def log_text(text: str | bytes, most: int = MOST) -> str:
    r"""Text for a log line.

    :param text: bytes that are not UTF-8 surrogate-escaped, where it is no bytes.
    :param most: the first bytes that are kept; escaped (``\xXX``) they can take four times the
        room. What is cut ends in ``...``.
    :returns: ASCII without control characters.
    """
    octets = _octets(text)
    if len(octets) <= most:
        return clean_ascii(octets)
    return clean_ascii(octets[:most]) + "..."


def log_name(text: str | bytes, most: int = MOST_OF_NAME) -> str:
    r"""A name for a log line, whose end says most.

    Source: prepare_cert_name() in ``src/backend/libpq/be-secure-openssl.c``.

    :param text: bytes that are not UTF-8 surrogate-escaped, where it is no bytes.
    :param most: the last bytes that are kept, with ``...`` in place of the first three of them.
    :returns: ASCII without control characters.
    """
    octets = _octets(text)
    if len(octets) > most:
        octets = b"..." + octets[len(octets) - most + 3 :]
    return clean_ascii(octets)


def printable(text: str, most: int | None = MOST) -> str:
    r"""Text for a terminal, on one line.

    :param text: what is not printable in it (controls, line breaks, marks of direction, bytes that
        were not UTF-8) is written as in a Python string, ``\x1b`` or ``\u202e``.
    :param most: the first characters that are kept, what is cut ends in ``...``; None for all.
    :returns: printable characters.
    """
    cut = text if most is None or len(text) <= most else text[:most] + "..."
    if cut.isprintable():
        return cut
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in cut)


def sasl_text(text: str) -> str:
    """What a peer sent in a SASL message, for an error about it.

    Source: sanitize_str() in ``src/backend/libpq/auth-scram.c``.

    :param text: one character a byte.
    :returns: at most 30 characters of printable ASCII.
    """
    return _NOT_IN_SASL.sub("?", text[:30])


def _octets(text: str | bytes) -> bytes:
    return text if isinstance(text, bytes) else text.encode("utf-8", "surrogateescape")
