"""Which attempts an sslmode allows, and in which order.

libpq's ``init_allowed_encryption_methods`` and ``select_next_encryption_method``
(``src/interfaces/libpq/fe-connect.c``), and PostgreSQL's documentation, "SSL Mode Descriptions".
The one difference: an ``E`` in answer to SSLRequest leads allow and prefer to a new connection
without SSL, as README.SSL and the protocol's documentation have it; libpq gives up there.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from functools import cache


class SSLMode(StrEnum):
    """libpq's ``sslmode``."""

    DISABLE = "disable"
    ALLOW = "allow"
    PREFER = "prefer"
    REQUIRE = "require"
    VERIFY_CA = "verify-ca"
    VERIFY_FULL = "verify-full"

    @property
    def tls_required(self) -> bool:
        """Whether plaintext is out of the question."""
        return self in (SSLMode.REQUIRE, SSLMode.VERIFY_CA, SSLMode.VERIFY_FULL)


class SSLNegotiation(StrEnum):
    """libpq's ``sslnegotiation``."""

    POSTGRES = "postgres"
    DIRECT = "direct"


class Method(StrEnum):
    """How a connection is protected."""

    PLAIN = "plain"
    SSL = "ssl"


#: The methods of each sslmode, the one to try first first.
_METHODS: dict[SSLMode, tuple[Method, ...]] = {
    SSLMode.DISABLE: (Method.PLAIN,),
    SSLMode.ALLOW: (Method.PLAIN, Method.SSL),
    SSLMode.PREFER: (Method.SSL, Method.PLAIN),
    SSLMode.REQUIRE: (Method.SSL,),
    SSLMode.VERIFY_CA: (Method.SSL,),
    SSLMode.VERIFY_FULL: (Method.SSL,),
}


@dataclass(frozen=True, slots=True)
class Attempts:
    """What is left to be tried at one host.

    :ivar remaining: the methods not yet refused; the first one is the current attempt.
    :ivar negotiation: how TLS begins.
    """

    remaining: tuple[Method, ...]
    negotiation: SSLNegotiation = SSLNegotiation.POSTGRES

    @classmethod
    @cache
    def plan(
        cls,
        sslmode: SSLMode,
        negotiation: SSLNegotiation = SSLNegotiation.POSTGRES,
        *,
        unix_socket: bool = False,
    ) -> Attempts:
        """The attempts for one host. A Unix socket never gets TLS, whatever the sslmode.

        :param sslmode: libpq's ``sslmode``.
        :param negotiation: libpq's ``sslnegotiation``.
        :param unix_socket: whether it is one.
        :returns: the attempts, in their order.
        """
        return cls((Method.PLAIN,) if unix_socket else _METHODS[sslmode], negotiation)

    @property
    def current(self) -> Method:
        """The attempt to make now."""
        return self.remaining[0]

    def failed(self) -> Attempts | None:
        """The current attempt failed: what is left, None where nothing is."""
        rest = self.remaining[1:]
        return Attempts(rest, self.negotiation) if rest else None


def combination_error(sslmode: SSLMode, negotiation: SSLNegotiation) -> str | None:
    """libpq's error for a combination that it refuses before connecting.

    :param sslmode: libpq's ``sslmode``.
    :param negotiation: libpq's ``sslnegotiation``.
    :returns: the message; None for a combination that is allowed.
    """
    if negotiation is SSLNegotiation.DIRECT and not sslmode.tls_required:
        return (
            f'weak sslmode "{sslmode}" may not be used with sslnegotiation=direct '
            '(use "require", "verify-ca", or "verify-full")'
        )
    return None
