"""Which of a server's contexts a handshake goes on with: by the host name in the ClientHello.

RFC 6066, section 3. PostgreSQL 19's ``sni_clienthello_cb`` does the same in a callback that
pyOpenSSL's ``lib`` has not; the one that it has is called at the same moment for this purpose.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from OpenSSL import SSL

from pgtls.tls.openssl import choose_context

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ServerNames(Generic[T]):
    """What there is for each host name.

    :ivar named: by the name in lower case; ``*.example.com`` stands for one label in front of
        ``.example.com``, where there is nothing for the whole name.
    :ivar default: for any other client; None for nothing.
    :ivar nameless: for a client that names no host; None where the default is for it too.
    """

    named: Mapping[bytes, T] = field(default_factory=dict)
    default: T | None = None
    nameless: T | None = None

    def find(self, name: bytes | None) -> T | None:
        """What is for a client.

        :param name: the host name that it asks for, in upper or lower case; None for none.
        :returns: it; None where there is nothing.
        """
        if name is None:
            return self.nameless if self.nameless is not None else self.default
        name = name.lower()
        found = self.named.get(name)
        if found is None:
            label, _, parent = name.partition(b".")
            if label and parent:
                found = self.named.get(b"*." + parent)
        return found if found is not None else self.default


def choose_by_name(context: SSL.Context, names: ServerNames[SSL.Context]) -> None:
    """Let each handshake go on with the context that is for its client.

    Where there is none the handshake ends: with the alert unrecognized_name for a client that
    names a host, handshake_failure for one that does not.

    :param context: what the server's connections are made with. It needs no certificate. Versions,
        groups, options and modes remain those of this one.
    :param names: the contexts. Certificates, cipher suites, authorities, CRLs, ALPN and the
        callbacks are theirs.
    """
    choose_context(context, names.find)
