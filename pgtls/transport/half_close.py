"""Which protocols can live with a half-closed connection, without asking each time anew."""

from __future__ import annotations

from functools import cache
from typing import cast

from twisted.internet.interfaces import IHalfCloseableProtocol, IProtocol


@cache
def _implements(kind: type) -> bool:
    return bool(IHalfCloseableProtocol.implementedBy(kind))


@cache
def _adapts(kind: type) -> bool:
    """Whether a protocol may be adapted to an interface that it does not provide; to try it costs
    more than the rest of a connection's end."""
    return hasattr(kind, "__conform__")


def half_closeable(protocol: IProtocol) -> IHalfCloseableProtocol | None:
    """What is told of half-closes.

    :param protocol: a connection's.
    :returns: the protocol itself, or what it says; None where nothing is.
    """
    kind = type(protocol)
    if _adapts(kind):
        return IHalfCloseableProtocol(protocol, None)
    if _implements(kind) or IHalfCloseableProtocol.providedBy(protocol):
        return cast(IHalfCloseableProtocol, protocol)
    return None
