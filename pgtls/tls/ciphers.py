"""Cipher suites: the default ones, and what an operator's list may hold."""

from __future__ import annotations

import re

from OpenSSL import SSL, crypto

from pgtls.errors import ConfigurationError
from pgtls.tls.tls_info import is_ephemeral

#: TLS 1.2: ephemeral key exchange and authenticated encryption only. (All of TLS 1.3 is so.)
FORWARD_SECRET = "ECDHE+AESGCM:ECDHE+CHACHA20:DHE+AESGCM:DHE+CHACHA20:!aNULL:!DSS:!PSK:!SRP"

_ANONYMOUS = re.compile(r"aNULL|ADH\b.*|AECDH\b.*")


def set_ciphers(context: SSL.Context, ciphers: str) -> list[str]:
    """Set the TLS 1.2 cipher suites, as ``ssl_ciphers``.

    Anonymous suites are never on, also where a group of suites such as ``ALL`` has them.

    :param context: the context.
    :param ciphers: an OpenSSL cipher list.
    :returns: the suites among them that lack forward secrecy or encryption, for a warning: they are
        there on purpose, or by copying PostgreSQL's default ``HIGH:MEDIUM:+3DES:!aNULL``.
    :raises ConfigurationError: no suite is left, or an anonymous one is asked for by name.
    """
    for name in re.split("[:, ;]", ciphers):
        if any(_ANONYMOUS.fullmatch(part) for part in name.split("+")):
            raise ConfigurationError(
                f'could not set the TLSv1.2 cipher list: "{name}" stands for anonymous cipher '
                "suites, which do not protect from an attacker in between and are never used"
            )
    permitted = f"{ciphers}:!aNULL"
    names = cipher_names(permitted)
    context.set_cipher_list(permitted.encode())
    return [name for name in names if not is_ephemeral(name) or "-NULL-" in name]


def cipher_names(ciphers: str) -> list[str]:
    """The TLS 1.2 suites that an OpenSSL cipher list stands for, in its order.

    Suites that need a shared secret (PSK, SRP) are left out: nothing here ever sets one.

    :param ciphers: an OpenSSL cipher list.
    :returns: their names.
    :raises ConfigurationError: there are none.
    """
    # A list is read from a connection only, and a context that has one can't be changed any more.
    scratch = SSL.Context(SSL.TLS_METHOD)
    try:
        scratch.set_cipher_list(ciphers.encode())
    except SSL.Error:
        names = []
    else:
        listed = SSL.Connection(scratch).get_cipher_list()
        shared_secret = re.compile(r"(.*-)?(PSK|SRP)-.*")
        names = [
            name
            for name in listed
            if not name.startswith("TLS_") and not shared_secret.fullmatch(name)
        ]
    if not names:
        raise ConfigurationError(
            "could not set the TLSv1.2 cipher list (no valid ciphers available)"
        )
    return names


def set_ciphersuites(context: SSL.Context, ciphersuites: str) -> None:
    """Set the TLS 1.3 cipher suites, as ``ssl_tls13_ciphers``.

    :param context: the context.
    :param ciphersuites: names with colons between them.
    :raises ConfigurationError: no name is known.
    """
    if not ciphersuites:
        return
    try:
        context.set_tls13_ciphersuites(ciphersuites.encode())
    except SSL.Error as error:
        raise ConfigurationError(
            "could not set the TLSv1.3 cipher suites (no valid ciphers available)"
        ) from error


def check_dsa_key(key: crypto.PKey, ciphers: str) -> None:
    """Check that a DSA key can be used: only with the DHE-DSS suites of TLS 1.2, which are off by
    default.

    :param key: the server's key, of any kind.
    :param ciphers: the list that the context has.
    :raises ConfigurationError: a DSA key, and no suite for it in the list.
    """
    if key.type() != crypto.TYPE_DSA:
        return
    if not any(name.startswith("DHE-DSS-") for name in cipher_names(ciphers)):
        raise ConfigurationError(
            "a DSA key can be used with DHE-DSS cipher suites only: name them in ssl_ciphers "
            '(for example "DHE-DSS-AES256-GCM-SHA384"), or use an ECDSA or RSA key'
        )
