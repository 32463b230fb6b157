"""Connecting as a client would, and what happened."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import cast

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime, ITransport
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure

from pgtls.conninfo.connection_string import ConnInfo
from pgtls.conninfo.startup_packet import startup_message
from pgtls.errors import ConnectFailed, PgTLSError
from pgtls.protocols.connection_info import CLOSE_TIMEOUT, negotiated_tls
from pgtls.protocols.endpoint import PgTLSClientEndpoint
from pgtls.text import printable
from pgtls.tls.tls_info import CertificateFacts, NegotiatedTLS, certificate_facts
from pgtls.transport.dial import TIMEOUT_EXPIRED
from pgtls.transport.reactor import IReactor
from pgtls.wire.client_negotiation import CLOSED_UNEXPECTEDLY, Event, rejection
from pgtls.wire.messages import ServerRejected
from pgtls.wire.session_start import SessionStart

#: Seconds for all of it where the connection string has no connect_timeout.
DEFAULT_TIMEOUT = 15

#: Seconds that a server which let us in has to say that it is ready for queries, or why not.
READY_TIMEOUT = 5


@attrs.define
class ProbeResult:
    """What a probe found out; the JSON has these keys.

    :ivar events: what happened, in turn: values of :class:`~pgtls.wire.client_negotiation.Event`.
    :ivar outcome: ``ssl``, ``plain`` or ``fail``.
    :ivar error: why there is no usable connection; None where there is one.
    :ivar tls: what was negotiated; None in plaintext.
    :ivar certificate: the server's; None in plaintext.
    :ivar warnings: what a client would meet besides, one sentence each; in the JSON only where
        there are some.
    """

    events: list[str] = attrs.field(factory=list)
    outcome: str = "fail"
    error: str | None = None
    tls: dict[str, object] | None = None
    certificate: CertificateFacts | None = None
    warnings: list[str] = attrs.field(factory=list)

    def succeeded(self, tls: NegotiatedTLS | None) -> None:
        """A usable connection came out.

        :param tls: what was negotiated; None in plaintext.
        """
        self.outcome = "ssl" if tls else "plain"
        if tls is None:
            return
        self.tls = {
            "version": tls.version,
            "cipher": tls.cipher,
            "bits": tls.bits,
            "group": tls.group,
            "alpn": tls.alpn,
            "forward_secret": tls.forward_secret,
        }
        if tls.certificate is not None:
            self.certificate = certificate_facts(tls.certificate)

    def failed(self, error: PgTLSError) -> None:
        """No usable connection came out.

        :param error: why not, with notes of what failed before.
        """
        self.outcome = "fail"
        earlier = [f"before that: {note}" for note in getattr(error, "__notes__", [])]
        words = "; ".join(" ".join(text.split()) for text in [str(error), *earlier])
        self.error = printable(words, None)


def without_empty_warnings(attribute: attrs.Attribute[object], value: object) -> bool:
    """For :func:`attrs.asdict`: the key ``warnings`` is there only where there are some.

    :param attribute: of a :class:`ProbeResult`, or of what holds one.
    :param value: its value.
    :returns: whether it goes into the JSON.
    """
    return attribute.name != "warnings" or bool(value)


class _Session(Protocol):
    """Reads on after the first answer: a server may let a user in and then have no database.

    :ivar started: fires with None when the session may begin, else with the reason why not.
    :ivar closed: fires when the connection is closed.
    """

    transport: ITransport

    def __init__(self) -> None:
        self._start = SessionStart()
        self.started: Deferred[PgTLSError | None] = Deferred()
        self.closed: Deferred[None] = Deferred()

    def dataReceived(self, data: bytes) -> None:
        """Look for ReadyForQuery or an error."""
        start = self._start
        start.receive(data)
        if (start.done or start.error) and not self.started.called:
            self.started.callback(ServerRejected(start.error) if start.error else None)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The server is gone."""
        if not self.started.called:
            self.started.callback(ConnectFailed(CLOSED_UNEXPECTEDLY))
        if not self.closed.called:
            self.closed.callback(None)


class _Sessions(Factory):
    noisy = False
    protocol = _Session


async def run_probe(reactor: IReactor, conninfo: ConnInfo) -> ProbeResult:
    """Connect, and say what happened.

    :param reactor: Twisted's reactor.
    :param conninfo: with a user named, a StartupMessage is sent.
    :returns: what happened; also where there is no connection.
    """
    result, _ = await probe_connection(reactor, conninfo)
    return result


async def probe_connection(
    reactor: IReactor, conninfo: ConnInfo
) -> tuple[ProbeResult, PgTLSError | None]:
    """The same, with the error itself.

    :param reactor: Twisted's reactor.
    :param conninfo: with a user named, a StartupMessage is sent.
    :returns: what happened, and why there is no usable connection; None where there is one.
    """
    result = ProbeResult()
    unlimited = conninfo.connect_timeout is None and len(conninfo.hosts) > 1
    if conninfo.connect_timeout is None:
        conninfo = replace(conninfo, connect_timeout=DEFAULT_TIMEOUT)
    endpoint = PgTLSClientEndpoint(
        reactor,
        conninfo,
        startup=startup_message(conninfo),
        observe=lambda event: result.events.append(event.value),
    )
    error: PgTLSError | None
    try:
        session = cast(_Session, await endpoint.connect(_Sessions()))
        result.succeeded(negotiated_tls(session.transport))
        error = await _session_start(reactor, session) if Event.AUTHOK in result.events else None
        if isinstance(error, ServerRejected):
            result.events.append(rejection(error).value)
        if error is not None:
            error.where = endpoint.reached.where if endpoint.reached else ""
        session.transport.loseConnection()
        await session.closed.addTimeout(CLOSE_TIMEOUT, reactor, onTimeoutCancel=lambda *_: None)
    except PgTLSError as failure:
        error = failure
    if error is not None:
        result.failed(error)
    if unlimited:
        result.warnings.extend(_waited_for_without_end(endpoint))
    return result, error


def _waited_for_without_end(endpoint: PgTLSClientEndpoint) -> Iterator[str]:
    """Hosts where a client under this connection string never comes to the next one."""
    for error in endpoint.errors:
        if error.reason == TIMEOUT_EXPIRED:
            yield (
                f"no answer in {DEFAULT_TIMEOUT} s ({error.where}): without connect_timeout a "
                "client waits there without end, and the hosts behind it are never tried"
            )


async def _session_start(clock: IReactorTime, session: _Session) -> PgTLSError | None:
    session.started.addTimeout(READY_TIMEOUT, clock, onTimeoutCancel=lambda *_: None)
    return await session.started
