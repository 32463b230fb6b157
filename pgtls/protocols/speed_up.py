"""Which of Twisted's transports become fast ones.

:func:`speed_up` gives a transport another class, since Twisted leaves no other place to say which
class a connection gets. Where that cannot serve (no epoll, a wrapper such as haproxy's, another
kind of transport, a TLS context that is not ours), everything stays as Twisted has it.
"""

from __future__ import annotations

import select
from typing import Any

from twisted.internet import tcp, unix
from twisted.internet.interfaces import ISSLTransport
from zope.interface import implementer

from pgtls.protocols.fast_tls import FastTLS
from pgtls.protocols.fast_transport import Fast
from pgtls.protocols.poller import poller


@implementer(ISSLTransport)
class _ServerTLS(FastTLS, tcp.Server):  # type: ignore[misc]
    _twisted_class = tcp.Server


@implementer(ISSLTransport)
class _ClientTLS(FastTLS, tcp.Client):  # type: ignore[misc]
    _twisted_class = tcp.Client


class _Server(Fast, tcp.Server):  # type: ignore[misc]
    _twisted_class = tcp.Server
    _tls_class = _ServerTLS


class _Client(Fast, tcp.Client):  # type: ignore[misc]
    _twisted_class = tcp.Client
    _tls_class = _ClientTLS


class _UNIXServer(Fast, unix.Server):  # type: ignore[misc]
    _twisted_class = unix.Server


class _UNIXClient(Fast, unix.Client):  # type: ignore[misc]
    _twisted_class = unix.Client


_CLASSES: dict[type, type[Fast]] = {
    tcp.Server: _Server,
    tcp.Client: _Client,
    unix.Server: _UNIXServer,
    unix.Client: _UNIXClient,
}


def speed_up(transport: Any) -> None:
    """Make a connected transport of Twisted's a fast one, if it can be."""
    fast = _CLASSES.get(type(transport))
    if fast is None or not hasattr(select, "epoll"):
        return
    transport.stopReading()
    transport.__class__ = fast
    transport.startReading()
    poller(transport.reactor).arrival()
