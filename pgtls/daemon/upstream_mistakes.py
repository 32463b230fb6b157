"""Everything that is wrong with an upstream's connection string, and with the files that it names.

Whoever parses it ends at the first mistake, as libpq does. Here what is wrong is left out, and the
rest is looked at again.
"""

from __future__ import annotations

import os
import re

from pgtls.conninfo.connection_string import ConnInfo
from pgtls.conninfo.template import PLACE
from pgtls.errors import ConfigurationError
from pgtls.tls.client_context import ClientTLS

_WORD = re.compile(r"\w+")


def upstream_mistakes(text: str) -> list[str]:
    """Find all mistakes.

    :param text: a connection string, perhaps of a route: with a place for a label.
    :returns: a sentence for each.
    """
    text = text.replace(PLACE, "label")
    mistakes: list[str] = []
    while True:
        try:
            conninfo = ConnInfo.parse(text, os.environ)
            break
        except ConfigurationError as error:
            mistakes += error.mistakes
            text, before = _without(text, " ".join(error.mistakes)), text
            if text == before:
                return mistakes
    about_mode = any("sslmode" in mistake for mistake in mistakes)
    if about_mode and "sslrootcert" in text and "://" not in text:
        text += " sslmode=verify-ca"  # whatever was meant: files are looked at by it
    try:
        conninfo = ConnInfo.parse(text, os.environ)
        if any(host.unix_path is None for host in conninfo.hosts):
            ClientTLS(conninfo)
    except ConfigurationError as error:
        mistakes += error.mistakes
    return mistakes


def _without(text: str, mistake: str) -> str:
    """A connection string without the parameters that a mistake names."""
    for name in set(_WORD.findall(mistake)):
        value = r"\s*=\s*('(\\.|[^'\\])*'|[^\s&]*)"
        text = re.sub(rf"(?<!\w){re.escape(name)}{value}", "", text)
    return text
