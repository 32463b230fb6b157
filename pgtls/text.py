"""Text of strangers, made fit for a log line or a setting: PostgreSQL's pg_clean_ascii()."""

from __future__ import annotations

import re

_UNCLEAN = re.compile(rb"[^\x20-\x7e]")


def clean_ascii(text: bytes) -> str:
    r"""Keep printable ASCII, write every other byte as ``\xXX`` (``src/common/string.c``).

    :param text: bytes from a peer.
    :returns: the text.
    """
    return _UNCLEAN.sub(lambda byte: b"\\x%02x" % ord(byte[0]), text).decode("ascii")
