"""Key exchange groups."""

from __future__ import annotations

import re

from OpenSSL import SSL

from pgtls.errors import ConfigurationError
from pgtls.tls.openssl import groups_set


def set_groups(context: SSL.Context, groups: str) -> None:
    """Set the key exchange groups, as ``ssl_groups``.

    Without it OpenSSL's default holds, which has X25519MLKEM768 in front since 3.5, and the
    ffdhe groups of RFC 7919 too. A list without those leaves TLS 1.2 clients that offer them
    no DHE suite, whatever parameters were loaded (RFC 7919, section 4).

    :param context: the context.
    :param groups: names with colons between them, the preferred one first, for example
        ``X25519MLKEM768:X25519:prime256v1``.
    :raises ConfigurationError: a name that this OpenSSL does not know, or none at all.
    """
    if not groups_set(context, groups):
        raise ConfigurationError(
            "could not set group names specified in ssl_groups: " + _groups_mistake(groups)
        )


def _groups_mistake(groups: str) -> str:
    scratch = SSL.Context(SSL.TLS_METHOD)
    # OpenSSL 3.5 has "/" between tuples of groups and "*", "?", "-" before a name.
    names = [name.lstrip("*?-") for name in re.split("[:/]", groups)]
    unknown = [f'"{name}"' for name in names if name and not groups_set(scratch, name)]
    version = SSL.OpenSSL_version(SSL.OPENSSL_VERSION).decode().rsplit(" ", 3)[0]
    if unknown:
        return f"{version} has no group {', '.join(unknown)}"
    return f'"{groups}" is not a list of group names with a colon between them'
